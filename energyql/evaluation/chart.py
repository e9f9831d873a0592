"""Pictures of a comparison: what each method reaches, against what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from PIL import Image

from energyql.evaluation.measure import read_numbers
from energyql.render.charts import Axes, Canvas, Place, blend
from energyql.render.pictures import FAINT, INK, PAPER

WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 400, 300, 60, 70, 70, 56, 26
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#6b7280")
"""One for each method; a number beside it tells methods apart as well."""


def draw_charts(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Draw satisfaction and frequency error, each against evaluations and against time.

    A pale dot is a method on one query, a numbered one its mean over all queries.
    """
    return {
        "satisfied": _chart(data, "Satisfied by the judge, %", "satisfied", 100, 100.0),
        "frequency-error": _chart(data, "Largest frequency error", "frequency_error", 1, math.inf),
    }


def _chart(data: dict[str, Any], title: str, key: str, scale: int, most: float) -> Image.Image:
    """Draw the number `key` of outcomes times `scale`, which cannot exceed `most`."""
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
    """Draw all methods over a logarithmic cost axis."""
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
