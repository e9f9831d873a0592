"""A run of a plan: from the numbers of its samples to results, until an end is reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from energyql.energy.picture_energy import PictureEnergy
from energyql.errors import ArgumentError, NoPicturesError, either
from energyql.generators.base import check_single_condition
from energyql.pipeline.calibrate import calibrate
from energyql.pipeline.checks import cannot_count, next_round, satisfying_positions, why_unjudged
from energyql.pipeline.keep import OWN_CHOICE, costs, draw_verified
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.plan import Plan, metered
from energyql.pipeline.propose import propose
from energyql.pipeline.provenance import Provenance, of_samples
from energyql.pipeline.read import show
from energyql.pipeline.render import STREAM_BATCH
from energyql.pipeline.result import Result, join_statistics
from energyql.pipeline.settings import MOST_SAMPLES, whole_number
from energyql.progress import Report, quiet, reporting
from energyql.sampling import SampleResult

LATENT_BATCH = 4096
"""Number of latents that are sampled together, unless the setting `batch_size` is a number."""
VERIFIED_BATCH = 1024
"""Number of verified samples that are drawn together, unless the setting `batch_size` is a number."""


@dataclass(frozen=True)
class Count:
    """The end of a run after n samples.

    Attributes:
        n: number of samples, from 1.
        batch: number of samples in each result; `None` for one result.
        opening: number of samples in the first result, if smaller than a batch; the second one then has the rest of the
            first batch.
    """

    n: int
    batch: int | None = None
    opening: int | None = None


@dataclass(frozen=True)
class Budget:
    """The end of a run after n samples, or before the calls of the generator would exceed `calls`, at least n."""

    n: int
    calls: int


@dataclass(frozen=True)
class Satisfied:
    """The end of a run when n samples satisfy the query by the judge, or before its calls exceed a limit.

    Attributes:
        n: number of samples that are to satisfy the query.
        calls: most calls of the generator, at least n; by default those of 10 n samples.
    """

    n: int
    calls: int | None = None


End = Count | Budget | Satisfied


def run(plan: Plan, end: End, *, first: int = 0, progress: bool | Report = True) -> Iterator[Result]:
    """Draw the samples of a plan until an end; wrong arguments raise an error at the call.

    Args:
        plan: the plan; if it is calibrated, no pilot run is made.
        end: when the run ends.
        first: number of the first sample in the run. The seed and the number of a sample decide on it.
        progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.

    Returns:
        An iterator over results; with `Budget` and `Satisfied` there is one. If the calls end first, it has only the
        complete samples, or those that satisfy the query.

    Raises:
        ArgumentError: a number is out of range; or there is a budget, although each sample takes exactly one call.
        ModelError: the model has no judge, or its judge does not read an attribute of the query (`Satisfied`).
        NoPicturesError: too few pictures are accepted, the query cannot be reached, or the budget ended before a sample
            was complete.
    """
    in_batches = isinstance(end, Count) and end.batch is not None
    n = whole_number("n", end.n, most=2**62 if in_batches else MOST_SAMPLES)
    first = whole_number("first", first, least=0, most=2**62)
    if isinstance(end, Count):
        for name, size in (("batch", end.batch), ("opening", end.opening)):
            if size is not None:
                whole_number(name, size)
        return _in_batches(plan, replace(end, n=n), first, progress)
    if end.calls is not None:
        try:
            whole_number("budget", end.calls, least=n, most=2**62)
        except ArgumentError as error:
            raise ArgumentError(error.message, hint=f"each of {n:,} samples takes at least one call") from None
    if isinstance(end, Satisfied):
        check_judged(plan)
        return _within(plan, n, first, end.calls, progress, satisfying_positions)
    if not plan.draws_more:
        message = "a budget is for samples that take several calls of the generator; here each takes one, its picture"
        option = either("until_satisfied", "--only-satisfied")
        hint = f"leave it out; or draw until the judge accepts n pictures: {option}"
        raise ArgumentError(message, hint=hint)
    return _within(plan, n, first, end.calls, progress, lambda result, most: np.arange(len(result)))


def draw(plan: Plan, n: int, *, first: int = 0, budget: int | None = None, progress: bool | Report = True) -> Result:
    """Draw n samples of a plan, or those that a budget of calls of the generator suffices for, as one result.

    The arguments are those of `run`, which raises the errors.
    """
    return _only(run(plan, Count(n) if budget is None else Budget(n, budget), first=first, progress=progress))


def draw_until_satisfied(plan: Plan, n: int, *, budget: int | None = None, progress: bool | Report = True) -> Result:
    """Draw until n samples satisfy the query by the judge, or the budget ends, and return the samples that do.

    The arguments are those of `run`, which raises the errors.
    """
    return _only(run(plan, Satisfied(n, budget), progress=progress))


def draw_numbers(plan: Plan, numbers: Sequence[int], report: Report) -> Result:
    """Draw single samples of a run, by their numbers from 0, as one result; `draw` gives the same samples."""
    ledger = Ledger()
    plan, parts = calibrate(metered(plan, ledger), ledger, report, max(numbers) + 1), list[Result]()
    for number, (_, _, share) in zip(numbers, _batches(len(numbers), 1, report), strict=True):
        parts.append(_part(plan, ledger, number, 1, share)[0])
    return Result.join(parts)


def stream_batches(
    plan: Plan, n: int, *, first: int = 0, opening: int | None = None, progress: bool | Report = True
) -> Iterator[Result]:
    """Return an iterator over results of 64 samples each, or of `batch_size` of the settings if that is more."""
    size = max(STREAM_BATCH, plan.settings.batch_size or 0)
    return run(plan, Count(n, size, opening), first=first, progress=progress)


def run_latents(plan: Plan, n: int, *, first: int = 0, progress: bool | Report = True) -> Iterator[SampleResult]:
    """Return an iterator over batches of sampled latents, without pictures; wrong arguments fail at the call.

    A batch has `batch_size` samples of the settings, by default 4096. The arguments are those of `run`.
    """
    n, first = whole_number("n", n, most=2**62), whole_number("first", first, least=0, most=2**62)
    check_single_condition(plan.provenance["condition"])  # a latent alone does not say which prompt is its own

    def latents() -> Iterator[SampleResult]:
        ledger = Ledger()
        with reporting(progress) as report:
            yield from _latents(calibrate(metered(plan, ledger), ledger, report, first + n), ledger, first, n, report)

    return latents()


def check_judged(plan: Plan) -> None:
    """Check that the model's judge can decide whether a picture satisfies the query.

    Raises:
        ModelError: the model has no judge, or its judge does not read an attribute of the query.
    """
    judge, verifier = plan.model.judge, plan.verifier
    if verifier is not None and verifier.is_network and verifier.reader is judge:
        raise cannot_count(OWN_CHOICE)
    if reason := why_unjudged(plan.expr, None if judge is None else plan.model.judged_names):
        raise cannot_count(reason)


def _only(results: Iterator[Result]) -> Result:
    (result,) = results
    return result


def _in_batches(plan: Plan, end: Count, first: int, progress: bool | Report) -> Iterator[Result]:
    ledger, n = Ledger(), end.n
    with reporting(progress) as report:
        plan = calibrate(metered(plan, ledger), ledger, report, first + n)
        cut = 0 if end.batch is None else _cut(plan, first)
        for done, count, share in _batches(n, end.batch or n, report, end.opening, cut):
            yield _part(plan, ledger, first + done, count, share)[0]


def _within(
    plan: Plan, n: int, first: int, budget: int | None, progress: bool | Report,
    choose: Callable[[Result, int], npt.NDArray[np.int64]],
) -> Iterator[Result]:  # fmt: skip
    """Draw until n samples are chosen, or the budget ends, and yield one result of them.

    A batch is so small that the budget suffices even if each sample takes as many calls as the dearest one so far.
    """
    ledger = Ledger() if budget is None else Ledger(budget)
    results, runs, statistics = list[Result](), list[SampleResult](), list[dict[str, float]]()
    hits = trials = 0
    dearest, most = 1, 10 * n if budget is None else budget
    with reporting(progress) as report:
        plan = calibrate(metered(plan, ledger), ledger, report, 0)
        while hits < n and trials < most:
            count = min(most - trials, next_round(n, hits, trials))
            if budget is not None and plan.draws_more:
                count = min(count, max(1, trials), max(1, int(ledger.left) // dearest))
            try:
                if (before := _cut(plan, first + trials)) > 0:  # so that no pilot run comes before them
                    count = int(min(count, before))
                plan = calibrate(plan, ledger, report, first + trials + count)
                result, sampled = _part(plan, ledger, first + trials, count, quiet)
            except NoPicturesError:
                if not trials or not ledger.ended:
                    raise
                break
            good = choose(result, n - hits)
            results.append(result[good])
            runs.append(sampled)
            statistics.append(result.statistics)
            hits, trials = hits + len(good), trials + count
            dearest = max(dearest, int(_calls_of(plan, result, sampled).max()))
            report("satisfied", hits / n)
            report("budget", trials / most if budget is None else ledger.calls / budget)
    joined = Result.join(results)
    share = float(joined.doubtful.mean()) if hits else 0.0
    joined.statistics.update({"drawn": float(trials)} | join_statistics(statistics, [len(each.z) for each in runs]))
    joined.statistics.update(doubtful=share, returned=float(hits))
    joined.statistics.update(costs(plan, SampleResult.join(runs)))
    if plan.draws_more:
        joined.statistics["generator_calls"] = float(ledger.calls)
    facts: Provenance = {"wanted": n}
    if budget is not None:
        facts["budget"] = budget
    if first:  # tells two runs of one seed apart
        facts["first"] = first
    yield replace(joined, provenance=of_samples(joined.provenance, hits) | facts)


def _part(plan: Plan, ledger: Ledger, first: int, n: int, report: Report) -> tuple[Result, SampleResult]:
    """Draw n samples of a run with a calibrated plan: the result, and how the sampler ended."""
    if plan.settings.verify != "off":
        size = plan.settings.batch_size or VERIFIED_BATCH
        batches = _batches(n, size, report, cut=_cut(plan, first))
        parts = [draw_verified(plan, ledger, first + done, count, share) for done, count, share in batches]
        result, sampled = Result.join(result for result, _ in parts), SampleResult.join([end for _, end in parts])
        result.statistics.update(costs(plan, sampled) | {"generator_calls": float(ledger.untold())})
        return result, sampled
    started = time.perf_counter()
    sampled = SampleResult.join(list(_latents(plan, ledger, first, n, report)))
    middle = time.perf_counter()
    result = show(plan, sampled, np.arange(first, first + n), report)
    seconds = {"seconds_sampling": middle - started, "seconds_drawing": time.perf_counter() - middle}
    result.statistics.update(costs(plan, sampled) | seconds)
    if plan.draws_more:
        result.statistics["generator_calls"] = float(ledger.untold())
    return result, sampled


def _latents(plan: Plan, ledger: Ledger, first: int, n: int, report: Report) -> Iterator[SampleResult]:
    assert plan.calibration is not None
    size = plan.settings.batch_size or LATENT_BATCH
    for done, count, share in _batches(n, size, report, cut=_cut(plan, first)):
        if plan.settings.verify == "off":
            numbers, fraction = range(first + done, first + done + count), partial(_sampling, share)
            yield propose(plan, plan.calibration.source.energy, numbers, fraction)
        else:
            yield draw_verified(plan, ledger, first + done, count, share)[1]
    report("sampling", 1.0)


def _sampling(report: Report, fraction: float, _: int) -> None:
    report("sampling", fraction)


def _calls_of(plan: Plan, result: Result, sampled: SampleResult) -> npt.NDArray[np.int64]:
    """Calls of the generator for each sample of a batch, its pictures included, (n,)."""
    pictures = np.ones(len(sampled.z), np.int64) if result.draws is None else result.draws
    costly = isinstance(plan.energy, PictureEnergy)
    return pictures + (sampled.evaluations + sampled.gradients).numpy() if costly else pictures


def _cut(plan: Plan, first: int) -> float:
    """How many samples from number `first` on are drawn from the prior; they are in other batches than those after."""
    assert plan.calibration is not None
    return plan.calibration.count_from_prior - first


def _batches(
    n: int, size: int, report: Report, opening: int | None = None, cut: float = 0
) -> Iterator[tuple[int, int, Report]]:
    """Split n samples into batches: the number of samples before, the size, and a function to report progress.

    `opening` is the size of the first batch, if smaller; no batch crosses the `cut`.
    """
    done = 0
    while done < n:
        count = min(n - done, size - done % size, opening if opening and not done else size)
        count = int(min(count, cut - done)) if done < cut else count

        def share(stage: str, fraction: float, done: int = done, count: int = count) -> None:
            report(stage, (done + fraction * count) / n)

        yield done, count, share
        done += count
