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
"""Colours of the methods in charts, in turn. If there are more methods, colours occur again, so each method also has a
number."""


def draw_charts(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Return two charts of a comparison by name, "satisfied" and "frequency-error".

    Each chart shows one measurement in two panels: over the evaluations of the energy, and over time. A pale dot is one
    method on one query; a dot with a number is the mean of one method over all queries.

    `data` is the result of `energyql.compare_samplers`.
    """
    return {
        "satisfied": _chart(data, "Satisfied by the judge, %", "satisfied", 100),
        "frequency-error": _chart(data, "Largest frequency error", "frequency_error", 1),
    }


def _chart(data: dict[str, Any], title: str, key: str, scale: int) -> Image.Image:
    """Return a chart of one number with two panels: over evaluations of the energy, and over time.

    Args:
        data: the result of `energyql.compare_samplers`.
        title: heading of the chart.
        key: name of the number in the result of `read_numbers`, such as "satisfied".
        scale: factor of the number, such as 100 for per cent.
    """
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
    """Draw the points of all methods over a logarithmic axis of costs.

    Args:
        canvas: the drawing of the whole chart.
        left: distance of the panel from the left edge of the chart, in pixels.
        series: for each method a list with one point for each query: the logarithm of the cost to base 10, and the
            measured number.
        label: name of the cost, below the axis.
    """
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
    """Draw a dot in the colour of a method, with the number of the method inside.

    Args:
        canvas: the drawing.
        at: centre of the dot, in pixels.
        index: index of the method, from 0; the number in the dot is `index + 1`.
    """
    canvas.dot(at, 9, COLOURS[index % len(COLOURS)])
    canvas.text(at, str(index + 1), PAPER, 11, "mm")


def _round_ticks(low: float, high: float) -> list[float]:
    """Return evenly spaced round numbers, two to six, from at most `low` to at least `high`, as ticks of an axis."""
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
"""Columns of a table with numbers. For each column: heading, key of the number in a row, factor by which the number is
multiplied, and number of digits after the point."""

_SHARED: Columns = (
    ("freq. error", "frequency_error", 1, 3), ("floor", "frequency_floor", 1, 3), ("variety", "pairwise", 1, 2),
    ("nearest", "nearest", 1, 2), ("dupl. %", "duplicates", 100, 1), ("floor", "duplicates_floor", 100, 1),
)  # fmt: skip
COLUMNS: Columns = (
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
    """Return the numbers that were measured for one method on one query as texts, in the order of `COLUMNS`.

    Args:
        outcome: the numbers, the first of the two values that `measure` returns.
        n: number of samples, by which times are divided.
    """
    return _cells(_per_sample(read_numbers(outcome), n), COLUMNS)


def query_table(data: dict[str, Any]) -> Table:
    """Return a table for the terminal with a row for every method on every query.

    `data` is the result of `energyql.compare_samplers`.
    """
    table = terminal_table("query", COLUMNS, 36)
    for record in data["queries"]:
        prevalence = share(record["oracle"]["prevalence"])
        table.add_row(f"{escape(record['title'] or record['query'])}  [dim]prior {prevalence}[/]", end_section=True)
        for name in data["contenders"]:
            table.add_row(f"  {escape(name)}", *outcome_cells(record["samplers"][name], data["settings"]["n"]))
        table.add_section()
    return table


def summary_table(data: dict[str, Any]) -> Table:
    """Return a table for the terminal with two rows for each method: mean and worst value over queries.

    `data` is the result of `energyql.compare_samplers`.
    """
    table = terminal_table(f"over {len(data['queries'])} queries", COLUMNS, 36)
    for name, which, row in _summary_rows(data):
        table.add_row(f"{escape(name)}, {which}", *row, end_section=which == "worst")
    return table


def comparison_page(data: dict[str, Any], title: str) -> str:
    """Return a page in Markdown with the results of a comparison.

    Args:
        data: the result of `energyql.compare_samplers`.
        title: heading of the page.
    """

    def table(rows: Iterable[Sequence[str]]) -> str:
        return "\n".join(markdown_table(["sampler", *(name for name, *_ in COLUMNS)], rows))

    def outcomes(record: dict[str, Any]) -> list[list[str]]:
        n, samplers = data["settings"]["n"], record["samplers"]
        return [[f"`{name}`", *outcome_cells(samplers[name], n)] for name in data["contenders"]]

    summary = [[f"`{name}`, {which}", *row] for name, which, row in _summary_rows(data)]
    return _PAGES.get_template("comparison.md").render(
        data=data, title=title, note=NOTE, table=table, outcomes=outcomes, summary=summary
    )


def evaluation_rows(comparison: dict[str, Any], names: Sequence[str], n: int) -> list[list[str]]:
    """Return a row of a table for each method: the name, then means over queries in the order of `EVALUATION_COLUMNS`.

    The column "worst" is the smallest share of samples that satisfy a query, not a mean.

    Args:
        comparison: the entries `queries` and `summary` of the result of `energyql.compare_samplers`.
        names: names of the methods.
        n: samples of each method for each query.
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
    """Return rows of a table with the columns `EDIT_COLUMNS`: for each preset a row for every step, then their mean.

    `sequence` is preset -> result of `energyql.evaluation.edits.measure_sequence`.
    """
    lines = []
    for preset, result in sequence.items():
        steps = result["steps"]
        lines += [[f"{preset}: {k}. {step['query']}", *_cells(step, EDIT_COLUMNS)] for k, step in enumerate(steps, 1)]
        mean = {key: average([step[key] for step in steps if step[key] is not None]) for _, key, _, _ in EDIT_COLUMNS}
        lines.append([f"{preset}, mean", *_cells(mean, EDIT_COLUMNS)])
    return lines


def evaluation_tables(data: dict[str, Any]) -> list[Table]:
    """Return a table for the terminal for each protocol that was run; `data` is the result of `energyql.evaluate`."""
    tables = []
    for key, protocol in data["setups"].items():
        if "missing" not in protocol:
            columns, rows = _protocol_rows(protocol, data)
            tables.append(terminal_table("", columns, 20, f"{escape(protocol['title'])} ({key})"))
            for row in rows:
                tables[-1].add_row(*map(escape, row), end_section=row[0].endswith(", mean"))
    return tables


def evaluation_notes(data: dict[str, Any]) -> list[str]:
    """Return texts that explain the columns of the tables of an evaluation.

    There is a text about tables of samplers, if samplers were compared, and a text about tables of edits, if there were
    edits. `data` is the result of `energyql.evaluate`.
    """
    notes = {"comparison": EVALUATION_NOTE, "sequence": EDIT_NOTE}
    return [text for kind, text in notes.items() if any(kind in protocol for protocol in data["setups"].values())]


def evaluation_page(data: dict[str, Any]) -> str:
    """Return a page in Markdown with the results of an evaluation, and links to pictures.

    `data` is the result of `energyql.evaluate`.
    """

    def table(protocol: dict[str, Any]) -> str:
        columns, rows = _protocol_rows(protocol, data)
        header = ["sampler" if "comparison" in protocol else "preset and step", *(name for name, *_ in columns)]
        return "\n".join(markdown_table(header, [[f"`{name}`", *cells] for name, *cells in rows]))

    return _PAGES.get_template("evaluation.md").render(data=data, notes=evaluation_notes(data), table=table)


def share(value: float) -> str:
    """Return a share, from 0 to 1, as text in per cent, such as "12.3 %".

    Below 1 % the text has two significant digits, such as "0.034 %".
    """
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def facts(data: dict[str, Any]) -> list[str]:
    """Return lines of Markdown with the sections "Settings" and "Machine".

    `data` is the result of a comparison or an evaluation; the sections list its entries `settings` and `machine`.
    """
    lines = []
    for heading in ("settings", "machine"):
        lines += ["", f"## {heading.capitalize()}", ""]
        lines += [f"- {key}: `{value}`" for key, value in data[heading].items()]
    return lines


def terminal_table(first: str, columns: Columns, width: int, title: str | None = None) -> Table:
    """Return a table for the terminal that has headings, but no rows yet.

    Args:
        first: heading of the first column, which holds text.
        columns: the columns of numbers.
        width: least width of the first column, in characters.
        title: text above the table, or `None`.
    """
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    table.add_column(first, overflow="fold", min_width=width)
    for heading, *_ in columns:
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    return table


def _cells(row: Numbers, columns: Columns) -> list[str]:
    """Return numbers as texts for the cells of a table row, in the order of the columns; "-" for `None` or NaN.

    Args:
        row: key -> number.
        columns: the columns, with the key of each.
    """
    return [
        "-" if (value := row[key]) is None or math.isnan(value) else f"{factor * value:.{digits}f}"
        for _, key, factor, digits in columns
    ]


def _per_sample(row: Numbers, n: int) -> Numbers:
    """Return a copy of `row`, name -> number, in which `seconds` is divided by n, the number of samples."""
    return row | {"seconds": row["seconds"] / n}


def _summary_rows(data: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield two rows for each method: the name of the method, "mean" or "worst", and numbers in the order of `COLUMNS`.

    The numbers are texts. `data` is the result of `energyql.compare_samplers`.
    """
    for name in data["contenders"]:
        for which, row in data["summary"][name].items():
            yield name, which, _cells(_per_sample(row, data["settings"]["n"]), COLUMNS)


def _protocol_rows(protocol: dict[str, Any], data: dict[str, Any]) -> tuple[Columns, list[list[str]]]:
    """Return the columns of a protocol's table, and its rows as texts.

    Args:
        protocol: the entry of the protocol in `setups` of the result.
        data: the result of `energyql.evaluate`.
    """
    if "sequence" in protocol:
        return EDIT_COLUMNS, edit_rows(protocol["sequence"])
    return EVALUATION_COLUMNS, evaluation_rows(protocol["comparison"], data["contenders"], data["settings"]["n"])


_PAGES = page_templates("energyql.evaluation", "pages")
_PAGES.globals |= {"facts": facts, "share": share}
