"""What can be said of drawings in words: facts, with the phrases that state them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.avatars.domain import DOMAIN as AVATARS
from recipes.avatars.factors import HAIR_COLORS
from recipes.common.domain import Domain
from recipes.common.factors import Scenes
from recipes.postcards.domain import DOMAIN as POSTCARDS
from recipes.postcards.domain import TREES
from recipes.postcards.shapes import WALLS
from recipes.postcards.trees import SEASONS

UNCLEAR = 0.5
"""What is neither true (1) nor false (0) of a picture, such as "a dark background" of one between dark and light."""
Truth = Callable[[Scenes], Tensor]
"""Function from n scenes to 1, 0 or `UNCLEAR`, (n,)."""


@dataclass(frozen=True)
class Fact:
    """A fact of a picture.

    Attributes:
        truth: whether it is true.
        nouns: phrases for "a person with ..." or "a landscape with ...".
        wholes: phrases that name the whole picture, such as "somebody old".
    """

    truth: Truth
    nouns: tuple[str, ...] = ()
    wholes: tuple[str, ...] = ()


def _label(name: str, *values: int) -> Truth:
    """Return whether an attribute has one of some classes; without classes, whether a yes/no attribute is yes."""
    classes = torch.tensor(values or (1,))
    return lambda scenes: torch.isin(scenes.labels[name].long(), classes).float()


def _part(slot: str, *drawings: int) -> Truth:
    """Return whether one of some drawings of a slot is shown."""
    return lambda scenes: torch.isin(scenes.parts[slot], torch.tensor(drawings)).float()


def _beyond(name: str, yes: float, no: float) -> Truth:
    """Return whether a number is beyond `yes`, as seen from `no`; between both it is unclear."""

    def truth(scenes: Scenes) -> Tensor:
        position = (scenes.labels[name] - no) / (yes - no)
        return ((position > 0).float() + (position >= 1).float()) / 2

    return truth


def _paint(domain: Domain, paint: str, *stops: int, shown: Truth | None = None) -> Truth:
    """Return whether a paint is near one of some stops of its palette; halfway to another stop it is unclear.

    `shown` says whether the paint is seen at all; by default it is.
    """

    def truth(scenes: Scenes) -> Tensor:
        distances = torch.cdist(scenes.paints[paint], domain.palettes[paint])
        nearest = distances.topk(2, largest=False)
        one, other = (torch.isin(index, torch.tensor(stops)).float() for index in nearest.indices.unbind(1))
        halfway = nearest.values[:, 0] > 0.5 * nearest.values[:, 1]
        answer = torch.where(halfway, (one + other) / 2, one)
        return answer if shown is None else torch.minimum(answer, shown(scenes))

    return truth


def _hair(*colours: str) -> Truth:
    return _label("hair", *(list(HAIR_COLORS).index(colour) for colour in colours))


_HAT, _LONG = _part("hat", 1, 2), _part("hair", 4, 5, 6)
AVATAR_FACTS: Mapping[str, Fact] = {
    "hat": Fact(_HAT, ("a hat", "headwear", "something on the head"), ("a person in a hat", "somebody wearing a hat")),
    "woolly hat": Fact(_part("hat", 1), ("a woolly hat", "a beanie", "a winter hat"), ("a person in a beanie",)),
    "brim": Fact(_part("hat", 2), ("a hat with a brim", "a fedora", "a brimmed hat"), ("a person in a fedora",)),
    **{
        f"{colour} hat": Fact(
            _paint(AVATARS, "hat", i, shown=_HAT),
            (f"a {colour} hat", f"{colour} headwear"),
            (f"a person in a {colour} hat",),
        )
        for i, colour in enumerate(("red", "yellow", "green", "blue", "purple"))
    },
    **{
        f"{colour} shirt": Fact(
            _paint(AVATARS, "clothing", i),
            (f"a {colour} shirt", f"{colour} clothes"),
            (f"somebody dressed in {colour}",),
        )
        for i, colour in enumerate(("red", "yellow", "green", "blue", "purple"))
    },
    "glasses": Fact(_label("glasses"), ("glasses", "spectacles", "eyewear"), ("a person wearing glasses",)),
    "sunglasses": Fact(
        _label("sunglasses"), ("sunglasses", "dark glasses", "shades"), ("somebody wearing sunglasses",)
    ),
    "clear glasses": Fact(_part("glasses", 1, 2), ("clear glasses", "reading glasses")),
    "beard": Fact(_label("beard"), ("a beard", "hair on the chin"), ("a bearded person", "somebody bearded")),
    "full beard": Fact(_part("beard", 2), ("a full beard", "a large beard", "a bushy beard")),
    "moustache": Fact(_label("moustache"), ("a moustache", "a mustache", "hair on the upper lip")),
    "bald": Fact(_label("bald"), ("a bald head", "a shaved head"), ("a bald person", "somebody bald")),
    "long hair": Fact(_LONG, ("long hair", "hair down to the shoulders"), ("a long haired person",)),
    "short hair": Fact(_part("hair", 1, 2, 3), ("short hair",), ("a short haired person",)),
    "freckles": Fact(_label("freckles"), ("freckles", "spots on the cheeks"), ("a freckled person",)),
    "earrings": Fact(_label("earrings"), ("earrings", "golden earrings", "jewellery"), ("somebody wearing jewellery",)),
    "black hair": Fact(_hair("black"), ("black hair",), ("a black haired person",)),
    "brown hair": Fact(_hair("brown"), ("brown hair",), ("a brunette",)),
    "blond hair": Fact(_hair("blonde"), ("blonde hair", "fair hair", "golden hair"), ("a blond person",)),
    "red hair": Fact(_hair("red"), ("red hair", "ginger hair"), ("a redhead", "a ginger person")),
    "gray hair": Fact(
        _hair("gray"),
        ("gray hair", "silver hair"),
        ("somebody old", "an old person", "an elderly person", "a grandparent"),
    ),
    "dark hair": Fact(_hair("black", "brown"), ("dark hair",), ("a dark haired person",)),
    "smile": Fact(_label("smile"), ("a smile", "a happy mouth"), ("somebody happy", "a cheerful person")),
    "laugh": Fact(_label("mouth", 0), ("an open mouth",), ("somebody laughing", "a laughing person")),
    "serious": Fact(_label("mouth", 2), ("a straight mouth",), ("somebody serious", "a serious person")),
    "frown": Fact(_label("frown"), ("a frown", "a sad mouth"), ("somebody sad", "an unhappy person")),
    "wide eyes": Fact(_label("eyes", 2), ("wide eyes", "big eyes"), ("somebody staring",)),
    "happy eyes": Fact(_label("eyes", 1), ("squinting eyes", "narrow eyes"), ("somebody squinting",)),
    "raised brows": Fact(_label("brows", 1), ("raised eyebrows", "lifted brows"), ("somebody surprised",)),
    "angry brows": Fact(
        _label("brows", 2), ("angry eyebrows", "lowered brows"), ("somebody angry", "a furious person")
    ),
    "light skin": Fact(_beyond("skin_tone", 0.3, 0.4), ("light skin", "pale skin"), ("a pale person",)),
    "dark skin": Fact(_beyond("skin_tone", 0.7, 0.6), ("dark skin", "brown skin"), ("a dark skinned person",)),
    "light background": Fact(_beyond("background", 0.3, 0.4), ("a light background", "a bright backdrop")),
    "dark background": Fact(_beyond("background", 0.7, 0.6), ("a dark background", "a dark backdrop")),
    "blue background": Fact(_paint(AVATARS, "background", 2, 3), ("a blue background", "a blue backdrop")),
}
"""Name -> fact of avatars. No attribute is about clothes, the kind and colour of a hat, or the kind of a beard."""


def _both(one: Truth, other: Truth) -> Truth:
    return lambda scenes: torch.minimum(one(scenes), other(scenes))


POSTCARD_FACTS: Mapping[str, Fact] = {
    "night": Fact(_label("night"), ("stars", "the moon", "a night sky"), ("a landscape at night", "a night scene")),
    "day": Fact(_label("night", 0), ("daylight",), ("a landscape by day", "a day scene")),
    "clouds": Fact(_label("clouds"), ("clouds", "white clouds"), ("a cloudy landscape",)),
    "mountains": Fact(_label("mountains"), ("mountains", "snowy peaks", "a mountain range"), ("an alpine landscape",)),
    "boat": Fact(_label("boat"), ("a boat", "a sailing boat", "a sail"), ("somebody sailing",)),
    "house": Fact(_label("house"), ("a house", "a cottage", "a building")),
    "smoke": Fact(_label("smoke"), ("smoke", "a smoking chimney", "a fire in the stove")),
    "snowfall": Fact(_label("snow"), ("falling snow", "snowflakes"), ("a snowy day",)),
    **{
        f"{wall} house": Fact(_label("house_color", i), (f"a {wall} house", f"a {wall} cottage"))
        for i, wall in enumerate(WALLS)
    },
    **{
        season: Fact(_label("season", i), (f"{season} trees",), (f"a landscape in {season}", f"a {season} scene"))
        for i, season in enumerate(SEASONS)
    },
    "tree": Fact(_label("tree", 1, 2, 3), ("a tree", "a tree beside the water")),
    **{
        tree: Fact(_label("tree", i), (f"a {tree}", f"a {tree} tree"))
        for i, tree in enumerate(TREES) if tree != "absent"
    },
    "ice": Fact(_label("season", SEASONS.index("winter")), ("ice", "a frozen lake"), ("a frosty landscape",)),
    "evening": Fact(
        _both(_beyond("glow", 0.75, 0.6), _label("night", 0)),
        ("a warm sky", "evening light"), ("a landscape at sunset",),
    ),
}  # fmt: skip
"""Name -> fact of postcards."""


@dataclass(frozen=True)
class Subject:
    """Drawings of one domain, and how captions name them.

    Attributes:
        domain: the domain.
        facts: what may be said of its pictures.
        names: phrases for any of its pictures.
        share: how many of its drawings are in a batch for one of the rarest subject; more facts need more.
    """

    domain: Domain
    facts: Mapping[str, Fact]
    names: tuple[str, ...]
    share: int = 1

    def truths(self, scenes: Scenes) -> Tensor:
        """Return 1, 0 or `UNCLEAR` for each of n scenes and each fact, (n, facts)."""
        return torch.stack([fact.truth(scenes) for fact in self.facts.values()], 1)


SUBJECTS = (
    Subject(AVATARS, AVATAR_FACTS, ("a person", "a face", "somebody", "a portrait"), share=3),
    Subject(POSTCARDS, POSTCARD_FACTS, ("a landscape", "a postcard", "a view", "a scene")),
)
