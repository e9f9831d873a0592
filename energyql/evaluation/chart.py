"""Measurements against their cost, as pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from energyql.render.pictures import FAINT, INK, PAPER

SCALE = 2  # drawn large and made smaller, for smooth lines
WIDTH, HEIGHT, LEFT, TOP, GAP, BOTTOM, LEGEND = 400, 300, 60, 70, 70, 56, 26
GRID = "#e5e7eb"
COLOURS = ("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f", "#6b7280")
"""One a contender; told apart by their number too, not by colour alone."""
PALE = 0.65


@dataclass(frozen=True)
class Point:
    """What one contender did on one query."""

    contender: int
    x: float
    y: float


def draw_charts(data: dict[str, Any]) -> dict[str, Image.Image]:
    """Both pictures of a comparison: satisfaction and frequency error, each against evaluations and against time.

    A pale dot is a contender on one query, a numbered one its mean over all queries.
    """
    n = data["settings"]["n"]

    def error(outcome: dict[str, Any]) -> float | None:
        found = outcome["frequency_error"]
        return None if found is None else float(found["largest"])

    return {
        "satisfied": _chart(data, "Satisfied by the judge, %", lambda outcome: 100 * outcome["satisfied"], n),
        "frequency-error": _chart(data, "Largest frequency error", error, n),
    }


def _chart(data: dict[str, Any], title: str, height: Callable[[dict[str, Any]], float | None], n: int) -> Image.Image:
    names = data["contenders"]
    costs: tuple[tuple[str, Callable[[dict[str, Any]], float]], ...] = (
        ("evaluations a sample (2 with gradient)", lambda outcome: outcome["work"]),
        ("milliseconds a sample", lambda outcome: 1000 * outcome["seconds"] / n),
    )
    size = LEFT + 2 * WIDTH + GAP + 30, TOP + HEIGHT + BOTTOM + LEGEND * math.ceil(len(names) / 3)
    sheet = Image.new("RGB", (size[0] * SCALE, size[1] * SCALE), PAPER)
    pen = _Pen(ImageDraw.Draw(sheet))
    pen.text((LEFT, 18), f"{title}, of {len(data['queries'])} queries", INK, 18)
    for panel, (label, cost) in enumerate(costs):
        points = [
            Point(i, max(cost(outcome), 1e-3), y)
            for record in data["queries"]
            for i, name in enumerate(names)
            for outcome in [record["samplers"].get(name)]
            if outcome is not None and (y := height(outcome)) is not None
        ]
        _panel(pen, LEFT + panel * (WIDTH + GAP), points, len(names), label, title)
    for i, name in enumerate(names):
        x, y = LEFT + i % 3 * 280, TOP + HEIGHT + BOTTOM + LEGEND * (i // 3)
        pen.disc((x + 8, y), 8, COLOURS[i % len(COLOURS)])
        pen.text((x + 8, y), str(i + 1), PAPER, 10, "mm")
        pen.text((x + 24, y), name, INK, 12, "lm")
    return sheet.resize(size, Image.Resampling.LANCZOS)


def _panel(pen: _Pen, x: float, points: Sequence[Point], count: int, label: str, title: str) -> None:
    pen.text((x + WIDTH / 2, TOP + HEIGHT + 24), label, FAINT, 12, "ma")
    if not points:
        pen.text((x + WIDTH / 2, TOP + HEIGHT / 2), "not measured", FAINT, 12, "mm")
        return
    low, high = _decades([point.x for point in points])
    bottom, top, step = _range([point.y for point in points], most=100.0 if "%" in title else math.inf)

    def place(px: float, py: float) -> tuple[float, float]:
        across = (math.log10(px) - low) / (high - low)
        return x + across * WIDTH, TOP + (1 - (py - bottom) / (top - bottom)) * HEIGHT

    for decade in range(low, high + 1):
        at = place(10.0**decade, bottom)[0]
        pen.line([(at, TOP), (at, TOP + HEIGHT)], GRID)
        pen.text((at, TOP + HEIGHT + 5), f"{10.0**decade:g}", FAINT, 11, "ma")
    for k in range(round((top - bottom) / step) + 1):
        value = bottom + k * step
        at = place(10.0**low, value)[1]
        pen.line([(x, at), (x + WIDTH, at)], GRID)
        pen.text((x - 8, at), f"{value:.10g}", FAINT, 11, "rm")
    for point in points:
        pen.disc(place(point.x, point.y), 3, _pale(COLOURS[point.contender % len(COLOURS)]))
    for contender in range(count):
        own = [point for point in points if point.contender == contender]
        if own:
            mean = place(_mean([point.x for point in own]), _mean([point.y for point in own]))
            pen.disc(mean, 9, COLOURS[contender % len(COLOURS)])
            pen.text(mean, str(contender + 1), PAPER, 11, "mm")


class _Pen:
    """Draws in units of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, at: tuple[float, float], text: str, colour: str, size: int, anchor: str = "la") -> None:
        self._draw.text((at[0] * SCALE, at[1] * SCALE), text, colour, ImageFont.load_default(size * SCALE), anchor)

    def line(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, SCALE)

    def disc(self, at: tuple[float, float], radius: float, colour: str) -> None:
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _range(values: Sequence[float], most: float) -> tuple[float, float, float]:
    """A range around all values with round ends, and the round step of its grid."""
    span = max(values) - min(values) or abs(values[0]) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= span / 4)
    bottom = step * math.floor(min(values) / step)
    top = min(most, step * math.ceil(max(values) / step))
    return bottom, max(top, bottom + step), step


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _pale(colour: str) -> str:
    channels = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(channel + (255 - channel) * PALE):02x}" for channel in channels)
