"""The report on heads as one picture: a card an attribute, drawn with PIL alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from energyql.render.pictures import FAINT, INK, PAPER

SCALE = 2  # drawn large and made smaller, for smooth lines
PLOT, LEFT, GAP, HEAD, FOOT = 168, 40, 48, 82, 52
CARD = (LEFT + 2 * PLOT + GAP + 24, HEAD + PLOT + FOOT)
MARGIN, TITLE = 24, 62
GRID, LINE, PALE, TRUE, CARD_EDGE = "#e5e7eb", "#2563eb", "#93b4f5", "#9ca3af", "#e2e8f0"
Box = tuple[int, int]
"""The upper left corner of a plot, whose sides are `PLOT`."""


def draw_report(reports: Mapping[str, Mapping[str, Any]], title: str = "Attribute heads") -> Image.Image:
    """Draw what `report_heads` returned.

    On the left of each card, predicted probabilities against observed frequencies: a good curve lies on the diagonal,
    and a dot is larger where more samples are. On the right, how many samples each probability has, the confusion of
    classes, or the errors in units of the standard deviation, with the normal curve that the head claims.
    """
    columns = min(3, max(1, math.ceil(math.sqrt(len(reports)))))
    rows = max(1, math.ceil(len(reports) / columns))
    width = 2 * MARGIN + columns * CARD[0] + (columns - 1) * MARGIN
    height = TITLE + rows * (CARD[1] + MARGIN)
    sheet = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
    pen = _Pen(ImageDraw.Draw(sheet))
    pen.text((MARGIN, 20), title, INK, 20)
    for i, (name, report) in enumerate(reports.items()):
        corner = MARGIN + i % columns * (CARD[0] + MARGIN), TITLE + i // columns * (CARD[1] + MARGIN)
        _card(pen, corner, name, report)
    return sheet.resize((width, height), Image.Resampling.LANCZOS)


class _Pen:
    """Draws in units of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self.draw = draw

    def text(self, at: tuple[float, float], text: str, colour: str, size: int = 11, anchor: str = "la") -> None:
        font = ImageFont.load_default(size * SCALE)
        self.draw.text((at[0] * SCALE, at[1] * SCALE), text, colour, font, anchor)

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        self.draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE), joint="curve")

    def rectangle(self, box: tuple[float, float, float, float], fill: str | None, edge: str | None = None) -> None:
        x0, y0, x1, y1 = (SCALE * number for number in box)
        if x1 - x0 >= 1 and y1 - y0 >= 1:
            self.draw.rectangle((x0, y0, x1 - 1, y1 - 1), fill, edge, SCALE if edge else 0)

    def dot(self, at: tuple[float, float], radius: float, colour: str) -> None:
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self.draw.ellipse((x - r, y - r, x + r, y + r), colour)


def _card(pen: _Pen, corner: Box, name: str, report: Mapping[str, Any]) -> None:
    x, y = corner
    pen.draw.rounded_rectangle(
        (x * SCALE, y * SCALE, (x + CARD[0]) * SCALE, (y + CARD[1]) * SCALE), 8 * SCALE, PAPER, CARD_EDGE, SCALE
    )
    pen.text((x + 16, y + 12), _cut(name, 34), INK, 16)
    pen.text((x + CARD[0] - 16, y + 16), report["kind"], FAINT, 11, "ra")
    if not report["samples"]:
        pen.text((x + 16, y + 36), "no labels among the samples of the report", FAINT)
        return
    pen.text((x + 16, y + 36), _summary(report), FAINT)
    left, right = (x + LEFT, y + HEAD), (x + LEFT + PLOT + GAP, y + HEAD)
    _curve(pen, left, report)
    if "confusion" in report:
        _confusion(pen, right, report["classes"], report["confusion"])
    elif "errors" in report:
        _errors(pen, right, report["errors"])
    else:
        _counts(pen, right, report["reliability"])


def _summary(report: Mapping[str, Any]) -> str:
    said = f"{report['samples']:,} samples, calibration error {report['calibration_error']:.3f}, "
    if report["kind"] == "continuous":
        return said + f"mean error {report['error']:.3g}, R2 {report['explained']:.2f}"
    return said + f"balanced accuracy {100 * report['accuracy']:.1f} %"


