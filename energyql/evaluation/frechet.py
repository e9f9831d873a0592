"""Fréchet distance between two sets of pictures, by features of a network.

Heusel et al. 2017, "GANs trained by a two time-scale update rule converge to a local Nash equilibrium" (arXiv
1706.08500), who take the features of Inception; the distance between normals is that of Dowson and Landau 1982.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]
REPETITIONS = 4
"""Of the bootstrap."""


@dataclass(frozen=True)
class Gaussian:
    """Mean (dim,) and covariance (dim, dim) of features, float64."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features: Tensor, weights: Array | None = None) -> Gaussian:
        """Return the fit to features (n, dim), n at least 2, with optional weights (n,)."""
        x = features.detach().double().cpu()
        share = torch.full((len(x),), 1 / len(x), dtype=torch.float64)
        if weights is not None:
            share = torch.from_numpy(weights / weights.sum())
        mean = share @ x
        centred = x - mean
        # Unbiased for any weights that do not depend on the features; 1 / (n - 1) where they are equal.
        covariance = (centred.T * share) @ centred / (1 - share.square().sum())
        return cls(mean, covariance)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """Return `‖μa - μb‖² + tr(Σa + Σb - 2 (Σa Σb)^½)`, at least 0: the square of a distance, as is usual."""
    root = _root(a.covariance)
    # Σa Σb has the eigenvalues of the symmetric Σa^½ Σb Σa^½, whose root needs no complex numbers.
    cross = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp(min=0).sqrt().sum()
    distance = (a.mean - b.mean).square().sum() + a.covariance.trace() + b.covariance.trace() - 2 * cross
    return max(0.0, float(distance))


def frechet_floor(oracle: Tensor, weights: Array, n: int) -> float:
    """Return the mean distance from n exact samples to the oracle that they come from (bootstrap: Efron 1979).

    The oracle is given by features (m, dim) and weights (m,).
    """
    random = np.random.default_rng(0)
    target, share = Gaussian.of(oracle, weights), weights / weights.sum()
    rows = [random.choice(len(share), n, p=share) for _ in range(REPETITIONS)]
    return sum(frechet_distance(Gaussian.of(oracle[torch.from_numpy(row)]), target) for row in rows) / REPETITIONS


def _root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root
