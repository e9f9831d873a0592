"""Queries on a user's own generator, held against hidden functions: `python -m benchmarks.own_models --help`.

A hidden function measures pictures, as in `benchmarks.hidden_looks`, or knows what their latents encode, as in
`benchmarks.choices`. It is the truth, and it labels the pictures that a user would label. The tool gets only these
labels (except where it is taught by the function), trains heads and a judge by default settings, and draws pictures for
random formulas. The hidden function then says which pictures are right. Whether a picture is verified before it is
returned, and how, is the setting `verify`.
"""

from __future__ import annotations

import inspect
import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.common import SmokeOption, effective_number, page, read_take, run_command, show, split_names, table
from benchmarks.formulas import attributes_of, random_formulas
from energyql import __version__
from energyql.attributes.bank import FittedUnder
from energyql.attributes.judge import JointJudge, Judge
from energyql.attributes.labels import Column, ImageLabeller, call_labeller, import_labeller, label_images
from energyql.errors import ArgumentError, EnergyQLError
from energyql.evaluation.measure import machine
from energyql.evaluation.metrics import AttributeBins, frequency_error
from energyql.files import read_json, write_json, write_text
from energyql.generators.base import Generator, draw_batches
from energyql.generators.families import module_fingerprint
from energyql.kinds import KINDS
from energyql.language import Expr
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.generate import generate
from energyql.pipeline.model import Model, Values, load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.result import Result
from energyql.pipeline.run import draw
from energyql.pipeline.session import Session, open_session
from energyql.progress import Report, reporting
from energyql.render.markup import markdown_table
from energyql.sampling import Status
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable, infer
from energyql.training.report import area
from energyql.training.run import train_attributes
from energyql.training.samples import Prior, label_prior
from energyql.training.settings import TRAIN
from energyql.training.target import open_source
from energyql.vocabulary import Vocabulary

PRIOR_SEED, LABEL_SEED, FORMULA_SEED = 2026, 7, 2026
"""Seeds of the pictures that tell how common something is, of those that are labelled, and of the formulas."""
FUNCTION = "function"
"""Way of teaching by the hidden function itself, which is then also the judge."""
TAUGHT = {"table": 5_000, "hand": 300, "hand-wrong": 300, FUNCTION: 20_000}
"""Ways of teaching -> number of labelled pictures."""
WRONG = {"hand-wrong": 0.1}
"""Ways of teaching -> share of the labels of each attribute that are wrong, if any are."""
LATENTS = "latents:"
"""Beginning of the name of a hidden function of latents."""
VERIFY = ("off", "sure", "faithful")
BANDS = ((0.005, 0.02), (0.02, 0.07), (0.07, 0.2))
"""Limits of the prevalence; a third of the formulas is in each."""
NOTE = (
    "Everything is counted by the hidden function. Prior: share of random pictures that satisfy the formula. True: "
    "share of the returned pictures that do. Error: largest difference of the frequency of a value among returned and "
    "among exact pictures, over the attributes that are not in the formula; floor: its mean if the returned pictures "
    "were exact; above: the largest part of a difference that is more than one standard error. Effective: number of "
    "exact pictures whose frequencies would have the same mean squared error. Drawn: pictures drawn for one returned; "
    "calls: these, and those of pilot runs; exact: random pictures that satisfy the formula among as many as calls. "
    "Ticks: share of the pictures that the result says satisfy the query that do. Said: share of right pictures that "
    "the result expects among those that the verifier accepted; off: its difference from the true share of these. "
    "Worst is the worst of all formulas, for each column alone. Refused formulas have no numbers and are in no mean. "
    "Area: under the ROC curve of the verifier's readings of 1,000 random pictures that nothing learned from, mean "
    "over yes/no attributes and classes; 0.5 for one that it does not read. Seconds: time of the training."
)
NUMBERS: dict[str, tuple[str, Callable[[list[float]], float], str]] = {
    "prevalence": ("prior %", min, "{:.1%}"),
    "true": ("true %", min, "{:.1%}"),
    "error": ("error", max, "{:.3f}"),
    "floor": ("floor", max, "{:.3f}"),
    "above": ("above", max, "{:.3f}"),
    "effective": ("effective", min, "{:.0f}"),
    "drawn": ("drawn", max, "{:.2f}"),
    "calls": ("calls", max, "{:.1f}"),
    "exact": ("exact", max, "{:.0f}"),
    "ticks": ("ticks %", min, "{:.1%}"),
    "said": ("said %", min, "{:.1%}"),
    "off": ("off", max, "{:.3f}"),
}
"""Number of a record -> its column in a table, which of several numbers is the worst, and how it is written."""
COLUMNS = [column for column, _, _ in NUMBERS.values()]
TRAININGS = ["taught", "area", "seconds"]
"""Columns of the table of trainings."""
RANKED = 1_000
"""Random pictures of which the verifier's readings are ranked."""
FINISHED = "training.json"
"""File in the folder of a model whose training is finished: its seconds."""


