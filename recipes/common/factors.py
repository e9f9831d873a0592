"""The factors of a drawing: Gaussian scores of z, the choices by these scores, and the input code of the synthesis.

`scores = A z` with unit rows and a chosen correlation matrix (a Gaussian copula), so a category is an argmax of
smooth coordinates, a yes/no choice is a score above its threshold, and prevalences and dependencies are as set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from recipes.common.domain import Condition, Domain


def gradient(stops: Tensor, position: Tensor) -> Tensor:
    """Return colours (batch, 3) of a piecewise linear ramp: stops (k, 3), position (batch,) in [0, 1]."""
    scaled = position.clamp(0, 1) * (len(stops) - 1)
    index = scaled.long().clamp(max=len(stops) - 2)
    return torch.lerp(stops[index], stops[index + 1], (scaled - index)[:, None])


def score_matrix(domain: Domain) -> Tensor:
    """Return A of `scores = A z`, (scores, z_dim), with unit rows and the correlations of the hidden factors."""
    z_dim, first = domain.config.z_dim, len(domain.hidden)
    generator = torch.Generator().manual_seed(domain.factor_seed)
    basis = torch.linalg.qr(torch.randn(z_dim, z_dim, generator=generator, dtype=torch.float64))[0]
    rows = []
    for i, name in enumerate(domain.scores):
        loadings = [loading.get(name, 0.0) for loading in domain.hidden]
        own = math.sqrt(1 - sum(loading**2 for loading in loadings))
        rows.append(sum((loading * basis[j] for j, loading in enumerate(loadings)), own * basis[first + i]))
    return torch.stack(rows).float()


@dataclass(frozen=True)
class Scenes:
    """A batch of things to draw: code, drawings, paints, and the true attributes.

    Attributes:
        code: (batch, code_dim), which determines the picture.
        parts: slot -> drawing index, (batch,).
        paints: paint -> RGB in [0, 1], (batch, 3).
        labels: attribute -> class index (yes/no and categorical) or value in [0, 1] (continuous), (batch,).
    """

    code: Tensor
    parts: dict[str, Tensor]
    paints: dict[str, Tensor]
    labels: dict[str, Tensor]


class Factors:
    """The map from z to scores, choices and codes.

    Args:
        domain: what is drawn.
        sharpness: slope of the step of a code at the threshold of its drawing. Between two drawings, where the code is
            neither 0 nor 1, the picture is a blend; the steeper, the rarer.
    """

    def __init__(self, domain: Domain, sharpness: float = 256.0) -> None:
        self.domain = domain
        self.matrix = score_matrix(domain)
        self.sharpness = sharpness
        self.threshold = {
            name: math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * p)).item() for name, p in domain.switches.items()
        }

    def __call__(self, z: Tensor) -> Scenes:
        """Map z (batch, z_dim) to scenes. As in StyleGAN's mapping network, only the direction of z has an effect."""
        direction = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
        return self.scenes(direction @ self.matrix.T)

    def scenes(self, scores: Tensor) -> Scenes:
        """Map scores (batch, scores) to scenes."""
        domain = self.domain
        score = dict(zip(domain.scores, scores.unbind(1), strict=True))
        margins: dict[str, Tensor] = {name: score[name] - self.threshold[name] for name in domain.switches}
        chosen: dict[str, Tensor] = {name: margin > 0 for name, margin in margins.items()}
        for name, options in domain.choices.items():
            values = torch.stack([score[f"{name}.{option}"] + bias for option, bias in options.items()], 1)
            top, index = values.topk(2, dim=1)
            chosen[name] = index[:, 0]
            others = torch.where(values == top[:, :1], top[:, 1:], top[:, :1])
            margins |= {f"{name}.{option}": values[:, j] - others[:, j] for j, option in enumerate(options)}
        uniform = {name: torch.special.ndtr(score[name]) for name in domain.numbers}
        paints = {paint: gradient(domain.palettes[paint], uniform[name]) for paint, name in domain.paints.items()}
        drawn = {
            slot: torch.stack([_margin(one, margins) if one else torch.zeros(len(scores)) for one in conditions], 1)
            for slot, conditions in domain.drawn.items()
        }
        steps = [(0.5 + self.sharpness * drawn[slot][:, index]).clamp(0, 1) for slot, index in domain.drawings]
        code = torch.cat([torch.stack(steps, 1), *(paints[paint] for paint in domain.paints)], 1) * 2 - 1
        parts = {slot: margin.argmax(1) for slot, margin in drawn.items()}
        for slot, (paint, colours) in domain.chosen_paints.items():
            paints[paint] = colours[parts.pop(slot)]
        return Scenes(code, parts, paints, domain.labels(chosen, parts, uniform))


def _margin(condition: Condition, margins: dict[str, Tensor]) -> Tensor:
    """Return by how much a condition holds, (batch,): above 0 where it holds."""
    terms = [
        -_margin(name, margins) if isinstance(name, tuple) else -margins[name[1:]] if name[0] == "-" else margins[name]
        for name in condition
    ]
    return torch.stack(terms).amin(0)
