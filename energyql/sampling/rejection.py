"""Exact draws from the posterior by rejection, and for the samples that accept none a proposal to start from."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from energyql.numerics.random import normals
from energyql.sampling.base import Status
from energyql.sampling.draws import Draws, points_ahead

COMMON = 0.04
"""Share of accepted proposals from which rejection is the cheapest way to the end, and the only one that is exact."""
PER_SHARE = 1600
"""Below, proposals to look at over that share: 32 of one in 50. Some more samples are exact, and the others start from
better proposals."""
FEWEST = 16
"""Proposals to look at, however rare the query."""

Round = tuple[Tensor, Tensor]
"""Of some proposals: indices of the samples that accepted none of them, ascending, (m,), and the energies of what these
were proposed, (m, proposals), in nats."""


def acceptance(draws: Draws, strength: float, pilot: int) -> float:
    """The share of proposals that will be accepted, by `pilot` draws that are the same in every run.

    They belong to no sample and are evaluated as sample 0 of the run, in every batch.
    """
    z = _pilot(pilot, draws.z.shape[1]).to(draws.z)
    first = torch.full((pilot,), -draws.noise.start, device=z.device)
    return float(torch.exp(-strength * draws.evaluate(z[:, None], first)).clamp(max=1).mean())


@lru_cache(maxsize=8)
def _pilot(count: int, z_dim: int) -> Tensor:
    return normals(0, 0, count, z_dim, stream="pilot")


def reject(draws: Draws, strength: float, most: int, share: float | None = None) -> list[Round]:
    """Let every sample look at draws from the prior, until it accepts one with probability exp(-λE).

    Args:
        draws: the samples.
        strength: λ.
        most: proposals that a sample looks at.
        share: of the proposals that will be accepted; where it is known and small, samples look at fewer.
    """
    of = most
    if share is not None and share < COMMON:
        most = min(most, max(FEWEST, math.ceil(PER_SHARE * share)))
    chances = draws.noise.uniforms(draws.z, most, "accept")
    rounds: list[Round] = []
    number = 0
    while number < most and len(draws.rows):
        rows = draws.rows
        ahead = min(points_ahead(len(rows)), most - number)
        numbers = torch.arange(number, number + ahead, device=rows.device).expand(len(rows), -1)
        drawn = _proposals(draws, rows, numbers, of)
        e = draws.evaluate(drawn, rows)
        chance = torch.exp(-strength * e)
        accept, first = draws.count(rows, chances[rows, number : number + ahead] < chance)
        looked_at = torch.where(accept, first + 1, ahead)
        unseen = torch.arange(ahead, device=rows.device) >= looked_at[:, None]
        draws.mass[rows] += chance.clamp(max=1).masked_fill(unseen, 0).sum(1)
        draws.proposals[rows] += looked_at
        done, left = accept.nonzero()[:, 0], (~accept).nonzero()[:, 0]
        taken, which = rows[done], first[done]
        draws.z[taken], draws.e[taken], draws.exact[taken] = drawn[done, which], e[done, which], 1
        draws.rows = rows[left]
        rounds.append((draws.rows, e[left]))
        number += ahead
        draws.report(0.5 * number / most)
    return rounds


def pick(draws: Draws, rounds: list[Round], of: int, exponents: Callable[[Tensor], Tensor]) -> Tensor:
    """Let the samples that accepted none start from one of their proposals, chosen by importance.

    Args:
        draws: whose `rows` become those that found a finite energy; `log_weight` starts with the mean weight.
        rounds: what `reject` returned.
        of: what `reject` was given as `most`.
        exponents: from energies (rows, proposals), NaN where they are not finite, to β (rows,) of the weights
            exp(-βE).

    Returns:
        The exponents, one for each of `draws.rows`.
    """
    rows = draws.rows
    if not len(rows):
        return draws.e[rows]
    waiting = torch.zeros_like(draws.status, dtype=torch.bool)
    waiting[rows] = True
    energies = torch.cat([e[waiting[left]] for left, e in rounds], 1)
    finite = energies.isfinite()
    usable = finite.any(1)
    draws.status[rows[~usable]] = Status.NON_FINITE
    beta = exponents(torch.where(finite, energies, torch.nan))
    log_weights = torch.where(finite, -beta[:, None] * energies, -math.inf)
    draws.log_weight[rows[usable]] = (torch.logsumexp(log_weights, 1) - math.log(energies.shape[1]))[usable]
    level = draws.noise.uniforms(draws.z, 1, "pick", rows)
    shares = torch.softmax(log_weights, 1).double().cumsum(1)
    chosen = (shares < level * shares[:, -1:]).sum(1, keepdim=True).clamp(max=energies.shape[1] - 1)[usable]
    draws.rows = rows[usable]
    draws.z[draws.rows] = _proposals(draws, draws.rows, chosen, of)[:, 0]
    draws.e[draws.rows] = energies[usable].gather(1, chosen)[:, 0]
    return beta[usable]


def _proposals(draws: Draws, rows: Tensor, numbers: Tensor, of: int) -> Tensor:
    """Those of some samples that have these numbers, (rows, numbers, z_dim); the first is where the sample stands."""
    drawn = draws.noise.several_normals(draws.z, "proposal", rows, numbers, of)
    first = (numbers[:, 0] == 0).nonzero()[:, 0]
    drawn[first, 0] = draws.z[rows[first]]
    return drawn
