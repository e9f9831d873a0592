"""The factors of an avatar: Gaussian scores of z, the choices by these scores, and the input code of the synthesis.

`scores = A z` with unit rows and a chosen correlation matrix (a Gaussian copula), so a category is an argmax of
smooth coordinates, a yes/no choice is a score above its threshold, and prevalences and dependencies are as set here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Z_DIM = 64
FACTOR_SEED = 20

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

SCORES = (
    *SWITCHES,
    *(f"{name}.{option}" for name, options in CHOICES.items() for option in options),
    *CONTINUOUS,
)
Condition = tuple["str | Condition", ...]
BALD_HEAD: Condition = ("bald", "-hat")
SUNGLASSES: Condition = ("glasses", "dark")
# Slot -> the condition of each of its drawings, or colours; an empty one holds where no other does. A name is a switch
# or an option of a choice, "-" negates, all names must hold, and a tuple within is a condition that must not hold.
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
DRAWINGS = tuple((slot, index) for slot, conditions in DRAWN.items() for index, one in enumerate(conditions) if one)
PAINTS = {"skin": "skin_tone", "background": "background", "clothing": "clothing", "hat": "hat_color"}
CODE_DIM = len(DRAWINGS) + 3 * len(PAINTS)

PALETTES = {  # stops of each continuous paint, RGB
    "skin": ("#FFE0C0", "#F2C196", "#DDA06E", "#BE7F52", "#8E5A3A"),
    "background": ("#F6F1E4", "#BFE3DC", "#6FB1C8", "#3E6DA3", "#20294F"),
    "clothing": ("#E4572E", "#F3A712", "#76B041", "#2E86AB", "#8E4585"),
    "hat": ("#D1495B", "#EDAE49", "#66A182", "#2E6FAB", "#5D3A8E"),
}
HAIR_COLORS = {"black": "#15131B", "brown": "#5B2E17", "blonde": "#F0D064", "red": "#D9400B", "gray": "#BDC1C7"}


def _rgb(color: str) -> list[float]:
    return [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]


def gradient(stops: Tensor, position: Tensor) -> Tensor:
    """Return colours (batch, 3) of a piecewise linear ramp: stops (k, 3), position (batch,) in [0, 1]."""
    scaled = position.clamp(0, 1) * (len(stops) - 1)
    index = scaled.long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[index], stops[index + 1], (scaled - index)[:, None])


def score_matrix() -> Tensor:
    """Return A of `scores = A z`, (scores, Z_DIM), with unit rows and the correlations of the hidden factors."""
    generator = torch.Generator().manual_seed(FACTOR_SEED)
    basis = torch.linalg.qr(torch.randn(Z_DIM, Z_DIM, generator=generator, dtype=torch.float64))[0]
    rows = []
    for i, name in enumerate(SCORES):
        presentation, age = PRESENTATION.get(name, 0.0), AGE.get(name, 0.0)
        own = math.sqrt(1 - presentation**2 - age**2)
        rows.append(presentation * basis[0] + age * basis[1] + own * basis[2 + i])
    return torch.stack(rows).float()


@dataclass(frozen=True)
class Avatars:
    """A batch of avatars: latent, code, drawings, paints, and the true attributes.

    Attributes:
        z: (batch, Z_DIM).
        code: (batch, CODE_DIM), which determines the picture.
        parts: slot -> drawing index, (batch,).
        paints: paint -> RGB in [0, 1], (batch, 3).
        labels: attribute -> class index (yes/no and categorical) or value in [0, 1] (continuous), (batch,).
    """

    z: Tensor
    code: Tensor
    parts: dict[str, Tensor]
    paints: dict[str, Tensor]
    labels: dict[str, Tensor]


class Factors:
    """The map from z to scores, choices and codes.

    Args:
        sharpness: slope of the step of a code at the threshold of its drawing. Between two drawings, where the code is
            neither 0 nor 1, the picture is a blend; the steeper, the rarer.
    """

    def __init__(self, sharpness: float = 256.0) -> None:
        self.matrix = score_matrix()
        self.sharpness = sharpness
        self.threshold = {
            name: math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * p)).item() for name, p in SWITCHES.items()
        }
        self.palettes = {name: torch.tensor([_rgb(stop) for stop in stops]) for name, stops in PALETTES.items()}
        self.hair_colors = torch.tensor([_rgb(color) for color in HAIR_COLORS.values()])

    def __call__(self, z: Tensor) -> Avatars:
        """Map z (batch, Z_DIM) to avatars. As in StyleGAN's mapping network, only the direction of z has an effect."""
        direction = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        score = dict(zip(SCORES, (direction @ self.matrix.T).unbind(1), strict=True))
        margins: dict[str, Tensor] = {name: score[name] - self.threshold[name] for name in SWITCHES}
        chosen: dict[str, Tensor] = {name: margin > 0 for name, margin in margins.items()}
        for name, options in CHOICES.items():
            values = torch.stack([score[f"{name}.{option}"] + bias for option, bias in options.items()], 1)
            top, index = values.topk(2, dim=1)
            chosen[name] = index[:, 0]
            others = torch.where(values == top[:, :1], top[:, 1:], top[:, :1])
            margins |= {f"{name}.{option}": values[:, j] - others[:, j] for j, option in enumerate(options)}
        uniform = {name: torch.special.ndtr(score[name]) for name in CONTINUOUS}
        paints = {paint: gradient(self.palettes[paint], uniform[name]) for paint, name in PAINTS.items()}
        drawn = {
            slot: torch.stack([_margin(one, margins) if one else torch.zeros(len(z)) for one in conditions], 1)
            for slot, conditions in DRAWN.items()
        }
        steps = [(0.5 + self.sharpness * drawn[slot][:, index]).clamp(0, 1) for slot, index in DRAWINGS]
        code = torch.cat([torch.stack(steps, 1), *(paints[paint] for paint in PAINTS)], 1) * 2 - 1
        parts = {slot: margin.argmax(1) for slot, margin in drawn.items()}
        paints["hair"] = self.hair_colors[parts.pop("hair_color")]
        labels = {
            "smile": chosen["mouth"] <= 1,
            "frown": chosen["mouth"] == 3,
            "glasses": chosen["glasses"],
            "sunglasses": parts["eyes"] == 3,
            "beard": chosen["beard"],
            "moustache": chosen["moustache"],
            "bald": parts["hair"] == 0,
            "long_hair": parts["hair"] >= 4,
            "hat": chosen["hat"],
            "freckles": chosen["freckles"],
            "earrings": chosen["earrings"],
            "hair": torch.where(parts["hair"] == 0, len(HAIR_COLORS), chosen["hair"]),
            "mouth": chosen["mouth"],
            "eyes": parts["eyes"],
            "brows": chosen["brows"],
            "skin_tone": uniform["skin_tone"],
            "background": uniform["background"],
        }
        return Avatars(z, code, parts, paints, labels)


def _margin(condition: Condition, margins: dict[str, Tensor]) -> Tensor:
    """Return by how much a condition holds, (batch,): above 0 where it holds."""
    terms = [
        -_margin(name, margins) if isinstance(name, tuple) else -margins[name[1:]] if name[0] == "-" else margins[name]
        for name in condition
    ]
    return torch.stack(terms).amin(0)
