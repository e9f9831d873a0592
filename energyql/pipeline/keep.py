"""Verified samples: each is proposed and drawn again until the verifier keeps its picture."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.judge import who_judges
from energyql.energy.picture_energy import PictureEnergy
from energyql.energy.query_energy import QueryEnergy
from energyql.pipeline.calibrate import too_few_accepted
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.plan import Plan, Source
from energyql.pipeline.propose import propose, rows_of
from energyql.pipeline.provenance import Verified
from energyql.pipeline.read import Readings, expected, read, result_of
from energyql.pipeline.render import render
from energyql.pipeline.result import PROBABILITY_UNIT, Result, probability_units
from energyql.pipeline.verifier import Decision, Verifier
from energyql.progress import Report, quiet
from energyql.sampling import SampleResult, Status, summarize

REFUSED = 4
"""A run ends with an error when it has drawn `REFUSED` times `attempts` pictures, and the verifier has accepted none
of them."""
OWN_CHOICE = "the judge decided which pictures are kept"
"""Why a judge gives no verdicts on pictures that it chose."""
_OF_ALL_DRAWS = ("acceptance", "exact", "stages_mean", "log_probability")
"""Statistics of a sampler that the draws that are not kept belong to."""


def keep(plan: Plan, verifier: Verifier, w: Tensor, images: Tensor, *, last: bool) -> tuple[Decision, Readings | None]:
    """Let the verifier decide on a batch of pictures, and read those that are kept: all of the `last` attempt.

    Args:
        plan: the plan.
        verifier: the verifier, with the threshold of the source.
        w: latents of the pictures, (batch, ...).
        images: the pictures in [-1, 1], (batch, channels, height, width).
        last: whether the samples get no further attempt.

    Returns:
        The decision, and what was read off the kept pictures; `None` if none is kept.
    """
    decision = verifier(images)
    good = decision.kept | last
    if not good.any():
        return decision, None
    rows = torch.from_numpy(good).to(images.device)
    values = {name: column[good] for name, column in decision.values.items()}
    return decision, read(plan, w[rows], images[rows], values if plan.model.judge is verifier.reader else None)


def draw_verified(plan: Plan, ledger: Ledger, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
    """Draw each of n samples again and again until the verifier accepts its picture.

    A sample without an accepted picture after `attempts` draws keeps its last picture, and ends with
    `Status.NOT_ACCEPTED`.

    Args:
        plan: a calibrated plan with a verifier.
        ledger: the ledger of the run.
        first: number of the first sample in the run.
        n: number of samples.
        report: called with "accepted" and the fraction of the samples that are finished.

    Returns:
        The samples with their pictures; and their latents, each with the evaluations of all its draws together.

    Raises:
        RefusedError: many pictures were drawn in the run, and none was accepted.
    """
    assert plan.calibration is not None
    most, source = plan.settings.attempts, plan.calibration.source_of(first)
    assert source.verifier is not None
    by_heads = isinstance(plan.energy_in_float32, QueryEnergy)
    waiting, accepted, stated, draws = np.arange(n), 0, False, np.zeros(n, np.int64)
    ends, readings, order = list[SampleResult](), list[Readings](), list[np.int64]()
    seconds, counts = dict.fromkeys(("seconds_sampling", "seconds_drawing"), 0.0), torch.zeros(2, n).long()
    unkept = 0  # sum of P(query) by the heads over the pictures that are not kept, see `probability_units`
    for attempt in range(most):
        started, last = time.perf_counter(), attempt == most - 1
        numbers = range(first, first + n) if len(waiting) == n else (first + waiting).tolist()
        sampled = propose(plan, source.energy, numbers, quiet, f"attempt/{attempt}/" if attempt else "")
        middle, decisions = time.perf_counter(), list[npt.NDArray[np.bool_]]()
        for w, images in render(plan, sampled.z, first + waiting):
            decision, kept = keep(plan, source.verifier, w, images, last=last)
            decisions.append(decision.kept)
            stated = stated or decision.probabilities is None
            readings += [] if kept is None else [kept]
        passed = np.concatenate(decisions)
        good = passed | last
        sampled.status[torch.from_numpy(good & ~passed)] = Status.NOT_ACCEPTED
        accepted += int(passed.sum())
        seconds["seconds_sampling"] += middle - started
        seconds["seconds_drawing"] += time.perf_counter() - middle
        counts[:, waiting] += torch.stack([sampled.evaluations, sampled.gradients])
        if by_heads and not good.all():
            others = sampled.z[torch.from_numpy(~good).to(sampled.z.device)]
            unkept += probability_units(expected(plan, others, first + waiting[~good]))
        ends.append(rows_of(sampled, torch.from_numpy(good)))
        order.extend(waiting[good])
        draws[waiting] += 1
        waiting = waiting[~good]
        report("accepted", len(order) / n)
        ledger.drawn, ledger.kept = ledger.drawn + len(good), ledger.kept + int(passed.sum())
        if not ledger.kept and ledger.drawn >= REFUSED * most:
            raise too_few_accepted(f"none of {ledger.drawn:,} pictures was accepted", most)
        if not len(waiting):
            break
    end, back = SampleResult.join(ends), torch.from_numpy(np.argsort(order))
    chosen = not stated and plan.model.judge is source.verifier.reader
    result = result_of(plan, end, first + np.asarray(order), readings, why_not=OWN_CHOICE if chosen else "")
    result = replace(result[back.numpy()], draws=draws)
    drawn = float(draws.sum())
    end = replace(rows_of(end, back), evaluations=counts[0], gradients=counts[1])
    if (weights := end.diagnostics.get("log_weight")) is not None:
        weights[end.status == Status.NOT_ACCEPTED] = -math.inf  # no samples of the posterior
    result.statistics.update(costs(plan, end) | seconds | {"drawn": drawn, "accepted": float(accepted)})
    if plan.rule.is_probability and by_heads:
        kept_units = probability_units(np.exp(-result.energy))
        result.statistics["drawn_probability"] = (unkept + kept_units) / PROBABILITY_UNIT / drawn
    result.provenance["verified"] = _verified_by(plan, source, source.verifier, stated)
    return result, end


def costs(plan: Plan, sampled: SampleResult) -> dict[str, float]:
    """Return numbers, by name, that say what samples cost: those of `energyql.sampling.summarize`.

    If each evaluation draws a picture, "generator_calls_mean" is added. Of verified samples, numbers are left out that
    would need the draws that were not kept.
    """
    numbers = summarize(sampled)
    if plan.settings.verify != "off":
        numbers = {name: value for name, value in numbers.items() if name not in _OF_ALL_DRAWS}
    if isinstance(plan.energy, PictureEnergy):
        numbers["generator_calls_mean"] = numbers["evaluations_mean"] + numbers["gradients_mean"]
    return numbers


def _verified_by(plan: Plan, source: Source, verifier: Verifier, stated: bool) -> Verified:
    """Who decided which pictures are kept, and how; `stated` says that the verifier returned values of attributes."""
    own = plan.model.judge is verifier.reader and not stated
    entry: Verified = {"by": str(who_judges(verifier.reader)) if own else verifier.name, "stated": stated}
    if not stated:
        entry["threshold"] = asdict(verifier.threshold)
    if source.clip is not None:
        entry["clip"] = asdict(source.clip)
    return entry