def _frame(pen: _Pen, box: Box, below: str, beside: str = "", ticks: bool = True) -> None:
    x, y = box
    for i in range(5 if ticks else 0):
        at = i * PLOT / 4
        pen.line([(x, y + at), (x + PLOT, y + at)], GRID)
        pen.line([(x + at, y), (x + at, y + PLOT)], GRID)
    if ticks:
        for share, anchor in ((0, "ma"), (0.5, "ma"), (1, "ma")):
            pen.text((x + share * PLOT, y + PLOT + 5), f"{share:g}", FAINT, 10, anchor)
            pen.text((x - 6, y + (1 - share) * PLOT), f"{share:g}", FAINT, 10, "rm")
    pen.text((x + PLOT / 2, y + PLOT + 24), below, FAINT, 11, "ma")
    pen.text((x, y - 6), beside, FAINT, 11, "ls")


def _curve(pen: _Pen, box: Box, report: Mapping[str, Any]) -> None:
    x, y = box
    continuous = report["kind"] == "continuous"
    words = ("quantile predicted", "share of labels below") if continuous else ("probability predicted", "observed")
    _frame(pen, box, *words)
    pen.line([(x, y + PLOT), (x + PLOT, y)], TRUE, 1)
    points = [(x + p * PLOT, y + (1 - o) * PLOT, n) for p, o, n in report["reliability"]]
    most = max(n for _, _, n in points)
    pen.line([point[:2] for point in points], PALE, 1.5)
    for px, py, n in points:
        pen.dot((px, py), 3 if continuous else 2 + 4 * math.sqrt(n / most), LINE)


def _counts(pen: _Pen, box: Box, reliability: Sequence[Sequence[float]]) -> None:
    x, y = box
    total = sum(n for _, _, n in reliability)
    _frame(pen, box, "probability predicted", "share of samples")
    for p, _, n in reliability:
        left = x + min(int(p * 10), 9) * PLOT / 10
        pen.rectangle((left + 1, y + (1 - n / total) * PLOT, left + PLOT / 10 - 1, y + PLOT), LINE)


def _confusion(pen: _Pen, box: Box, classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    x, y = box
    side = PLOT / len(classes)
    _frame(pen, box, "head", "label by row, % of it", ticks=False)
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            share = count / max(1, sum(row))
            left, top = x + j * side, y + i * side
            pen.rectangle((left, top, left + side, top + side), _blend(share), PAPER)
            if len(classes) <= 8:
                ink = PAPER if share > 0.55 else INK
                pen.text((left + side / 2, top + side / 2), f"{100 * share:.0f}", ink, 10, "mm")
        if len(classes) <= 12:
            pen.text((x - 4, y + (i + 0.5) * side), _cut(classes[i], 6), FAINT, 10, "rm")
            if side >= 26:
                pen.text((x + (i + 0.5) * side, y + PLOT + 5), _cut(classes[i], int(side / 6)), FAINT, 10, "ma")


def _errors(pen: _Pen, box: Box, errors: Sequence[int]) -> None:
    x, y = box
    total, width = sum(errors), 8 / len(errors)
    density = [count / total / width for count in errors]
    top = max(0.45, *density) * 1.05
    _frame(pen, box, "error / standard deviation", "density, and a normal's", ticks=False)
    for i, value in enumerate(density):
        left = x + i * PLOT / len(errors)
        pen.rectangle((left, y + (1 - value / top) * PLOT, left + PLOT / len(errors), y + PLOT), LINE)
    curve = [(-4 + 8 * i / 80) for i in range(81)]
    heights = [math.exp(-0.5 * e * e) / math.sqrt(2 * math.pi) / top for e in curve]
    points = [(x + (e + 4) / 8 * PLOT, y + (1 - h) * PLOT) for e, h in zip(curve, heights, strict=True)]
    pen.line(points, INK, 1.5)
    pen.line([(x, y + PLOT), (x + PLOT, y + PLOT)], TRUE)
    for tick in (-4, -2, 0, 2, 4):
        pen.text((x + (tick + 4) / 8 * PLOT, y + PLOT + 5), str(tick), FAINT, 10, "ma")


def _blend(share: float) -> str:
    """From nearly white to the colour of lines."""
    low, high = (0xF1, 0xF5, 0xFB), (0x25, 0x63, 0xEB)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in zip(low, high, strict=True))


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "."
