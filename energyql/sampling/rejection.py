"""Exact draws from the posterior by rejection: proposals are drawn for each sample until one is accepted.

A sample that accepts no proposal moves to one of its rejected proposals, from which another method goes on.
"""

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

MOST_AHEAD = 16
"""Largest number of points (latents that a sample may accept) of one sample whose energies are computed in one call."""
ROWS_AHEAD = 256
"""Number of points (latents that a sample may accept) for which one call of the energy takes the least time per point.
If fewer samples are left, energies of several points of each sample are computed in one call, before it is known
whether all are needed. No result depends on this number."""
COSTLY_PILOT = 32
"""Largest number of draws for an estimate of how common a query is, if the energy of a draw needs a picture. With 32
draws, a share of one in four differs clearly from one in ten, and a share below `RARE` from that of a common query."""
RARE, PER_SHARE, FEWEST = 0.04, 1600, 16
"""If the share of accepted draws from the prior is below `RARE`, a sample tries at most share * `PER_SHARE` proposals
from the prior, so 32 for a share of one in 50, and at least `FEWEST`."""

Round = tuple[Tensor, Tensor, Tensor]
"""One round of rejection, in which one or more proposals of each sample are tried. It is a triple about the samples
that have accepted no proposal up to its end: indices of these samples, ascending, (rows,), on the CPU; energies of
their proposals in the round, in nats, (rows, proposals); and log(prior density / density of proposals) at these
proposals, (rows, proposals)."""


class Proposals(Protocol):
    """A density from which proposals (latents that a sample may accept) are drawn.

    The weight w of a proposal z is exp(-λE(z)) times the ratio prior density / density of proposals at z. Here E is the
    energy, and λ the strength by which it is multiplied.
    """

    ceiling: float
    """Logarithm of a weight: a proposal with this weight or a larger one is always accepted."""

    def draw(
        self, batch: Batch, rows: Int[Tensor, " rows"], numbers: Int[Tensor, "rows draws"], of: int
    ) -> tuple[Float[Tensor, "rows draws z_dim"], Float[Tensor, "rows draws"]]:
        """Return some proposals for some samples, and log(prior density / density of proposals) at each proposal.

        Calls with the same arguments return the same proposals.

        Args:
            batch: the batch of the samples, whose latents and random numbers are used.
            rows: indices of the samples in the batch, ascending, on the CPU.
            numbers: for each of these samples, the numbers of the proposals to return, counted from 0, on the CPU.
            of: largest number of proposals of a sample; all `numbers` are below it.
        """


class PriorProposals:
    """Proposals that are drawn from the prior N(0, I), except that proposal 0 of a sample is its current latent.

    At the start of a run, the current latents are the start latents, usually draws from the prior too.
    """

    ceiling = 0.0

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """Return some proposals for some samples, and 0 for each: log(prior density / density of proposals).

        The logarithm is 0 because proposals are drawn from the prior. The arguments are explained in `Proposals.draw`:
        indices of samples, and numbers of their proposals.
        """
        z = batch.noise.several_normals(batch.z, "proposal", rows, numbers, of)
        if len(first := (numbers[:, 0] == 0).nonzero()[:, 0]):
            z[first, 0] = batch.z[rows[first]]
        return z, torch.zeros_like(z[..., 0])


