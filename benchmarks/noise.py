"""Samplers for costly evaluations beside best-of-N, rejection and prompts: `python -m benchmarks.noise --help`.

An evaluation is a call of the generator. One network, the guide, reads pictures and leads the samplers; another one,
the judge, counts. The exact samples of a formula are random pictures that satisfy it by the judge. There are four
parts: formulas in bands of prevalence, formulas with NOT, XOR and AT LEAST, laws of logic, and the time of a query.
"""

from __future__ import annotations

import math
import random
import resource
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import numpy as np
import torch
import typer
from rich.console import RenderableType
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import (
    SmokeOption,
    ThreadsOption,
    effective_number,
    page,
    read_take,
    run_command,
    show,
    split_names,
    table,
)
from benchmarks.formulas import TRIES, RandomFormulas, all_relations, random_formulas, rare_formulas
from benchmarks.tax import measure as measure_tax
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import Prediction, of_columns, output_count
from energyql.attributes.quality import REPORT
from energyql.cli.options import read_pairs
from energyql.cli.share import read_value
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import machine
from energyql.evaluation.metrics import AttributeBins, frequency_error
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import COLOURS
from energyql.files import json_digest, read_json, write_json, write_picture, write_text
from energyql.generators.base import Generator, is_differentiable
from energyql.generators.diffusers import PipelineGenerator, is_pipeline
from energyql.generators.load import load_generator
from energyql.kinds import KINDS
from energyql.language import And, Cardinality, Expr, Not, Or, Predicate, Xor, bind, parse, predicates
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.calibrate import calibrate
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.model import Model, Values, load_model
from energyql.pipeline.plan import Plan, metered
from energyql.pipeline.run import draw as run_draw
from energyql.pipeline.run import run_latents
from energyql.pipeline.settings import DEFAULT_SAMPLER, GRADIENT_FREE, SamplerName, Verify
from energyql.progress import Report, reporting
from energyql.render.charts import Axes, Canvas
from energyql.render.pictures import INK
from energyql.sampling import MOVING, SampleResult, Status, StepInfo, StepNoise, StepSampler, normals
from energyql.sampling.base import StepEnergy
from energyql.training.heads import HeadSettings
from energyql.training.run import train_attributes

if TYPE_CHECKING:
    from benchmarks.noise_flow import LogDiff

BANDS = ((0.05, 0.6), (0.01, 0.05), (0.001, 0.01))
"""Limits of the prevalence by the judge, common ones first."""
FORMULA_SEED = 2026
BEST_OF = (1, 4, 16, 64)
OURS, GRADIENTS, REJECTION = "ours", "ours by gradients", "rejection"
SURE, FAITHFUL = HEADED = ("sure by heads", "faithful by heads")
"""Our verified sampling: heads, which learned from what the guide reads, propose, and the guide decides."""
WORDS, NEGATIVE, RENO, LOGDIFF = "words", "negative prompt", "ReNO", "LogDiff"
REFERENCES = (OURS, FAITHFUL, SURE)
"""Methods whose calls others may use; the first that was measured."""
AT_EQUAL_CALLS = " at equal calls"
METHODS = (
    OURS, GRADIENTS, *HEADED, *(f"best of {count}" for count in BEST_OF), REJECTION, WORDS, WORDS + AT_EQUAL_CALLS,
    NEGATIVE, NEGATIVE + AT_EQUAL_CALLS, RENO, LOGDIFF,
)  # fmt: skip
BARS, PROMPTS, LAWS, TIME = PARTS = ("bars", "prompts", "laws", "time")
GROUPS = (*(f"{least:.1%} to {most:.1%}" for least, most in BANDS), "NOT, XOR, AT LEAST")
"""Groups of formulas in the table: the bands, and the formulas of the part `prompts`."""
PROMPT_FORMULAS, PROMPT_LIMITS = 20, (0.01, 0.6)
"""Number of formulas of the part `prompts`, and limits of their prevalence by the judge."""
MOST_CALLS, LEAST_SATISFIED, MOST_ERROR, LEAST_RATIO = 64, (0.97, 0.95, 0.9), (0.03, 0.05, 0.08), 3.0
"""Bars: calls a sample; for each band, share satisfied by the judge and error above the floor; and in the rarest band
effective samples as a multiple of those of rejection at equal calls."""
MOST_TIMES, TIMED, TIMED_SHARE = 3.0, 16, (0.08, 0.12)
"""Bar: time of a query as a multiple of that of as many plain pictures; their number; and prevalence of the query."""
SHARES = 256
"""Random pictures by which the guide tells LogDiff how common each class is."""
NEGATIVE_SCALE = 2.0
"""Guidance of the call with a negative prompt, where the call has none: without it a negative prompt does nothing."""
SHARD = 100
"""Pictures of the pool in one file; an interruption loses at most so many."""
NOTE = (
    "P: share of random pictures that satisfy the formula by the judge. Guide, judge: share of the samples that "
    "satisfy it, by each. Error: largest difference of the frequency of a value, by the judge, among samples and among "
    "exact samples; above: what is more than the mean for as many exact samples. Effective: number of exact samples "
    "whose frequencies would have the same mean squared error. Calls: of the generator, a sample, those of pilots "
    "included; a gradient counts as two, and a picture with a negative prompt as two. Best of N: the picture that the "
    "guide likes most of N. Rejection: what the guide accepts of at most as many random pictures as ours drew in all "
    f"(the first of {', '.join(REFERENCES)} that was measured). "
    "At equal calls: what the guide likes most of as many pictures with the prompt as ours drew for a sample, at most "
    "64. LogDiff: an evaluation of its transformer with one prompt counts as its share of the evaluations of a picture "
    "of the generator. Heads: the pictures from which they learned are calls too, shared by all formulas."
)


