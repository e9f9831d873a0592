"""Ten classes and compositions on three small models of digits: `python -m benchmarks.digits --help`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, get_args

import torch
import typer
from torch import Tensor

from benchmarks.common import (
    SmokeOption,
    ThreadsOption,
    earlier_results,
    frechet_beside_floor,
    page,
    run_command,
    show,
    split_names,
    table,
)
from energyql.attributes.bank import PICTURE
from energyql.attributes.judge import Judge
from energyql.attributes.pictures import PictureBank
from energyql.errors import ArgumentError
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import Reference, average, machine, measure
from energyql.evaluation.methods import Method, read_methods
from energyql.evaluation.metrics import AttributeBins
from energyql.evaluation.reference import find_oracle, prior_samples
from energyql.evaluation.settings import SampleCounts
from energyql.files import write_json, write_picture, write_text
from energyql.language import bind, parse
from energyql.pipeline.model import load_model
from energyql.pipeline.settings import DEFAULT_SAMPLER
from energyql.progress import Report, reporting
from energyql.render.markup import markdown_table
from recipes.digits.card import sheet
from recipes.digits.data import DIGITS, LABELLER, TEST, Kind, real_digits
from recipes.digits.make import SPACES, STATES, fit_heads, read_made
from recipes.digits.networks import VAES

SUBJECTS: dict[Kind, tuple[str, ...]] = {"gan": ("z", "w", PICTURE), "vae": ("z",), "hierarchical": ("z", "w")}
"""What guides read: latents, of which w is z without a mapping network, or pictures."""
METHODS = f"{DEFAULT_SAMPLER},lace:published-ode"
COMPOSITIONS = (
    "NOT (digit = three OR digit = eight) AND thickness > 1.6",
    "digit IN {one, seven} AND slant > 0.1",
    "(digit = four OR digit = nine) AND thickness < 1.4 AND slant < 0",
)
CLASSES = tuple(f"digit = {digit}" for digit in DIGITS)
SEED = 0
SMOKE_SCALE = 1e-3
"""Length of a fit of heads in miniature."""
SHOWN = 4
"""Rows of pictures of each model."""
NOTE = (
    "Means over the ten classes. Accuracy: samples whose class the judge reads, a network that learned 700 real digits "
    "and took no part; in brackets the worst class. Fréchet distances on the judge's features (64 numbers): to "
    "pictures of the prior that the judge takes for the class, and to real digits of the class that the judge did not "
    "learn from; in brackets the floors, those of as many exact samples, or of as many of those real digits. Variety: "
    "mean distance of two samples in the features, over that of exact samples. Evals: evaluations of the energy a "
    "sample, 2 where the gradient is computed too; on pictures each draws one. Ms: sampling a sample, without drawing."
)
HEADER = [
    "model",
    "guide reads",
    "sampler",
    "accuracy %",
    "guide %",
    "to the class",
    "to real",
    "variety",
    "evals",
    "ms",
    "failed",
]


def evaluated(kind: Kind, space: str, models: Path, out: Path, scale: float) -> EvaluatedModel:
    """Return a model with heads on a space: those of its folder, or others that are fitted here in the same way.

    What guides by pictures is the network that labelled them for the heads. `scale` multiplies the length of the fit:
    heads of one length are not taken for those of another.
    """
    generator, folder = read_made(kind, models / kind), models / kind
    if space not in (SPACES[kind], PICTURE):
        folder = out / f"{kind}-{space}-{scale:g}"
        fit_heads(generator, folder, models / STATES, space, scale=scale)
    model = load_model(folder, generator=generator if kind in VAES else None)
    if space == PICTURE:
        model = replace(model, bank=PictureBank(Judge.load(models / STATES, LABELLER)), second={})
    return EvaluatedModel(model, device="cpu")


def measure_query(
    model: EvaluatedModel,
    text: str,
    methods: Sequence[Method],
    prior: JudgedSamples,
    sizes: Mapping[str, int],
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Return the prevalence of a query, and for each method the numbers of `measure` and the first latents.

    Where the query asks for one class, also the distance to real digits of it.
    """
    assert model.features is not None
    query, bins = bind(parse(text), model.vocabulary), AttributeBins(model.vocabulary, prior.values)
    exact = model.plan(query, semantics="exact").energy
    oracle = find_oracle(Bench(model, SampleCounts(oracle=sizes["oracle"]), out, report), query, exact, prior)
    found: dict[str, Any] = {"prevalence": oracle.prevalence, "methods": {}}
    for method in methods:
        outcome, samples = measure(method, model, Reference(query, bins, oracle, prior), sizes["n"], SEED, report)
        outcome["z"] = samples.z[:SHOWN].tolist()
        if text in CLASSES:
            pictures, digits = real_digits(LABELLER, TEST)
            real = model.features.read(pictures[digits == CLASSES.index(text)])
            assert samples.features is not None
            outcome["real"] = frechet_beside_floor(samples.features, real, len(samples))
        found["methods"][method.name] = outcome
    return found


