"""Samplers for costly evaluations beside best-of-N, rejection and prompts: `python -m benchmarks.noise --help`.

An evaluation is a call of the generator. One network, the guide, reads pictures and leads the samplers; another one,
the judge, counts. The exact samples of a formula are random pictures that satisfy it by the judge.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.common import SmokeOption, ThreadsOption, earlier_results, page, run_command, show, split_names, table
from benchmarks.formulas import all_relations, random_formulas, rare_formulas
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import PictureBank
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import machine
from energyql.evaluation.metrics import AttributeBins, frequency_error
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.report import COLOURS
from energyql.files import json_digest, write_json, write_picture, write_text
from energyql.generators.diffusers import PipelineGenerator, is_pipeline
from energyql.generators.load import load_generator
from energyql.language import Expr, Not, bind, parse, predicates
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.draw import PreparedQuery
from energyql.pipeline.model import Model, Values, load_model
from energyql.pipeline.settings import DEFAULT_SAMPLER, SamplerName
from energyql.progress import Report, reporting
from energyql.render.charts import Axes, Canvas
from energyql.render.pictures import INK
from energyql.sampling import MOVING, SampleResult, Status, StepInfo, StepNoise, StepSampler, normals
from energyql.sampling.base import StepEnergy

BANDS = ((0.05, 0.6), (0.01, 0.05), (0.001, 0.01))
"""Limits of the prevalence by the judge, common ones first."""
FORMULA_SEED = 2026
BEST_OF = (1, 4, 16, 64)
OURS, REJECTION, WORDS, NEGATIVE, RENO = "ours", "rejection", "words", "negative prompt", "ReNO"
METHODS = (OURS, *(f"best of {count}" for count in BEST_OF), REJECTION, WORDS, NEGATIVE, RENO)
SHARD = 100
"""Pictures of the pool in one file; an interruption loses at most so many."""
NOTE = (
    "P: share of random pictures that satisfy the formula by the judge. Guide, judge: share of the samples that "
    "satisfy it, by each. Error: largest difference of the frequency of a value, by the judge, among samples and among "
    "exact samples; above: what is more than the mean for as many exact samples. Effective: number of exact samples "
    "whose frequencies would have the same mean squared error. Calls: of the generator, a sample; a gradient counts as "
    "two. Best of N: the picture that the guide likes most of N. Rejection: what the guide accepts of as many random "
    "pictures as ours drew in all."
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
    """Gradient steps on the noise as published (Eyring et al. 2024, arXiv 2406.04312, appendix), for one reward.

    Momentum of Nesterov, steps of `rate` along gradients of at most the length `clip`, and a term that keeps the length
    of the noise at the likeliest one. Samples end at the step of the lowest energy.
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
        """Take one step; in the last one, return the best latents."""
        energies, gradient = energy.gradient(state.at)
        better = energies < state.least
        best, least = torch.where(better[:, None], state.at, state.z), torch.where(better, energies, state.least)
        length = state.at.norm(dim=1, keepdim=True)
        gradient = gradient - self.regular * ((state.at.shape[1] - 1) / length - length) * state.at / length
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
    """A model that is measured: generator, guide and judge."""

    def __init__(
        self, model: Model, queries: Sequence[str | Expr] = (), sampler: SamplerName = DEFAULT_SAMPLER
    ) -> None:
        if not model.bank.reads_pictures:
            raise ArgumentError("the model has heads that read latents", hint="give a network with --guide")
        self.model, self.evaluated = model, EvaluatedModel(model)
        self.prepared = [self.evaluated.prepare(query, sampler=sampler) for query in queries]

    def read(self, z: Tensor, report: Report, stage: str) -> Reading:
        """Draw the pictures of latents, and return what both networks read off them."""
        values, energies, count = list[Values](), list[Tensor](), 0
        for _, images in self.evaluated.draw(z):
            values.append(self.model.judge_images(images))
            with torch.inference_mode():
                predictions = [self.model.bank.predict(one) for one in images.split(1)]
            rows = [[-query.rule.log_value(each).item() for query in self.prepared] for each in predictions]
            energies.append(torch.tensor(rows, dtype=torch.double).view(len(images), len(self.prepared)))
            count += len(images)
            report(stage, count / len(z))
        joined = {name: np.concatenate([part[name] for part in values]) for name in values[0]}
        return Reading(joined, torch.cat(energies).numpy())

    def pool(self, count: int, folder: Path, report: Report) -> Reading:
        """Return the readings of random pictures, for best-of-N and rejection; they are kept in files."""
        key = json_digest([self.evaluated.identity, *(str(query.expr) for query in self.prepared)])[:16]
        parts = []
        for start in range(0, count, SHARD):
            path = folder / f"pool-{key}" / f"{start:07d}.npz"
            if (stored := JudgedSamples.load(path)) is None:
                reading = self.read(normals(0, start, SHARD, self.evaluated.z_dim, stream="bench/pool"), _quiet, "")
                nothing = torch.zeros(SHARD, 0)
                JudgedSamples(nothing, nothing, reading.values, None).save(path, energies=reading.energies)
            else:
                reading = Reading(stored[0].values, stored[1]["energies"])
            parts.append(reading)
            report("pool", min(1.0, (start + SHARD) / count))
        values = {name: np.concatenate([part.values[name] for part in parts])[:count] for name in parts[0].values}
        return Reading(values, np.concatenate([part.energies for part in parts])[:count])


