"""Interpolation between latents, variations of latents, and a sampler that returns given latents."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from energyql.numerics.random import FIRST_RUN, RandomStreams, normals, prior_latents
from energyql.numerics.shapes import Float
from energyql.sampling.base import EnergyLike, Progress, SampleResult, Status

MOST_STEPS = 64


def interpolate(
    start: Float[Tensor, "batch z_dim"], end: Float[Tensor, "batch z_dim"], times: list[float]
) -> Float[Tensor, "batch times z_dim"]:
    """Interpolate along great arcs from `start` to `end` (Shoemake 1985), the lengths linearly.

    A straight line would pass through latents shorter than any sample of the prior. It is used only if start and end
    have opposite directions, where no arc is shortest. Times are from 0 to 1.
    """
    first, last = start.double(), end.double()
    lengths = first.norm(dim=1, keepdim=True), last.norm(dim=1, keepdim=True)
    directions = first / lengths[0].clamp_min(1e-12), last / lengths[1].clamp_min(1e-12)
    angle = (directions[0] * directions[1]).sum(1, keepdim=True).clamp(-1, 1).arccos()
    sine = angle.sin()
    curved = (sine > 1e-6) & (lengths[0] > 0) & (lengths[1] > 0)
    places = []
    for time in times:
        weights = [((1 - time) * angle).sin() / sine, (time * angle).sin() / sine]
        direction = weights[0] * directions[0] + weights[1] * directions[1]
        arc = direction * ((1 - time) * lengths[0] + time * lengths[1])
        places.append(torch.where(curved, arc, (1 - time) * first + time * last))
    return torch.stack(places, dim=1).to(start.dtype)


def vary(
    latents: Float[Tensor, "given z_dim"], count: int, amount: float, seed: int
) -> tuple[Float[Tensor, "count z_dim"], Float[Tensor, "count given"]]:
    """Return latents near one latent, or between several, and the weights that they were mixed with.

    Each is a mixture of `latents` with random weights, scaled to their mean length, then moved by the share `amount` of
    the great arc to a new sample of the prior: at 0 it does not move, at 1 it is that sample.

    Args:
        latents: at least one.
        count: number of latents to return.
        amount: share of the arc, from 0 to 1.
        seed: seed of the samples and weights.
    """
    numbers = normals(seed, 0, count, len(latents), stream="mixture").to(latents).square()
    weights = numbers / numbers.sum(1, keepdim=True)
    mixed = weights @ latents
    mixed *= (weights @ latents.norm(dim=1, keepdim=True)) / mixed.norm(dim=1, keepdim=True).clamp_min(1e-12)
    fresh = prior_latents(seed, 0, count, latents.shape[1]).to(latents)
    return interpolate(mixed, fresh, [amount])[:, 0], weights


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A sampler that returns given latents: sample i of the run is row i of `latents`."""

    latents: Float[Tensor, "batch z_dim"] = field(repr=False)

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return the latents of these samples; neither the energy nor the numbers in `z0` are used."""
        rows = self.latents[noise.start : noise.start + len(z0)].to(z0)
        none = torch.zeros(len(z0), dtype=torch.int64)
        return SampleResult(rows, none + Status.OK, none, none)
