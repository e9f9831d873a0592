"""Comparisons and evaluations as tables, pages and charts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image
from rich import box
from rich.markup import escape
from rich.table import Table

from energyql.evaluation.measure import Numbers, average, read_numbers
from energyql.render.charts import Axes, Canvas, Place, blend
from energyql.render.markup import markdown_table
from energyql.render.pictures import FAINT, INK, PAPER

WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 400, 300, 60, 70, 70, 56, 26
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#6b7280")
"""Colours of the methods, in turn; each method has a number too."""


def draw_charts(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Return the charts of a comparison by name: satisfaction and frequency error, against evaluations and time.

    A pale dot is a method on one query, a dot with a number the mean of a method over all queries. `data` are the
    results of `energyql.compare_samplers`.
    """
    return {
        "satisfied": _chart(data, "Satisfied by the judge, %", "satisfied", 100, 100.0),
        "frequency-error": _chart(data, "Largest frequency error", "frequency_error", 1, math.inf),
    }


def _chart(data: dict[str, Any], title: str, key: str, scale: int, most: float) -> Image.Image:
    """Return a chart of the number `key` of outcomes, multiplied by `scale`; it can be at most `most`."""
    names, n = data["contenders"], data["settings"]["n"]
    outcomes = [
        [read_numbers(record["samplers"][name]) for record in data["queries"] if name in record["samplers"]]
        for name in names
    ]
    costs = (("evaluations a sample (2 with gradient)", "work", 1, 1), ("milliseconds a sample", "seconds", 1000, n))
    canvas = Canvas(LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + BOTTOM + LEGEND * math.ceil(len(names) / 3))
    count = len(data["queries"])
    canvas.text((LEFT, 18), f"{title}, of {'one query' if count == 1 else f'{count} queries'}", INK, 18)
    for panel, (label, cost, factor, divisor) in enumerate(costs):
        series: list[list[Place]] = [
            [(max(factor * (one[cost] or 0) / divisor, 1e-3), scale * y) for one in own if (y := one[key]) is not None]
            for own in outcomes
        ]
        _panel(canvas, LEFT + panel * (WIDTH + GAP), series, label, most)
    for i, name in enumerate(names):
        x, y = LEFT + i % 3 * 280, TOP + HEIGHT + BOTTOM + LEGEND * (i // 3)
        _numbered(canvas, (x + 8, y), i)
        canvas.text((x + 24, y), name, INK, 12, "lm")
    return canvas.picture()


def _panel(canvas: Canvas, left: float, series: Sequence[Sequence[Place]], label: str, most: float) -> None:
    """Draw all methods over a logarithmic axis of costs.

    Args:
        canvas: the canvas.
        left: left side of the panel, in pixels.
        series: for each method its points: cost and number.
        label: name of the cost.
        most: largest number that is possible.
    """
    points = [point for own in series for point in own]
    if not points:
        Axes(canvas, (left, TOP), (WIDTH, HEIGHT)).captions(label)
        canvas.text((left + WIDTH / 2, TOP + HEIGHT / 2), "not measured", FAINT, 12, "mm")
        return
    costs, heights = [math.log10(x) for x, _ in points], [y for _, y in points]
    low = math.floor(min(costs))
    decades = range(low, max(math.ceil(max(costs)), low + 1) + 1)
    ticks = _round_ticks(min(heights), max(heights), most)
    axes = Axes(canvas, (left, TOP), (WIDTH, HEIGHT), (decades[0], decades[-1]), (ticks[0], ticks[-1]))
    axes.captions(label)
    axes.ticks({decade: f"{10.0**decade:g}" for decade in decades}, {tick: f"{tick:.10g}" for tick in ticks})
    for i, own in enumerate(series):
        for x, y in own:
            canvas.dot(axes.at(math.log10(x), y), 3, blend(COLOURS[i % len(COLOURS)], PAPER, 0.65))
    for i, own in enumerate(series):
        if own:
            x, y = (sum(values) / len(own) for values in zip(*own, strict=True))
            _numbered(canvas, axes.at(math.log10(x), y), i)


def _numbered(canvas: Canvas, at: Place, index: int) -> None:
    """Draw the dot with the number of a method, counted from 1; `index` is counted from 0."""
    canvas.dot(at, 9, COLOURS[index % len(COLOURS)])
    canvas.text(at, str(index + 1), PAPER, 11, "mm")


def _round_ticks(low: float, high: float, most: float) -> list[float]:
    """Return about five evenly spaced round numbers that cover the range from `low` to `high`, none above `most`."""
    span = high - low or abs(low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= span / 4)
    first, last = math.floor(low / step), math.ceil(high / step)
    ticks = [step * k for k in range(first, max(last, first + 1) + 1)]
    return [tick for tick in ticks if tick <= max(most, ticks[1])]


TABLE_WIDTH = 150
"""Width of the widest table, in characters."""
_NOTE = (
    "Freq. error: the largest difference of the frequency of any attribute from that among exact samples (the oracle: "
    "the prior, rejected by the judge); floor: the same for exact samples of the same number. Variety and nearest: "
    "distance of two samples, and distance to the nearest other, over those of exact samples, the lowest of z, w and "
    "features; 1 for exact samples. Dupl.: samples nearer to another than 99 % of exact samples are, the highest of "
    "the three; floor: the same for one half of the oracle beside the other. Ms: time of sampling a sample, without "
    "drawing it."
)
NOTE = (
    "Satisfied: by the image judge, which never guides a sampler; heads: by the attribute heads, which do. Fréchet: on "
    f"judge features, to the oracle's pictures. {_NOTE} Evals: evaluations of the energy a sample, 2 where the "
    "gradient is computed too. Failed: samples that the sampler could not finish; they count like all others."
)
EVALUATION_NOTE = (
    "Accuracy: share of samples that meet a condition of the query by the independent judge, over all conditions; for "
    "a target of a continuous attribute one minus the mean distance over the range. Satisfied: the whole query. "
    f"Fréchet: on features, to exact samples of the query (oracle), and to pictures of no query (prior). {_NOTE} "
    "docs/evaluation.md has the references."
)
EDIT_NOTE = (
    "Asked: pictures that satisfy the query of the step, by the judge; all: the queries of all steps so far. Identity: "
    "one minus the cosine of features, to the start. Leak: of all attributes that were not asked for, the share that "
    "changed without need. DES: disentangled edit strength, the rise of the share that satisfies the query, minus the "
    "largest leak of one attribute."
)
Columns = Sequence[tuple[str, str, float, int]]
"""For each column of a table its heading, the key of its number, a factor, and the digits after the point."""

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
    """Return the cells of a table, in the order of `COLUMNS`, for an outcome of `measure` with n samples."""
    return _cells(_per_sample(read_numbers(outcome), n), COLUMNS)


def query_table(data: dict[str, Any]) -> Table:
    """Return a table for the terminal with every method on every query, from the results of a comparison."""
    table = terminal_table("query", COLUMNS, 36)
    for record in data["queries"]:
        prevalence = share(record["oracle"]["prevalence"])
        table.add_row(f"{escape(record['title'] or record['query'])}  [dim]prior {prevalence}[/]", end_section=True)
        for name in data["contenders"]:
            table.add_row(f"  {escape(name)}", *outcome_cells(record["samplers"][name], data["settings"]["n"]))
        table.add_section()
    return table


def summary_table(data: dict[str, Any]) -> Table:
    """Return a table for the terminal with mean and worst over queries of each method, from results of a comparison."""
    table = terminal_table(f"over {len(data['queries'])} queries", COLUMNS, 36)
    for name, which, row in _summary_rows(data):
        table.add_row(f"{escape(name)}, {which}", *row, end_section=which == "worst")
    return table


def comparison_page(data: dict[str, Any], title: str) -> str:
    """Return the results of a comparison as a page in Markdown."""
    n, names, header = data["settings"]["n"], data["contenders"], ["sampler", *_headings(COLUMNS)]
    lines = [f"# {title}", "", NOTE, "", "![Satisfied, against cost](satisfied.png)", ""]
    lines += ["![Frequency error, against cost](frequency-error.png)", "", "## Over all queries", ""]
    lines += markdown_table(header, [[f"`{name}`, {which}", *row] for name, which, row in _summary_rows(data)])
    lines += ["", "## Query by query"]
    for record in data["queries"]:
        named = f"{record['title']}: " if record["title"] else ""
        lines += ["", f"### {named}`{record['query']}`", "", _oracle_line(record["oracle"]), ""]
        outcomes = record["samplers"]
        lines += markdown_table(header, [[f"`{name}`", *outcome_cells(outcomes[name], n)] for name in names])
        for name in names:
            if path := outcomes[name].get("pictures"):
                lines += ["", f"![{name}, of {record['query']}]({path})"]
    return "\n".join([*lines, *facts(data)]) + "\n"


def evaluation_rows(comparison: dict[str, Any], names: Sequence[str], n: int) -> list[list[str]]:
    """Return for each method a row of a table: its name, and means over queries in the order of `EVALUATION_COLUMNS`.

    Args:
        comparison: `queries` and `summary` of a comparison.
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
    """Return rows of a table, for each preset one for every step and one for their mean, in order of `EDIT_COLUMNS`.

    `sequence` has a result of `measure_sequence` for each preset.
    """
    lines = []
    for preset, result in sequence.items():
        steps = result["steps"]
        lines += [[f"{preset}: {k}. {step['query']}", *_cells(step, EDIT_COLUMNS)] for k, step in enumerate(steps, 1)]
        mean = {key: average([step[key] for step in steps if step[key] is not None]) for _, key, _, _ in EDIT_COLUMNS}
        lines.append([f"{preset}, mean", *_cells(mean, EDIT_COLUMNS)])
    return lines


def evaluation_tables(data: dict[str, Any]) -> list[Table]:
    """Return a table for the terminal for each protocol that was run, from the results of `energyql.evaluate`."""
    tables = []
    for key, protocol in data["setups"].items():
        if "missing" not in protocol:
            columns, rows = _protocol_rows(protocol, data)
            tables.append(terminal_table("", columns, 20, f"{escape(protocol['title'])} ({key})"))
            for row in rows:
                tables[-1].add_row(*map(escape, row), end_section=row[0].endswith(", mean"))
    return tables


def evaluation_notes(data: dict[str, Any]) -> list[str]:
    """Return texts about the columns of the tables, one for each kind of table in an evaluation."""
    notes = {"comparison": EVALUATION_NOTE, "sequence": EDIT_NOTE}
    return [text for kind, text in notes.items() if any(kind in protocol for protocol in data["setups"].values())]


def evaluation_page(data: dict[str, Any]) -> str:
    """Return the results of an evaluation as a page in Markdown, with links to pictures."""
    lines = [f"# Evaluation of {data['settings']['model']}"]
    for text in evaluation_notes(data):
        lines += ["", text]
    for key, protocol in data["setups"].items():
        lines += ["", f"## {protocol['title']} (`{key}`)", "", protocol["about"], ""]
        if "missing" in protocol:
            lines.append(f"Not run: {protocol['missing']}.")
            continue
        columns, rows = _protocol_rows(protocol, data)
        first = "sampler" if "comparison" in protocol else "preset and step"
        lines += markdown_table([first, *_headings(columns)], [[f"`{name}`", *cells] for name, *cells in rows])
        if "comparison" in protocol:
            lines += ["", f"[All queries and plots]({key}/results.md)."]
            for record in protocol["comparison"]["queries"]:
                lines += ["", f"`{record['query']}`", "", *_picture_lines(key, record, data["contenders"])]
        for preset, result in protocol.get("sequence", {}).items():
            lines += ["", f"`{preset}`, {result['seconds']:.1f} s without drawing:", ""]
            lines.append(f"![edits by {preset}]({key}/{result['filmstrip']})")
    return "\n".join([*lines, *facts(data)]) + "\n"


def share(value: float) -> str:
    """Return a share between 0 and 1 as text in per cent, with two digits if it is small."""
    return f"{100 * value:.1f} %" if value >= 0.01 else f"{100 * value:.2g} %"


def facts(data: dict[str, Any]) -> list[str]:
    """Return lines of Markdown with two sections: the entries `settings` and `machine` of results."""
    lines = []
    for heading in ("settings", "machine"):
        lines += ["", f"## {heading.capitalize()}", ""]
        lines += [f"- {key}: `{value}`" for key, value in data[heading].items()]
    return lines


def terminal_table(first: str, columns: Columns, width: int, title: str | None = None) -> Table:
    """Return an empty table for the terminal with a column of text, called `first`, and columns of numbers.

    The first column is at least `width` characters wide.
    """
    table = Table(box=box.SIMPLE, pad_edge=False, title=title, title_justify="left")
    table.add_column(first, overflow="fold", min_width=width)
    for heading in _headings(columns):
        table.add_column(heading.replace(" ", "\n"), justify="right", no_wrap=True)
    return table


def _headings(columns: Columns) -> list[str]:
    return [heading for heading, *_ in columns]


def _cells(row: Numbers, columns: Columns) -> list[str]:
    """Return the numbers of a row as text, in the order of the columns; "-" for one that is missing."""
    return [
        "-" if (value := row[key]) is None or math.isnan(value) else f"{factor * value:.{digits}f}"
        for _, key, factor, digits in columns
    ]


def _per_sample(row: Numbers, n: int) -> dict[str, float | None]:
    """Return the numbers of a row, with `seconds` divided by n, the number of samples."""
    seconds = row["seconds"]
    return {**row, "seconds": None if seconds is None else seconds / n}


def _summary_rows(data: dict[str, Any]) -> Iterator[tuple[str, str, list[str]]]:
    """Yield for each method and each of "mean" and "worst" both names, and the cells."""
    for name in data["contenders"]:
        for which, row in data["summary"][name].items():
            yield name, which, _cells(_per_sample(row, data["settings"]["n"]), COLUMNS)


def _protocol_rows(protocol: dict[str, Any], data: dict[str, Any]) -> tuple[Columns, list[list[str]]]:
    """Return the columns and the rows of the table of a protocol in an evaluation."""
    if "sequence" in protocol:
        return EDIT_COLUMNS, edit_rows(protocol["sequence"])
    return EVALUATION_COLUMNS, evaluation_rows(protocol["comparison"], data["contenders"], data["settings"]["n"])


def _oracle_line(oracle: dict[str, Any]) -> str:
    """Return a sentence about the oracle of a query."""
    prevalence, error = share(oracle["prevalence"]), share(oracle["prevalence_error"])
    count, size = oracle["samples"], oracle["size"]
    text = f"The prior satisfies it at {prevalence} (standard error {error}). Oracle: {count:,} samples "
    text += f"worth {size:,.0f}, out of {oracle['pictures']:,} pictures"
    return f"{text}, proposed from {oracle['latents']:,} latents." if oracle["latents"] else f"{text}."


def _picture_lines(key: str, record: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Return lines of Markdown with the accuracy and the pictures of each method on a query of the protocol `key`."""
    lines = []
    for name in names:
        outcome = record["samplers"][name]
        accuracy = ", ".join(f"{one} {100 * part:.1f}" for one, part in (outcome["accuracy"] or {}).items())
        text = f"`{name}`: {100 * outcome['satisfied']:.1f} % satisfied"
        lines += [f"{text}; accuracy, %: {accuracy}" if accuracy else text, ""]
        if outcome["pictures"]:
            lines += [f"![{name}, of {record['query']}]({key}/{outcome['pictures']})", ""]
    return lines