def class_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table of classes."""
    rows = []
    for subject, records in data["subjects"].items():
        for name in data["settings"]["methods"]:
            outcomes = [records[text]["methods"][name] for text in CLASSES]
            worst = min(each["satisfied"] for each in outcomes)
            frechet = [each["frechet"] for each in outcomes if each["frechet"] is not None]
            variety = [each["diversity"]["features"]["pairwise"] for each in outcomes if each["diversity"] is not None]
            rows.append(
                [
                    *subject.split(" "),
                    name,
                    f"{100 * _mean(outcomes, 'satisfied'):.1f} ({100 * worst:.1f})",
                    f"{100 * _mean(outcomes, 'heads'):.1f}",
                    _beside_floor(frechet),
                    _beside_floor([each["real"] for each in outcomes]),
                    f"{average(variety):.2f}" if variety else "-",
                    f"{_mean(outcomes, 'work'):.0f}",
                    f"{1000 * _mean(outcomes, 'seconds') / data['settings']['n']:.1f}",
                    f"{sum(each['failures'] for each in outcomes)}",
                ]
            )
    return rows


def _mean(outcomes: Sequence[dict[str, Any]], key: str) -> float:
    return average([each[key] for each in outcomes]) or 0.0


def _beside_floor(found: Sequence[dict[str, float]]) -> str:
    return f"{_mean(found, 'distance'):.2f} ({_mean(found, 'floor'):.2f})" if found else "-"


def composition_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the rows of the table of compositions: the share of samples that satisfy each, by the judge."""
    return [
        [
            f"`{text}`",
            *subject.split(" "),
            f"{100 * records[text]['prevalence']:.2f}",
            *(f"{100 * records[text]['methods'][name]['satisfied']:.1f}" for name in data["settings"]["methods"]),
        ]
        for text in COMPOSITIONS
        for subject, records in data["subjects"].items()
    ]


def pictures_of_classes(data: dict[str, Any], models: Path) -> Tensor:
    """Return a picture of each class in a row, some rows a model, by the first method.

    The guide reads the space of the packaged heads, or the first one measured where that is left out.
    """
    method, parts = data["settings"]["methods"][0], []
    for kind in data["settings"]["kinds"]:
        generator = read_made(kind, models / kind)
        spaces = [space for space in SUBJECTS[kind] if f"{kind} {space}" in data["subjects"]]
        records = data["subjects"][f"{kind} {SPACES[kind] if SPACES[kind] in spaces else spaces[0]}"]
        z = torch.tensor([records[text]["methods"][method]["z"] for text in CLASSES])
        with torch.no_grad():
            parts.append(generator.synthesize(generator.encode(z.transpose(0, 1).flatten(0, 1))))
    return torch.cat(parts)


def main(
    models: Annotated[Path, typer.Option(help="Folder of the models of recipes.digits.")] = Path("runs/digits"),
    kinds: Annotated[str, typer.Option(help="Models, separated by commas.")] = ",".join(get_args(Kind)),
    spaces: Annotated[str, typer.Option(help="What guides read, separated by commas.")] = ",".join(SUBJECTS["gan"]),
    methods: Annotated[str, typer.Option(help="As for energyql bench.")] = METHODS,
    n: Annotated[int, typer.Option("--n", "-n", min=2, help="Samples for each query and method.")] = 100,
    prior: Annotated[int, typer.Option(min=100, help="Pictures of the prior of each model.")] = 3000,
    threads: ThreadsOption = 1,
    out: Annotated[Path, typer.Option(help="Folder of results, pictures and the state of the run.")] = Path(
        "runs/digits-bench"
    ),
    smoke: SmokeOption = False,
) -> None:
    """Sample ten classes and three compositions on each model. Interrupt at will: it resumes."""
    torch.set_num_threads(threads)
    read, chosen = read_methods(methods), split_names("--kinds", kinds, SUBJECTS)
    guides = split_names("--spaces", spaces, SUBJECTS["gan"])
    offers = {kind: offered for kind, offered in SUBJECTS.items() if kind in chosen}
    if not all(set(guides) & set(offered) for offered in offers.values()):
        hint = "; ".join(f"{kind} has {', '.join(offered)}" for kind, offered in offers.items())
        raise ArgumentError(f"a model of --kinds {kinds} has none of --spaces {spaces}", hint=hint)
    sizes = {"n": 8, "prior": 500, "oracle": 30} if smoke else {"n": n, "prior": prior, "oracle": 150}
    queries = (*CLASSES, *COMPOSITIONS)
    settings: dict[str, Any] = {**sizes, "seed": SEED, "kinds": chosen, "spaces": guides}
    settings["methods"] = [method.name for method in read]
    subjects = {
        f"{kind} {space}": evaluated(kind, space, models, out, SMOKE_SCALE if smoke else 1.0)
        for kind, offered in offers.items()
        for space in offered
        if space in guides
    }
    identities = {subject: model.identity for subject, model in subjects.items()}
    old = earlier_results(out / "results.json", settings)
    kept = {one: known for one, known in old.get("subjects", {}).items() if old["identities"][one] == identities[one]}
    data = {"settings": settings, "machine": machine(), "identities": identities, "subjects": kept}
    with reporting(True) as report:
        for subject, model in subjects.items():
            known = data["subjects"].setdefault(subject, {})
            judged = prior_samples(model, sizes["prior"], out / "prior", report, seed=SEED)
            for number, text in enumerate(queries, 1):
                if text not in known:
                    known[text] = measure_query(model, text, read, judged, sizes, out, report)
                    write_json(out / "results.json", data)
                report(subject, number / len(queries))
    rows, composed = class_rows(data), composition_rows(data)
    composed_header = ["query", "model", "guide reads", "prior %", *settings["methods"]]
    text = page(
        "Ten classes", NOTE, HEADER, rows, data, "", "## Compositions", "", *markdown_table(composed_header, composed)
    )
    write_text(out / "results.md", text)
    write_picture(out / "digits.png", sheet(pictures_of_classes(data, models), len(CLASSES)))
    tables = table(HEADER, rows), table(composed_header, composed)
    show(*tables, NOTE, f"Saved {out}: results.json, results.md, digits.png", width=150)


if __name__ == "__main__":
    run_command(main, resumes=True)
