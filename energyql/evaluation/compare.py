"""Comparison of every method on every query; outcomes are written at once, so an interrupted run can be continued."""

from __future__ import annotations

import hashlib
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
from energyql.sampling.registry import describe_sampler, read_record
from energyql.version import __version__

RESULTS = "results.json"
"""File with the results, in the folder of a comparison."""
PRIOR = 20_000
"""Pictures of the prior, by default."""
ORACLE = 1_000
"""Effective number of exact samples that an oracle should have, by default."""


@dataclass(frozen=True)
class SampleCounts:
    """Numbers of samples of a comparison, and their seed; see `compare_samplers`.

    Raises:
        ArgumentError: a number is out of its range.
    """

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
    ever satisfies see `energyql.evaluation.reference`. The same call continues an interrupted run.

    Args:
        queries: one or more; a path that ends in .txt, or that exists, is a file with one query per line.
        samplers: one or more: names out of `energyql.sampling.SAMPLERS`, "semantics:sampler", "sampler@strength",
            "paper" for the paper's algorithm at its own cost, or a `Method` of `energyql.evaluation.methods` with a
            sampler of your own.
        folder: where `results.json`, `results.md`, two plots, and the state for the next run are written.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        n: samples of each sampler for each query, at least 2.
        prior: pictures of the prior that all queries share, judged once for a model; at least 100.
        oracle: effective number of exact samples that is collected for each query, at least 30.
        truncation: psi in [0, 1], by default that of the model; see `energyql.generate`.
        label: a class, or c_dim numbers, for a conditional generator.
        seed: seed of all samples.
        device: "auto", "cpu", "cuda" and so on; see `energyql.generate`.
        progress: whether a progress bar is shown; or a function that is called with the name of a stage and the
            fraction of it that is done.

    Returns:
        The contents of `results.json`: `settings`, `machine`, `contenders`, `queries` (see
        `energyql.evaluation.measure.describe`), and `summary`, the mean and worst over queries.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong, or the model has no judge.
    """
    counts = SampleCounts(n, prior, oracle, seed)
    methods, query_list = read_methods(samplers), several(queries, (str, Expr))
    if not query_list:
        raise ArgumentError("there is no query to compare samplers on", hint='give one or more, such as "smile"')
    evaluated = EvaluatedModel(model, device=device, truncation=truncation, label=label)
    folder = as_path(folder)
    with sole_writer(folder, "a comparison"), reporting(progress) as report:
        return compare(evaluated, query_list, methods, counts=counts, folder=folder, report=report)


def compare(
    model: EvaluatedModel,
    queries: Sequence[str | Expr],
    methods: Sequence[Method],
    *,
    counts: SampleCounts,
    folder: Path,
    report: Report,
    title: str = "Samplers compared",
    picture_count: int = 0,
    cache: Path | None = None,
) -> dict[str, Any]:
    """Measure every method on every query, write tables and plots, and return the results; see `compare_samplers`.

    Args:
        model: the model with its judge.
        queries: the queries.
        methods: the methods.
        counts: numbers of samples, and the seed.
        folder: where results are written; outcomes of an earlier run there with the same settings are not computed
            again.
        report: called with the stages "prior", "queries", "oracle", "sampling" and "judging".
        title: heading of the page.
        picture_count: pictures on the page of each method for each query.
        cache: folder for judged pictures of the prior and of oracles, which comparisons can share; by default `folder`.

    Raises:
        EnergyQLError: a query is wrong, or the folder cannot be written.
    """
    checked = check_arguments(queries, model.vocabulary, {method.semantics for method in methods})
    settings = run_settings(model, counts)
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "contenders": [one.name for one in methods]}
    stored = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    usable = [*stored["queries"], *stored.get("others", [])] if stored.get("settings") == settings else []
    earlier = {record["query"]: record for record in usable}
    cache = folder if cache is None else cache
    prior = prior_samples(model, counts.prior, cache / "prior", report, seed=counts.seed)
    bins = AttributeBins(model.vocabulary, prior.values)
    records: list[dict[str, Any]] = []
    for number, query in enumerate(checked):
        text = str(query.expr)
        old = earlier.get(text, {"oracle": None, "samplers": {}})
        record = {"query": text, "title": query.title, "oracle": old["oracle"], "samplers": dict(old["samplers"])}
        missing = [one for one in methods if _missing(record, one, picture_count)]
        if missing:
            exact = model.prepare(query.bound, semantics="exact").energy
            oracle = find_oracle(
                model, query.bound, exact, prior, counts.oracle, cache / "oracle", report, seed=counts.seed
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
                outcome, samples = measure(
                    method, model, reference, counts.n, counts.seed, report, picture_count=picture_count
                )
                outcome["pictures"] = _write_grid(folder, query, method, samples, model)
                record["samplers"][method.name] = outcome
                earlier[text] = record
                _write(folder, data, [*records, record], earlier)
        records.append(record)
        report("queries", (number + 1) / len(checked))
    return _write(folder, data, records, earlier, title)


def run_settings(model: EvaluatedModel, counts: SampleCounts) -> dict[str, Any]:
    """Return the settings of a run; an earlier outcome is used again only if they are the same."""
    return {
        "model": model.model.name,
        "identity": model.identity,
        "truncation": model.truncation,
        "label": model.label,
        **asdict(counts),
        "device": str(model.device),
        "energyql": __version__,
    }


def _missing(record: dict[str, Any], method: Method, picture_count: int) -> bool:
    """Return whether the record of a query has no outcome of this method, or one without the pictures for the page."""
    outcome = record["samplers"].get(method.name)
    if outcome is None or (picture_count and outcome["pictures"] is None) or outcome["semantics"] != method.semantics:
        return True
    return bool(read_record(outcome["sampler"]) != describe_sampler(method.sampler))


def _write_grid(
    folder: Path, query: CheckedQuery, method: Method, samples: JudgedSamples, model: EvaluatedModel
) -> str | None:
    """Write the pictures of samples as a grid, and return its path relative to `folder`; `None` without pictures."""
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
    """Write the results, and return them.

    Args:
        folder: where they are written.
        data: the entries without queries.
        records: a record for each query that is finished or in progress.
        earlier: query -> its record in an earlier run. Records of queries that are not in `records` are written as
            `others`, so that a later run can use them.
        title: heading of the page; "" if the run is not complete, so that summary, page and plots are not written.
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