def _quiet(*_: object) -> None:
    """Report no progress."""


def choose_formulas(subject: Subject, prior: JudgedSamples, each: int, seed: int) -> list[tuple[int, Expr]]:
    """Return for each formula its band, and the formula: `each` of a band; half of the rarest are conjunctions."""
    vocabulary = subject.model.vocabulary
    possible = np.broadcast_to(satisfied(all_relations(vocabulary), prior.values, vocabulary), (len(prior),))

    def prevalence(formula: Expr) -> float:
        return float((satisfied(formula, prior.values, vocabulary) & possible).mean())

    chosen = list[tuple[int, Expr]]()
    for band, (least, most) in enumerate(BANDS):
        rare = each // 2 if band == len(BANDS) - 1 else 0
        formulas = random_formulas(vocabulary, prevalence, each - rare, seed + band, least=least, most=most)
        if rare:
            formulas += rare_formulas(vocabulary, prevalence, rare, seed + band, least=least, most=most)
        chosen += [(band, formula) for formula in formulas]
    return chosen


def caption(base: str, query: Expr, *, negate: bool) -> tuple[str, str]:
    """Return a prompt with the words of a query, and a negative prompt with the words below NOT.

    Args:
        base: the prompt of the subject.
        query: the query.
        negate: whether words below NOT are left out of the prompt, because they are in the negative one.
    """
    negative = [node.operand for node in _nodes(query) if isinstance(node, Not)]
    below = {id(node) for part in negative for node in predicates(part)}
    words = [str(node).replace("_", " ").replace(" = ", " ") for node in predicates(query) if id(node) not in below]
    without = [str(node).replace("_", " ").replace(" = ", " ") for part in negative for node in predicates(part)]
    told = words if negate else [*words, *(f"no {word}" for word in without)]
    return ", ".join([base, *told] if base else told), ", ".join(without)


def _nodes(query: Expr) -> list[Expr]:
    return [query, *(node for child in query.children for node in _nodes(child))]


def prompted(model: Model, query: Expr, *, negate: bool) -> Model:
    """Return the model with the words of a query in its prompt.

    Raises:
        ArgumentError: the generator takes no prompt, or no negative prompt.
    """
    generator = model.generator
    if not isinstance(generator, PipelineGenerator) or not isinstance(generator.call.get("prompt"), str):
        raise ArgumentError("the generator takes no prompt")
    prompt, negative = caption(generator.call["prompt"], query, negate=negate)
    call = generator.call | {"prompt": prompt} | ({"negative_prompt": negative} if negate else {})
    return replace(model, generator=load_generator(generator._pipeline, **call))


def draw(prepared: PreparedQuery, n: int, report: Report) -> tuple[SampleResult, dict[str, float]]:
    """Draw n samples, and return them with their calls, a sample."""
    sampled = SampleResult.join(list(prepared.latents(n, progress=report)))
    return sampled, {"calls": (sampled.evaluations + sampled.gradients).double().mean().item()}


