"""Comparison of methods on queries: every method is measured on every query.

Each outcome is written as soon as it is measured, so that an interrupted run can be continued.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql import __version__
from energyql.errors import ArgumentError
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import Reference, machine, measure, summarize
from energyql.evaluation.methods import DEFAULT_METHODS, Method, read_methods
from energyql.evaluation.metrics import AttributeBins
from energyql.evaluation.reference import Search, find_oracle, prior_samples
from energyql.evaluation.report import comparison_page, draw_charts
from energyql.evaluation.settings import CompareOptions, CompareSettings, SampleCounts
from energyql.files import as_path, read_json, sole_writer, write_json, write_picture, write_text
from energyql.generators.base import show_pictures
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Model
from energyql.pipeline.queries import CheckedQuery, check_arguments
from energyql.pipeline.settings import several
from energyql.progress import Report, reporting
from energyql.render.pictures import Cell, label_grid
from energyql.sampling.registry import describe_sampler

RESULTS = "results.json"
"""Name of the file with the results, in the folder of a comparison."""

if TYPE_CHECKING:
    from typing_extensions import Unpack


def compare_samplers(
    queries: str | Expr | Sequence[str | Expr], samplers: str | Iterable[str | Method] = DEFAULT_METHODS, *,
    out: str | Path = "bench", model: str | Path | Model = DEFAULT_MODEL, device: str = "auto",
    progress: bool | Report = True, **options: Unpack[CompareOptions],
) -> dict[str, Any]:  # fmt: skip
    """Compare the samples of samplers with exact samples, on a model and your own queries.

    Exact samples are samples of the prior that satisfy a query by the model's judge. If the prior hardly ever satisfies
    a query, more samples are drawn where the heads find the query likely, and the samples get weights that undo this
    choice (`energyql.evaluation.reference`). The same call continues an interrupted run. Arguments not listed here are
    those of `energyql.generate`.

    Args:
        queries: one query or several. A text that ends in .txt, or that is the name of a file, stands for a file with
            one query per line.
        samplers: one sampler or several: a name out of `energyql.sampling.SAMPLERS`, such as "ode", also with a
            semantics or a strength, such as "lace:ode" or "ode@10"; "paper", the algorithm LACE of Nie et al. 2021 at
            the cost of their program; or a `Method` of `energyql.evaluation.methods` with a sampler of your own.
        out: folder where `results.json`, `results.md`, two plots, and the state for the next run are written.
        model: name of a packaged model, a model folder, or a `Model` in memory; it needs a judge.
        options: settings by name, which follow; `truncation`, `condition` and `seed` are those of `energyql.generate`.
        n: samples of each sampler for each query, at least 2.
        prior: pictures of the prior that all queries share, judged once for a model; at least 100.
        oracle: effective number of exact samples that is collected for each query, at least 30.

    Returns:
        The contents of `results.json`, a dict with these entries:

        - `settings` and `machine`: settings of the run, and facts about the computer;
        - `contenders`: names of the samplers;
        - `queries`: a record for each query. Its entry `samplers` is name of a sampler -> measurements
          (`energyql.evaluation.measure.measure`);
        - `others`: records of queries that only earlier calls had;
        - `summary`: for each sampler the mean and the worst value of each measurement over the queries.

    Raises:
        EnergyQLError: a query, a name or a setting is wrong, or the model has no judge.
    """
    settings = CompareSettings(**options)
    methods, query_list = read_methods(samplers), several(queries, (str, Expr))
    if not query_list:
        raise ArgumentError("there is no query to compare samplers on")
    evaluated = EvaluatedModel(
        model, device=device, truncation=settings.truncation, condition=settings.condition
    )  # fmt: skip
    folder = as_path(out)
    with sole_writer(folder, "a comparison"), reporting(progress) as report:
        return compare(Bench(evaluated, settings, folder, report), query_list, methods)


def compare(
    bench: Bench, queries: Sequence[str | Expr], methods: Sequence[Method], *, title: str = "Samplers compared",
    picture_count: int = 0, find: Search = find_oracle,
) -> dict[str, Any]:  # fmt: skip
    """Measure every method on every query, write tables and plots, and return the results as `compare_samplers` does.

    Args:
        title: heading of the page with the results, `results.md`.
        picture_count: how many pictures this page shows for each method on each query.
        find: the search for exact samples.
    """
    model, counts, folder, report = bench.model, bench.counts, bench.folder, bench.report
    checked = check_arguments(queries, model.vocabulary, {method.semantics for method in methods})
    settings = run_settings(model, counts)
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "contenders": [one.name for one in methods]}
    stored = read_json(folder / RESULTS) if (folder / RESULTS).is_file() else {}
    usable = [*stored["queries"], *stored.get("others", [])] if stored.get("settings") == settings else []
    records: dict[str, dict[str, Any]] = {record["query"]: record for record in usable}
    texts = [str(query.expr) for query in checked]
    prior = prior_samples(model, counts.prior, bench.cache / "prior", report, seed=counts.seed)
    bins = AttributeBins(model.vocabulary, prior.values)
    for number, (text, query) in enumerate(zip(texts, checked, strict=True)):
        empty: dict[str, Any] = {"query": text, "title": "", "oracle": None, "samplers": {}}
        record = records[text] = records.get(text, empty) | {"title": query.title}
        missing = [one for one in methods if _missing(record, one, picture_count)]
        if missing:
            exact = model.plan(query.bound, semantics="exact").energy
            oracle = find(bench, query.bound, exact, prior)
            numbers = ("prevalence", "prevalence_error", "size", "pictures", "latents")
            record["oracle"] = {key: getattr(oracle, key) for key in numbers} | {"samples": len(oracle.weights)}
        for i, method in enumerate(missing):
            report("queries", (number + i / len(missing)) / len(checked))
            reference = Reference(query.bound, bins, oracle, prior)
            outcome, samples = measure(method, model, reference, counts.n, counts.seed, report)
            first = samples.select(range(min(picture_count, counts.n)))
            outcome["pictures"] = _write_grid(folder, query, method, first, model) if picture_count else None
            record["samplers"][method.name] = outcome
            _write(folder, data, records, texts)
        report("queries", (number + 1) / len(checked))
    return _write(folder, data, records, texts, title)


def run_settings(model: EvaluatedModel, counts: SampleCounts) -> dict[str, Any]:
    """Settings of a run as JSON values; outcomes of an earlier run with equal settings are used again."""
    numbers = {each.name: getattr(counts, each.name) for each in fields(SampleCounts)}
    return {
        "model": model.model.name, "identity": model.identity, "truncation": model.truncation,
        "condition": model.condition, **numbers, "device": str(model.device), "energyql": __version__,
    }  # fmt: skip


def _missing(record: dict[str, Any], method: Method, picture_count: int) -> bool:
    """Whether a record lacks the outcome of a method, or its pictures, or has that of another sampler."""
    outcome = record["samplers"].get(method.name)
    if outcome is None or (picture_count and outcome["pictures"] is None):
        return True
    same = outcome["semantics"] == method.semantics
    return not same or outcome["sampler"] != describe_sampler(method.sampler)


def _write_grid(
    folder: Path, query: CheckedQuery, method: Method, samples: JudgedSamples, model: EvaluatedModel
) -> str:
    """Write a grid of samples with ticks and crosses by the judge, and return its file's name relative to `folder`."""
    batches = (show_pictures(model.model.generator, images) for _, images in model.draw(samples.z))
    pictures, text = [picture for batch in batches for picture in batch], str(query.expr)
    path = f"pictures/{hashlib.sha256(f'{text} {method.name}'.encode()).hexdigest()[:16]}.png"
    verdicts = model.satisfied(query.bound, samples.values).tolist()
    footer = f"{method.name}, ticks by the judge"
    cells = [Cell(picture, satisfied=holds) for picture, holds in zip(pictures, verdicts, strict=True)]
    grid = label_grid(cells, title=text, columns=len(cells), footer=footer)
    write_picture(folder / path, grid)
    return path


def _write(
    folder: Path, data: dict[str, Any], records: dict[str, dict[str, Any]], texts: Sequence[str], title: str = ""
) -> dict[str, Any]:
    """Write and return the results; with the `title` at the end of a run also the summary, page and plots."""
    queries = [records[text] for text in texts if text in records]
    data = data | {"queries": queries, "others": [record for text, record in records.items() if text not in texts]}
    if title:
        data["summary"] = summarize(queries, data["contenders"])
    write_json(folder / RESULTS, data)
    if title:
        for name, picture in draw_charts(data).items():
            write_picture(folder / f"{name}.png", picture)
        write_text(folder / "results.md", comparison_page(data, title))
    return data
