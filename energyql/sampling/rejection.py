"""Exact draws from the posterior by rejection: proposals are drawn for each sample until one is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from energyql.numerics.pool import to_cpu
from energyql.numerics.random import normals
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import Batch, StepEnergy, evaluate_points
from energyql.sampling.weights import cumulative_shares, log_mean, proposal_weights

MOST_AHEAD = 16
"""Most points (latents that a sample may accept) of one sample that are evaluated in one call."""
ROWS_AHEAD = 256
"""Number of points for which a call of the energy takes the least time per point. With fewer samples, several points of
each are evaluated ahead, in case they are needed; no result depends on this."""
COSTLY_PILOT = 32
"""Most draws for an estimate of how common a query is, if each needs a picture."""
RARE, PER_SHARE, FEWEST = 0.04, 1600, 16
"""If the share of accepted draws from the prior is below `RARE`, a sample tries only share * `PER_SHARE` of them, at
least `FEWEST`."""

Round = tuple[Tensor, Tensor, Tensor]
"""One round of rejection, about the samples without an accepted proposal at its end: their indices, ascending, (rows,),
on the CPU; energies of their proposals, in nats, (rows, proposals); and log(prior density / density of proposals),
(rows, proposals)."""


class Proposed(NamedTuple):
    """Proposals of each of some samples, and the logarithms of prior density / density of proposals at each of them."""

    z: Float[Tensor, "rows draws z_dim"]
    log_ratios: Float[Tensor, "rows draws"]


class Proposals(Protocol):
    """A density from which proposals (latents that a sample may accept) are drawn.

    `energyql.sampling.weights` tells the weights of proposals.
    """

    ceiling: float
    """Log-weight from which a proposal is always accepted."""

    def draw(self, batch: Batch, rows: Int[Tensor, " rows"], numbers: Int[Tensor, "rows draws"], of: int) -> Proposed:
        """Draw proposals of samples, the same in every call.

        Args:
            rows: indices of the samples in the batch, ascending, on the CPU.
            numbers: numbers of the proposals of each of these samples, from 0 to `of` - 1, on the CPU.
        """


class PriorProposals:
    """Proposals from the prior N(0, I), except that proposal 0 of a sample is its current latent."""

    ceiling = 0.0

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> Proposed:
        """See `Proposals.draw`; all log-ratios are 0."""
        z = batch.noise.several_normals(batch.z, "proposal", rows, numbers, of)
        if len(first := (numbers[:, 0] == 0).nonzero()[:, 0]):
            z[first, 0] = batch.z[rows[first]]
        return Proposed(z, torch.zeros_like(z[..., 0]))


def points_ahead(energy: StepEnergy, rows: int) -> int:
    """Number of points of each sample to evaluate in one call, if `rows` samples are left: 1 for a costly energy."""
    return 1 if energy.costly else max(1, min(MOST_AHEAD, ROWS_AHEAD // rows))


def first_accepted(
    accepted: Bool[Tensor, "rows points"],
) -> tuple[Bool[Tensor, " rows"], Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """For each row of points: whether one is accepted, the first such index or 0, and how many were tried."""
    some, first = accepted.any(1), accepted.to(torch.uint8).argmax(1)
    return some, first, torch.where(some, first + 1, accepted.shape[1])


class RejectionInfo(NamedTuple):
    """The outcome of a round of rejection, with a row for each sample; `energyql.sampling.weights` explains weights.

    Attributes:
        first: index of the accepted proposal, else 0.
        tried: number of proposals up to the accepted one, or of all.
        mass: sum of the weights of the proposals tried.
        energies, log_weights: those of all proposals of the round, in nats.
    """

    accepted: Bool[Tensor, " rows"]
    first: Int[Tensor, " rows"]
    tried: Int[Tensor, " rows"]
    mass: Float[Tensor, " rows"]
    energies: Float[Tensor, "rows proposals"]
    log_weights: Float[Tensor, "rows proposals"]


def rejection_round(
    proposed: Proposed, energy: StepEnergy, chances: Float[Tensor, "rows draws"], *, strength: float = 1.0,
    ceiling: float = 0.0, rows: Int[Tensor, " rows"] | None = None,
) -> RejectionInfo:  # fmt: skip
    """Find for every sample the first proposal that it accepts: each with probability w / exp(ceiling), at most 1.

    The weight w is exp(-λ max(E, 0)) times the ratio prior density / density of proposals.

    Args:
        proposed: the proposals, with the logarithms of this ratio: 0 for draws from the prior.
        chances: uniform random numbers in (0, 1), which decide about acceptance.
        strength: λ > 0, which multiplies the energy E.
        rows: indices of the samples, with which the energy is called; by default 0, 1, ...
    """
    z = proposed.z
    rows = torch.arange(len(z), device=z.device) if rows is None else rows
    energies = evaluate_points(energy, z, rows)
    log_weights = proposal_weights(energies.clamp(min=0), proposed.log_ratios, strength)
    accepted, first, tried = first_accepted(chances < torch.exp(log_weights - ceiling))
    untried = torch.arange(z.shape[1], device=z.device) >= tried[:, None]
    mass = log_weights.exp().masked_fill(untried, 0).sum(1)
    return RejectionInfo(accepted, first, tried, mass, energies, log_weights)


def acceptance(batch: Batch, strength: float, pilot: int) -> float:
    """Estimate the share of draws from the prior that rejection accepts, mean min(exp(-λE), 1), and cache it.

    At most `pilot` draws that belong to no sample are made, with the energy of sample 0, so that all batches agree.
    """
    count = min(pilot, COSTLY_PILOT) if batch.energy.costly else pilot

    def estimate() -> float:
        z = _pilot(count, batch.z.shape[1]).to(batch.z)
        first = torch.full((count,), -batch.noise.start, device=z.device)
        return float(torch.exp(-strength * evaluate_points(batch.energy, z[:, None], first)).clamp(max=1).mean())

    return batch.energy.once(("acceptance", strength, count, batch.z.dtype, batch.z.device), estimate)


_pilot = lru_cache(maxsize=8)(partial(normals, 0, 0, stream="pilot"))


def trials_of(share: float, most: int) -> int:
    """Number of draws from the prior that a sample may try: `most`, or fewer if the query is rare (small `share`)."""
    return min(most, max(FEWEST, math.ceil(PER_SHARE * share))) if share < RARE else most


def reject(batch: Batch, strength: float, proposals: Proposals, most: int) -> list[Round]:
    """Draw proposals for every sample of a batch until it accepts one, as in `rejection_round`, and move it there.

    This sets the diagnostics `proposals`, `mass`, `exact` and `log_weight` of `SliceSampler`. Afterwards, `batch.rows`
    are the samples that accepted none of their `most` proposals.
    """
    counts, exact = torch.zeros_like(batch.values), torch.zeros_like(batch.values)
    mass, above = torch.zeros_like(batch.energies), torch.zeros_like(batch.energies)
    batch.diagnostics |= {"proposals": counts, "mass": mass, "exact": exact, "log_weight": above}
    chances = batch.noise.uniforms(batch.z, most, "accept")
    rounds: list[Round] = []
    number, everyone = 0, len(batch.rows) == len(batch.z)
    here = torch.arange(len(batch.z)) if everyone else batch.rows.cpu()  # so that a round waits for a device only once
    while number < most and len(batch.rows):
        rows = batch.rows
        ahead = min(points_ahead(batch.energy, len(rows)), most - number)
        numbers = torch.arange(number, number + ahead).expand(len(rows), -1)
        proposed = proposals.draw(batch, here, numbers, most)
        info = rejection_round(
            proposed, batch.energy, chances[rows, number : number + ahead],
            strength=strength, ceiling=proposals.ceiling, rows=rows,
        )  # fmt: skip
        mass[rows] += info.mass
        counts[rows] += info.tried
        batch.values[rows] += info.tried
        accepted = info.accepted.cpu()
        here = here[~accepted]
        done, left = (which.nonzero()[:, 0].to(rows.device) for which in (accepted, ~accepted))
        ended, which = rows[done], info.first[done]
        batch.z[ended], batch.energies[ended], exact[ended] = proposed.z[done, which], info.energies[done, which], 1
        above[ended] = (info.log_weights[done, which] - proposals.ceiling).clamp(min=0)
        batch.rows = rows[left]
        rounds.append((here, info.energies[left], proposed.log_ratios[left]))
        number += ahead
        batch.report(0.5 * number / most)
    return rounds


def tried_energies(
    rounds: list[Round], device: torch.device
) -> tuple[Float[Tensor, "rows proposals"], Float[Tensor, "rows proposals"]]:
    """Energies and log-ratios of densities of all proposals, for the samples that accepted none."""
    here = rounds[-1][0]
    places = [torch.searchsorted(left, here).to(device) for left, _, _ in rounds]
    energies = torch.cat([some[place] for place, (_, some, _) in zip(places, rounds, strict=True)], 1)
    return energies, torch.cat([some[place] for place, (_, _, some) in zip(places, rounds, strict=True)], 1)


def pick(
    batch: Batch, rounds: list[Round], proposals: Proposals, most: int, exponents: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Move each sample that accepted no proposal to one of its proposals, chosen at random in proportion to weights.

    The weight is exp(-βE) times the ratio prior density / density of proposals. `exponents` computes β, (rows,), from
    energies (rows, proposals), with NaN for infinite ones. A sample with infinite energies only ends with
    `Status.NON_FINITE`.

    Returns:
        For each sample that still moves (`batch.rows`), β and the log of the mean weight of its proposals, both
        (rows,); and `batch.rows` on the CPU.
    """
    rows = batch.rows
    if not len(rows):
        return batch.energies[rows], batch.energies[rows], rows.cpu()
    here = rounds[-1][0]
    energies, ratios = tried_energies(rounds, rows.device)
    finite = energies.isfinite()
    beta = exponents(torch.where(finite, energies, torch.nan))
    log_weights = torch.where(finite, proposal_weights(energies, ratios, beta[:, None]), -math.inf)
    means = log_mean(log_weights)
    level = batch.noise.uniforms(batch.z, 1, "pick", here)
    shares = cumulative_shares(log_weights)
    picks = (shares < level * shares[:, -1:]).sum(1, keepdim=True).clamp(max=energies.shape[1] - 1)
    usable, numbers = to_cpu([finite.any(1), picks])
    good = usable.nonzero()[:, 0].to(rows.device)
    batch.drop(usable)
    batch.z[batch.rows] = proposals.draw(batch, here[usable], numbers[usable], most)[0][:, 0]
    batch.energies[batch.rows] = energies.gather(1, picks)[good, 0]
    return beta[good], means[good], here[usable]
