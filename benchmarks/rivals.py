"""Conditional sampling and sequential edits by rivals of this library: `python -m benchmarks.rivals --help`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import reduce
from operator import and_
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from benchmarks.common import (
    JudgedModelOption,
    SmokeOption,
    earlier_results,
    frechet_beside_floor,
    page,
    run_command,
    show,
    table,
)
from benchmarks.flow import FlowSettings
from benchmarks.rival_methods import (
    DIRECTIONS,
    EDITS,
    FLOWS,
    MOVES,
    PRESETS,
    SAMPLERS,
    STEP,
    Rivals,
    edit_values,
    exact,
    learn,
    sample,
)
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.measure import average, machine
from energyql.files import write_json, write_text
from energyql.language import Expr, bind, parse, predicates
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.model import Values
from energyql.progress import Report, reporting
from energyql.render.markup import markdown_table

QUERIES = ("beard", "smile AND glasses", "smile AND hat AND beard")
"""Of yes/no attributes, which a flow knows; chosen before any was measured."""
SIZES = (1, 2, 3)
"""Attributes of a query, each with columns of its own."""
SAMPLED_COLUMNS = ("rival", *(f"{size} %" for size in SIZES), "Fréchet 1", *map(str, SIZES[1:]), "CPU seconds")
EDITED_COLUMNS = ("rival", *(f"`{step}` %" for step in EDITS), "all five %", "leaked %", "CPU seconds")
TRAINED_COLUMNS = ("rival", "CPU seconds", "-log p in nats, parts of the training")
NOTE = (
    "Above, pictures that satisfy the query by the image judge, and the Fréchet distance of the judge's features to "
    "exact pictures, for queries of one, two and three yes/no attributes, and the CPU time of all "
    "samples without drawing. Below, pictures that satisfy each step's query after it; those that satisfy all five at "
    "the end; of all pairs of a picture and an attribute that a step neither names nor ties by a relation, the share "
    "that changed in a step, numbers by more than their tolerance; and CPU time with drawing. Nothing was tuned."
)


def measure_samples(
    rivals: Rivals, name: str, query: Expr, reference: JudgedSamples, n: int, seed: int, report: Report
) -> dict[str, Any]:
    """Return the share of samples that satisfy a query, their Fréchet distance with its floor, and CPU seconds."""
    samples, seconds = sample(rivals, name, query, n, seed, report)
    found: dict[str, Any] = {"satisfied": float(rivals.model.satisfied(query, samples.values).mean())}
    if samples.features is not None and reference.features is not None and len(reference) > 1:
        beside = frechet_beside_floor(samples.features, reference.features, n)
        found |= {"frechet": beside["distance"], "floor": beside["floor"]}
    return found | {"seconds": seconds}


def measure_edits(rivals: Rivals, name: str, n: int, seed: int, report: Report) -> dict[str, Any]:
    """Return shares of pictures after each step of an edit; see `NOTE`."""
    started = time.process_time()
    values = edit_values(rivals, name, n, seed, report)
    seconds, model = time.process_time() - started, rivals.model
    queries = [bind(parse(step), model.vocabulary) for step in EDITS]
    ties = [{each.name for each in predicates(parse(relation))} for relation in model.vocabulary.relations]
    leaked = []
    for query, before, after in zip(queries, values, values[1:], strict=False):
        asked = {each.name for each in predicates(query)}
        tied = asked.union(*(names for names in ties if names & asked))
        leaked.append(
            np.mean([changed(model, other, before, after) for other in model.vocabulary if other not in tied])
        )
    everything = reduce(and_, queries)
    return {
        "satisfied": [float(model.satisfied(q, v).mean()) for q, v in zip(queries, values[1:], strict=True)],
        "all": float(model.satisfied(everything, values[-1]).mean()),
        "leaked": [float(share) for share in leaked],
        "seconds": seconds,
    }


def changed(model: EvaluatedModel, name: str, before: Values, after: Values) -> float:
    """Return the share of pictures whose value of an attribute changed, a number by more than its tolerance."""
    old, new, spec = before[name], after[name], model.vocabulary[name]
    return float((np.abs(new - old) > spec.tolerance).mean() if spec.kind == "continuous" else (new != old).mean())


def run(
    model: str,
    *,
    queries: Sequence[str] = QUERIES,
    n: int,
    starts: int,
    exact_count: int,
    seed: int,
    flows: Mapping[str, FlowSettings],
    out: Path,
    report: Report,
) -> dict[str, Any]:
    """Measure every rival, and write `results.json` and `results.md` after each part.

    Parts that an earlier run with the same settings finished are taken from `results.json`.
    """
    evaluated = EvaluatedModel(model, device="cpu")
    settings = {
        "model": evaluated.model.name, "identity": evaluated.identity, "n": n, "starts": starts, "exact": exact_count,
        "seed": seed, "flows": {name: asdict(each) for name, each in flows.items()}, "queries": list(queries),
        "edits": list(EDITS), "samplers": SAMPLERS, "presets": {name: list(each) for name, each in PRESETS.items()},
        "step": STEP,
    }  # fmt: skip
    path = out / "results.json"
    data = earlier_results(path, settings) or {"settings": settings, "samples": {}, "edits": {}, "training": {}}
    data["machine"] = machine()
    rivals = Rivals.of(evaluated)
    _measure(rivals, SAMPLERS, (*PRESETS, DIRECTIONS, MOVES), data, out, report)
    rivals, data["training"] = learn(rivals, flows, seed, out, report)
    _measure(rivals, flows, flows, data, out, report)
    _write(out, data)
    return data


def _measure(
    rivals: Rivals, samplers: Iterable[str], editors: Iterable[str], data: dict[str, Any], out: Path, report: Report
) -> None:
    """Measure what is not in the results yet."""
    settings = data["settings"]
    for text in settings["queries"]:
        query = bind(parse(text), rivals.model.vocabulary)
        missing = [name for name in samplers if name not in data["samples"].get(text, {})]
        reference = exact(rivals.model, query, settings["exact"], settings["seed"]) if missing else None
        for name in missing:
            assert reference is not None
            found = measure_samples(rivals, name, query, reference, settings["n"], settings["seed"], report)
            data["samples"].setdefault(text, {})[name] = found | {"exact": len(reference)}
            _write(out, data)
    for name in editors:
        if name not in data["edits"]:
            data["edits"][name] = measure_edits(rivals, name, settings["starts"], settings["seed"], report)
            _write(out, data)


def _write(out: Path, data: dict[str, Any]) -> None:
    write_json(out / "results.json", data)
    write_text(out / "results.md", markdown(data))


def sampled_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table of samples: the rivals so far, and the floor of the distances.

    Cells of a size that no query had yet are empty.
    """
    samples: dict[str, dict[str, dict[str, Any]]] = data["samples"]
    groups = [[found for text, found in samples.items() if text.count(" AND ") + 1 == size] for size in SIZES]

    def means(names: Sequence[str], key: str, unit: float, digits: int) -> list[str]:
        found = [[each[name].get(key) for each in group for name in names if name in each] for group in groups]
        numbers = (average([value for value in values if value is not None]) for values in found)
        return ["" if number is None else f"{number / unit:.{digits}f}" for number in numbers]

    names, lines = list(dict.fromkeys(name for found in samples.values() for name in found)), []
    for name in names:
        total = sum(found[name]["seconds"] for found in samples.values() if name in found)
        lines.append([name, *means([name], "satisfied", 0.01, 1), *means([name], "frechet", 1, 2), f"{total:.1f}"])
    shares = ["100.0" if group else "" for group in groups]
    return [*lines, ["exact", *shares, *means(names, "floor", 1, 2), ""]]


