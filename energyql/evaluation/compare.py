"""Every contender on every query, written to disk as it goes, so that an interrupted run goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from energyql.errors import ArgumentError
from energyql.evaluation.comparison_report import write_report
from energyql.evaluation.contenders import DEFAULT_CONTENDERS, Contender, read_contenders
from energyql.evaluation.frequencies import Cells
from energyql.evaluation.machine import machine
from energyql.evaluation.measure import Ground, measure
from energyql.evaluation.oracle import find_oracle
from energyql.evaluation.prior import prior_samples
from energyql.evaluation.subject import Seen, Subject
from energyql.files import read_json, write_json, write_picture
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.pipeline.queries import CheckedQuery
from energyql.progress import Report
from energyql.render.pictures import label_grid
from energyql.version import __version__

RESULTS = "results.json"
PRIOR, ORACLE = 20_000, 1_000


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Attributes:
        n: samples of each contender for each query.
        prior: pictures of the prior that all queries share.
        oracle: exact samples that an oracle should be worth.
        seed: of the samples.
    """

    n: int = 500
    prior: int = PRIOR
    oracle: int = ORACLE
    seed: int = 0


def compare(
    subject: Subject,
    queries: Sequence[CheckedQuery],
    contenders: Iterable[str | Contender] = DEFAULT_CONTENDERS,
    *,
    size: Size,
    folder: Path,
    report: Report,
    title: str = "Samplers compared",
    shown: int = 0,
    kept: Path | None = None,
) -> dict[str, Any]:
    """Measure every contender on every query, and write tables and plots.

    What an earlier run in the same folder measured with the same settings is not measured again.

    Args:
        subject: the model.
        queries: checked under every semantics that a contender uses; see `energyql.pipeline.queries.check_all`.
        contenders: see `read_contenders`.
        size: how much to draw.
        folder: for `results.json`, `results.md`, plots, and what is kept for the next run.
        title: of the page.
        shown: pictures of each contender for each query on the page.
        kept: folder of judged pictures of the prior and of oracles, where several comparisons share them.
        report: called with the stages "prior", "queries", "oracle", "sampling" and "judging".

    Returns:
        What `results.json` holds: `settings`, `machine`, `queries` (for each the oracle and `samplers`, see `measure`),
        and `summary` over queries, by contender.
    """
    several = read_contenders(contenders)
    settings = _settings(subject, size)
    data: dict[str, Any] = {"settings": settings, "machine": machine(), "contenders": [one.name for one in several]}
    earlier = _earlier(folder / RESULTS, settings)
    kept = folder if kept is None else kept
    prior = prior_samples(subject, size.prior, kept / "prior", report, seed=size.seed)
    cells = Cells(subject.vocabulary, prior.values)
    records: list[dict[str, Any]] = []
    for number, query in enumerate(queries):
        record = _record(query, earlier)
        missing = [one for one in several if _missing(record, one, shown)]
        if missing:
            exact = Contender("", "exact", missing[0].sampler).energy(subject, query.bound)
            oracle = find_oracle(
                subject, query.bound, exact, prior, size.oracle, kept / "oracle", report, seed=size.seed
            )
            ground = Ground(query.bound, cells, oracle, prior)
            record["oracle"] = {
                "prevalence": oracle.prevalence,
                "prevalence_error": oracle.prevalence_error,
                "samples": len(oracle.weights),
                "size": oracle.size,
                "pictures": oracle.pictures,
                "latents": oracle.latents,
            }
            for i, one in enumerate(missing):
                report("queries", (number + i / len(missing)) / len(queries))
                outcome, seen = measure(one, subject, ground, size.n, size.seed, report, shown=shown)
                outcome["pictures"] = _show(folder, record["query"], one, seen, query.bound, subject)
                record["samplers"][one.name] = outcome
                earlier[record["query"]] = record
                _write(folder, data, [*records, record], earlier)
        records.append(record)
        report("queries", (number + 1) / len(queries))
    return _write(folder, data, records, earlier, title)


def _settings(subject: Subject, size: Size) -> dict[str, Any]:
    """What must be the same for an earlier measurement to count."""
    return {
        "model": subject.model.name,
        "identity": subject.identity,
        "truncation": subject.encode.keywords["truncation"],
        "label": subject.settings["label"],
        "n": size.n,
        "prior": size.prior,
        "oracle": size.oracle,
        "seed": size.seed,
        "device": str(subject.device),
        "energyql": __version__,
    }


def _earlier(path: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Query -> record of an earlier run with the same settings."""
    if not path.is_file():
        return {}
    data = read_json(path)
    if data.get("settings") != settings:
        return {}
    return {record["query"]: record for record in [*data["queries"], *data.get("others", [])]}


def _record(query: CheckedQuery, earlier: dict[str, dict[str, Any]]) -> dict[str, Any]:
    text = str(query.expr)
    known = earlier.get(text, {})
    return {
        "query": text,
        "title": query.title,
        "oracle": known.get("oracle"),
        "samplers": dict(known.get("samplers", {})),
    }


def _missing(record: dict[str, Any], contender: Contender, shown: int) -> bool:
    found = record["samplers"].get(contender.name)
    if found is None or (shown and found["pictures"] is None):
        return True
    return (found["sampler"], found["semantics"]) != (repr(contender.sampler), contender.semantics)


def _show(folder: Path, query: str, contender: Contender, seen: Seen, bound: Expr, subject: Subject) -> str | None:
    """Write a grid of the pictures that were kept; the path of it, relative to the folder."""
    if not seen.pictures:
        return None
    holds = np.broadcast_to(satisfied(bound, seen.values, subject.vocabulary), (len(seen),))
    name = hashlib.sha256(f"{query} {contender.name}".encode()).hexdigest()[:16]
    path = Path("pictures") / f"{name}.png"
    grid = label_grid(
        seen.pictures, title=query, verdicts=holds[: len(seen.pictures)].tolist(), columns=len(seen.pictures),
        footer=f"{contender.name}, ticks by the judge",
    )  # fmt: skip
    write_picture(folder / path, grid)
    return path.as_posix()


def _write(
    folder: Path,
    data: dict[str, Any],
    records: list[dict[str, Any]],
    earlier: dict[str, dict[str, Any]],
    title: str = "",
) -> dict[str, Any]:
    """Write all that is known; `others` are queries of an earlier run that are still to come, or no longer asked.

    With a title the run is complete, and tables and plots are written too.
    """
    shown = {record["query"] for record in records}
    others = [record for text, record in earlier.items() if text not in shown]
    data = data | {"queries": records, "others": others}
    try:
        if title:
            return write_report(folder, data, title)
        write_json(folder / RESULTS, data)
        return data
    except OSError as error:
        raise ArgumentError(f"cannot write {folder}: {error.strerror or error}") from error
