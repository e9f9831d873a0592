"""Guides in z, in w and in pictures, the paper's ablation of spaces: `python -m benchmarks.spaces --help`.

Nie et al. 2021 (arXiv 2110.10873) compare classifiers of z, of w and of pictures. Here the same sampler follows the
packaged heads, which read the direction of z; heads on w; and a network that reads pictures. The latter two are
trained here, on the choices that latents of `avatars` make. The packaged judge counts, whose weights, pictures and
seeds are none of theirs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.choices import ChoiceModel
from benchmarks.common import (
    SmokeOption,
    ThreadsOption,
    earlier_results,
    frechet_beside_floor,
    page,
    run_command,
    show,
    table,
)
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import decide
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import machine
from energyql.evaluation.metrics import conditional_accuracy
from energyql.evaluation.reference import prior_samples
from energyql.files import write_json, write_text
from energyql.pipeline.model import Model, load_model
from energyql.pipeline.run import run_latents
from energyql.pipeline.settings import DEFAULT_SAMPLER, SamplerName, Semantics
from energyql.progress import Report, reporting
from energyql.sampling import SampleResult, as_energy, prior_latents
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes
from energyql.vocabulary import Vocabulary

QUERIES = ("glasses", "glasses AND beard", "glasses AND beard AND NOT smile")
ATTRIBUTES = ("smile", "glasses", "beard", "hat")
"""Attributes that the heads on w and the network on pictures learn."""
Z, W, PICTURE = "z", "w", "picture"
METHODS: dict[str, tuple[SamplerName, Semantics]] = {
    "ours": (DEFAULT_SAMPLER, "exact"),
    "paper": ("published-ode", "lace"),
}
"""Our default, and the paper's ODE with its settings on the paper's energy."""
TRAINING_SEED = 20_260
"""Of the latents that heads and network learn from."""
SLOPES = 16
"""Start latents at which the slope of the energy is measured."""
UNSURE = 1.0
"""Energy, in nats, from which on a start latent counts: the query does not hold there."""
LEAST_FRECHET = 30
"""Fewest samples of which a Fréchet distance is told."""
NOTE = (
    "Guide: what the energy reads. Accuracy: mean of the shares of pictures that meet each condition of the "
    "query, by the packaged judge; all: share that meets every one; by guide: the same by the guide itself, which "
    "a picture can deceive. Fréchet: distance, in the judge's features averaged over positions, to pictures of "
    "the prior that meet the query by the judge, and in brackets that of as many of these to the others. E and "
    "slope: medians of the energy, in nats, and of the length of its gradient at prior latents where the query "
    "does not hold. Calls: of the generator while sampling, a sample; with gradient 2. Seconds: of the processor, "
    "a sample, without the pictures that are judged."
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of samples.

    Attributes:
        n: for each query, guide and method.
        dear: for the paper's ODE on pictures, each of which is drawn some sixty times, with gradient.
        pictures: that the network learns from.
        latents: that the heads on w learn from.
        prior: pictures of the prior, of which those that satisfy a query are its reference.
    """

    n: int = 64
    dear: int = 16
    pictures: int = 1_500
    latents: int = 10_000
    prior: int = 1_000


SMOKE = Sizes(n=2, dear=1, pictures=160, latents=400, prior=60)


def make_guides(sizes: Sizes, folder: Path, report: Report) -> dict[str, Model]:
    """Return the packaged model, and it with each guide that is trained here, by space; trained ones are kept."""
    packaged, choices = load_model("avatars"), ChoiceModel("avatars")
    known = Vocabulary(packaged.vocabulary[name] for name in ATTRIBUTES)
    guides = {Z: packaged}
    for number, (space, count) in enumerate(((W, sizes.latents), (PICTURE, sizes.pictures))):
        report("training", number / 2)
        place = folder / f"{space}-{count}"
        if not (place / "vocabulary.json").is_file():
            values = choices.read_latents(prior_latents(TRAINING_SEED, 0, count, packaged.generator.z_dim))
            columns = {name: values[name].tolist() for name in ATTRIBUTES}
            table = LabelTable(columns, index=torch.arange(count), vocabulary=known)
            train_attributes(
                packaged.generator, table, place, space=space, truncation=packaged.truncation, seed=TRAINING_SEED,
                n=0 if space == W else None, judge=None, progress=False,  # heads learn from the table alone
            )  # fmt: skip
        guides[space] = replace(load_model(place, judge=packaged.judge), name=packaged.name)
    report("training", 1.0)
    return guides


