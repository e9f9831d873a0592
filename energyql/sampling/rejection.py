"""Exact draws from the posterior by rejection; samples that accept none start from one of their proposals."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from energyql.numerics.random import normals
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import Batch, StepEnergy, evaluate_points

MOST_AHEAD = 16
"""Most points of one sample that are evaluated together."""
ROWS_AHEAD = 256
"""Size of a batch, in rows, that takes the least time for a row. If fewer samples are left, further points of each are
evaluated ahead. No result depends on it."""

Round = tuple[Tensor, Tensor, Tensor]
"""A round of proposals that some samples rejected: indices of these samples, ascending, (rows,); and the energies of
their proposals, in nats, and the logarithms of their ratios (see `Proposals.draw`), both (rows, proposals)."""


class Proposals(Protocol):
    """A proposal density: draws for the samples of a batch, and their importance ratios."""

    ceiling: float
    """Logarithm of the weight at and above which a proposal is always accepted."""

    def draw(
        self, batch: Batch, rows: Int[Tensor, " rows"], numbers: Int[Tensor, "rows draws"], of: int
    ) -> tuple[Float[Tensor, "rows draws z_dim"], Float[Tensor, "rows draws"]]:
        """Return the proposals `numbers`, each below `of`, of the samples `rows` (ascending), and their log-ratios.

        The ratio is the prior's density over the density of the proposals; the weight of a proposal is exp(-λE) times
        the ratio.
        """
        ...


class PriorProposals:
    """Draws from the prior; proposal 0 of a sample is its current latent."""

    ceiling = 0.0

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """See `Proposals`."""
        z = batch.noise.several_normals(batch.z, "proposal", rows, numbers, of)
        first = (numbers[:, 0] == 0).nonzero()[:, 0]
        z[first, 0] = batch.z[rows[first]]
        return z, torch.zeros_like(z[..., 0])


def points_ahead(energy: StepEnergy, rows: int) -> int:
    """Return the number of points of each sample to evaluate together, for `rows` samples."""
    return 1 if energy.costly else max(1, min(MOST_AHEAD, ROWS_AHEAD // rows))


def first_accepted(
    accepted: Bool[Tensor, "rows points"],
) -> tuple[Bool[Tensor, " rows"], Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Return for each row whether a point was accepted, the index of the first such point, and the number tried."""
    some, first = accepted.any(1), accepted.to(torch.uint8).argmax(1)
    return some, first, torch.where(some, first + 1, accepted.shape[1])


class RejectionInfo(NamedTuple):
    """The outcome of a round of rejection, a row for each sample.

    Attributes:
        accepted: whether the sample accepted a proposal.
        first: index of that proposal.
        tried: number of proposals up to that one, or of all.
        mass: sum of the weights of the proposals tried.
        energies: energies of all proposals, in nats.
        log_weights: logarithms of the weights of all proposals.
    """

    accepted: Bool[Tensor, " rows"]
    first: Int[Tensor, " rows"]
    tried: Int[Tensor, " rows"]
    mass: Float[Tensor, " rows"]
    energies: Float[Tensor, "rows proposals"]
    log_weights: Float[Tensor, "rows proposals"]


def rejection_round(
    proposals: Float[Tensor, "rows proposals z_dim"], log_ratios: Float[Tensor, "rows proposals"], energy: StepEnergy,
    chances: Float[Tensor, "rows proposals"], *, strength: float = 1.0, ceiling: float = 0.0,
    rows: Int[Tensor, " rows"] | None = None,
) -> RejectionInfo:  # fmt: skip
    """Accept for every sample its first proposal that passes a test, which has the probability w / exp(ceiling).

    The weight w is exp(-λ max(E, 0)) times the ratio of the prior's density to that of the proposals.

    Args:
        proposals: latents (rows, proposals, z_dim).
        log_ratios: logarithms of that ratio, (rows, proposals); 0 for draws from the prior.
        energy: energy of the samples, in nats.
        chances: uniform numbers in (0, 1), (rows, proposals).
        strength: λ > 0.
        ceiling: see `Proposals`.
        rows: indices of the samples for the energy; 0, 1, ... by default.
    """
    rows = torch.arange(len(proposals), device=proposals.device) if rows is None else rows
    energies = evaluate_points(energy, proposals, rows)
    log_weights = log_ratios - strength * energies.clamp(min=0)
    accepted, first, tried = first_accepted(chances < torch.exp(log_weights - ceiling))
    untried = torch.arange(proposals.shape[1], device=proposals.device) >= tried[:, None]
    mass = log_weights.exp().masked_fill(untried, 0).sum(1)
    return RejectionInfo(accepted, first, tried, mass, energies, log_weights)