def measure(
    subject: Subject, number: int, method: str, n: int, pool: Reading, calls: float | None, report: Report
) -> tuple[Reading, dict[str, Any]]:
    """Return the readings of a method's samples of a formula, and its costs.

    Args:
        subject: the model.
        number: of the formula.
        method: one of `METHODS`.
        n: number of samples.
        pool: readings of random pictures, of which best-of-N and rejection choose.
        calls: calls of ours for all samples, as many as rejection may use.
        report: called with a stage and the fraction of it that is done.

    Raises:
        EnergyQLError: the method cannot be used, or the query cannot be reached.
    """
    prepared, energies = subject.prepared[number], pool.energies[:, number]
    if method.startswith("best of"):
        of = int(method.rpartition(" ")[2])
        rows = np.arange(n) * max(BEST_OF) + energies.reshape(n, -1)[:, :of].argmin(1)
        return _rows(pool, rows), {"calls": of}
    if method == REJECTION:
        if calls is None:
            raise ArgumentError("ours was not measured")
        most = min(len(energies), round(calls))
        rows = (np.random.default_rng(number).random(most) < np.exp(-energies[:most])).nonzero()[0]
        return _rows(pool, rows), {"calls": most / n}
    if method in (WORDS, NEGATIVE):
        other = Subject(prompted(subject.model, prepared.expr, negate=method == NEGATIVE), [prepared.expr])
        z = normals(0, 0, n, other.evaluated.z_dim, stream="bench/words")
        reading = other.read(z, report, "reading")
        wide = np.zeros((n, len(subject.prepared)))
        wide[:, number] = reading.energies[:, 0]
        return Reading(reading.values, wide), {"calls": 1}
    if method == RENO:
        prepared = subject.evaluated.prepare(prepared.expr, sampler=ReNO())
    sampled, costs = draw(prepared, n, report)
    return subject.read(sampled.z, report, "reading"), costs | {"failures": int((~sampled.ok).sum())}


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
    shares = indicators.mean(0)
    variance = float((shares * (1 - shares)).sum())
    excess = float(np.square(sampled.mean(0) - shares).sum()) - variance / len(indicators)  # of the exact samples
    return row | {
        "error": error, "floor": floor, "above": max(0.0, error - floor), "bin": bins.names[worst],
        "effective": float(count) if excess <= variance / count else variance / excess,
    }  # fmt: skip


def run(
    subject: Subject, chosen: Sequence[tuple[int, Expr]], methods: Sequence[str], n: int, prior: JudgedSamples,
    out: Path, settings: dict[str, Any], report: Report,
) -> dict[str, Any]:  # fmt: skip
    """Measure every method on every formula; `results.json` is written after each, and read to resume."""
    data = earlier_results(out / "results.json", settings) or {"settings": settings, "rows": []}
    data["machine"] = machine()
    bins = AttributeBins(subject.model.vocabulary, prior.values)
    pool = subject.pool(n * max(BEST_OF), out, report)
    rows = {(row["formula"], row["method"]): row for row in data["rows"]}
    for number, (band, formula) in enumerate(chosen):
        for method in methods:
            if (str(formula), method) in rows:
                continue
            report("formulas", number / len(chosen))
            exact = np.broadcast_to(satisfied(formula, prior.values, subject.model.vocabulary), (len(prior),))
            row: dict[str, Any] = {
                "band": band, "formula": str(formula), "method": method, "prevalence": float(exact.mean())
            }  # fmt: skip
            ours, started = rows.get((str(formula), OURS), {}).get("calls"), time.process_time()
            try:
                reading, costs = measure(subject, number, method, n, pool, None if ours is None else n * ours, report)
                row |= costs | compare(subject, number, reading, prior, bins)
            except EnergyQLError as error:
                row["refused"] = error.message
            row["seconds"] = time.process_time() - started
            rows[row["formula"], method] = row
            data["rows"].append(row)
            write_json(out / "results.json", data)
    report("formulas", 1.0)
    return data


HEADER = ("P", "method", "guide", "judge", "worst", "error", "above", "effective", "calls", "refused")


