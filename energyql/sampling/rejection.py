"""Exact draws from the posterior by rejection, and for the samples that accept none a proposal to start from."""

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
"""Points of a sample that are evaluated together, and uniform numbers that are drawn together."""
ROWS_AHEAD = 256
"""Where fewer samples are left, each is evaluated at the next points that it would try too: a batch of this size takes
the least time for a row. No result depends on it."""

Round = tuple[Tensor, Tensor, Tensor]
"""Of some proposals: indices of the samples that accepted none of them, ascending, (rows,); the energies of these
proposals, in nats, and the logarithms of their ratios, both (rows, proposals)."""


class Proposals(Protocol):
    """Draws of samples in a batch, and what they are worth."""

    ceiling: float
    """Logarithm of the weight from which on a proposal is always accepted."""

    def draw(
        self, batch: Batch, rows: Int[Tensor, " rows"], numbers: Int[Tensor, "rows draws"], of: int
    ) -> tuple[Float[Tensor, "rows draws z_dim"], Float[Tensor, "rows draws"]]:
        """Return the proposals of these numbers, below `of`, of the samples `rows`, ascending.

        Beside them come the logarithms of the prior's density over the proposals': a proposal has the weight
        exp(-λE) times that ratio.
        """
        ...


class PriorProposals:
    """Draws from the prior, of which a sample's first is where it stands."""

    ceiling = 0.0

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """See `Proposals`."""
        drawn = batch.noise.several_normals(batch.z, "proposal", rows, numbers, of)
        first = (numbers[:, 0] == 0).nonzero()[:, 0]
        drawn[first, 0] = batch.z[rows[first]]
        return drawn, torch.zeros_like(drawn[..., 0])


def points_ahead(energy: StepEnergy, rows: int) -> int:
    """Return how many points of each of so many samples to evaluate together."""
    return 1 if energy.costly else max(1, min(MOST_AHEAD, ROWS_AHEAD // rows))


def first_accepted(
    accepted: Bool[Tensor, "rows points"],
) -> tuple[Bool[Tensor, " rows"], Int[Tensor, " rows"], Int[Tensor, " rows"]]:
    """Return for each row whether a point was `accepted`, which first, and how many points there are up to there."""
    found, first = accepted.any(1), accepted.to(torch.uint8).argmax(1)
    return found, first, torch.where(found, first + 1, accepted.shape[1])


class RejectionInfo(NamedTuple):
    """The outcome of a round of rejection, a row for each sample.

    Attributes:
        accepted: whether one of its proposals was.
        first: the number of that proposal.
        tried: number of proposals up to that one, or of all.
        mass: sum of the weights of those tried.
        energies: of all its proposals, in nats.
        log_weights: logarithms of their weights.
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
    """Let every sample accept the first of some proposals that passes, with probability w / exp(ceiling).

    The weight w is exp(-λE), where E counts as 0 below that, times the prior's density over the proposals'.

    Args:
        proposals: latents (rows, proposals, z_dim).
        log_ratios: logarithms of the prior's density over the proposals', (rows, proposals); 0 if they are from it.
        energy: of the samples, in nats.
        chances: uniform numbers in (0, 1), (rows, proposals).
        strength: λ > 0.
        ceiling: logarithm of the weight from which on a proposal is always accepted.
        rows: the samples, as the energy counts them; the first ones by default.
    """
    rows = torch.arange(len(proposals), device=proposals.device) if rows is None else rows
    energies = evaluate_points(energy, proposals, rows)
    log_weights = log_ratios - strength * energies.clamp(min=0)
    accepted, first, tried = first_accepted(chances < torch.exp(log_weights - ceiling))
    untried = torch.arange(proposals.shape[1], device=proposals.device) >= tried[:, None]
    mass = log_weights.exp().masked_fill(untried, 0).sum(1)
    return RejectionInfo(accepted, first, tried, mass, energies, log_weights)


def acceptance(batch: Batch, strength: float, pilot: int) -> float:
    """Estimate the share of proposals that will be accepted, by `pilot` draws that are the same in every run.

    They belong to no sample and are evaluated as sample 0 of the run, in every batch.
    """
    z = _pilot(pilot, batch.z.shape[1]).to(batch.z)
    first = torch.full((pilot,), -batch.noise.start, device=z.device)
    return float(torch.exp(-strength * evaluate_points(batch.energy, z[:, None], first)).clamp(max=1).mean())


_pilot = lru_cache(maxsize=8)(partial(normals, 0, 0, stream="pilot"))


def reject(batch: Batch, strength: float, proposals: Proposals, most: int) -> list[Round]:
    """Let every sample try at most `most` proposals, until it accepts one with probability w / ceiling.

    The `rows` of the batch become those that accepted none. Diagnostics: the number of `proposals`, their `mass`, the
    sum of their weights w, whether a draw is `exact`, and its `log_weight`, in nats: 0, or what w is above the ceiling.
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
        drawn, ratios = proposals.draw(batch, rows, numbers, most)
        info = rejection_round(
            drawn, ratios, batch.energy, chances[rows, number : number + ahead],
            strength=strength, ceiling=proposals.ceiling, rows=rows,
        )  # fmt: skip
        mass[rows] += info.mass
        counts[rows] += info.tried
        batch.values[rows] += info.tried
        done, left = info.accepted.nonzero()[:, 0], (~info.accepted).nonzero()[:, 0]
        taken, which = rows[done], info.first[done]
        batch.z[taken], batch.energies[taken], exact[taken] = drawn[done, which], info.energies[done, which], 1
        above[taken] = (info.log_weights[done, which] - proposals.ceiling).clamp(min=0)
        batch.rows = rows[left]
        rounds.append((batch.rows, info.energies[left], ratios[left]))
        number += ahead
        batch.report(0.5 * number / most)
    return rounds


def pick(
    batch: Batch, rounds: list[Round], proposals: Proposals, most: int, exponents: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Let the samples that accepted none start from one of their proposals, chosen by importance.

    Those without a finite energy end. `rounds` is the result of `reject` with the same `proposals` and `most`.
    `exponents` maps energies (rows, proposals), NaN where they are not finite, to β (rows,) of the weights exp(-βE).

    Returns:
        The exponents, and the logarithms of the mean weights, of the `rows` that are left, both (rows,).
    """
    rows = batch.rows
    if not len(rows):
        return batch.energies[rows], batch.energies[rows]
    waiting = torch.zeros_like(batch.status, dtype=torch.bool)
    waiting[rows] = True
    energies = torch.cat([round_[waiting[left]] for left, round_, _ in rounds], 1)
    ratios = torch.cat([round_[waiting[left]] for left, _, round_ in rounds], 1)
    finite = energies.isfinite()
    usable = finite.any(1)
    batch.drop(usable)
    beta = exponents(torch.where(finite, energies, torch.nan))
    log_weights = torch.where(finite, ratios - beta[:, None] * energies, -math.inf)
    means = torch.logsumexp(log_weights, 1) - math.log(energies.shape[1])
    level = batch.noise.uniforms(batch.z, 1, "pick", rows)
    shares = torch.softmax(log_weights, 1).double().cumsum(1)
    chosen = (shares < level * shares[:, -1:]).sum(1, keepdim=True).clamp(max=energies.shape[1] - 1)[usable]
    batch.z[batch.rows] = proposals.draw(batch, batch.rows, chosen, most)[0][:, 0]
    batch.energies[batch.rows] = energies[usable].gather(1, chosen)[:, 0]
    return beta[usable], means[usable]
