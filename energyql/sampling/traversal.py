"""Interpolation between latents, random variations of latents, and a sampler that returns existing latents."""

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
    """Interpolate between latents along a great arc (Shoemake 1985), with lengths that change linearly.

    A straight line, used only if directions are equal or opposite or a length is 0, would pass through latents that are
    much shorter than samples of the prior. At the time 0 the result is `start`, at 1 `end`.
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
    """Draw random latents near one latent, or between several; also return the weights of `latents` in each.

    A mean of `latents` with random weights, scaled to the weighted mean of their lengths, is moved along the great arc
    towards a new sample of the prior by `amount`: at 0 it stays, at 1 it becomes the new sample.
    """
    numbers = normals(seed, 0, count, len(latents), stream="mixture").to(latents).square()
    weights = numbers / numbers.sum(1, keepdim=True)
    mixed = weights @ latents
    mixed *= (weights @ latents.norm(dim=1, keepdim=True)) / mixed.norm(dim=1, keepdim=True).clamp_min(1e-12)
    fresh = prior_latents(seed, 0, count, latents.shape[1]).to(latents)
    return interpolate(mixed, fresh, [amount])[:, 0], weights


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """A sampler that returns existing latents (row i for sample i of the run), for code that takes only samplers."""

    latents: Float[Tensor, "batch z_dim"] = field(repr=False)

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return the `latents` of the samples that `noise` names, with `Status.OK`; values of `z0` do not matter."""
        rows = noise.start + noise.offsets(torch.arange(len(z0)))
        none = torch.zeros(len(z0), dtype=torch.int64)
        return SampleResult(self.latents[rows.to(self.latents.device)].to(z0), none + Status.OK, none, none)
