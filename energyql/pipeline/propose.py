"""Latents for samples of a run: the sampler follows the energy of the plan, from starts that the seed decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.numerics.pool import one_thread
from energyql.numerics.pullback import Convertible
from energyql.pipeline.plan import Plan
from energyql.pipeline.route import route
from energyql.sampling import RandomStreams, SampleResult, Status, normals
from energyql.sampling.base import EnergyLike, Progress, as_energy, draw_with

PRIOR, FEW_PRIOR = 4096, 128
"""Number of draws from the prior that show how common a query is; the second number is for attributes that are read off
pictures, because each draw is a picture. The prevalence then has a relative standard error of about a sixth for a
common query, more for a rare query."""


def propose(
    plan: Plan,
    energy: EnergyLike | None,
    numbers: Sequence[int],
    progress: Progress,
    purpose: str = "",
    seed: int | None = None,
) -> SampleResult:
    """Run the sampler for some samples of a run, and return one latent z for each.

    All random numbers of a sample, those of its start and those of the sampler, are determined by the seed, the
    purpose, and the number of the sample.

    Args:
        plan: the plan; calibrated, if it is for several prompts, whose own energies then replace `energy`.
        energy: the energy that the sampler follows; `None` for draws from the prior.
        numbers: number of each sample in the run, ascending.
        progress: called with the fraction done and the number of unfinished samples.
        purpose: text before the names of all streams of random numbers, such as "attempt/1/" in the second attempt.
        seed: by default that of the settings.
    """
    if plan.mixture is not None:
        groups = route(plan, np.asarray(numbers))
        ends = [
            propose(part, part.energy, [numbers[row] for row in rows], progress, purpose, seed) for part, rows in groups
        ]
        joined = SampleResult.join([replace(end, diagnostics={}) for end in ends])
        return rows_of(joined, torch.from_numpy(np.concatenate([rows for _, rows in groups]).argsort()))
    first, count = numbers[0], len(numbers)
    streams = RandomStreams(plan.settings.seed if seed is None else seed, first, purpose)
    costly, has_gaps = energy is not None and as_energy(energy).costly, count != numbers[-1] + 1 - first
    if costly and has_gaps:  # it needs consecutive numbers
        return SampleResult.join([propose(plan, energy, [number], progress, purpose, seed) for number in numbers])
    if has_gaps:
        streams = streams.of_samples([number - first for number in numbers])
    z0 = streams.normals(torch.empty(count, plan.model.generator.z_dim), "prior").to(plan.device)
    if energy is None:
        zeros = torch.zeros(count, dtype=torch.int64)
        return SampleResult(z0, torch.full_like(zeros, Status.OK), zeros, zeros.clone())
    # A discriminator, and other functions than those of heads and mapping networks, may be large networks of users.
    small = isinstance(plan.model.bank, AttributeBank) and isinstance(plan.reads, Convertible) and not costly
    with one_thread(z0.shape[1] * z0.numel() if small else math.inf):
        return draw_with(plan.sampler, energy, z0, streams, progress)


def prior_energies(plan: Plan) -> Tensor:
    """Return the energies of the query, in nats, for latents from the prior, which are the same in every run."""
    count = FEW_PRIOR if plan.model.bank.reads_pictures else PRIOR
    z = normals(0, 0, count, plan.model.generator.z_dim, stream="prevalence").to(plan.device)
    return plan.energy_in_float32(z).double().cpu()


def rows_of(sampled: SampleResult, rows: Tensor | slice) -> SampleResult:
    """Return some of the samples; `rows` is a mask (n,) of bool, indices, or a slice."""
    diagnostics = {name: values[rows] for name, values in sampled.diagnostics.items()}
    counts = sampled.evaluations[rows], sampled.gradients[rows]
    return SampleResult(sampled.z[rows], sampled.status[rows], *counts, diagnostics)