def measure(guide: Model, query: str, method: str, n: int, reference: JudgedSamples, report: Report) -> dict[str, Any]:
    """Draw n samples, judge them, and return what the table says of them; see `NOTE`."""
    sampler, semantics = METHODS[method]
    evaluated = EvaluatedModel(guide)
    prepared = evaluated.plan(query, sampler=sampler, semantics=semantics)
    started = time.process_time()
    sampled = SampleResult.join(list(run_latents(prepared, n, progress=report)))
    seconds = time.process_time() - started
    samples = evaluated.judge(sampled.z)
    z0 = prior_latents(0, 0, SLOPES, evaluated.z_dim).to(evaluated.device)
    energies, slopes = as_energy(prepared.energy).gradient(z0, torch.arange(SLOPES, device=z0.device))
    unsure = energies > UNSURE
    accuracy = conditional_accuracy(prepared.expr, samples.values, guide.vocabulary)
    assert accuracy is not None
    with torch.inference_mode():
        parts = [decide(guide.bank.predict(evaluated.reads(z))) for z in sampled.z.split(16)]
    believed = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    good = reference.select(evaluated.satisfied(prepared.expr, reference.values).nonzero()[0])
    calls = (sampled.evaluations + sampled.gradients).double().mean().item()
    found: dict[str, Any] = {
        "query": query, "method": method, "n": n,
        "accuracy": sum(accuracy.values()) / len(accuracy),
        "satisfied": float(evaluated.satisfied(prepared.expr, samples.values).mean()),
        "believed": float(evaluated.satisfied(prepared.expr, believed).mean()),
        "evaluations": sampled.evaluations.double().mean().item(),
        "calls": calls if isinstance(guide.bank, PictureBank) else 0.0,
        "seconds": seconds / n, "failures": int((~sampled.ok).sum()),
        "prevalence": len(good) / len(reference), "frechet": None, "floor": None,
        "height": energies[unsure].median().item(), "slope": slopes.norm(dim=1)[unsure].median().item(),
    }  # fmt: skip
    if samples.features is not None and good.features is not None and min(n, len(good)) >= LEAST_FRECHET:
        beside = frechet_beside_floor(samples.features, good.features, n)
        found |= {"frechet": beside["distance"], "floor": beside["floor"]}
    return found


HEADER = ("query", "guide", "sampler", "n", "accuracy", "all", "by guide", "Fréchet", "E", "slope", "calls", "CPU s")


def cells(row: dict[str, Any]) -> list[str]:
    """Return a row of the table as text."""
    frechet = "-" if row["frechet"] is None else f"{row['frechet']:.3f} ({row['floor']:.3f})"
    return [
        row["query"], row["space"], METHODS[row["method"]][0], str(row["n"]), f"{row['accuracy']:.1%}",
        f"{row['satisfied']:.1%}", f"{row['believed']:.1%}", frechet, f"{row['height']:.3g}",
        f"{row['slope']:.3g}", f"{row['calls']:.1f}", f"{row['seconds']:.3f}",
    ]  # fmt: skip


def run(sizes: Sizes, out: Path, queries: Sequence[str], report: Report) -> dict[str, Any]:
    """Measure every guide and method on every query; `results.json` is written after each, and read to resume."""
    guides = make_guides(sizes, out, report)
    reference = prior_samples(EvaluatedModel(guides[Z]), sizes.prior, out, report)
    quality = {
        space: {name: float(guide.report[name].score) for name in ATTRIBUTES if name in guide.report}
        for space, guide in guides.items()
    }
    settings = vars(sizes) | {
        "attributes": list(ATTRIBUTES),
        "training_seed": TRAINING_SEED,
        "identities": {space: EvaluatedModel(guide).identity for space, guide in guides.items()},
    }
    data = earlier_results(out / "results.json", settings)
    data = data or {"machine": machine(), "settings": settings, "quality": quality, "rows": []}
    done = {(row["query"], row["space"], row["method"]) for row in data["rows"]}
    jobs = [(query, space, method) for query in queries for space in guides for method in METHODS]
    for query, space, method in jobs:
        if (query, space, method) in done:
            continue
        n = sizes.dear if space == PICTURE and method == "paper" else sizes.n
        data["rows"].append({"space": space} | measure(guides[space], query, method, n, reference, report))
        write_json(out / "results.json", data)
    data["rows"].sort(key=lambda row: jobs.index((row["query"], row["space"], row["method"])))
    return data


def main(
    threads: ThreadsOption = 1,
    out: Annotated[Path, typer.Option(help="Folder for results, heads and network.")] = Path("runs/spaces"),
    n: Annotated[int, typer.Option("-n", min=1, help="Samples for each query, guide and sampler.")] = Sizes.n,
    smoke: SmokeOption = False,
) -> None:
    """Sample one, two and three attributes by guides in z, in w and in pictures, ours and the paper's ODE."""
    torch.set_num_threads(threads)
    sizes, queries = (SMOKE, QUERIES[1:2]) if smoke else (Sizes(n=n), QUERIES)
    with reporting(True) as report:
        data = run(sizes, out, queries, report)
    rows = [cells(row) for row in data["rows"]]
    write_text(out / "results.md", page("Guides in z, in w and in pictures", NOTE, HEADER, rows, data))
    show(table(HEADER, rows), NOTE, f"Saved {out / 'results.md'}", width=140)


if __name__ == "__main__":
    run_command(main, resumes=True)