def lines(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table: for each band and method the means over its formulas."""
    found = []
    for band, (least, most) in enumerate(BANDS):
        for method in METHODS:
            rows = [row for row in data["rows"] if row["band"] == band and row["method"] == method]
            good = [row for row in rows if row.get("judge") is not None]
            if not rows:
                continue
            means = [_mean(good, name) for name in ("guide", "judge", "error", "above", "effective", "calls")]
            guide, judge, error, above, effective, calls = means
            worst = min((row["judge"] for row in good), default=math.nan)
            found.append([
                f"{least:.1%} to {most:.1%}", method, f"{guide:.1%}", f"{judge:.1%}", f"{worst:.1%}", f"{error:.3f}",
                f"{above:.3f}", f"{effective:.1f}", f"{calls:.1f}", f"{len(rows) - len(good)} of {len(rows)}",
            ])  # fmt: skip
    return found


def _mean(rows: Sequence[dict[str, Any]], name: str) -> float:
    values = [row[name] for row in rows if row[name] is not None]
    return float(np.mean(values)) if values else math.nan


def curves(data: dict[str, Any]) -> Canvas:
    """Return a chart for each band: the share satisfied by the judge over calls a sample; best-of-N is a line."""
    canvas = Canvas(60 + 360 * len(BANDS), 420)
    for band, (least, most) in enumerate(BANDS):
        axes = Axes(canvas, (60 + 360 * band, 50), (290, 280), (0, 2.2), (0, 1))
        axes.captions("calls of the generator, a sample", f"{least:.1%} to {most:.1%}")
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


def open_subject(model: str, guide: Path | None, judge: str | None, prompt: str | None, plugins: bool) -> Model:
    """Return the model of a folder with another guide or judge, or of the folder of a pipeline.

    Args:
        model: name or folder of a model, or folder of a pipeline of diffusers.
        guide: folder of the network that reads pictures, as `guide` or `reader`; by default the reader of the model.
        judge: folder of the network that counts, as `judge`, or name of a packaged model; by default that of the model.
        prompt: prompt of a pipeline.
        plugins: whether code that the folder names may be imported.
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
        call = {} if prompt is None else {"prompt": prompt}
        return Model(Path(model).name, load_generator(model, **call), reader, counts)
    loaded = load_model(model, allow_plugins=plugins)
    # Those of guide and judge are left out, because these may be others than those of the folder.
    own = {"generator": loaded.fingerprints["generator"]}
    return replace(loaded, judge=counts or loaded.judge, bank=reader or loaded.bank, fingerprints=own)


def main(
    model: Annotated[str, typer.Argument(help="A model with a reader of pictures, or the folder of a pipeline.")],
    guide: Annotated[Path | None, typer.Option(help="Folder of the guide, a network that reads pictures.")] = None,
    judge: Annotated[str | None, typer.Option(help="Folder of the judge, or a model whose judge counts.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Prompt of a pipeline.")] = None,
    methods: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(METHODS)}.")] = ",".join(METHODS),
    sampler: Annotated[str, typer.Option(help="Name of our sampler.")] = DEFAULT_SAMPLER,
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
    """Hold our sampler against best-of-N, rejection at equal calls, prompts and ReNO. Interrupt at will: it resumes."""
    torch.set_num_threads(threads)
    chosen_methods = split_names("--methods", methods, METHODS)
    if smoke:
        n, each, prior = 3, 1, 150
    opened = open_subject(model, guide, judge, prompt, allow_plugins)
    subject = Subject(opened)
    with reporting(True) as report:
        samples = prior_samples(subject.evaluated, prior, out, report)
        if formulas:
            texts = [bind(parse(text), opened.vocabulary) for text in formulas.split(";")]
            shares = [float(np.mean(satisfied(query, samples.values, opened.vocabulary))) for query in texts]
            chosen = [(sum(share < least for least, _ in BANDS[:-1]), query)
                      for share, query in zip(shares, texts, strict=True)]  # fmt: skip
        else:
            chosen = choose_formulas(subject, samples, each, formula_seed)
        settings = {
            "model": subject.evaluated.identity, "sampler": sampler, "n": n, "prior": prior,
            "formulas": [str(query) for _, query in chosen],
        }  # fmt: skip
        subject = Subject(opened, [query for _, query in chosen], sampler)
        data = run(subject, chosen, chosen_methods, n, samples, out, settings, report)
    rows = lines(data)
    write_text(out / "results.md", page(f"Costly evaluations on {opened.name}", NOTE, HEADER, rows, data))
    write_picture(out / "curves.png", curves(data).picture())
    show(table(HEADER, rows), NOTE, f"Saved {out / 'results.md'}, results.json and curves.png", width=140)


if __name__ == "__main__":
    run_command(main, resumes=True)