class Reading(NamedTuple):
    """What both networks read off n pictures.

    Attributes:
        values: attribute -> the judge's values, (n,).
        energies: energy of each formula by the guide, in nats, (n, formulas).
    """

    values: Values
    energies: np.ndarray[Any, Any]


@dataclass(frozen=True)
class ReNO(StepSampler):
    """Gradient steps on the noise as published (Eyring et al., NeurIPS 2024, arXiv 2406.04312), for one reward.

    The settings are those of the authors' program (github.com/ExplainableML/ReNO, `arguments.py`, `training/`): SGD
    with Nesterov's momentum of 0.9 and a rate of 5 (10 for HyperSDXL), 50 evaluations from one draw of the noise; the
    loss has 0.01 (|z|² / 2 - (d - 1) log |z|) added, which is least at the likeliest length of d numbers; its gradient
    is shortened to at most 0.1. The result is the latent of the best reward, without that term, of the 50; the last one
    needs no gradient. The reward is log P(query) by the guide, in place of four models of preference. Their noise has
    16,384 numbers, and is eight times as long as one of 256: steps are relatively longer in a small generator.
    """

    name = "reno"
    descends = True
    steps: int = 50
    rate: float = 5.0
    clip: float = 0.1
    momentum: float = 0.9
    regular: float = 0.01

    def init(self, z: Tensor, energy: StepEnergy) -> tuple[Any, StepInfo]:
        """Return the state at the start."""
        return ReNOState(z, torch.zeros_like(z), z, torch.full_like(z[:, 0], math.inf)), StepInfo()

    def advance(self, state: Any, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Any, StepInfo]:
        """Take one step, except in the last evaluation."""
        last = number == self.steps - 1
        energies, gradient = (energy(state.at), torch.zeros_like(state.at)) if last else energy.gradient(state.at)
        better = energies < state.least
        best, least = torch.where(better[:, None], state.at, state.z), torch.where(better, energies, state.least)
        length = state.at.norm(dim=1, keepdim=True)
        gradient = gradient + self.regular * (length - (state.at.shape[1] - 1) / length) * state.at / length
        gradient = normalize(gradient) * gradient.norm(dim=1, keepdim=True).clamp(max=self.clip)
        speed = self.momentum * state.speed + gradient
        at = state.at - self.rate * (gradient + self.momentum * speed)
        status = torch.where(energies.isfinite(), MOVING, Status.NON_FINITE)
        return ReNOState(best, speed, at, least), StepInfo(status)


class ReNOState(NamedTuple):
    """Latents of the lowest energy so far, momentum, present latents, and the lowest energy."""

    z: Tensor
    speed: Tensor
    at: Tensor
    least: Tensor


class Subject:
    """A model that is measured: generator, guide and judge.

    Attributes:
        prepared: the queries, by the sampler without gradients.
        logdiff: the rule on a flow of many steps; `None` without one.
        headed: the same model with heads that propose, and the guide as verifier; `None` without heads.
        labels: number of pictures from which the heads learned.
    """

    def __init__(
        self, model: Model, queries: Sequence[str | Expr] = (), sampler: SamplerName = GRADIENT_FREE,
        logdiff: LogDiff | None = None,
    ) -> None:  # fmt: skip
        if not model.bank.reads_pictures:
            raise ArgumentError("the model has heads that read latents", hint="give a network with --guide")
        self.model, self.evaluated, self.logdiff = model, EvaluatedModel(model), logdiff
        self.headed: Model | None = None
        self.labels = 0
        self.prepared = [self.evaluated.plan(query, sampler=sampler) for query in queries]

    def outputs(self, images: Tensor) -> Tensor:
        """Return the predictions of the guide for pictures, side by side, (n, columns)."""
        with torch.inference_mode():
            predictions = [self.model.bank.predict(one) for one in images.split(1)]
        return torch.cat([torch.cat([part.columns() for part in each.values()], 1) for each in predictions])

    def predictions(self, outputs: Tensor) -> dict[str, Prediction]:
        """Return the predictions of which `outputs` returned the columns."""
        specs = self.model.vocabulary.values()
        sizes = [output_count(spec) + KINDS[spec.kind].numeric for spec in specs]
        return {spec.name: of_columns(part, spec) for spec, part in zip(specs, outputs.split(sizes, 1), strict=True)}

    def energies(self, outputs: Tensor) -> np.ndarray[Any, Any]:
        """Return the energy of each formula, (n, formulas), from `outputs`."""
        predictions = self.predictions(outputs)
        rows = [-query.rule.log_value(predictions).double() for query in self.prepared]
        return torch.stack(rows, 1).numpy() if rows else np.zeros((len(outputs), 0))

    def read_pictures(self, batches: Iterable[Tensor], count: int, report: Report) -> Reading:
        """Return what both networks read off batches of `count` pictures in all."""
        values, outputs, done = list[Values](), list[Tensor](), 0
        for images in batches:
            values.append(self.model.judge_images(images))
            outputs.append(self.outputs(images))
            done += len(images)
            report("reading", done / count)
        joined = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
        return Reading(joined, self.energies(torch.cat(outputs)))

    def read(self, z: Tensor, report: Report) -> Reading:
        """Draw the pictures of latents, and return what both networks read off them."""
        return self.read_pictures((images for _, images in self.evaluated.draw(z)), len(z), report)

    def pool(self, count: int, folder: Path, report: Report) -> tuple[Reading, Tensor]:
        """Return the readings of random pictures, for best-of-N and rejection, and `outputs` for them.

        They are kept in files, which do not depend on the formulas.
        """
        values, outputs = list[Values](), list[Tensor]()
        for start in range(0, count, SHARD):
            path = folder / f"pool-{self.evaluated.identity[:16]}" / f"{start:07d}.npz"
            if (stored := JudgedSamples.load(path)) is None:
                drawn = normals(0, start, SHARD, self.evaluated.z_dim, stream="bench/pool")
                images = torch.cat([images for _, images in self.evaluated.draw(drawn)])
                values.append(self.model.judge_images(images))
                outputs.append(self.outputs(images))
                nothing = torch.zeros(SHARD, 0)
                JudgedSamples(nothing, nothing, values[-1], None).save(path, outputs=outputs[-1].numpy())
            else:
                values.append(stored[0].values)
                outputs.append(torch.from_numpy(stored[1]["outputs"]))
            report("pool", min(1.0, (start + SHARD) / count))
        joined = {name: np.concatenate([part[name] for part in values])[:count] for name in values[0]}
        whole = torch.cat(outputs)[:count]
        return Reading(joined, self.energies(whole)), whole