def edited_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table of edits."""
    return [
        [
            name, *(f"{100 * share:.1f}" for share in found["satisfied"]), f"{100 * found['all']:.1f}",
            f"{100 * float(np.mean(found['leaked'])):.1f}", f"{found['seconds']:.1f}",
        ]
        for name, found in data["edits"].items()
    ]  # fmt: skip


def trained_rows(data: dict[str, Any]) -> list[list[str]]:
    """Return the lines of the table of trainings."""
    return [
        [name, f"{facts['seconds']:.0f}", ", ".join(f"{nats:.1f}" for nats in facts["nats"])]
        for name, facts in data["training"].items()
    ]


def markdown(data: dict[str, Any]) -> str:
    """Return the results as a page."""
    edits = ["", "## Five edits", "", *markdown_table(EDITED_COLUMNS, edited_rows(data))] if data["edits"] else []
    trainings = ["", "## Trainings", "", *markdown_table(TRAINED_COLUMNS, trained_rows(data))]
    return page("Rivals", NOTE, SAMPLED_COLUMNS, sampled_rows(data), data, *edits, *trainings)


def main(
    model: JudgedModelOption = DEFAULT_MODEL,
    n: Annotated[int, typer.Option("-n", min=2, help="Samples of each rival for each query.")] = 128,
    starts: Annotated[int, typer.Option(min=1, help="Pictures to edit.")] = 64,
    exact_count: Annotated[int, typer.Option("--exact", min=2, help="Exact samples of each query.")] = 256,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.")] = 2026,
    out: Annotated[Path, typer.Option(help="Folder of results.json and results.md.")] = Path("runs/rivals"),
    smoke: SmokeOption = False,
) -> None:
    """Compare rivals on one thread. After an interruption the same command continues."""
    torch.set_num_threads(1)
    flows, queries = FLOWS, QUERIES
    if smoke:
        n, starts, exact_count, queries = 8, 2, 16, QUERIES[1:2]
        small = {"hidden": 16, "layers": 1, "pairs": 2000, "batch": 16, "steps": 3}
        flows = {name: replace(each, **small) for name, each in FLOWS.items()}
    with reporting(True) as report:
        data = run(
            model, queries=queries, n=n, starts=starts, exact_count=exact_count, seed=seed, flows=flows, out=out,
            report=report,
        )  # fmt: skip
    tables = table(SAMPLED_COLUMNS, sampled_rows(data)), table(EDITED_COLUMNS, edited_rows(data))
    tables = *tables, table(TRAINED_COLUMNS, trained_rows(data))
    show(*tables, f"Saved {out / 'results.json'} and results.md", width=140)


if __name__ == "__main__":
    run_command(main, resumes=True)
