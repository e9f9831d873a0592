"""The clipped energy of a query: 0 at all latents where the heads give the query a probability of at least c.

It is used if a verifier, which reads pictures, decides which samples are kept; the heads then only propose latents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.energy.picture_energy import PictureEnergy
from energyql.energy.query_energy import QueryEnergy, Surrogate
from energyql.numerics.shapes import Float

if TYPE_CHECKING:
    from energyql.energy.compiled import CompiledEnergy

STEEPNESS = 2.0
"""Exponent of P / c, where P is the probability of the query by the heads: a latent with P < c is (P / c)^2 times as
likely as under the prior. docs/decisions/verified.md compares exponents."""


def clipped_density(probability: npt.NDArray[np.float64], clip: float) -> npt.NDArray[np.float64]:
    """Factor, 0 to 1, by which a `ClippedEnergy` changes the density of the prior: 1 where P is at least c.

    `clip` is c, in (0, 1], or 0 for the prior.
    """
    return np.minimum(probability / clip, 1) ** STEEPNESS if clip else np.ones_like(probability)


class ClippedEnergy:
    """The clipped energy of a query, `STEEPNESS` times `max(E(z) + log c, 0)`, in nats, lower is better.

    E(z) is -log P(query | z) by the heads or, in a model without heads, by a network that reads pictures. A latent with
    P of at least c is as likely as under the prior, and any other is less likely (`clipped_density`). If a verifier
    then keeps the draws whose pictures satisfy the query, these follow the prior given its verdict, except where P is
    below c. With a smaller c there are fewer such exceptions, but more draws are rejected.

    Args:
        energy: the energy E.
        probability: c, in (0, 1].
    """

    def __init__(self, energy: QueryEnergy | CompiledEnergy | PictureEnergy, probability: float) -> None:
        self.energy, self.ceiling, self.costly = energy, -math.log(probability), isinstance(energy, PictureEnergy)
        self.least = STEEPNESS * max(energy.least - self.ceiling, 0.0)
        self.sampler_cache: MutableMapping[Hashable, Any] | None = None if energy.sampler_cache is None else {}
        make = energy.surrogate
        self.surrogate: Callable[[], ClippedSurrogate] | None = (
            None if make is None else lambda: ClippedSurrogate(make(), self.ceiling)
        )

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Tensor | None = None) -> Float[Tensor, " batch"]:
        """Return the clipped energy of each latent, (batch,), in nats; only a `PictureEnergy` uses `rows`."""
        return STEEPNESS * (self.energy(z, rows) - self.ceiling).clamp(min=0)

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the clipped energy of each latent, in nats, and its gradient, which is 0 where the energy is 0."""
        energy, gradient = self.energy.gradient(z, rows)
        above = energy > self.ceiling
        return STEEPNESS * (energy - self.ceiling).clamp(min=0), torch.where(above[:, None], STEEPNESS * gradient, 0.0)


@dataclass(frozen=True)
class ClippedSurrogate:
    """Clipped energy of a surrogate S: `STEEPNESS` times `max(S(v) - ceiling, 0)`; `ceiling` is -log c."""

    surrogate: Surrogate
    ceiling: float

    @property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """The directions of z on which the surrogate depends, as orthonormal rows; v is `basis` times z."""
        return self.surrogate.basis

    def __call__(self, v: Float[Tensor, "batch r"]) -> Float[Tensor, " batch"]:
        """Return approximate clipped energies, in nats, at the coordinates v along `basis`."""
        return STEEPNESS * (self.surrogate(v) - self.ceiling).clamp(min=0)

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return `z` with its coordinates along the rows of `basis` replaced by `v`."""
        return self.surrogate.lift(v, z)