def _quiet(*_: object) -> None:
    """Report no progress."""


def prevalence_of(subject: Subject, prior: JudgedSamples) -> Callable[[Expr], float]:
    """Return the function from a formula to the share of random pictures that satisfy it and all relations."""
    vocabulary = subject.model.vocabulary
    possible = np.broadcast_to(satisfied(all_relations(vocabulary), prior.values, vocabulary), (len(prior),))
    return lambda formula: float((satisfied(formula, prior.values, vocabulary) & possible).mean())


def choose_formulas(subject: Subject, prior: JudgedSamples, each: int, seed: int) -> list[tuple[int, Expr]]:
    """Return for each formula its band, and the formula: `each` of a band; half of the rarest are conjunctions."""
    vocabulary, prevalence = subject.model.vocabulary, prevalence_of(subject, prior)
    chosen = list[tuple[int, Expr]]()
    for band, (least, most) in enumerate(BANDS):
        rare = each // 2 if band == len(BANDS) - 1 else 0
        formulas = random_formulas(vocabulary, prevalence, each - rare, seed + band, least=least, most=most)
        if rare:
            formulas += rare_formulas(vocabulary, prevalence, rare, seed + band, least=least, most=most)
        chosen += [(band, formula) for formula in formulas]
    return chosen


def prompt_formulas(subject: Subject, prior: JudgedSamples, count: int, seed: int) -> list[tuple[int, Expr]]:
    """Return formulas with NOT, XOR and AT LEAST in turns, on two or three attributes, with the group of them all."""
    vocabulary, prevalence = subject.model.vocabulary, prevalence_of(subject, prior)
    (least, most), chosen = PROMPT_LIMITS, list[tuple[int, Expr]]()
    for number in range(count):
        draw = RandomFormulas(random.Random(f"{seed}/prompts/{number}"), vocabulary)
        for _ in range(TRIES):
            specs = draw.some(draw.specs, min(3, len(draw.specs)))
            plain = [_plain(draw.literal(spec)) for spec in specs]
            kinds = And((plain[0], Not(plain[1]))), Xor(tuple(plain[:2])), Cardinality("AT LEAST", 2, tuple(plain))
            query = bind(kinds[number % 3], vocabulary)
            if least <= prevalence(query) <= most and query not in [each for _, each in chosen]:
                chosen.append((len(BANDS), query))
                break
        else:
            raise EnergyQLError(f"no formula has a prevalence from {least:g} to {most:g} in {TRIES} attempts")
    return chosen


def _plain(literal: Expr) -> Expr:
    """Return a literal without its NOT."""
    return literal.operand if isinstance(literal, Not) else literal


def caption(
    base: str, query: Expr, *, negate: bool, phrase: Callable[..., str], sentence: Callable[[str, list[str]], str]
) -> tuple[str, str]:
    """Return a prompt with the words of a query, and a negative prompt with the words below NOT.

    Args:
        base: the prompt of the subject.
        query: the query.
        negate: whether words below NOT are left out of the prompt, because they are in the negative one.
        phrase: function from a condition, and whether it is `absent`, to its words.
        sentence: function from the prompt of the subject and phrases to a prompt.
    """
    below = {id(node) for part in _nodes(query) if isinstance(part, Not) for node in predicates(part)}
    conditions = [(node, id(node) in below) for node in predicates(query)]
    told = [phrase(node, absent=absent) for node, absent in conditions if not (negate and absent)]
    return sentence(base, told), ", ".join(phrase(node, absent=False) for node, absent in conditions if absent)


def plain_phrase(predicate: Predicate, *, absent: bool) -> str:
    """Return the words of a condition, such as "hair red", or "no hair red"."""
    words = str(predicate).replace("_", " ").replace(" = ", " ")
    return f"no {words}" if absent else words


def plain_sentence(base: str, phrases: list[str]) -> str:
    """Return a prompt with phrases after it, separated by commas."""
    return ", ".join([base, *phrases] if base else phrases)


def _nodes(query: Expr) -> list[Expr]:
    return [query, *(node for child in query.children for node in _nodes(child))]


