"""Comparison of every method on every query. Results are written as they come, so that an interrupted run resumes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import Reference, machine, measure, summarize
from energyql.evaluation.methods import DEFAULT_METHODS, Method, read_methods
from energyql.evaluation.metrics import AttributeBins
from energyql.evaluation.reference import find_oracle, prior_samples
from energyql.evaluation.report import comparison_page, draw_charts
from energyql.files import as_path, naming_target, read_json, sole_writer, write_json, write_picture, write_text
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.queries import CheckedQuery, check_arguments
from energyql.pipeline.settings import MOST_SAMPLES, several, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid
from energyql.sampling.base import describe_sampler
from energyql.version import __version__

RESULTS = "results.json"
PRIOR, ORACLE = 20_000, 1_000
FORMER_FIELDS = {
    "descent=None": "then='anneal'", r"descent=DescentSampler\([^()]*\)": "then='descend'", "tolerance=0.001, ": "",
}  # fmt: skip
"""Fields in the text of a sampler, and how they were written until November 2026: such outcomes still count."""


@dataclass(frozen=True)
class SampleCounts:
    """Numbers of samples of a comparison, and their seed, checked; see `compare_samplers`."""

    n: int = 500
    prior: int = PRIOR
    oracle: int = ORACLE
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least, most in (
            ("n", 2, MOST_SAMPLES), ("prior", 100, MOST_SAMPLES), ("oracle", 30, MOST_SAMPLES), ("seed", 0, 2**64 - 1),
        ):  # fmt: skip
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least, most=most))


def compare_samplers(
    queries: str | Expr | Sequence[str | Expr],
    samplers: str | Iterable[str | Method] = DEFAULT_METHODS,
    *,
    folder: str | Path = "bench",
    model: str | Path | Model = DEFAULT_MODEL,
    n: int = 500,
    prior: int = PRIOR,
    oracle: int = ORACLE,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    seed: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
) -> dict[str, Any]:
    """Compare samplers with exact samples, on a model and your own queries.

    Exact samples are those of the prior that satisfy a query by the model's judge; for queries that the prior hardly
    ever satisfies see `energyql.evaluation.reference`. An interrupted run resumes if it is called again.

    Args:
        queries: one or more; a path that ends in .txt, or that exists, is a file with one query per line.
        samplers: names out of `energyql.sampling.SAMPLERS`, "semantics:sampler", "sampler@strength", "paper" for the
            paper's algorithm at its own cost, or `energyql.evaluation.methods.Method` with a sampler of one's own.
        folder: for `results.json`, `results.md`, two plots, and the state for the next run.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        n: samples of each sampler for each query, at least 2.
        prior: pictures of the prior that all queries share, judged once for a model.
        oracle: wanted effective number of exact samples of each query.
        truncation: as for `energyql.generate`.
        label: as for `energyql.generate`.
        seed: of all samples.
        device: as for `energyql.generate`.
        progress: as for `energyql.generate`.

    Returns:
        The contents of `results.json`: `settings`, `machine`, `contenders`, `queries` (see
        `energyql.evaluation.measure.describe`), and `summary`, the mean and worst over queries.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong, or the model has no judge.
    """
    counts = SampleCounts(n, prior, oracle, seed)
    methods, asked = read_methods(samplers), several(queries, (str, Expr))
    if not asked:
        raise ArgumentError("there is no query to compare samplers on", hint='give one or more, such as "smile"')
    evaluated = EvaluatedModel(model, device=device, truncation=truncation, label=label)
    folder = as_path(folder)
    with sole_writer(folder, "a comparison"), reporting(progress) as report:
        return compare(evaluated, asked, methods, counts=counts, folder=folder, report=report)


def compare(
    model: EvaluatedModel,
    queries: Sequence[str | Expr],
    methods: Sequence[Method],
    *,
    counts: SampleCounts,
    folder: Path,
    report: Report,
    title: str = "Samplers compared",
    shown: int = 0,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measure every method on every query, and write tables and plots; see `compare_samplers`.

    Outcomes of an earlier run in the same folder with the same settings are read from disk. Several comparisons can
    share a folder of judged pictures of the prior and of oracles, `kept`. The page shows `shown` pictures of each
    method for each query. `report` is called with the stages "prior", "queries", "oracle", "sampling" and "judging".
    """
    checked = check_arguments(queries, model.vocabulary, {method.semantics for method in methods})
    settings = run_settings(model, counts)
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "contenders": [one.name for one in methods]}
    stored = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    known = [*stored["queries"], *stored.get("others", [])] if stored.get("settings") == settings else []
    earlier = {record["query"]: record for record in known}
    kept = folder if kept is None else kept
    prior = prior_samples(model, counts.prior, kept / "prior", report, seed=counts.seed)
    bins = AttributeBins(model.vocabulary, prior.values)
    records: list[dict[str, Any]] = []
    for number, query in enumerate(checked):
        text = str(query.expr)
        old = earlier.get(text, {"oracle": None, "samplers": {}})
        record = {"query": text, "title": query.title, "oracle": old["oracle"], "samplers": dict(old["samplers"])}
        missing = [one for one in methods if _missing(record, one, shown)]
        if missing:
            exact = model.prepare(query.bound, semantics="exact").energy
            oracle = find_oracle(
                model, query.bound, exact, prior, counts.oracle, kept / "oracle", report, seed=counts.seed
            )
            reference = Reference(query.bound, bins, oracle, prior)
            record["oracle"] = {
                "prevalence": oracle.prevalence,
                "prevalence_error": oracle.prevalence_error,
                "samples": len(oracle.weights),
                "size": oracle.size,
                "pictures": oracle.pictures,
                "latents": oracle.latents,
            }
            for i, method in enumerate(missing):
                report("queries", (number + i / len(missing)) / len(checked))
                outcome, samples = measure(method, model, reference, counts.n, counts.seed, report, shown=shown)
                outcome["pictures"] = _write_grid(folder, query, method, samples, model)
                record["samplers"][method.name] = outcome
                earlier[text] = record
                _write(folder, data, [*records, record], earlier)
        records.append(record)
        report("queries", (number + 1) / len(checked))
    return _write(folder, data, records, earlier, title)


