"""Calibration of a plan: threshold of the verifier, bound for clipping, shares of prompts, some by a pilot run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.energy.clipped import ClippedEnergy
from energyql.errors import RefusedError, UnreachableError, either
from energyql.pipeline.clips import (
    CLIPS,
    PILOT_ROUND,
    REJECTION_ROUND,
    WAITING,
    WAITING_FOR_CODE,
    Clip,
    Forecast,
    choose_clip,
    count_from_prior,
    estimate_clips,
    forecast_of,
    needs_no_pilot,
    trial_size,
    try_rejection,
)
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.plan import Calibration, Plan, Shares, Source
from energyql.pipeline.propose import prior_energies, propose
from energyql.pipeline.render import render, render_drafts
from energyql.pipeline.verifier import LEAST_ACCEPTED, Decision, Round, Verifier
from energyql.progress import Report, quiet
from energyql.sampling import SampleResult
from energyql.sampling.base import EnergyLike
from energyql.sampling.registry import describe_sampler, strengths
from energyql.sampling.weights import effective_samples

PILOT_SHARE = 0.9
"""Largest share of the rest of a budget that a pilot run takes; the other calls are for samples."""
TRIAL, TRIAL_ROUND, TRIAL_SHARE = 64, 16, 0.25
"""Of the trial of `sure`: most pictures; pictures in a round; and largest share of a budget."""
SAMPLES, PICTURE_SAMPLES = 64, 8
"""Number of samples whose cost is measured; the second for attributes that are read off pictures."""
ENOUGH = 100
"""Effective number of draws from the prior for a relative error of a tenth; with fewer, proposals count too."""
_NO_TRIAL = Clip(0.0, 0.0, None, 0, 0)


def calibrate(plan: Plan, ledger: Ledger | None = None, report: Report = quiet, end: float = math.inf) -> Plan:
    """Return the plan with all that is found out by pictures before its samples are drawn.

    What an earlier call has found out is kept. A pilot run is the same for all seeds.

    Args:
        plan: the plan, whose calls of the generator are counted in `ledger`.
        ledger: the ledger of the run; by default a new one, so that the calls belong to no run.
        report: called with "trial" or "pilot" and the fraction done.
        end: the number after that of the last sample; samples at the start of a run with `verify="faithful"` may need
            no pilot run.

    Raises:
        RefusedError: more pictures would be drawn for one that is kept than the setting `attempts` allows.
        UnreachableError: no picture satisfies the query under any prompt.
        BudgetError: the calls of the generator ended.
    """
    known, verifier, faithful = plan.calibration, plan.verifier, plan.settings.verify == "faithful"
    energy, ledger = plan.energy, ledger or Ledger()
    with ledger.pilot():
        if known is None:
            known = Calibration(Source(energy, None if verifier is None or faithful else sure(plan, ledger, report)))
            if plan.mixture is not None:
                known = replace(known, shares=_shares(plan.mixture.plans, ledger, report))
            if faithful and verifier is not None:
                source, count = _by_rejection(plan, verifier, ledger, report)
                known = replace(known, prior_source=source, count_from_prior=count)
        if faithful and verifier is not None and not known.clips and (end == math.inf or end > known.count_from_prior):
            clips = clips_of(plan, ledger, report)
            clip = _clip_within(plan.settings.attempts, clips, verifier)
            source = Source(ClippedEnergy(energy, clip.probability), verifier.for_draws(clip.probability), clip)
            known = replace(known, clips=clips, source=source)
    return plan if known is plan.calibration else replace(plan, calibration=known)


def sure(plan: Plan, ledger: Ledger, report: Report = quiet) -> Verifier:
    """Return the verifier of draws by the energy of the query itself.

    Where held-out labels do not show that it is as right as wanted, a trial tells what it reads off pictures that the
    sampler draws, and so where it must accept them. There is none for several prompts, whose shares the threshold
    changes, nor if attributes are read off pictures: it would cost as much as that many samples.
    """
    assert plan.verifier is not None
    verifier = plan.verifier.for_draws()
    if not verifier.needs_trial or plan.mixture is not None or plan.model.bank.reads_pictures:
        return verifier
    tried, most = np.zeros(0), min(TRIAL, TRIAL_SHARE * ledger.left)
    while len(tried) + TRIAL_ROUND <= most:
        _, decision = _tried(plan, plan.energy, verifier, len(tried) // TRIAL_ROUND, TRIAL_ROUND, "verify/sure/")
        assert decision.probabilities is not None
        tried = np.append(tried, decision.probabilities)
        report("trial", len(tried) / TRIAL)
        if np.sort(tried)[-LEAST_ACCEPTED:].mean() >= verifier.purity:
            break
    report("trial", 1.0)
    return verifier.surer(tried) if len(tried) else verifier


def clips_of(plan: Plan, ledger: Ledger, report: Report = quiet) -> Sequence[Clip]:
    """Return the bounds at which the energy may be clipped, each with its costs by held-out labels or a pilot run."""
    assert plan.verifier is not None
    verifier, energy = plan.verifier.for_draws(CLIPS[-1]), ClippedEnergy(plan.energy, CLIPS[-1])
    start, most = ledger.calls, PILOT_SHARE * ledger.left

    def draw(number: int) -> Round:
        sampled, decision = _tried(plan, energy, verifier, number, PILOT_ROUND, "verify/")
        return plan.energy_in_float32(sampled.z).double().neg().exp().cpu().numpy(), decision.kept

    def spent() -> float:
        return (ledger.calls + PILOT_ROUND - start) / most  # another round must fit

    return estimate_clips(
        draw, plan.verifier.labelled, plan.verifier.kept_per_satisfying, partial(report, "pilot"), spent
    )


def _clip_within(attempts: int, clips: Sequence[Clip], verifier: Verifier) -> Clip:
    """The clip of a run; an error if it needs more than `attempts` pictures for one that is kept."""
    clip = choose_clip(clips, attempts / (WAITING if verifier.is_network else WAITING_FOR_CODE))
    if clip.calls is None and attempts > clip.samples:
        return clips[-1]
    if clip.calls is None or clip.calls > attempts:
        digits = 0 if clip.calls is None or clip.calls >= 10 else 1
        number = f"over {clip.samples:,}" if clip.calls is None else f"about {clip.calls:,.{digits}f}"
        raise too_few_accepted(f"{number} pictures would be drawn for one that is kept", attempts)
    return clip


def too_few_accepted(what: str, attempts: int) -> RefusedError:
    """Return the error for a query of which too few pictures are accepted; `what` says how few."""
    return RefusedError(
        f"{what}, and attempts is {attempts:,}",
        hint=f"raise {either('attempts', '--attempts')}, label more pictures that satisfy the query, or draw without: "
        + either('verify="off"', "--verify off"),
    )


def _by_rejection(plan: Plan, verifier: Verifier, ledger: Ledger, report: Report) -> tuple[Source, float]:
    """The source of the samples at the start of a faithful run, which come from the prior, and their number."""
    source = Source(None, verifier.for_draws(0.0), _NO_TRIAL)
    if needs_no_pilot(verifier.labelled):
        return source, 0
    if ledger.budget < 2 * PILOT_ROUND:  # it does not suffice to learn anything better
        return source, math.inf
    forecast: Forecast | None = None
    if not plan.model.bank.reads_pictures:
        forecast = forecast_of(prior_energies(plan).neg().exp().numpy())

    def draw(number: int) -> npt.NDArray[np.bool_]:
        assert source.verifier is not None
        return _tried(plan, None, source.verifier, number, REJECTION_ROUND, "verify/rejection/")[1].kept

    attempts = plan.settings.attempts
    trial = try_rejection(draw, trial_size(forecast, attempts), partial(report, "trial"))
    return source._replace(clip=trial), count_from_prior(trial, forecast, attempts, ledger.budget)


def _tried(
    plan: Plan, energy: EnergyLike | None, verifier: Verifier, number: int, size: int, purpose: str
) -> tuple[SampleResult, Decision]:
    """Draw a round of a pilot run, and return its samples with the decision of the verifier on their pictures.

    `number` is that of the round, `size` its number of samples, `purpose` the start of the names of random streams.
    """
    numbers = range(number * size, (number + 1) * size)
    sampled = propose(plan, energy, numbers, quiet, purpose, seed=0)
    decisions = [verifier(images) for images in render_drafts(plan, sampled.z, torch.tensor(numbers))]
    return sampled, Decision.join(decisions)


def _shares(plans: Sequence[Plan], ledger: Ledger, report: Report) -> Shares:
    """P(prompt | query) for each prompt, by a pilot run that is the same for all seeds."""
    estimates = []
    for number, part in enumerate(plans):
        estimates.append(_mass(part, ledger))
        report("pilot", (number + 1) / len(plans))
    mass, error = np.array(estimates).T
    if not mass.sum():
        problem = "a pilot run met no picture that satisfies the query under any of the prompts"
        raise UnreachableError(problem, hint="give prompts whose pictures may satisfy it")
    share, variance = mass / mass.sum(), (error / mass.sum()) ** 2
    others = variance.sum() - variance
    return Shares(share, np.sqrt((1 - share) ** 2 * variance + share**2 * others))


def _mass(part: Plan, ledger: Ledger) -> tuple[float, float]:
    """Share of the pictures of one prompt that satisfy the query and that the verifier accepts, and its error."""
    reads, verifier = part.model.bank.reads_pictures, None if part.verifier is None else part.verifier.for_draws()
    energies = prior_energies(part)
    share, error = prevalence(energies)
    rare = error * math.sqrt(ENOUGH) > share
    count = 1 if not rare else PICTURE_SAMPLES if reads else SAMPLES  # one shows whether any sample can be drawn
    try:
        few = propose(part, part.energy, range(count), quiet, seed=0)
        # A sampler of another strength does not draw from the posterior whose share is asked for.
        if rare and not strengths(describe_sampler(part.sampler)) - {1.0}:
            by_sampler = prevalence(energies, few)
            share, error = min((share, error), by_sampler, key=lambda each: each[1] / each[0] if each[0] else math.inf)
        if verifier is None or not share:
            return share, error
        sampled = propose(part, part.energy, range(PILOT_ROUND), quiet, "verify/", seed=0)
    except UnreachableError:
        if ledger.ended:  # the budget, not the model, left it out of reach
            raise
        return 0.0, 0.0
    pictures = render(part, sampled.z, np.arange(PILOT_ROUND))
    rate = float(np.mean(np.concatenate([verifier(images).kept for _, images in pictures])))
    return rate * share, float(np.hypot(rate * error, share * np.sqrt(rate * (1 - rate) / PILOT_ROUND)))


def prevalence(energies: Tensor, sampled: SampleResult | None = None) -> tuple[float, float]:
    """Estimate P(query) under the prior, in [0, 1], and its standard error.

    Args:
        energies: energies of latents from the prior, in nats, (n,).
        sampled: samples for the query at strength 1, whose proposals give the estimate if fewer than about 100 of the
            draws from the prior satisfy the query.
    """
    weights = torch.exp(-energies)
    if sampled is None or "mass" not in sampled.diagnostics or effective_samples(-energies) >= ENOUGH:
        return weights.mean().item(), standard_error(weights)
    names = ("exact", "proposals", "mass", "log_weight")
    exact, tried, mass, log_weight = (sampled.diagnostics[name].double() for name in names)
    annealed = log_weight[exact == 0]
    if "stages" in sampled.diagnostics and len(annealed) > 1 and mass.sum() < effective_samples(annealed):
        return annealed.exp().mean().item(), standard_error(annealed.exp())
    share = mass.sum() / tried.sum()  # a ratio of means over samples, which stop when they accept: Wald's identity
    return share.item(), standard_error((mass - share * tried) / tried.mean())


def standard_error(values: Tensor) -> float:
    """Standard error of the mean of independent values, (n,)."""
    return values.std().item() / math.sqrt(len(values))