def prompted(model: Model, query: Expr, *, negate: bool) -> tuple[Model, int]:
    """Return the model with the words of a query in its prompt, and what a picture costs, in calls of the generator.

    Raises:
        ArgumentError: the generator takes no prompt, or no negative prompt.
    """
    generator = model.generator
    if not isinstance(generator, PipelineGenerator) or not isinstance(generator.call.get("prompt"), str):
        raise ArgumentError("the generator takes no prompt")
    phrase = getattr(generator, "phrase", plain_phrase)
    sentence = getattr(generator, "sentence", plain_sentence)
    prompt, negative = caption(generator.call["prompt"], query, negate=negate, phrase=phrase, sentence=sentence)
    call, cost = generator.call | {"prompt": prompt}, 1
    if negate and negative:
        call["negative_prompt"] = negative
        if not generator.description["call"].get("guidance_scale", 0) > 1:
            call["guidance_scale"], cost = NEGATIVE_SCALE, 2
    pipeline = generator._pipeline
    made = type(generator)(pipeline, call) if is_differentiable(generator) else load_generator(pipeline, **call)
    return replace(model, generator=made), cost


def draw(prepared: Plan, n: int, report: Report) -> tuple[SampleResult, dict[str, float]]:
    """Draw n samples, and return them with their calls, a sample: pictures that were drawn, and gradients."""
    ledger = Ledger()
    plan = calibrate(metered(prepared, ledger), ledger)
    sampled = SampleResult.join(list(run_latents(plan, n, progress=report)))
    return sampled, {"calls": ledger.calls / n}


def measure(
    subject: Subject, number: int, method: str, n: int, pool: tuple[Reading, Tensor], calls: float | None,
    report: Report,
) -> tuple[Reading, dict[str, Any]]:  # fmt: skip
    """Return the readings of a method's samples of a formula, and its costs.

    Args:
        subject: the model.
        number: of the formula.
        method: one of `METHODS`.
        n: number of samples.
        pool: readings of random pictures, of which best-of-N and rejection choose, as `Subject.pool` returns them.
        calls: calls of ours for all samples, as many as rejection may use.
        report: called with a stage and the fraction of it that is done.

    Raises:
        EnergyQLError: the method cannot be used, or the query cannot be reached.
    """
    prepared, (random_ones, outputs) = subject.prepared[number], pool
    energies = random_ones.energies[:, number]
    equal = method.endswith(AT_EQUAL_CALLS)
    if calls is None and (equal or method == REJECTION):
        raise ArgumentError("ours was not measured")
    if method.startswith("best of"):
        of = int(method.rpartition(" ")[2])
        rows = np.arange(n) * max(BEST_OF) + energies.reshape(n, -1)[:, :of].argmin(1)
        return _rows(random_ones, rows), {"calls": of}
    if method == REJECTION:
        most = min(len(energies), round(calls or 0))
        rows = (np.random.default_rng(0).random(most) < np.exp(-energies[:most])).nonzero()[0]
        used = most if len(rows) < n else rows[n - 1] + 1
        return _rows(random_ones, rows[:n]), {"calls": float(used / n)}
    if method.startswith((WORDS, NEGATIVE)):
        model, cost = prompted(subject.model, prepared.expr, negate=method.startswith(NEGATIVE))
        of = max(1, min(max(BEST_OF), round((calls or 0) / n / cost))) if equal else 1
        other = Subject(model, [prepared.expr])
        reading = other.read(normals(0, 0, n * of, other.evaluated.z_dim, stream="bench/words"), report)
        reading = _rows(reading, np.arange(n) * of + reading.energies[:, 0].reshape(n, of).argmin(1))
        wide = np.zeros((n, len(subject.prepared)))
        wide[:, number] = reading.energies[:, 0]
        return Reading(reading.values, wide), {"calls": of * cost}
    if method == LOGDIFF:
        if subject.logdiff is None:
            raise ArgumentError("there is no flow of many steps", hint="give its folder with --teacher")
        rule, query, vocabulary = subject.logdiff, prepared.expr, subject.model.vocabulary
        some = outputs[:SHARES]
        pictures = rule.draw(query, vocabulary, subject.predictions(some), n, report)
        cost = rule.calls(query, vocabulary) + len(some) / n
        return subject.read_pictures(pictures.split(SHARD), n, report), {"calls": cost}
    if method in HEADED:
        if subject.headed is None:
            raise ArgumentError("no heads propose", hint="give the number of their labels with --labels")
        mode: Verify = "sure" if method == SURE else "faithful"
        query = EvaluatedModel(subject.headed).plan(prepared.expr, verify=mode)
        result = run_draw(query, n, progress=report)
        calls = (result.statistics["generator_calls"] + subject.labels / len(subject.prepared)) / n
        failures = sum(status is not Status.OK for status in result.status)
        return subject.read(result.z, report), {"calls": calls, "failures": failures}
    if method in (RENO, GRADIENTS):
        if not subject.model.has_gradient:
            raise ArgumentError("the generator computes no gradients", hint="give --differentiate for recipes.flow")
        sampler = ReNO() if method == RENO else DEFAULT_SAMPLER
        prepared = subject.evaluated.plan(prepared.expr, sampler=sampler)
    sampled, costs = draw(prepared, n, report)
    return subject.read(sampled.z, report), costs | {"failures": int((~sampled.ok).sum())}


def _rows(reading: Reading, rows: np.ndarray[Any, Any]) -> Reading:
    return Reading({name: column[rows] for name, column in reading.values.items()}, reading.energies[rows])


def compare(
    subject: Subject, number: int, reading: Reading, prior: JudgedSamples, bins: AttributeBins
) -> dict[str, Any]:
    """Return the columns of the table that compare samples of a formula with exact samples."""
    query, vocabulary = subject.prepared[number].expr, subject.model.vocabulary
    count = len(reading.energies)
    if not count:
        return dict.fromkeys(("guide", "judge", "error", "floor", "above")) | {"samples": 0}
    judge = float(np.broadcast_to(satisfied(query, reading.values, vocabulary), (count,)).mean())
    row = {"samples": count, "guide": float((np.exp(-reading.energies[:, number]) > 0.5).mean()), "judge": judge}
    exact = np.broadcast_to(satisfied(query, prior.values, vocabulary), (len(prior),))
    if not exact.any():  # a formula of a user
        return row | dict.fromkeys(("error", "floor", "above", "bin", "effective"))
    indicators = bins.indicators(prior.values)[exact]
    sampled = bins.indicators(reading.values)
    error, worst, floor = frequency_error(sampled, indicators, np.ones(len(indicators)))
    return row | {
        "error": error, "floor": floor, "above": max(0.0, error - floor), "bin": bins.names[worst],
        "effective": effective_number(indicators, sampled),
    }  # fmt: skip


