"""A pilot run: estimates of how common a query is under the prior, and of the cost of its samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from energyql.energy.rule import SEMANTICS, check_semantics
from energyql.errors import ArgumentError
from energyql.language import Expr, Weight
from energyql.models import DEFAULT_MODEL
from energyql.numerics.random import normals
from energyql.pipeline.draw import pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_SAMPLER, DEFAULT_SEMANTICS, EXACT, SamplerName, Semantics
from energyql.sampling import SampleResult
from energyql.sampling.base import effective_samples

PRIOR = 4096
"""Number of draws from the prior."""
SAMPLES = 64
"""Number of samples that are drawn to estimate their cost."""
PICTURES, PICTURE_SAMPLES = 128, 8
"""`PRIOR` and `SAMPLES` if each draw is a picture: the error is a sixth for a common query, more for a rare one."""
ENOUGH = 100
"""Effective draws from the prior for a relative error of a tenth; with fewer, the sampler's proposals are used."""


@dataclass(frozen=True)
class Pilot:
    """Estimates for a query, by the attribute heads. They are the same in every run.

    Attributes:
        prevalence: share of the model's pictures that satisfy the query, in [0, 1]: the mean of P(query) under the
            prior. Weights in the query do not count.
        prevalence_error: its standard error.
        satisfied: mean of P(query) over samples of the default sampler: the share of them that satisfies the query, as
            far as the heads are calibrated there.
        evaluations: mean number of evaluations of the energy for one sample of the default sampler.
        evaluations_error: its standard error.
        finished: share of these samples that the sampler could finish.
        generator_calls: mean number of calls of the generator for one sample, if attributes are read off pictures; an
            evaluation with gradient counts as two. `None` for heads.
    """

    prevalence: float
    prevalence_error: float
    satisfied: float
    evaluations: float
    evaluations_error: float
    finished: float
    generator_calls: float | None = None

    def __repr__(self) -> str:
        share = f"{self.prevalence:.2%} ± {self.prevalence_error:.2%}"
        if self.prevalence < 0.001:
            share = f"a share of {self.prevalence:.2g} ± {self.prevalence_error:.1g}"
        lines = [
            f"expect {share} of the model's pictures to satisfy it, by the heads",
            f"       {self.satisfied:.0%} of its samples, by the heads, whose errors `energyql report` shows",
            f"cost   {self.evaluations:.1f} ± {self.evaluations_error:.1f} evaluations of the energy a sample",
        ]
        if self.generator_calls is not None:
            lines.append(f"       {self.generator_calls:.1f} generator calls, because they are read off pictures")
        if self.finished < 1:
            lines.append(f"the sampler cannot finish {1 - self.finished:.0%} of the samples")
        return "\n".join(lines)


def run_pilot(
    query: str | Expr,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    device: str = "auto",
) -> Pilot:
    """Return the estimates for a query on a model under its own truncation and label.

    They are about the default sampler, or about "slice" where attributes are read off pictures without a gradient.

    Raises:
        ArgumentError: the semantics is one that the default sampler refuses.
        EnergyQLError: as for `energyql.generate`.
    """
    if not SEMANTICS[check_semantics(semantics)].has_floor:
        raise ArgumentError(
            f"a pilot cannot be made under {semantics}, whose energies are no probabilities", hint="leave out the pilot"
        )
    pipeline = pipeline_for(model, device)
    bank = pipeline.model.bank
    sampler: SamplerName = DEFAULT_SAMPLER if bank.gradient else "slice"
    prepared = pipeline.prepare(query, semantics=semantics, sampler=sampler)
    (sampled,) = prepared.latents(PICTURE_SAMPLES if bank.reads_pictures else SAMPLES, progress=False)
    evaluations = sampled.evaluations.double()
    unweighted = prepared.expr.map(lambda node: node.operand if isinstance(node, Weight) else node)
    as_sampled = semantics == EXACT and unweighted == prepared.expr
    exact = prepared if as_sampled else pipeline.prepare(unweighted, sampler=sampler)
    z = normals(
        0, 0, PICTURES if bank.reads_pictures else PRIOR, pipeline.model.generator.z_dim, stream="prevalence"
    ).to(pipeline.device)
    share, error = prevalence(exact.energy_in_float32(z).double().cpu(), sampled if as_sampled else None)
    satisfied = exact.energy_in_float32(sampled.z).double().neg().exp().mean().item()
    finished = sampled.ok.double().mean().item()
    calls = (evaluations + sampled.gradients).mean().item() if bank.reads_pictures else None
    return Pilot(share, error, satisfied, evaluations.mean().item(), _error(evaluations), finished, calls)


def prevalence(energies: Tensor, sampled: SampleResult | None = None) -> tuple[float, float]:
    """Estimate P(query) under the prior.

    Args:
        energies: energies of draws from the prior, in nats, (n,).
        sampled: samples of the posterior at strength 1; their proposals are used if the draws are too few.

    Returns:
        The estimate and its standard error.
    """
    weights = torch.exp(-energies)
    if sampled is None or "mass" not in sampled.diagnostics or effective_samples(-energies) >= ENOUGH:
        return weights.mean().item(), _error(weights)
    exact, tried, mass, log_weight = (
        sampled.diagnostics[name].double() for name in ("exact", "proposals", "mass", "log_weight")
    )
    annealed = log_weight[exact == 0]
    if "stages" in sampled.diagnostics and len(annealed) > 1 and mass.sum() < effective_samples(annealed):
        return annealed.exp().mean().item(), _error(annealed.exp())
    share = mass.sum() / tried.sum()  # a ratio of means over samples, which stop when they accept: Wald's identity
    return share.item(), _error((mass - share * tried) / tried.mean())


def _error(values: Tensor) -> float:
    """Return the standard error of the mean of independent values, (n,)."""
    return values.std().item() / math.sqrt(len(values))