def acceptance(batch: Batch, strength: float, pilot: int) -> float:
    """Estimate the share of draws from the prior that are accepted, from `pilot` draws, the same in every run.

    They belong to no sample; the energy is that of sample 0 of the run, in every batch.
    """
    z = _pilot(pilot, batch.z.shape[1]).to(batch.z)
    first = torch.full((pilot,), -batch.noise.start, device=z.device)
    return float(torch.exp(-strength * evaluate_points(batch.energy, z[:, None], first)).clamp(max=1).mean())


_pilot = lru_cache(maxsize=8)(partial(normals, 0, 0, stream="pilot"))


def reject(batch: Batch, strength: float, proposals: Proposals, most: int) -> list[Round]:
    """Try at most `most` proposals for every sample, until one is accepted, with probability w / exp(ceiling).

    Afterwards `batch.rows` are the samples that accepted none. Diagnostics of a sample: `proposals`, their number;
    `mass`, the sum of their weights w; `exact`, 1 if one was accepted; and its `log_weight`, max(log w - ceiling, 0).

    Returns:
        The rejected proposals, round by round.
    """
    counts, exact = torch.zeros_like(batch.values), torch.zeros_like(batch.values)
    mass, above = torch.zeros_like(batch.energies), torch.zeros_like(batch.energies)
    batch.diagnostics |= {"proposals": counts, "mass": mass, "exact": exact, "log_weight": above}
    chances = batch.noise.uniforms(batch.z, most, "accept")
    rounds: list[Round] = []
    number = 0
    while number < most and len(batch.rows):
        rows = batch.rows
        ahead = min(points_ahead(batch.energy, len(rows)), most - number)
        numbers = torch.arange(number, number + ahead, device=rows.device).expand(len(rows), -1)
        z, ratios = proposals.draw(batch, rows, numbers, most)
        info = rejection_round(
            z, ratios, batch.energy, chances[rows, number : number + ahead],
            strength=strength, ceiling=proposals.ceiling, rows=rows,
        )  # fmt: skip
        mass[rows] += info.mass
        counts[rows] += info.tried
        batch.values[rows] += info.tried
        done, left = info.accepted.nonzero()[:, 0], (~info.accepted).nonzero()[:, 0]
        ended, which = rows[done], info.first[done]
        batch.z[ended], batch.energies[ended], exact[ended] = z[done, which], info.energies[done, which], 1
        above[ended] = (info.log_weights[done, which] - proposals.ceiling).clamp(min=0)
        batch.rows = rows[left]
        rounds.append((batch.rows, info.energies[left], ratios[left]))
        number += ahead
        batch.report(0.5 * number / most)
    return rounds


def pick(
    batch: Batch, rounds: list[Round], proposals: Proposals, most: int, exponents: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Move each sample that accepted no proposal to one of its proposals, drawn by importance.

    A sample without a finite energy ends. `rounds` is the result of `reject` with the same `proposals` and `most`.
    `exponents` maps energies (rows, proposals), NaN where they are not finite, to β (rows,) of the weights exp(-βE).

    Returns:
        β, and the logarithm of the mean weight, of each of the remaining `batch.rows`, both (rows,).
    """
    rows = batch.rows
    if not len(rows):
        return batch.energies[rows], batch.energies[rows]
    waiting = torch.zeros_like(batch.status, dtype=torch.bool)
    waiting[rows] = True
    energies = torch.cat([some[waiting[left]] for left, some, _ in rounds], 1)
    ratios = torch.cat([some[waiting[left]] for left, _, some in rounds], 1)
    finite = energies.isfinite()
    usable = finite.any(1)
    batch.drop(usable)
    beta = exponents(torch.where(finite, energies, torch.nan))
    log_weights = torch.where(finite, ratios - beta[:, None] * energies, -math.inf)
    means = torch.logsumexp(log_weights, 1) - math.log(energies.shape[1])
    level = batch.noise.uniforms(batch.z, 1, "pick", rows)
    shares = torch.softmax(log_weights, 1).double().cumsum(1)
    picks = (shares < level * shares[:, -1:]).sum(1, keepdim=True).clamp(max=energies.shape[1] - 1)[usable]
    batch.z[batch.rows] = proposals.draw(batch, batch.rows, picks, most)[0][:, 0]
    batch.energies[batch.rows] = energies[usable].gather(1, picks)[:, 0]
    return beta[usable], means[usable]