def run(
    subject: Subject, chosen: Sequence[tuple[int, Expr]], methods: Sequence[str], n: int, prior: JudgedSamples,
    out: Path, settings: dict[str, Any], report: Report, numbers: Iterable[int],
) -> dict[str, Any]:  # fmt: skip
    """Measure methods on the formulas of these numbers, and return the rows of all formulas that any run measured.

    Each formula has a file of its own, written after each method and read to resume, so that several runs can measure
    different formulas at the same time. `results.json` has all of them.
    """
    bins = AttributeBins(subject.model.vocabulary, prior.values)
    pool = subject.pool(n * max(BEST_OF), out, report)
    files = [out / "formulas" / f"{json_digest([settings, str(formula)])[:16]}.json" for _, formula in chosen]
    for number in numbers:
        band, formula = chosen[number]
        rows: dict[str, dict[str, Any]] = read_json(files[number]) if files[number].is_file() else {}
        exact = np.broadcast_to(satisfied(formula, prior.values, subject.model.vocabulary), (len(prior),))
        for method in methods:
            if method in rows:
                continue
            report("formulas", number / len(chosen))
            reference = next((name for name in REFERENCES if "calls" in rows.get(name, {})), None)
            row: dict[str, Any] = {
                "band": band, "formula": str(formula), "method": method, "prevalence": float(exact.mean()),
                "exact": int(exact.sum()), "reference": reference,
            }  # fmt: skip
            ours, started = None if reference is None else rows[reference]["calls"], time.process_time()
            try:
                reading, costs = measure(subject, number, method, n, pool, None if ours is None else n * ours, report)
                row |= costs | compare(subject, number, reading, prior, bins)
            except EnergyQLError as error:
                row["refused"] = error.message
            rows[method] = row | {"seconds": time.process_time() - started}
            write_json(files[number], rows)
    report("formulas", 1.0)
    done = [row for file in files if file.is_file() for row in read_json(file).values()]
    data = {"settings": settings, "machine": machine(), "rows": done}
    write_json(out / "results.json", data)
    return data


def bars(data: dict[str, Any]) -> list[str]:
    """Return a line for each bar: what was measured, on how many formulas, and whether it is met."""
    told = []
    for band, (satisfaction, error) in enumerate(zip(LEAST_SATISFIED, MOST_ERROR, strict=True)):
        for method in (OURS, GRADIENTS, *HEADED):
            rows = [row for row in data["rows"] if row["band"] == band and row["method"] == method]
            good = [row for row in rows if row.get("judge") is not None]
            if not good:
                continue
            judge, above, calls = (_mean(good, name) for name in ("judge", "above", "calls"))
            met = judge >= satisfaction and above <= error and calls <= MOST_CALLS and len(good) == len(rows)
            line = (
                f"{GROUPS[band]}, {method}, {len(good)} of {len(rows)} formulas: {judge:.1%} satisfied (bar "
                f"{satisfaction:.0%}), error {above:.3f} above the floor ({error}), {calls:.1f} calls ({MOST_CALLS})"
            )
            told.append(f"- {line}: {'met' if met else 'not met'}")
    last = len(BANDS) - 1
    rejected = [row for row in data["rows"] if row["band"] == last and row["method"] == REJECTION]
    for reference in REFERENCES:
        others = {row["formula"]: row for row in rejected if row.get("reference") == reference}
        rows = [row for row in data["rows"] if row["method"] == reference and row["formula"] in others]
        if rows:
            ours, other = (sum(row.get("effective") or 0.0 for row in some) for some in (rows, others.values()))
            met = "met" if ours >= LEAST_RATIO * other else "not met"
            line = f"{GROUPS[last]}: {ours:.0f} effective samples {reference}, rejection at as many calls {other:.0f}"
            told.append(f"- {line} (bar {LEAST_RATIO:g} times as many): {met}")
    prompts = {
        method: [row["judge"] for row in data["rows"] if row["band"] == len(BANDS) and row["method"] == method
                 and row.get("judge") is not None] for method in METHODS
    }  # fmt: skip
    if prompts[OURS]:
        shares = ", ".join(f"{method} {np.mean(values):.1%}" for method, values in prompts.items() if values)
        told.append(f"- {GROUPS[-1]}, satisfied by the judge: {shares}")
    return told


