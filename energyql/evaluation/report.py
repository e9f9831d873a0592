"""Tables for the terminal, pages in Markdown, and charts with the results of comparisons and evaluations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from PIL import Image
from rich import box
from rich.markup import escape
from rich.table import Table

from energyql.evaluation.measure import Numbers, average, read_numbers
from energyql.render.charts import Axes, Canvas, Place, blend
from energyql.render.markup import markdown_table
from energyql.render.pages import page_templates
from energyql.render.pictures import FAINT, INK, PAPER

WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 400, 300, 60, 70, 70, 56, 26
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#6b7280")
"""Colours of the methods in charts, which start again after the last; so each method also has a number."""


def draw_charts(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Charts "satisfied" and "frequency-error" of the result of `energyql.compare_samplers`.

    Each has two panels: over evaluations of the energy, and over time. A pale dot is one method on one query; a dot
    with a number is the mean of one method over all queries.
    """
    return {
        "satisfied": _chart(data, "Satisfied by the judge, %", "satisfied", 100),
        "frequency-error": _chart(data, "Largest frequency error", "frequency_error", 1),
    }


def _chart(data: dict[str, Any], title: str, key: str, scale: int) -> Image.Image:
    """Chart of one number of `read_numbers`, times `scale`, over evaluations of the energy and over time."""
    names, count = data["contenders"], len(data["queries"])
    outcomes = [[read_numbers(record["samplers"][name]) for record in data["queries"]] for name in names]
    canvas = Canvas(LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + BOTTOM + LEGEND * math.ceil(len(names) / 3))
    canvas.text((LEFT, 18), f"{title}, of {'one query' if count == 1 else f'{count} queries'}", INK, 18)
    costs = {"work": ("evaluations a sample (2 with gradient)", 1.0)}
    costs["seconds"] = "milliseconds a sample", 1000 / data["settings"]["n"]
    for panel, (cost, (label, factor)) in enumerate(costs.items()):
        series = [
            [(math.log10(max(factor * one[cost], 1e-3)), scale * one[key]) for one in own if one[key] is not None]
            for own in outcomes
        ]
        _panel(canvas, LEFT + panel * (WIDTH + GAP), series, label)
    for i, name in enumerate(names):
        x, y = LEFT + i % 3 * 280, TOP + HEIGHT + BOTTOM + LEGEND * (i // 3)
        _numbered(canvas, (x + 8, y), i)
        canvas.text((x + 24, y), name, INK, 12, "lm")
    return canvas.picture()


def _panel(canvas: Canvas, left: float, series: Sequence[Sequence[Place]], label: str) -> None:
    """Draw the points (log10 of the cost, number) of each method over a logarithmic axis of costs."""
    points = [point for own in series for point in own]
    if not points:
        Axes(canvas, (left, TOP), (WIDTH, HEIGHT)).captions(label)
        canvas.text((left + WIDTH / 2, TOP + HEIGHT / 2), "not measured", FAINT, 12, "mm")
        return
    costs, heights = zip(*points, strict=True)
    low = math.floor(min(costs))
    decades = range(low, max(math.ceil(max(costs)), low + 1) + 1)
    ticks = _round_ticks(min(heights), max(heights))
    axes = Axes(canvas, (left, TOP), (WIDTH, HEIGHT), (decades[0], decades[-1]), (ticks[0], ticks[-1]))
    axes.captions(label)
    axes.ticks({decade: f"{10.0**decade:g}" for decade in decades}, {tick: f"{tick:.10g}" for tick in ticks})
    for i, own in enumerate(series):
        for point in own:
            canvas.dot(axes.at(*point), 3, blend(COLOURS[i % len(COLOURS)], PAPER, 0.65))
    for i, own in enumerate(series):
        if own:
            cost, number = (sum(values) / len(own) for values in zip(*own, strict=True))
            _numbered(canvas, axes.at(cost, number), i)


def _numbered(canvas: Canvas, at: Place, index: int) -> None:
    """Draw a dot in the colour of a method with `index + 1` inside, with its centre in pixels."""
    canvas.dot(at, 9, COLOURS[index % len(COLOURS)])
    canvas.text(at, str(index + 1), PAPER, 11, "mm")


def _round_ticks(low: float, high: float) -> list[float]:
    """Two to six evenly spaced round numbers, from at most `low` to at least `high`, as ticks of an axis."""
    span = high - low or abs(low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= span / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [step * k for k in range(first, max(last, first + 1) + 1)]


TABLE_WIDTH = 150
"""Width of the widest table, in characters."""
_NOTE = (
    "Freq. error: the largest difference of the frequency of any attribute from that among exact samples (the oracle: "
    "the prior, rejected by the judge). Variety and nearest: distance of two samples, and to the nearest other, over "
    "those of exact samples, the lowest of z, w and features; 1 for exact samples. Dupl.: samples nearer to another "
    "than 99 % of exact samples are, the highest of the three. Floor: the number before it, for exact samples. "
    "Ms: time of sampling a sample, without drawing it."
)
NOTE = (
    "Satisfied: by the image judge, which never guides a sampler; heads: by the attribute heads, which do. Fréchet: on "
    f"judge features, to the oracle's pictures. {_NOTE} Evals: evaluations of the energy a sample, 2 with gradient. "
    "Failed: samples that the sampler could not finish; they count like all others."
)
EVALUATION_NOTE = (
    "Accuracy: share of samples that meet a condition of the query by the independent judge, over all conditions; for "
    "a target of a continuous attribute one minus the mean distance over the range. Satisfied: the whole query. "
    f"Fréchet: on features, to exact samples of the query (oracle), and to pictures of no query (prior). {_NOTE} "
    "docs/evaluation.md has the references."
)
EDIT_NOTE = (
    "Asked: pictures that satisfy the query of the step, by the judge; all: the queries of all steps so far. Identity: "
    "one minus the cosine of features, to the start. Leak: share of all other attributes that changed without need. "
    "DES: disentangled edit strength, the rise of the share that satisfies the query, minus the largest leak."
)
Columns = Sequence[tuple[str, str, float, int]]
"""Columns of numbers: heading, key of the number in a row, factor of the number, and digits after the point."""

_SHARED: Columns = (
    ("freq. error", "frequency_error", 1, 3), ("floor", "frequency_floor", 1, 3), ("variety", "pairwise", 1, 2),
    ("nearest", "nearest", 1, 2), ("dupl. %", "duplicates", 100, 1), ("floor", "duplicates_floor", 100, 1),
)  # fmt: skip
METHOD_COLUMNS: Columns = (
    ("satisfied %", "satisfied", 100, 1), ("heads %", "heads", 100, 1), *_SHARED, ("Fréchet", "frechet", 1, 3),
    ("floor", "frechet_floor", 1, 3), ("evals", "work", 1, 0), ("ms", "seconds", 1000, 2), ("failed", "failures", 1, 0),
)  # fmt: skip
EVALUATION_COLUMNS: Columns = (
    ("accuracy %", "accuracy", 100, 1), ("satisfied %", "satisfied", 100, 1), ("worst %", "worst", 100, 1),
    ("Fréchet, oracle", "frechet", 1, 3), ("floor", "frechet_floor", 1, 3), ("prior", "to_prior", 1, 3), *_SHARED,
    ("ms", "seconds", 1000, 2),
)  # fmt: skip
EDIT_COLUMNS: Columns = (
    ("asked %", "satisfied", 100, 1), ("all %", "all", 100, 1), ("identity", "identity", 1, 3),
    ("leak %", "leak_rate", 100, 1), ("DES", "disentangled", 1, 3),
)  # fmt: skip


def outcome_cells(outcome: dict[str, Any], n: int) -> list[str]:
    """Numbers of an outcome of `measure` as texts, in the order of `METHOD_COLUMNS`; times are divided by n samples."""
    return _cells(_per_sample(read_numbers(outcome), n), METHOD_COLUMNS)


def query_table(data: dict[str, Any]) -> Table:
    """Table for the terminal with a row for every method on every query of a comparison."""
    table = terminal_table("query", METHOD_COLUMNS, 36)
    for record in data["queries"]:
        prevalence = share(record["oracle"]["prevalence"])
        table.add_row(f"{escape(record['title'] or record['query'])}  [dim]prior {prevalence}[/]", end_section=True)
        for name in data["contenders"]:
            table.add_row(f"  {escape(name)}", *outcome_cells(record["samplers"][name], data["settings"]["n"]))
        table.add_section()
    return table


def summary_table(data: dict[str, Any]) -> Table:
    """Table for the terminal with two rows for each method: mean and worst value over queries."""
    table = terminal_table(f"over {len(data['queries'])} queries", METHOD_COLUMNS, 36)
    for name, which, row in _summary_rows(data):
        table.add_row(f"{escape(name)}, {which}", *row, end_section=which == "worst")
    return table


def comparison_page(data: dict[str, Any], title: str) -> str:
    """Page in Markdown with the results of `energyql.compare_samplers`."""

    def table(rows: Iterable[Sequence[str]]) -> str:
        return "\n".join(markdown_table(["sampler", *(name for name, *_ in METHOD_COLUMNS)], rows))

    def outcomes(record: dict[str, Any]) -> list[list[str]]:
        n, samplers = data["settings"]["n"], record["samplers"]
        return [[f"`{name}`", *outcome_cells(samplers[name], n)] for name in data["contenders"]]

    summary = [[f"`{name}`, {which}", *row] for name, which, row in _summary_rows(data)]
    return _PAGES.get_template("comparison.md").render(
        data=data, title=title, note=NOTE, table=table, outcomes=outcomes, summary=summary
    )


def evaluation_rows(comparison: dict[str, Any], names: Sequence[str], n: int) -> list[list[str]]:
    """Row of a table for each method: its name, then means over queries in the order of `EVALUATION_COLUMNS`.

    The column "worst" is the smallest share of samples that satisfy a query. `comparison` has the entries `queries` and
    `summary` of the result of `energyql.compare_samplers`.
    """
    lines = []
    for name in names:
        outcomes = [record["samplers"][name] for record in comparison["queries"]]
        summary = comparison["summary"][name]
        row = _per_sample(summary["mean"], n) | {
            "worst": summary["worst"]["satisfied"],
            "accuracy": average([one for outcome in outcomes for one in (outcome["accuracy"] or {}).values()]),
            "to_prior": average([outcome["frechet"]["to_prior"] for outcome in outcomes if outcome["frechet"]]),
        }
        lines.append([name, *_cells(row, EVALUATION_COLUMNS)])
    return lines


def edit_rows(sequence: dict[str, Any]) -> list[list[str]]:
    """Rows with the columns `EDIT_COLUMNS`: for each preset every step of `measure_sequence`, then their mean."""
    lines = []
    for preset, result in sequence.items():
        steps = result["steps"]
        lines += [[f"{preset}: {k}. {step['query']}", *_cells(step, EDIT_COLUMNS)] for k, step in enumerate(steps, 1)]
        mean = {key: average([step[key] for step in steps if step[key] is not None]) for _, key, _, _ in EDIT_COLUMNS}
        lines.append([f"{preset}, mean", *_cells(mean, EDIT_COLUMNS)])
    return lines


def evaluation_tables(data: dict[str, Any]) -> list[Table]:
    """Table for the terminal for each protocol that `energyql.evaluate` ran."""
    tables = []
    for key, protocol in data["setups"].items():
        if "missing" not in protocol:
            columns, rows = _protocol_rows(protocol, data)
            tables.append(terminal_table("", columns, 20, f"{escape(protocol['title'])} ({key})"))
            for row in rows:
                tables[-1].add_row(*map(escape, row), end_section=row[0].endswith(", mean"))
    return tables


def evaluation_notes(data: dict[str, Any]) -> list[str]:
    """Texts that explain the columns of the tables of an evaluation: of samplers, of edits, or both."""
    notes = {"comparison": EVALUATION_NOTE, "sequence": EDIT_NOTE}
    return [text for kind, text in notes.items() if any(kind in protocol for protocol in data["setups"].values())]


def evaluation_page(data: dict[str, Any]) -> str:
    """Page in Markdown with the result of `energyql.evaluate`, and links to pictures."""

    def table(protocol: dict[str, Any]) -> str:
        columns, rows = _protocol_rows(protocol, data)
        header = ["sampler" if "comparison" in protocol else "preset and step", *(name for name, *_ in columns)]
        return "\n".join(markdown_table(header, [[f"`{name}`", *cells] for name, *cells in rows]))

    return _PAGES.get_template("evaluation.md").render(data=data, notes=evaluation_notes(data), table=table)


def share(value: float) -> str:
    """Share, 0 to 1, in per cent as text, such as "12.3 %"; below 1 % with two significant digits."""
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def facts(data: dict[str, Any]) -> list[str]:
    """Lines of Markdown with the sections "Settings" and "Machine" of a comparison or an evaluation."""
    lines = []
    for heading in ("settings", "machine"):
        lines += ["", f"## {heading.capitalize()}", ""]
        lines += [f"- {key}: `{value}`" for key, value in data[heading].items()]
    return lines


def terminal_table(first: str, columns: Columns, width: int, title: str | None = None) -> Table:
    """Empty table for the terminal; `first` heads the column of texts, of at least `width` characters."""
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    table.add_column(first, overflow="fold", min_width=width)
    for heading, *_ in columns:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    return table


def _cells(row: Numbers, columns: Columns) -> list[str]:
    """Numbers as texts, in the order of the columns; "-" for `None` or NaN."""
    return [
        "-" if (value := row[key]) is None or math.isnan(value) else f"{factor * value:.{digits}f}"
        for _, key, factor, digits in columns
    ]


def _per_sample(row: Numbers, n: int) -> Numbers:
    """Copy of `row` in which `seconds` is divided by n, the number of samples."""
    return row | {"seconds": row["seconds"] / n}


def _summary_rows(data: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield the name of a method, "mean" or "worst", and the numbers as texts in the order of `METHOD_COLUMNS`."""
    for name in data["contenders"]:
        for which, row in data["summary"][name].items():
            yield name, which, _cells(_per_sample(row, data["settings"]["n"]), METHOD_COLUMNS)


def _protocol_rows(protocol: dict[str, Any], data: dict[str, Any]) -> tuple[Columns, list[list[str]]]:
    """Columns and rows of the table of a protocol, which is an entry of `setups` in the result `data`."""
    if "sequence" in protocol:
        return EDIT_COLUMNS, edit_rows(protocol["sequence"])
    return EVALUATION_COLUMNS, evaluation_rows(protocol["comparison"], data["contenders"], data["settings"]["n"])


_PAGES = page_templates("energyql.evaluation", "pages")
_PAGES.globals |= {"facts": facts, "share": share}
