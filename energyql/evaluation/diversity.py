"""Are samples as varied as they should be, or do they crowd?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CROWDED = 0.01
"""Quantile of the oracle's nearest-neighbour distances below which two samples count as near-duplicates."""


@dataclass(frozen=True)
class Diversity:
    """Distances among samples, against those among as many exact samples.

    Attributes:
        pairwise: mean distance of two samples, a ratio: 1 is as varied as the oracle, less is less.
        nearest: median distance to the nearest other sample, a ratio.
        duplicates: share of samples whose nearest neighbour is nearer than all but 1 % of the oracle's are; so 0.01 is
            what exact samples have.
    """

    pairwise: float
    nearest: float
    duplicates: float


def diversity(sampled: Tensor, oracle: Tensor) -> Diversity:
    """Compare the spread of two sets of points.

    The distance to the nearest neighbour falls as points are added, so both sets must be equally large; the longer one
    is cut.

    Args:
        sampled: (n, dim).
        oracle: exact and equally weighted samples, (m, dim); both n and m at least 2.
    """
    count = min(len(sampled), len(oracle))
    mean, nearest = _distances(sampled[:count])
    true_mean, true_nearest = _distances(oracle[:count])
    limit = true_nearest.quantile(CROWDED)
    return Diversity(
        pairwise=(mean / true_mean).item(),
        nearest=(nearest.median() / true_nearest.median()).item(),
        duplicates=(nearest < limit).double().mean().item(),
    )


def _distances(points: Tensor) -> tuple[Tensor, Tensor]:
    """The mean distance of two points, and of each point the distance to its nearest neighbour, (n,), float64."""
    # By differences: the shorter way by products would lose the small distances, which are the ones in question.
    flat = points.flatten(1).double()
    distances = torch.cdist(flat, flat, compute_mode="donot_use_mm_for_euclid_dist")
    mean = distances.sum() / (len(flat) * (len(flat) - 1))
    return mean, distances.fill_diagonal_(torch.inf).amin(1)