def laws(subject: Subject, prior: JudgedSamples, count: int, seed: int, report: Report) -> list[dict[str, Any]]:
    """Draw pairs of spellings with one meaning, and tell how often both have the same pictures.

    The laws are those of MetaLogic (arXiv 2510.00796). The literals are random ones; formulas that
    less than 5 % of random pictures satisfy are left out, because they cost more and show no more.

    Args:
        subject: the model.
        prior: judged random pictures.
        count: pairs for each law.
        seed: of the literals.
        report: called with the stage "laws".

    Returns:
        For each law its `pairs`, and how many are `identical` by ours, and with the `words` as prompt (`None` without
        one).
    """
    vocabulary, prevalence, rows = subject.model.vocabulary, prevalence_of(subject, prior), []
    for place, (law, spell) in enumerate(SPELLINGS.items()):
        draw_one = RandomFormulas(random.Random(f"{seed}/laws/{law}"), vocabulary)
        pairs = list[tuple[Expr, Expr]]()
        for _ in range(TRIES):
            a, b, c = (draw_one.literal(spec) for spec in draw_one.some(draw_one.specs, 3))
            one, other = (bind(each, vocabulary) for each in spell(a, b, c))
            if BANDS[0][0] <= prevalence(one) <= BANDS[0][1]:
                pairs.append((one, other))
            if len(pairs) == count:
                break
        same, words = 0, list[bool]()
        for number, (one, other) in enumerate(pairs):
            drawn = []
            for query in (one, other):
                (sampled,) = run_latents(subject.evaluated.plan(query, sampler=GRADIENT_FREE), 2, progress=_quiet)
                drawn.append(torch.cat([images for _, images in subject.evaluated.draw(sampled.z)]))
            same += torch.equal(*drawn)
            with suppress(ArgumentError):
                z = normals(0, 0, 2, subject.evaluated.z_dim, stream="bench/words")
                models = [EvaluatedModel(prompted(subject.model, each, negate=False)[0]) for each in (one, other)]
                words.append(torch.equal(*(torch.cat([part for _, part in each.draw(z)]) for each in models)))
            report("laws", (place + (number + 1) / len(pairs)) / len(SPELLINGS))
        rows.append({"law": law, "pairs": len(pairs), "identical": same, "words": sum(words) if words else None})
    return rows


SPELLINGS: dict[str, Callable[[Expr, Expr, Expr], tuple[Expr, Expr]]] = {
    "commutative": lambda a, b, c: (And((a, b)), And((b, a))),
    "commutative, XOR": lambda a, b, c: (Xor((a, b)), Xor((b, a))),
    "associative": lambda a, b, c: (Or((a, Or((b, c)))), Or((Or((a, b)), c))),  # one expression, by construction
    "distributive": lambda a, b, c: (And((a, Or((b, c)))), Or((And((a, b)), And((a, c))))),
    "De Morgan": lambda a, b, c: (Not(Or((a, b))), And((Not(a), Not(b)))),
}
"""Laws and, from three literals, two spellings with one meaning."""


def timing(subject: Subject, prior: JudgedSamples, turns: int, report: Report) -> list[dict[str, Any]]:
    """Return the time of pictures of a query of about one in ten, and of as many plain ones, and peaks of memory.

    There is a row for the sampler without gradients, and one for heads that propose, if there are any; their training
    is not timed.

    The prevalence of the query is between the limits of `TIMED_SHARE`, by the judge. `tax` is the median of ratios of
    seconds; the bar is `MOST_TIMES`. Peaks are those of this process, in bytes: `plain_peak` after plain pictures only,
    `peak` at the end.
    """
    least, most = TIMED_SHARE
    (query,) = random_formulas(
        subject.model.vocabulary, prevalence_of(subject, prior), 1, FORMULA_SEED, least=least, most=most
    )
    z = normals(0, 0, TIMED, subject.evaluated.z_dim, stream="bench/time")
    assert all(len(images) for _, images in subject.evaluated.draw(z))
    before, weak = peak_memory(), tuple(subject.model.vocabulary)
    ways: dict[str, tuple[Model, dict[str, Any]]] = {OURS: (subject.model, {"sampler": GRADIENT_FREE})}
    if subject.headed is not None:
        ways[SURE] = subject.headed, {"verify": "sure"}
    rows = []
    for method, (model, options) in ways.items():
        row = measure_tax(model, str(query), TIMED, turns, report, allow_weak=weak, **options)
        bar = {"met": row["tax"] <= MOST_TIMES, "plain_peak": before, "peak": peak_memory()}
        rows.append({"method": method, "prevalence": prevalence_of(subject, prior)(query)} | row | bar)
    return rows


def peak_memory() -> int:
    """Return the largest resident memory of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def plan_rows(
    subject: Subject, chosen: Sequence[tuple[int, Expr]], methods: Sequence[str], n: int
) -> list[RenderableType]:
    """Return a table with the most calls of the generator that each method takes for all these formulas, and hours.

    Those of ours are taken as the bar allows them. Hours are those of one thread, by the time of 16 pictures now.
    """
    most = max(BEST_OF)
    each = {
        **dict.fromkeys((OURS, GRADIENTS, *HEADED), MOST_CALLS), WORDS: 1, NEGATIVE: 2, WORDS + AT_EQUAL_CALLS: most,
        NEGATIVE + AT_EQUAL_CALLS: most, RENO: 2 * ReNO().steps - 1,
    }  # fmt: skip
    calls = {"random pictures": float(n * most)} | {
        name: float(n * len(chosen) * each.get(name, 0)) for name in methods
    }
    if LOGDIFF in calls and subject.logdiff is not None:
        calls[LOGDIFF] = n * sum(subject.logdiff.calls(query, subject.model.vocabulary) for _, query in chosen)
    calls["all"] = sum(calls.values())
    z = normals(0, 0, TIMED, subject.evaluated.z_dim, stream="bench/time")
    started = time.process_time()
    subject.read(z, _quiet)
    seconds = (time.process_time() - started) / TIMED
    rows = [[name, f"{count:,.0f}", f"{count * seconds / 3600:.2f}"] for name, count in calls.items()]
    return [table(("method", "calls", "hours"), rows), f"A call takes {1000 * seconds:.1f} ms; {len(chosen)} formulas."]


HEADER = ("formulas", "method", "guide", "judge", "worst", "error", "above", "effective", "calls", "refused")


def lines(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table: for each group and method the means over its formulas."""
    found = []
    for band, group in enumerate(GROUPS):
        for method in METHODS:
            rows = [row for row in data["rows"] if row["band"] == band and row["method"] == method]
            good = [row for row in rows if row.get("judge") is not None]
            if not rows:
                continue
            means = [_mean(good, name) for name in ("guide", "judge", "error", "above", "effective", "calls")]
            guide, judge, error, above, effective, calls = means
            worst = min((row["judge"] for row in good), default=math.nan)
            found.append([
                group, method, f"{guide:.1%}", f"{judge:.1%}", f"{worst:.1%}", f"{error:.3f}",
                f"{above:.3f}", f"{effective:.1f}", f"{calls:.1f}", f"{len(rows) - len(good)} of {len(rows)}",
            ])  # fmt: skip
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values)) if values else math.nan