@dataclass(frozen=True)
class Subject:
    """A foreign generator, and the function that tells what its pictures show.

    Attributes:
        generator: name of the generator, `module:factory`, or a model folder.
        hidden: name of the function, `module:function`, with `LATENTS` in front if it reads latents w, not pictures.
        condition: class of all pictures, for a conditional generator.
        count: number of random pictures that tell how common something is.
        folder: where what was drawn and learnt is kept.
    """

    generator: str
    hidden: str
    condition: int | None
    count: int
    folder: Path

    @cached_property
    def network(self) -> Generator:
        """The generator."""
        return open_source(self.generator).generator

    @cached_property
    def look(self) -> ImageLabeller:
        """The hidden function."""
        return import_labeller(self.hidden.removeprefix(LATENTS))

    @property
    def by_latents(self) -> bool:
        """Whether the hidden function reads latents, and not pictures."""
        return self.hidden.startswith(LATENTS)

    def prior(self, seed: int) -> Prior:
        """The random pictures of a seed."""
        fitted = FittedUnder("w", (1.0, 1.0), self.condition, module_fingerprint(self.network))
        return Prior(self.network, seed, fitted, torch.device("cpu"))

    def labels(self, seed: int, count: int, report: Callable[[float], None]) -> dict[str, Column]:
        """Return the labels of the first `count` pictures of a seed; those by pictures are kept on disk."""
        prior, index = self.prior(seed), torch.arange(count)
        if self.by_latents:
            return self.encoded(prior.w(index))
        return label_prior(prior, index, self.look, self.folder / f"pictures-{seed}", progress=report)

    def encoded(self, w: Tensor) -> dict[str, Column]:
        """Return what latents w encode, if the hidden function reads latents."""
        return {name: np.asarray(cells).tolist() for name, cells in self.look(w).items()}

    def draw(self, w: Tensor) -> Iterator[Tensor]:
        """Yield the pictures of latents w, in batches."""
        return (images for _, images in draw_batches(self.network.synthesize, lambda w: w, w, w=w))

    def read(self, w: Tensor, report: Callable[[float], None]) -> Values:
        """Return what the pictures of latents w show, attribute -> (n,); they are drawn once more if it is read off."""
        if self.by_latents:
            return arrays(self.encoded(w))
        cells: dict[str, list[Any]] = {}
        for images in self.draw(w):
            for name, part in label_images(self.look, images).items():
                cells.setdefault(name, []).extend(part)
            report(len(cells[name]) / len(w))
        return arrays(cells)


