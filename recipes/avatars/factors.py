"""The choices of an avatar, their frequencies and dependencies, which drawings follow from them, and colours."""

from __future__ import annotations

from recipes.common.domain import Condition, palette

# Yes/no choices: name -> prevalence.
SWITCHES = {
    "glasses": 0.38, "dark": 0.42, "thick": 0.5, "beard": 0.32, "full_beard": 0.5, "moustache": 0.28,
    "big_moustache": 0.5, "bald": 0.17, "long": 0.42, "hat": 0.28, "brim": 0.5, "freckles": 0.25, "earrings": 0.28,
}  # fmt: skip
# One-of-many choices: name -> option -> bias added to its score, in standard deviations.
CHOICES = {
    "mouth": {"laugh": 0.15, "grin": 0.1, "serious": 0.05, "sad": 0.1},
    "eyes": {"open": 0.4, "happy": 0.0, "wide": 0.0},
    "short": {"waved": 0.0, "curly": 0.0, "pixie": 0.0},
    "flowing": {"straight": 0.0, "parted": 0.0, "loose": 0.0},
    "hair": {"black": 0.15, "brown": 0.15, "blonde": 0.0, "red": -0.15, "gray": -0.1},
    "brows": {"relaxed": 0.3, "raised": 0.0, "angry": 0.0},
}
CONTINUOUS = ("skin_tone", "background", "clothing", "hat_color")
# Dependencies as in reality: two hidden factors, presentation and age, have these loadings on the scores.
PRESENTATION = {
    "long": 0.6, "beard": -0.6, "moustache": -0.55, "bald": -0.45, "mouth.laugh": 0.2, "earrings": 0.5,
}  # fmt: skip
AGE = {
    "hair.gray": 0.65,
    "glasses": 0.4,
    "bald": 0.35,
    "beard": 0.2,
    "brows.angry": 0.15,
    "hat": 0.15,
    "freckles": -0.3,
}

BALD_HEAD: Condition = ("bald", "-hat")
SUNGLASSES: Condition = ("glasses", "dark")
DRAWN: dict[str, tuple[Condition, ...]] = {
    "mouth": tuple((f"mouth.{option}",) for option in CHOICES["mouth"]),
    "eyes": (*((f"eyes.{option}", SUNGLASSES) for option in CHOICES["eyes"]), SUNGLASSES),
    "hair": (
        BALD_HEAD,
        *((f"short.{option}", "-long", BALD_HEAD) for option in CHOICES["short"]),
        *((f"flowing.{option}", "long", BALD_HEAD) for option in CHOICES["flowing"]),
    ),
    "beard": ((), ("beard", "-full_beard"), ("beard", "full_beard")),
    "moustache": ((), ("moustache", "-big_moustache"), ("moustache", "big_moustache")),
    "hat": ((), ("hat", "-brim"), ("hat", "brim")),
    "glasses": (
        (),
        *(("glasses", f"{dark}dark", f"{thick}thick") for dark in ("-", "") for thick in ("-", "")),
    ),
    "brows": tuple((f"brows.{option}",) for option in CHOICES["brows"]),
    "freckles": ((), ("freckles",)),
    "earrings": ((), ("earrings",)),
    "hair_color": tuple((f"hair.{option}",) for option in CHOICES["hair"]),
}
PAINTS = {"skin": "skin_tone", "background": "background", "clothing": "clothing", "hat": "hat_color"}

PALETTES = {
    "skin": palette(("#FFE0C0", "#F2C196", "#DDA06E", "#BE7F52", "#8E5A3A")),
    "background": palette(("#F6F1E4", "#BFE3DC", "#6FB1C8", "#3E6DA3", "#20294F")),
    "clothing": palette(("#E4572E", "#F3A712", "#76B041", "#2E86AB", "#8E4585")),
    "hat": palette(("#D1495B", "#EDAE49", "#66A182", "#2E6FAB", "#5D3A8E")),
}
HAIR_COLORS = {"black": "#15131B", "brown": "#5B2E17", "blonde": "#F0D064", "red": "#D9400B", "gray": "#BDC1C7"}