def curves(data: dict[str, Any]) -> Canvas:
    """Return a chart for each group: the share satisfied by the judge over calls a sample; best-of-N is a line."""
    shown = [band for band in range(len(GROUPS)) if any(row["band"] == band for row in data["rows"])]
    canvas = Canvas(60 + 360 * len(shown), 420)
    for place, band in enumerate(shown):
        axes = Axes(canvas, (60 + 360 * place, 50), (290, 280), (0, 2.2), (0, 1))
        axes.captions("calls of the generator, a sample", GROUPS[band])
        axes.ticks({k: f"{10**k:.0f}" for k in (0, 1, 2)}, {k / 4: f"{25 * k} %" for k in range(5)})
        best = list[tuple[float, float]]()
        for index, method in enumerate(METHODS):
            rows = [row for row in data["rows"] if row["band"] == band and row["method"] == method]
            good = [row for row in rows if row.get("judge") is not None]
            if not good:
                continue
            at = (min(2.2, math.log10(max(1.0, _mean(good, "calls")))), _mean(good, "judge"))
            if method.startswith("best of"):
                best.append(at)
            else:
                canvas.dot(axes.at(*at), 5, COLOURS[index % len(COLOURS)])
                canvas.text(axes.at(at[0] + 0.05, at[1]), method, INK, 11, "lm")
        axes.line(best, COLOURS[1])
    canvas.text((60, 385), "line: best of 1, 4, 16 and 64 by the guide", INK, 12)
    return canvas


def open_subject(
    model: str, guide: Path | None, judge: str | None, call: dict[str, Any], plugins: bool, differentiate: bool
) -> Model:
    """Return the model of a folder with another guide or judge, or of the folder of a pipeline.

    Args:
        model: name or folder of a model, or folder of a pipeline of diffusers.
        guide: folder of the network that reads pictures, as `guide` or `reader`; by default the reader of the model.
        judge: folder of the network that counts, as `judge`, or name of a packaged model; by default that of the model.
        call: arguments of the call of a pipeline.
        plugins: whether code that the folder names may be imported.
        differentiate: whether a pipeline of recipes.flow is drawn by a loop of our own, which has gradients.
    """
    reader = None
    if guide is not None:
        reader = PictureBank(Judge.load(guide, "guide" if (guide / "guide.json").is_file() else "reader"))
    counts = None
    if judge is not None:
        counts = Judge.load(Path(judge)) if Path(judge).is_dir() else load_model(judge).judge
    if is_pipeline(model):
        if reader is None or counts is None:
            raise ArgumentError("a pipeline has neither guide nor judge", hint="give both with --guide and --judge")
        generator = load_generator(model, **call)
        if differentiate:
            from benchmarks.noise_flow import FlowGenerator  # imports the libraries of the recipe

            generator = FlowGenerator(generator._pipeline, call)
        return Model(Path(model).name, generator, reader, counts, 1.0)
    loaded = load_model(model, allow_plugins=plugins)
    # Those of guide and judge are left out, because these may be others than those of the folder.
    own = {"generator": loaded.fingerprints["generator"]}
    return replace(loaded, judge=counts or loaded.judge, bank=reader or loaded.bank, fingerprints=own)


def learn_heads(model: Model, labels: int, folder: Path, report: Report, settings: HeadSettings) -> Model:
    """Return a model with heads that learn from what its guide reads off random pictures, and the guide as verifier.

    Args:
        model: the model; its guide is a network.
        labels: number of pictures.
        folder: where the heads are kept; those of an earlier run are read.
        report: called with stages of the training.
        settings: of the training.
    """
    guide = cast(PictureBank, model.bank).reader
    if not (folder / REPORT).is_file():
        train_attributes(
            model.generator, guide, folder, vocabulary=model.vocabulary, n=labels, truncation=1.0, judge=None,
            settings=settings, progress=report,
        )  # fmt: skip
    own = (folder / "generator.safetensors").is_file()  # else it is code, or a pipeline in memory
    heads = load_model(folder, generator=None if own else model.generator)
    return replace(heads, generator=model.generator, verifier=guide, judge=model.judge)


def open_teacher(teacher: Path, call: dict[str, Any], student: Generator) -> LogDiff:
    """Return LogDiff's rule for the folder of a flow of many steps, in calls of the generator `student`.

    Raises:
        ArgumentError: one of the two is no pipeline of recipes.flow.
    """
    from benchmarks.noise_flow import LogDiff  # imports the libraries of the recipe

    flow = load_generator(teacher, **call)
    if not isinstance(flow, PipelineGenerator) or not isinstance(student, PipelineGenerator):
        raise ArgumentError("LogDiff's rule needs pipelines of recipes.flow, as model and as --teacher")
    return LogDiff.of(flow, student)