@dataclass(frozen=True, eq=False)
class Truth:
    """What random pictures of a subject show by the hidden function.

    Attributes:
        vocabulary: the attributes.
        values: attribute -> value of each random picture, (count,).
    """

    vocabulary: Vocabulary
    values: Values

    @cached_property
    def bins(self) -> AttributeBins:
        """The values whose frequencies are compared."""
        return AttributeBins(self.vocabulary, self.values)

    @cached_property
    def indicators(self) -> np.ndarray[Any, Any]:
        """1 where a random picture has a value, else 0, (count, bins)."""
        return self.bins.indicators(self.values)

    def holds(self, formula: Expr, values: Values) -> np.ndarray[Any, Any]:
        """Return for each picture whether it satisfies a formula, (n,)."""
        return np.asarray(satisfied(formula, values, self.vocabulary))

    def formulas(self, count: int, bands: Sequence[tuple[float, float]] = BANDS) -> list[Expr]:
        """Draw formulas by the rules of `random_formulas`, as many in each band of the prevalence, common ones first.

        Each band takes every third formula, so that all depths and connectives of the rules occur.
        """
        chosen = []
        for i, (least, most) in enumerate(reversed(bands)):
            drawn = random_formulas(
                self.vocabulary,
                lambda formula: float(self.holds(formula, self.values).mean()),
                count,
                FORMULA_SEED + i,
                least=least,
                most=most,
            )
            chosen += drawn[i :: len(bands)]
        return chosen

    def compare(self, formula: Expr, values: Values) -> dict[str, Any]:
        """Compare pictures that were returned for a formula with the random pictures that satisfy it.

        Returns:
            The share that is `true`; the largest `error` of a frequency, with its `bin` and the mean that it has for
            exact pictures, `floor`; the largest error `above` one standard error, at least 0; and the `effective`
            number of exact pictures. They are of values of the attributes that are not in the formula.
        """
        own = attributes_of(formula)
        others = [i for i, name in enumerate(self.bins.names) if not any(is_of(name, each) for each in own)]
        numbers: dict[str, Any] = {"true": float(self.holds(formula, values).mean())}
        if others:
            exact = self.indicators[self.holds(formula, self.values)][:, others]
            sampled = self.bins.indicators(values)[:, others]
            error, worst, floor = frequency_error(sampled, exact, np.ones(len(exact)))
            share = exact.mean(0)
            step = np.sqrt(share * (1 - share) * (1 / len(sampled) + 1 / len(exact)))
            above = float((np.abs(sampled.mean(0) - share) - step).max())
            numbers |= {"error": error, "bin": self.bins.names[others[worst]], "floor": floor, "above": max(0.0, above)}
            numbers["effective"] = effective_number(exact, sampled)
        return numbers


def is_of(bin_name: str, attribute: str) -> bool:
    """Return whether a bin of `AttributeBins`, such as "hair = red", is one of an attribute, such as "hair"."""
    return bin_name == attribute or bin_name.startswith((f"{attribute} = ", f"{attribute} in quarter "))


def arrays(columns: Mapping[str, Column]) -> Values:
    """Return labels as arrays, attribute -> (n,)."""
    return {name: np.asarray(cells) for name, cells in columns.items()}


def mislabelled(columns: Mapping[str, Column], vocabulary: Vocabulary, share: float) -> dict[str, Column]:
    """Return labels of which a share is wrong, other pictures for each attribute.

    A wrong label is another class than the right one; a wrong number is the number of another picture.
    """
    wrong: dict[str, Column] = {}
    for name, cells in columns.items():
        draw, changed, spec = random.Random(f"{LABEL_SEED}/{name}"), list(cells), vocabulary[name]
        for row in draw.sample(range(len(cells)), round(share * len(cells))):
            numeric = KINDS[spec.kind].numeric
            choices = cells if numeric else spec.values or (True, False)
            changed[row] = draw.choice([each for each in choices if each != cells[row]])
        wrong[name] = changed
    return wrong


def taught_model(
    subject: Subject, truth: Truth, taught: str, count: int, settings: HeadSettings, report: Report
) -> tuple[Model, float]:
    """Return the model that the tool makes by its defaults from labels, from disk if it was made before.

    Returns:
        The model; and the seconds of its training, after an interruption those of the last call.
    """
    folder, by_function = subject.folder / "models" / f"{taught}-{count}", taught == FUNCTION
    if not (folder / FINISHED).is_file():
        labels: ImageLabeller | LabelTable = subject.look
        if not by_function:
            columns = subject.labels(LABEL_SEED, count, lambda done: report(f"{taught}: labelling", done))
            columns = mislabelled(columns, truth.vocabulary, WRONG.get(taught, 0.0))
            labels = LabelTable(columns, torch.arange(count))
        started = time.perf_counter()
        train_attributes(
            subject.generator, labels, folder, vocabulary=truth.vocabulary, n=count if by_function else None,
            seed=None if by_function else LABEL_SEED, truncation=1.0, condition=subject.condition, settings=settings,
            judge=subject.hidden if by_function else TRAIN, progress=report,
        )  # fmt: skip
        write_json(folder / FINISHED, {"seconds": time.perf_counter() - started})
    code = None if Path(subject.generator).is_dir() else subject.generator
    model = load_model(folder, generator=code, judge=subject.hidden if by_function else None)
    return model, read_json(folder / FINISHED)["seconds"]