def points_ahead(energy: StepEnergy, rows: int) -> int:
    """Return for how many points (latents that a sample may accept) of each sample energies are computed in one call.

    The result is 1 if `energy` is costly to evaluate, and smaller for more samples. `rows` is the number of samples
    that have not yet accepted a point.
    """
    return 1 if energy.costly else max(1, min(MOST_AHEAD, ROWS_AHEAD // rows))


def first_accepted(
    accepted: Bool[Tensor, "rows points"],
) -> tuple[Bool[Tensor, " rows"], Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Find the first accepted point (latent that a sample may accept) in each row; a row has the points of one sample.

    Returns:
        Whether some point of the row was accepted; the index of the first accepted point, or 0 if none was accepted;
        and the number of points tried, which is the index + 1, or the number of all points if none was accepted.
    """
    some, first = accepted.any(1), accepted.to(torch.uint8).argmax(1)
    return some, first, torch.where(some, first + 1, accepted.shape[1])


class RejectionInfo(NamedTuple):
    """The outcome of a round of rejection, with a row for each sample.

    Attributes:
        accepted: whether the sample accepted a proposal.
        first: index of the accepted proposal; 0 if no proposal was accepted.
        tried: number of proposals tried: those up to the accepted proposal, or all if no proposal was accepted.
        mass: sum of the weights of the proposals tried.
        energies: energies of all proposals of the round, in nats.
        log_weights: logarithms of the weights of all proposals of the round; see `Proposals` for weights.
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
    """Find for every sample the first proposal that it accepts.

    A proposal is accepted with probability w / exp(ceiling). The weight w of a proposal is exp(-λ max(E, 0)) times the
    ratio prior density / density of proposals.

    Args:
        proposals: the proposals of each sample, latents (rows, proposals, z_dim).
        log_ratios: logarithms of the ratio of densities at the proposals, (rows, proposals); 0 for draws from the
            prior.
        energy: energy E of the samples, in nats.
        chances: for each proposal a uniform random number in (0, 1), which decides whether it is accepted.
        strength: λ > 0, which multiplies the energy.
        ceiling: logarithm of a weight; proposals of this weight or more are always accepted.
        rows: indices of the samples, with which the energy is called; by default 0, 1, ...
    """
    rows = torch.arange(len(proposals), device=proposals.device) if rows is None else rows
    energies = evaluate_points(energy, proposals, rows)
    log_weights = log_ratios - strength * energies.clamp(min=0)
    accepted, first, tried = first_accepted(chances < torch.exp(log_weights - ceiling))
    untried = torch.arange(proposals.shape[1], device=proposals.device) >= tried[:, None]
    mass = log_weights.exp().masked_fill(untried, 0).sum(1)
    return RejectionInfo(accepted, first, tried, mass, energies, log_weights)


def acceptance(batch: Batch, strength: float, pilot: int) -> float:
    """Return an estimate of the share of draws from the prior that rejection accepts: the mean of min(exp(-λE), 1).

    The share shows how common the query is. The estimate is made from some draws that belong to no sample, and are the
    same in every run; it is cached for the energy. The energy of sample 0 of the run is used, so that all batches of a
    run have the same estimate.

    Args:
        batch: a batch of the run, with the energy.
        strength: λ > 0, which multiplies the energy.
        pilot: number of draws. If the energy is costly, at most `COSTLY_PILOT` are made.
    """
    count = min(pilot, COSTLY_PILOT) if batch.energy.costly else pilot

    def estimate() -> float:
        z = _pilot(count, batch.z.shape[1]).to(batch.z)
        first = torch.full((count,), -batch.noise.start, device=z.device)
        return float(torch.exp(-strength * evaluate_points(batch.energy, z[:, None], first)).clamp(max=1).mean())

    return batch.energy.once(("acceptance", strength, count, batch.z.dtype, batch.z.device), estimate)


_pilot = lru_cache(maxsize=8)(partial(normals, 0, 0, stream="pilot"))


def trials_of(share: float, most: int) -> int:
    """Return how many draws from the prior a sample may try, at most `most`; fewer for a rare query.

    `share` is the share of draws from the prior that are accepted, from 0 to 1.
    """
    return min(most, max(FEWEST, math.ceil(PER_SHARE * share))) if share < RARE else most


def reject(batch: Batch, strength: float, proposals: Proposals, most: int) -> list[Round]:
    """Draw proposals for every sample of a batch until the sample accepts one, and move the sample to this proposal.

    A proposal is accepted with probability w / exp(ceiling). The weight w of a proposal is exp(-λ max(E, 0)) times the
    ratio prior density / density of proposals; `ceiling` is a field of `proposals`. Afterwards, `batch.rows` are the
    samples that accepted no proposal. These diagnostics are set for each sample:

    - `proposals`: number of proposals tried;
    - `mass`: sum of the weights of the proposals tried;
    - `exact`: 1 if a proposal was accepted, else 0;
    - `log_weight`: max(log w - ceiling, 0) of the accepted proposal, else 0.

    Args:
        batch: the batch, which is changed; its energy is E.
        strength: λ > 0, which multiplies the energy.
        proposals: density of the proposals, and its ceiling.
        most: largest number of proposals of a sample.

    Returns:
        For each round, a triple about the samples that had accepted no proposal by the end of the round: their
        indices, and the energies and log-ratios of densities of their proposals in the round; see `Round`.
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
        z, ratios = proposals.draw(batch, here, numbers, most)
        info = rejection_round(
            z, ratios, batch.energy, chances[rows, number : number + ahead],
            strength=strength, ceiling=proposals.ceiling, rows=rows,
        )  # fmt: skip
        mass[rows] += info.mass
        counts[rows] += info.tried
        batch.values[rows] += info.tried
        accepted = info.accepted.cpu()
        here = here[~accepted]
        done, left = (which.nonzero()[:, 0].to(rows.device) for which in (accepted, ~accepted))
        ended, which = rows[done], info.first[done]
        batch.z[ended], batch.energies[ended], exact[ended] = z[done, which], info.energies[done, which], 1
        above[ended] = (info.log_weights[done, which] - proposals.ceiling).clamp(min=0)
        batch.rows = rows[left]
        rounds.append((here, info.energies[left], ratios[left]))
        number += ahead
        batch.report(0.5 * number / most)
    return rounds


def tried_energies(
    rounds: list[Round], device: torch.device
) -> tuple[Float[Tensor, "rows proposals"], Float[Tensor, "rows proposals"]]:
    """Return, for the samples that accepted no proposal, the energies of all their proposals, in nats.

    The second result is log(prior density / density of proposals) at each of these proposals. From both results,
    weights of the proposals are computed.

    Args:
        rounds: result of `reject`, with at least one round.
        device: device of the results.
    """
    here = rounds[-1][0]
    places = [torch.searchsorted(left, here).to(device) for left, _, _ in rounds]
    energies = torch.cat([some[place] for place, (_, some, _) in zip(places, rounds, strict=True)], 1)
    return energies, torch.cat([some[place] for place, (_, _, some) in zip(places, rounds, strict=True)], 1)


def pick(
    batch: Batch, rounds: list[Round], proposals: Proposals, most: int, exponents: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Move each sample that accepted no proposal to one of its proposals, chosen at random in proportion to weights.

    The weight of a proposal is exp(-βE) times the ratio prior density / density of proposals, where β is an exponent
    for each sample. A sample whose proposals all have infinite energies ends with `Status.NON_FINITE`.

    Args:
        batch: batch in which `rows` are the samples that accepted no proposal.
        rounds: result of `reject`.
        proposals: the proposals with which `reject` was called.
        most: largest number of proposals of a sample, with which `reject` was called.
        exponents: function that chooses β for each sample, (rows,). It takes the energies of all proposals of the
            samples, (rows, proposals), where NaN replaces infinite energies.

    Returns:
        For each sample that still moves (`batch.rows` afterwards), β and the logarithm of the mean weight of its
        proposals, both (rows,); and the indices `batch.rows` on the CPU.
    """
    rows = batch.rows
    if not len(rows):
        return batch.energies[rows], batch.energies[rows], rows.cpu()
    here = rounds[-1][0]
    energies, ratios = tried_energies(rounds, rows.device)
    finite = energies.isfinite()
    beta = exponents(torch.where(finite, energies, torch.nan))
    log_weights = torch.where(finite, ratios - beta[:, None] * energies, -math.inf)
    means = torch.logsumexp(log_weights, 1) - math.log(energies.shape[1])
    level = batch.noise.uniforms(batch.z, 1, "pick", here)
    shares = torch.softmax(log_weights, 1).double().cumsum(1)
    picks = (shares < level * shares[:, -1:]).sum(1, keepdim=True).clamp(max=energies.shape[1] - 1)
    usable, numbers = to_cpu([finite.any(1), picks])
    good = usable.nonzero()[:, 0].to(rows.device)
    batch.drop(usable)
    batch.z[batch.rows] = proposals.draw(batch, here[usable], numbers[usable], most)[0][:, 0]
    batch.energies[batch.rows] = energies.gather(1, picks)[good, 0]
    return beta[good], means[good], here[usable]