def main(
    model: Annotated[str, typer.Argument(help="A model with a reader of pictures, or the folder of a pipeline.")],
    guide: Annotated[Path | None, typer.Option(help="Folder of the guide, a network that reads pictures.")] = None,
    judge: Annotated[str | None, typer.Option(help="Folder of the judge, or a model whose judge counts.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt of a pipeline.")] = None,
    call: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An argument of a pipeline's call; may be repeated.")
    ] = None,
    differentiate: Annotated[
        bool, typer.Option("--differentiate", help="Draw a pipeline of recipes.flow by a loop that has gradients.")
    ] = False,
    teacher: Annotated[Path | None, typer.Option(help="Folder of a flow of many steps, for LogDiff's rule.")] = None,
    labels: Annotated[int, typer.Option(min=0, help="Pictures from which heads learn; without heads by default.")] = 0,
    part: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(PARTS)}.")] = ",".join((BARS, PROMPTS)),
    take: Annotated[str, typer.Option(help="Formulas that this run measures: 1/2 for every second one.")] = "1/1",
    plan: Annotated[bool, typer.Option("--plan", help="Only tell how many calls and hours the run takes.")] = False,
    methods: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(METHODS)}.")] = ",".join(METHODS),
    sampler: Annotated[str, typer.Option(help="Name of our sampler without gradients.")] = GRADIENT_FREE,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each formula and method.")] = 200,
    each: Annotated[int, typer.Option(min=1, help="Formulas in each band of prevalence.")] = 4,
    prior: Annotated[int, typer.Option(min=100, help="Random pictures for prevalence and exact samples.")] = 20_000,
    formula_seed: Annotated[int, typer.Option(min=0, help="Of the formulas.")] = FORMULA_SEED,
    formulas: Annotated[str, typer.Option(help="Formulas in place of random ones, separated by semicolons.")] = "",
    allow_plugins: Annotated[bool, typer.Option("--allow-plugins", help="Import code that the folder names.")] = False,
    threads: ThreadsOption = 1,
    out: Annotated[Path, typer.Option(help="Folder of results and readings.")] = Path("runs/noise"),
    smoke: SmokeOption = False,
) -> None:
    """Hold our sampler against best-of-N, rejection at equal calls, prompts, ReNO, LogDiff. Interrupt: it resumes."""
    torch.set_num_threads(threads)
    chosen_methods = split_names("--methods", methods, METHODS)
    parts, numbers = split_names("--part", part, PARTS), read_take(take)
    calls = read_pairs("--call", call, "NAME=VALUE", "num_inference_steps=4")
    asked = {name: read_value(text) for name, text in calls.items()}
    count, pairs, turns = PROMPT_FORMULAS, 8, 3
    if smoke:
        n, each, prior, count, pairs, turns = 3, 1, 150, 3, 1, 1
    asked |= {} if prompt is None else {"prompt": prompt}
    opened = open_subject(model, guide, judge, asked, allow_plugins, differentiate)
    rule = None if teacher is None else open_teacher(teacher, asked, opened.generator)
    subject = Subject(opened)
    with reporting(True) as report:
        samples = prior_samples(subject.evaluated, prior, out, report)
        chosen = list[tuple[int, Expr]]()
        if formulas:
            texts = [bind(parse(text), opened.vocabulary) for text in formulas.split(";")]
            shares = [float(np.mean(satisfied(query, samples.values, opened.vocabulary))) for query in texts]
            if missing := [query for share, query in zip(shares, texts, strict=True) if not share]:
                problem = f"none of {prior:,} random pictures satisfies {missing[0]} by the judge"
                raise ArgumentError(problem, hint="judge more with --prior, or ask for something more common")
            chosen = [(sum(share < least for least, _ in BANDS[:-1]), query)
                      for share, query in zip(shares, texts, strict=True)]  # fmt: skip
        else:
            chosen += choose_formulas(subject, samples, each, formula_seed) if BARS in parts else []
            chosen += prompt_formulas(subject, samples, count, formula_seed) if PROMPTS in parts else []
        mine = numbers(len(chosen))
        subject = Subject(opened, [query for _, query in chosen], sampler, rule)
        if plan:
            show(*plan_rows(subject, [chosen[i] for i in mine], chosen_methods, n), width=100)
            return
        if labels and (TIME in parts or {*HEADED} & {*chosen_methods}):
            fit = HeadSettings(steps=5) if smoke else HeadSettings()
            folder = out / f"heads-{labels}-{json_digest([subject.evaluated.identity, str(fit)])[:16]}"
            subject.headed, subject.labels = learn_heads(opened, labels, folder, report, fit), labels
        settings = {
            "model": subject.evaluated.identity, "sampler": sampler, "n": n, "prior": prior,
            "formulas": formulas or formula_seed, "teacher": None if rule is None else rule.identity,
            "labels": labels,
        }  # fmt: skip
        for name, work in {
            LAWS: lambda: laws(subject, samples, pairs, formula_seed, report),
            TIME: lambda: timing(subject, samples, turns, report),
        }.items():
            if name in parts:
                data = {"settings": settings, "machine": machine(), "rows": work()}
                write_json(out / f"{name}.json", data)
                show(table(data["rows"][0], [list(map(str, row.values())) for row in data["rows"]]), width=140)
        if not chosen:
            return
        data = run(subject, chosen, chosen_methods, n, samples, out, settings, report, mine)
    rows = lines(data)
    write_text(
        out / "results.md", page(f"Costly evaluations on {opened.name}", NOTE, HEADER, rows, data, "", *bars(data))
    )
    write_picture(out / "curves.png", curves(data).picture())
    show(table(HEADER, rows), *bars(data), NOTE, f"Saved {out / 'results.md'}, results.json and curves.png", width=140)


if __name__ == "__main__":
    run_command(main, resumes=True)