def mean_area(subject: Subject, truth: Truth, model: Model, report: Callable[[float], None]) -> float | None:
    """Return the mean area under the ROC curve of the verifier's readings of the first `RANKED` random pictures.

    The mean is over yes/no attributes and classes; one that the verifier does not read counts as chance, 0.5. It is
    `None` for a verifier that is no network.
    """
    verifier = model.verifier
    if not isinstance(verifier, Judge | JointJudge):
        return None
    index, readings, done = torch.arange(min(subject.count, RANKED)), [], 0
    for images in subject.draw(subject.prior(PRIOR_SEED).w(index)):
        readings.append(call_labeller(verifier, images, "the verifier"))
        done += len(images)
        report(done / len(index))
    areas = []
    for name, spec in truth.vocabulary.items():
        for _, value in KINDS[spec.kind].bins(spec):
            true = torch.from_numpy(truth.values[name][: len(index)] == value)
            if 0 < int(true.sum()) < len(true):
                scores = [part[name].log_probability((value,)).double() for part in readings if name in part]
                areas.append(area(torch.cat(scores), true)[0] if scores else 0.5)
    return statistics.fmean(areas) if areas else None


def measure(
    subject: Subject, truth: Truth, pipeline: Session, formula: Expr, n: int, options: dict[str, Any], report: Report
) -> dict[str, Any]:
    """Draw pictures for a formula, and compare them with the truth.

    Returns:
        The numbers of `Truth.compare`; pictures `kept`, and `drawn` for one that was kept; `calls` of the generator for
        one that was kept, those of pilot runs included, and how many `exact` pictures as many random ones have; share
        of `ticks` that is right, `None` without any; the share of right ones that is `said` of verified pictures, and
        how far `off` it is. Or `refused`: the type and the message of the error.
    """
    try:
        prepared = plan_query(pipeline, formula, **options)
        result = draw(prepared, n, progress=report)
    except EnergyQLError as error:
        return {"refused": f"{type(error).__name__}: {error.message}"}
    numbers: dict[str, Any] = {"kept": len(result), "drawn": drawn_for_one(result)}
    if len(result):
        made = result.statistics.get("generator_calls", float(n))
        prevalence = float(truth.holds(formula, truth.values).mean())
        numbers |= {"calls": made / len(result), "exact": made * prevalence}
        values = subject.read(result.w, lambda done: report("reading", done))
        ticked = np.zeros(len(result), bool) if result.satisfied is None else result.satisfied
        right = truth.holds(formula, values)
        numbers |= truth.compare(formula, values) | {"ticks": float(right[ticked].mean()) if ticked.any() else None}
        verified: Mapping[str, Any] = result.provenance.get("verified", {})
        said = verified.get("threshold", {}).get("precision")
        accepted = right[[status != Status.NOT_ACCEPTED for status in result.status]]
        off = None if said is None or not len(accepted) else abs(said - float(accepted.mean()))
        numbers |= {"said": said, "off": off}
    return numbers


def drawn_for_one(result: Result) -> float | None:
    """Return how many pictures were drawn for one that was accepted; `None` if none was."""
    drawn, kept = (result.statistics.get(name, float(len(result))) for name in ("drawn", "accepted"))
    return drawn / kept if kept else None


def verify_option(verify: str) -> dict[str, Any]:
    """Return the setting as an option of `generate`; nothing for "off" where this version verifies nothing.

    Raises:
        ArgumentError: this version of energyql has no such setting.
    """
    if "verify" in inspect.signature(generate).parameters:
        return {"verify": verify}
    if verify != VERIFY[0]:
        raise ArgumentError(f"energyql {__version__} verifies no pictures", hint=f"--verify {VERIFY[0]}")
    return {}


Records = list[dict[str, Any]]
"""For each formula: its text, its prevalence, and the numbers of `measure`."""


def summarize(records: Records) -> dict[str, Any]:
    """Return `mean` and `worst` of each number over the formulas that were not refused, and how many were `refused`."""
    summary: dict[str, Any] = {"mean": {}, "worst": {}, "refused": sum("refused" in record for record in records)}
    for name, (_, worst, _) in NUMBERS.items():
        values = [record[name] for record in records if "refused" not in record and record.get(name) is not None]
        summary["mean"][name] = statistics.fmean(values) if values else None
        summary["worst"][name] = worst(values) if values else None
    return summary


