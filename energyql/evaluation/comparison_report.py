"""Measurements as tables and files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from energyql.evaluation.chart import draw_charts
from energyql.files import write_json, write_picture, write_text

COLUMNS = (
    "satisfied %", "heads %", "freq. error", "floor", "variety", "nearest", "dupl. %", "Fréchet", "floor", "evals",
    "ms", "failed",
)  # fmt: skip
TABLE_WIDTH = 150
NOTE = (
    "Satisfied: by the image judge, which never guides a sampler; heads: by the attribute heads, which do. "
    "Freq. error: the largest difference of the frequency of any attribute from that among exact samples (the oracle: "
    "the prior, rejected by the judge); floor: what exact samples of the same number would show, for noise. "
    "Variety and nearest: distance of two samples, and distance to the nearest other, over those of exact samples, the "
    "lowest of z, w and judge features; 1 is as varied as the truth. Dupl.: samples nearer to another than 99 % of "
    "exact samples are, the highest of the three; 1 is the truth. Fréchet: on judge features, to the oracle's "
    "pictures. Evals: evaluations of the energy a sample, 2 where the gradient is computed too. Ms: time of sampling a "
    "sample, without drawing it. Failed: samples that the sampler could not finish; they count like all others."
)
_KEYS: tuple[tuple[str, Callable[[dict[str, Any]], float | None], bool], ...] = (
    ("satisfied", lambda found: found["satisfied"], True),
    ("heads", lambda found: found["heads"], True),
    ("frequency_error", lambda found: _part(found, "frequency_error", "largest"), False),
    ("frequency_floor", lambda found: _part(found, "frequency_error", "floor"), False),
    ("pairwise", lambda found: _over_spaces(found, "pairwise", min), True),
    ("nearest", lambda found: _over_spaces(found, "nearest", min), True),
    ("duplicates", lambda found: _over_spaces(found, "duplicates", max), False),
    ("frechet", lambda found: _part(found, "frechet", "distance"), False),
    ("frechet_floor", lambda found: _part(found, "frechet", "floor"), False),
    ("work", lambda found: found["work"], False),
    ("seconds", lambda found: found["seconds"], False),
    ("failures", lambda found: found["failures"], False),
)
"""Name of a number, where it stands in an outcome, and whether more is better."""


def numbers(outcome: dict[str, Any]) -> dict[str, float | None]:
    """An outcome as the numbers that tables show."""
    return {name: read(outcome) for name, read, _ in _KEYS}


def summarize(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """`mean` and `worst` over queries of every number, by contender; `None` where nothing was measured."""
    summary: dict[str, dict[str, dict[str, float | None]]] = {}
    for name in names:
        rows = [numbers(record["samplers"][name]) for record in records if name in record["samplers"]]
        mean: dict[str, float | None] = {}
        worst: dict[str, float | None] = {}
        for key, _, more in _KEYS:
            known = [value for row in rows if (value := row[key]) is not None]
            mean[key] = sum(known) / len(known) if known else None
            worst[key] = (min(known) if more else max(known)) if known else None
        summary[name] = {"mean": mean, "worst": worst}
    return summary


def query_table(data: dict[str, Any]) -> Table:
    """For the terminal: every contender on every query."""
    table = _table("query")
    for record in data["queries"]:
        prevalence, last = record["oracle"]["prevalence"], data["contenders"][-1]
        table.add_row(
            f"{escape(record['title'] or record['query'])}  [dim]prior {share(prevalence)}[/]", end_section=True
        )
        for name in data["contenders"]:
            row = cells(numbers(record["samplers"][name]), data["settings"]["n"])
            table.add_row(f"  {escape(name)}", *row, end_section=name == last)
    return table


def summary_table(data: dict[str, Any]) -> Table:
    """For the terminal: mean and worst over queries."""
    table = _table(f"over {len(data['queries'])} queries")
    for name in data["contenders"]:
        for which, row in data["summary"][name].items():
            table.add_row(f"{escape(name)}, {which}", *cells(row, data["settings"]["n"]), end_section=which == "worst")
    return table


def cells(row: dict[str, float | None], n: int) -> list[str]:
    """Numbers as text, in the order of `COLUMNS`."""
    seconds = row["seconds"]
    return [
        _shown(row["satisfied"], 100, 1),
        _shown(row["heads"], 100, 1),
        _shown(row["frequency_error"], 1, 3),
        _shown(row["frequency_floor"], 1, 3),
        _shown(row["pairwise"], 1, 2),
        _shown(row["nearest"], 1, 2),
        _shown(row["duplicates"], 100, 1),
        _shown(row["frechet"], 1, 3),
        _shown(row["frechet_floor"], 1, 3),
        _shown(row["work"], 1, 0),
        _shown(seconds if seconds is None else seconds / n, 1000, 2),
        _shown(row["failures"], 1, 0),
    ]


def share(value: float) -> str:
    """A share as text, however small."""
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def markdown(data: dict[str, Any], title: str) -> str:
    """Everything as a page."""
    n, names = data["settings"]["n"], data["contenders"]
    lines = [f"# {title}", "", NOTE, "", "![Satisfied, against cost](satisfied.png)", ""]
    lines += ["![Frequency error, against cost](frequency-error.png)", "", "## Over all queries", ""]
    lines += _header("sampler")
    for name in names:
        for which, row in data["summary"][name].items():
            lines.append(f"| `{name}`, {which} | {' | '.join(cells(row, n))} |")
    lines += ["", "## Query by query"]
    for record in data["queries"]:
        oracle = record["oracle"]
        named = f"{record['title']}: " if record["title"] else ""
        lines += ["", f"### {named}`{record['query']}`", "", _described(oracle), "", *_header("sampler")]
        for name in names:
            lines.append(f"| `{name}` | {' | '.join(cells(numbers(record['samplers'][name]), n))} |")
        for name in names:
            if path := record["samplers"][name].get("pictures"):
                lines += ["", f"![{name}, of {record['query']}]({path})"]
    for heading in ("settings", "machine"):
        facts = data[heading].items()
        lines += ["", f"## {heading.capitalize()}", "", *(f"- {key}: `{value}`" for key, value in facts)]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, data: dict[str, Any], title: str) -> dict[str, Any]:
    """Write `results.json`, `results.md` and the plots.

    Returns:
        The data, with a `summary`.
    """
    data = data | {"summary": summarize(data["queries"], data["contenders"])}
    write_json(folder / "results.json", data)
    for name, picture in draw_charts(data).items():
        write_picture(folder / f"{name}.png", picture)
    write_text(folder / "results.md", markdown(data, title))
    return data


def _described(oracle: dict[str, Any]) -> str:
    prevalence, error = share(oracle["prevalence"]), share(oracle["prevalence_error"])
    found, size = oracle["samples"], oracle["size"]
    said = f"The prior satisfies it at {prevalence} (standard error {error}). Oracle: {found:,} samples "
    said += f"worth {size:,.0f}, out of {oracle['pictures']:,} pictures"
    return f"{said}, proposed from {oracle['latents']:,} latents." if oracle["latents"] else f"{said}."


def _header(first: str) -> list[str]:
    return [f"| {' | '.join([first, *COLUMNS])} |", f"|---|{'---:|' * len(COLUMNS)}"]


def _table(first: str) -> Table:
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column(first, overflow="fold", min_width=36)
    for column in COLUMNS:
        table.add_column(column.replace(" ", "\n"), justify="right", no_wrap=True)
    return table


def _shown(value: float | None, factor: float, digits: int) -> str:
    return "-" if value is None or math.isnan(value) else f"{factor * value:.{digits}f}"


def _part(outcome: dict[str, Any], group: str, key: str) -> float | None:
    found = outcome[group]
    return None if found is None else float(found[key])


def _over_spaces(outcome: dict[str, Any], key: str, which: Callable[[list[float]], float]) -> float | None:
    spaces = outcome["diversity"]
    return None if not spaces else which([float(space[key]) for space in spaces.values()])
