"""The smallest change that makes something true: what is asked gains weight, in each sample, until it is.

The penalty method (Nocedal and Wright 2006, chapter 17), from the minimum of one weight to that of the next.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.sampling import Energy, Progress, SampleResult, as_energy
from energyql.sampling.descent import descend

WEIGHTS = (3.0, 9.0, 27.0)
"""How many times the first weight what is asked is given, one after the other."""
PAYS = 0.1
"""Share of its cost that a larger weight must save to be worth the larger change. Less is saved where the cost cannot
fall any further: a number that is asked for within its tolerance is never certain."""


@torch.no_grad()
def insist(
    weighted: Callable[[float], Energy],
    cost: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    *,
    enough: float,
    max_evaluations: int,
    progress: Progress | None = None,
) -> SampleResult:
    """Goes to the nearest minimum, and on to those of larger weights in the samples that still cost much.

    Args:
        weighted: the energy, given how many times its weight what is asked has.
        cost: of what is asked alone, in nats: `cost(z, rows)`, as an energy is called.
        z0: start latents (n, z_dim).
        enough: a sample is done when it costs no more than this.
        max_evaluations: of the energy, per sample and weight.
        progress: of the first weight; see `Progress`.

    Returns:
        As `descend` does; the status is that of the last minimum that was kept.
    """
    first = descend(weighted(1.0), z0, max_evaluations=max_evaluations, progress=progress)
    z, status, evaluations = first.z, first.status, first.evaluations
    rows = torch.arange(len(z), device=z.device)
    costs = cost(z, rows)
    for weight in WEIGHTS:
        wanting = costs > enough
        rows, costs = rows[wanting], costs[wanting]
        if not len(rows):
            break
        again = descend(as_energy(weighted(weight), samples=rows), z[rows], max_evaluations=max_evaluations)
        evaluations[rows.cpu()] += again.evaluations
        then = cost(again.z, rows)
        pays = then < (1 - PAYS) * costs
        rows, costs = rows[pays], then[pays]
        z[rows], status[rows.cpu()] = again.z[pays], again.status[pays.cpu()]
    return SampleResult(z, status, evaluations, evaluations.clone())