def rows(records: Records, bands: Sequence[tuple[float, float]] = ()) -> list[list[str]]:
    """Return the cells of a table: formula and `COLUMNS`; then the mean of each band, mean and worst of all."""
    lines = [[record["formula"] + ", refused" * ("refused" in record), *cells(record)] for record in records]
    for least, most in bands:
        some = [record for record in records if least <= record["prevalence"] <= most]
        lines.append([f"mean, {least:.1%} to {most:.1%}", *cells(summarize(some)["mean"])])
    summary = summarize(records)
    mean = f"mean, {summary['refused']} of {len(records)} refused"
    return [*lines, [mean, *cells(summary["mean"])], ["worst", *cells(summary["worst"])]]


def read_bands(text: str) -> list[tuple[float, float]]:
    """Return the limits of the prevalence in a text such as 0.005-0.02,0.02-0.07.

    Raises:
        ArgumentError: the text is not of this form, or a lower limit is not below the upper one.
    """
    try:
        limits = [tuple(map(float, part.split("-"))) for part in text.split(",")]
        if not all(0 < least < most <= 1 for least, most in limits):
            raise ValueError
    except ValueError:
        raise ArgumentError(
            f"--bands: {text!r} is not of the form LEAST-MOST", hint="such as 0.01-0.05,0.05-0.6"
        ) from None
    return [(least, most) for least, most in limits]


def cells(record: Mapping[str, Any]) -> list[str]:
    """Return the numbers of a record as text, "" for one that it does not have."""
    return [
        "" if record.get(name) is None else form.format(record[name]).removesuffix("%")
        for name, (_, _, form) in NUMBERS.items()
    ]


