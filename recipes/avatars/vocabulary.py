"""The attributes of the avatars, as queries name them."""

from __future__ import annotations

from energyql.vocabulary import AttributeSpec, Vocabulary
from recipes.avatars.factors import CHOICES, HAIR_COLORS


def _yes_no(name: str, description: str) -> AttributeSpec:
    return AttributeSpec(name, "yes/no", description=description)


VOCABULARY = Vocabulary(
    [
        _yes_no("smile", "the mouth turns up, open or closed"),
        _yes_no("frown", "the mouth turns down"),
        _yes_no("glasses", "any pair of spectacles, sunglasses included"),
        _yes_no("sunglasses", "spectacles with dark lenses"),
        _yes_no("beard", "hair on cheeks and chin"),
        _yes_no("moustache", "hair on the upper lip"),
        _yes_no("bald", "no hair on the head, and no hat that hides it"),
        _yes_no("long_hair", "hair that falls to the shoulders"),
        _yes_no("hat", "a woolly hat or a hat with a brim"),
        _yes_no("freckles", "dots on the cheeks"),
        _yes_no("earrings", "golden earrings"),
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
