"""The attributes of the avatars, as queries name them."""

from __future__ import annotations

from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.avatars.factors import CHOICES, HAIR_COLORS
from recipes.common.domain import yes_no

VOCABULARY = Vocabulary(
    [
        yes_no("smile", "the mouth turns up, open or closed"),
        yes_no("frown", "the mouth turns down"),
        yes_no("glasses", "any pair of spectacles, sunglasses included"),
        yes_no("sunglasses", "spectacles with dark lenses"),
        yes_no("beard", "hair on cheeks and chin"),
        yes_no("moustache", "hair on the upper lip"),
        yes_no("bald", "no hair on the head, and no hat that hides it"),
        yes_no("long_hair", "hair that falls to the shoulders"),
        yes_no("hat", "a woolly hat or a hat with a brim"),
        yes_no("freckles", "dots on the cheeks"),
        yes_no("earrings", "golden earrings"),
        AttributeSpec("hair", "categorical", (*HAIR_COLORS, "absent"), description="colour of the hair on the head"),
        AttributeSpec("mouth", "categorical", tuple(CHOICES["mouth"])),
        AttributeSpec("eyes", "categorical", ("open", "happy", "wide", "hidden"), description="hidden by dark lenses"),
        AttributeSpec("brows", "categorical", tuple(CHOICES["brows"])),
        AttributeSpec("skin_tone", "continuous", description="0 is light, 1 is dark"),
        AttributeSpec("background", "continuous", description="0 is light, 1 is dark"),
    ],
    model="avatars",
    relations=(
        "sunglasses IMPLIES glasses",
        "eyes = hidden IFF sunglasses",
        "bald IFF hair = absent",
        "NOT (bald AND (hat OR long_hair))",
        "smile IFF mouth IN {laugh, grin}",
        "frown IFF mouth = sad",
    ),
)
