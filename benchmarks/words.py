"""Queries of texts in quotes on the avatars, read by the dual encoder of `recipes.words`, and judged by known factors.

Run `python -m benchmarks.words FOLDER`. Beside each query stand random pictures, and those that the encoder chooses as
the best of 16 by the whole query as one sentence. A second table has calibration errors of texts, before and after 30
labels.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.common import SmokeOption, page, run_command, show
from energyql.attributes.predictions import YesNo
from energyql.attributes.words import CONTRAST, specs_of
from energyql.errors import NoPicturesError
from energyql.evaluation.measure import machine
from energyql.files import write_text
from energyql.language import bind, parse
from energyql.logic.satisfiability import satisfied
from energyql.pipeline.model import Model, load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import draw
from energyql.pipeline.session import open_session
from energyql.pipeline.texts import PriorPictures
from energyql.progress import reporting
from energyql.training.report import report_quality
from energyql.training.words import calibrated
from recipes.common.factors import Factors
from recipes.words.facts import SUBJECTS

QUERIES = {
    '"a person in a hat" AND NOT "spectacles"': "a person in a hat but without spectacles",
    '"somebody old" AND "a beard"': "somebody old with a beard",
    '"a redhead" AND "a smile"': "a redhead with a smile",
    '"a bald person" OR "a beanie"': "a person with a bald head or a beanie",
    '"somebody wearing sunglasses" AND NOT "a hat"': "somebody wearing sunglasses but without a hat",
    '"a red shirt" AND "long hair"': "a person with a red shirt and long hair",
    '"fair hair" AND NOT ("jewellery" OR "a smile")': "a person with fair hair but without jewellery or a smile",
    '("a mustache" OR "a bushy beard") AND "somebody sad"': "somebody sad with a mustache or a bushy beard",
    '"somebody happy" AND NOT "eyewear"': "somebody happy but without eyewear",
    '"golden earrings" AND "black hair"': "a person with golden earrings and black hair",
    '"a fedora" AND NOT "hair on the chin"': "a person in a fedora but without hair on the chin",
    '"a cheerful person" AND "eyewear" AND NOT "long hair"': "a cheerful person with eyewear but without long hair",
}
"""Query -> the same as one sentence, for the best of 16."""
TEXTS = (
    "a person in a hat", "somebody old", "spectacles", "a beard", "a redhead", "long hair", "a mustache", "jewellery",
    "somebody happy", "a red shirt",
)  # fmt: skip
"""Texts whose calibration is measured."""
BEST_OF, LABELS, SEED = 16, 30, 5
_FACTS = SUBJECTS[0].facts
_STATED = {phrase: name for name, fact in _FACTS.items() for phrase in (*fact.nouns, *fact.wholes)}


def truths(z: Tensor, texts: set[str]) -> dict[str, np.ndarray]:
    """Return for texts whether each is true of the avatars of latents z (n, z_dim), by their factors, (n,) bool."""
    scenes = Factors(SUBJECTS[0].domain)(z.cpu())
    return {text: (_FACTS[_STATED[text]].truth(scenes) == 1).numpy() for text in texts}


def holds(query: str, model: Model, z: Tensor) -> np.ndarray:
    """Return for each of n latents whether its avatar satisfies a query, by its factors, (n,) bool."""
    expr = bind(parse(query), model.vocabulary)
    names = {str(node.name) for node in expr.walk() if hasattr(node, "name")}
    return np.broadcast_to(satisfied(expr, truths(z, names), model.vocabulary), len(z))


def measure_queries(
    model: Model, prior: PriorPictures, queries: dict[str, str], n: int, report: Any
) -> list[list[str]]:
    """Return a row for each query: true % of samples, of the best of 16, and of random pictures; draws; seconds."""
    assert model.words is not None
    pipeline, rows = open_session(model, "cpu"), []
    for number, (query, sentence) in enumerate(queries.items()):
        started = time.perf_counter()
        scores = prior.log_odds([sentence])[:, 0][: n * BEST_OF].view(-1, BEST_OF)
        best = scores.argmax(1) + torch.arange(len(scores)) * BEST_OF
        random = holds(query, model, prior.z)
        row = [f"`{query}`", "none accepted", f"{100 * random[best.numpy()].mean():.1f}", f"{100 * random.mean():.1f}"]
        with suppress(NoPicturesError):
            result = draw(plan_query(pipeline, query, seed=SEED), n, progress=False)
            row[1] = f"{100 * holds(query, model, result.z).mean():.1f}"
            row.append(f"{result.statistics['drawn'] / n:.1f}")
        rows.append([*row, *[""] * (5 - len(row)), f"{time.perf_counter() - started:.0f}"])
        report("queries", (number + 1) / len(queries))
    columns = [[float(row[i]) for row in rows if row[i][:1].isdigit()] for i in range(1, 6)]
    return [*rows, ["mean of those", *(f"{np.mean(column):.1f}" if column else "" for column in columns)]]


def measure_calibration(prior: PriorPictures) -> list[list[str]]:
    """Return a row for each of `TEXTS`: accuracy, and the calibration error zero-shot and after 30 labels."""
    log_odds, truth = prior.log_odds(TEXTS).cpu(), truths(prior.z, set(TEXTS))
    rows = []
    for i, text in enumerate(TEXTS):
        x, y = log_odds[:, i], torch.from_numpy(truth[text]).float()
        fitted = calibrated(x[:LABELS], y[:LABELS], text, CONTRAST)
        errors = []
        for slope, offset in ((1.0, 0.0), (fitted.slope, fitted.offset)):
            read = YesNo(slope * x[LABELS:] + offset)
            spec = {text: specs_of([text])[0]}
            quality = report_quality({text: read}, {text: y[LABELS:]}, spec, {text: y[:0]})[text]
            errors += [f"{quality.calibration_error:.3f}", f"{100 * (quality.score or 0):.1f}"]
        rows.append([f'"{text}"', f"{100 * y.mean():.0f}", *errors, str(fitted.report)])
    return rows


def main(
    folder: Annotated[Path, typer.Argument(help="The folder `reader` of recipes.words, or another reader of words.")],
    n: Annotated[int, typer.Option("-n", min=1, help="Pictures of each query.")] = 64,
    out: Annotated[Path | None, typer.Option(help="A Markdown file for the tables.")] = None,
    smoke: SmokeOption = False,
) -> None:
    """Measure queries by words on the avatars."""
    model = load_model("avatars", reader=folder)
    queries = dict(list(QUERIES.items())[:2]) if smoke else QUERIES
    n = min(n, 4) if smoke else n
    prior = PriorPictures(model, model.truncation, None)
    with reporting(True) as report:
        rows = measure_queries(model, prior, queries, n, report)
    data = {"settings": {"n": n, "seed": SEED, "reader": folder.name}, "machine": machine()}
    header = ["query", "true %", f"best of {BEST_OF} %", "random %", "drawn for one", "seconds"]
    text = page("Queries by words", f"n = {n}; judged by the factors of the avatars.", header, rows, data)
    header = ["text", "frequency %", "error", "balanced %", f"error, {LABELS} labels", "balanced %", "its report"]
    text += "\n" + page("Calibration", "", header, [] if smoke else measure_calibration(prior), data)
    show(text)
    if out is not None:
        write_text(out, text)


if __name__ == "__main__":
    run_command(main)