def run_settings(model: EvaluatedModel, counts: SampleCounts) -> dict[str, Any]:
    """Return the settings that must be the same for an earlier outcome to be used again."""
    return {
        "model": model.model.name,
        "identity": model.identity,
        "truncation": model.truncation,
        "label": model.label,
        **asdict(counts),
        "device": str(model.device),
        "energyql": __version__,
    }


def _missing(record: dict[str, Any], method: Method, shown: int) -> bool:
    found = record["samplers"].get(method.name)
    if found is None or (shown and found["pictures"] is None) or found["semantics"] != method.semantics:
        return True
    former = now = describe_sampler(method.sampler)
    for pattern, text in FORMER_FIELDS.items():
        former = re.sub(pattern, text, former)
    return found["sampler"] not in (now, former)


def _write_grid(
    folder: Path, query: CheckedQuery, method: Method, samples: JudgedSamples, model: EvaluatedModel
) -> str | None:
    """Write the pictures that were kept as a grid, and return its path relative to the folder."""
    if not samples.pictures:
        return None
    count, text = len(samples.pictures), str(query.expr)
    path = f"pictures/{hashlib.sha256(f'{text} {method.name}'.encode()).hexdigest()[:16]}.png"
    verdicts = model.satisfied(query.bound, samples.values)[:count].tolist()
    footer = f"{method.name}, ticks by the judge"
    grid = label_grid(samples.pictures, title=text, verdicts=verdicts, columns=count, footer=footer)
    write_picture(folder / path, grid)
    return path


def _write(
    folder: Path, data: dict[str, Any], records: list[dict[str, Any]], earlier: dict[str, dict[str, Any]],
    title: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Write all outcomes; `others` are queries of an earlier run that are still to come, or no longer asked.

    With a title the run is complete, and summary, page and plots are written too.
    """
    current = {record["query"] for record in records}
    others = [record for text, record in earlier.items() if text not in current]
    data = data | {"queries": records, "others": others}
    if title:
        data["summary"] = summarize(records, data["contenders"])
    with naming_target(folder):
        write_json(folder / RESULTS, data)
        if title:
            for name, picture in draw_charts(data).items():
                write_picture(folder / f"{name}.png", picture)
            write_text(folder / "results.md", comparison_page(data, title))
    return data