def earlier(out: Path, settings: dict[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what all earlier runs with these settings measured.

    Runs that take different formulas can be at work at the same time: each has a file of its own.

    Returns:
        `runs`: way of teaching and verifying -> formula -> numbers; `trainings`: way of teaching -> `area`, `seconds`.
    """
    found: dict[str, dict[str, dict[str, Any]]] = {"runs": {}, "trainings": {}}
    for path in sorted(out.glob("results*.json")):
        data = read_json(path)
        if data.get("settings") == settings:
            for part, entries in found.items():
                for key, numbers in data[part].items():
                    entries.setdefault(key, {}).update(numbers)
    return found


def training_rows(trainings: Mapping[str, Mapping[str, float | None]]) -> list[list[str]]:
    """Return the cells of the table of trainings, with `TRAININGS` as header."""
    return [
        [way, "" if numbers["area"] is None else f"{numbers['area']:.3f}", f"{numbers['seconds']:.0f}"]
        for way, numbers in trainings.items()
    ]


def write(out: Path, data: dict[str, Any], name: str) -> None:
    """Write `name`.json, and `name`.md with a table of formulas and one of trainings."""
    data["summary"] = {key: summarize(list(records.values())) for key, records in data["runs"].items()}
    write_json(out / f"{name}.json", data)
    lines = [
        [name, formula.replace("|", "\\|"), *numbers]
        for name, records in data["runs"].items()
        for formula, *numbers in rows(list(records.values()), read_bands(data["settings"]["bands"]))
    ]
    header, title = ["taught/verify", "formula", *COLUMNS], f"Queries on {data['settings']['generator']}"
    trainings = markdown_table(TRAININGS, training_rows(data["trainings"]))
    write_text(out / f"{name}.md", page(title, NOTE, header, lines, data, "", *trainings))


def main(
    generator: Annotated[
        str, typer.Option(help="module:factory or a model folder, as energyql train takes it.")
    ] = "examples.faces.generator:Faces",
    hidden: Annotated[
        str,
        typer.Option(help=f"module:function that labels pictures; {LATENTS}module:function labels latents w."),
    ] = "benchmarks.hidden_looks:faces",
    condition: Annotated[int | None, typer.Option(help="Class of all pictures, of a conditional generator.")] = None,
    taught: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(TAUGHT)}.")] = "table",
    verify: Annotated[str, typer.Option(help=f"Separated by commas: {', '.join(VERIFY)}.")] = VERIFY[0],
    bands: Annotated[
        str, typer.Option(help="Limits of the prevalence, LEAST-MOST, separated by commas; an equal part in each.")
    ] = ",".join(f"{least:g}-{most:g}" for least, most in BANDS),
    take: Annotated[str, typer.Option(help="Formulas that this run measures: 1/2 for every second one.")] = "1/1",
    labels: Annotated[
        int | None, typer.Option(min=1, help="Labelled pictures, in place of the default number.")
    ] = None,
    count: Annotated[int, typer.Option(min=3, help="Formulas, a third in each band of prevalence.")] = 12,
    n: Annotated[int, typer.Option("--n", "-n", min=1, help="Pictures for each formula.")] = 200,
    prior: Annotated[int, typer.Option(min=100, help="Random pictures for prevalence and exact frequencies.")] = 50_000,
    allow_weak: Annotated[bool, typer.Option("--allow-weak", help="Refuse no formula for a weak head.")] = False,
    out: Annotated[Path, typer.Option(help="Folder of the results, pictures' labels and models.")] = Path(
        "runs/own_models"
    ),
    smoke: SmokeOption = False,
) -> None:
    """Draw pictures of a user's own generator for random formulas, and count by a hidden function how many are right.

    After an interruption the same command continues. Labels and models are kept in the folder and used again; results
    too, while the settings are the same.
    """
    ways, verified = split_names("--taught", taught, TAUGHT), split_names("--verify", verify, VERIFY)
    options = {name: verify_option(name) for name in verified}  # raises before any work
    numbers, saved = read_take(take), "results" if take == "1/1" else f"results-{take.replace('/', '-of-')}"
    settings, sizes = HeadSettings(), TAUGHT if labels is None else dict.fromkeys(TAUGHT, labels)
    if smoke:
        settings, bands, sizes = HeadSettings(steps=5, hidden=8), "0.02-0.4", dict.fromkeys(TAUGHT, 200)
        count, n, prior, allow_weak = 3, 8, 400, True
    subject = Subject(generator, hidden, condition, prior, out)
    if subject.by_latents and FUNCTION in ways:
        raise ArgumentError(f"--taught {FUNCTION} needs a function of pictures, and {hidden} is one of latents")
    described = {
        "generator": generator, "hidden": hidden, "fingerprint": module_fingerprint(subject.network),
        "condition": condition, "count": count, "n": n, "prior": prior, "smoke": smoke, "formula_seed": FORMULA_SEED,
        "bands": bands, "wrong": WRONG,
    }  # fmt: skip
    limits = read_bands(bands)
    data = {"settings": described, **earlier(out, described), "machine": machine()}
    with reporting(True) as report:
        columns = subject.labels(PRIOR_SEED, prior, lambda done: report("prior", done))
        truth = Truth(infer(columns), arrays(columns))
        formulas = truth.formulas(count, limits)
        mine = numbers(len(formulas))
        for way in ways:
            pipeline, training = None, f"{way}-{sizes[way]}"
            for name in verified:
                key = f"{training}/{name}" + ", weak heads allowed" * allow_weak
                records = data["runs"].setdefault(key, {})
                for i, formula in enumerate(formulas[number] for number in mine):
                    report(key, i / len(mine))
                    if str(formula) in records:
                        continue
                    if pipeline is None:
                        model, seconds = taught_model(subject, truth, way, sizes[way], settings, report)
                        pipeline = open_session(model, "cpu")
                        data["trainings"][training] = {
                            "area": mean_area(subject, truth, model, lambda done: report("reading", done)),
                            "seconds": seconds,
                        }
                    weak = {"allow_weak": tuple(truth.vocabulary)} if allow_weak else {}
                    records[str(formula)] = {
                        "formula": str(formula),
                        "prevalence": float(truth.holds(formula, truth.values).mean()),
                        **measure(subject, truth, pipeline, formula, n, options[name] | weak, report),
                    }
                    write(out, data, saved)
                report(key, 1.0)
    write(out, data, saved)
    for key, records in data["runs"].items():
        refused = {record["formula"]: record["refused"] for record in records.values() if "refused" in record}
        show(
            table([key, *COLUMNS], rows(list(records.values()), limits)),
            *(f"{k}: {v}" for k, v in refused.items()),
            width=140,
        )
    show(table(TRAININGS, training_rows(data["trainings"])), NOTE, f"Saved {out / saved}.json and .md")


if __name__ == "__main__":
    run_command(main, resumes=True)
