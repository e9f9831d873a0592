"""Charts as PIL pictures: a canvas with smooth lines, axes on a canvas, and heat maps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from energyql.render.pictures import FAINT, INK, PAPER, font_for, legible

SCALE = 2
"""Side of the canvas, divided by that of the finished picture, to which it is reduced for smooth lines."""
GRID = "#e5e7eb"
"""Colour of grid lines and of empty cells."""
HEAT = ("#3b1f5b", "#31688e", "#21918c", "#5ec962", "#fde725")
"""Colours of a heat map from the lowest to the highest share, ever lighter, so that they differ in grey too."""
MARK = "#dc2626"
"""Colour of the frame around a marked cell."""
Place = tuple[float, float]
"""x and y: on a canvas in pixels from the left and from the top of the finished picture."""


class Canvas:
    """An empty picture to draw on. All lengths are in pixels of the finished picture.

    Args:
        width: width of the finished picture.
        height: height of the finished picture.
    """

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._sheet = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._sheet)

    def picture(self) -> Image.Image:
        """Return the finished picture."""
        return self._sheet.resize(self._size, Image.Resampling.LANCZOS)

    def text(self, at: Place, text: str, colour: str, size: int = 11, anchor: str = "la") -> None:
        """Write one line of text of height `size`; `anchor` is PIL's code for the point of the text that lies at `at`.

        The text is changed by `legible`.
        """
        font = font_for(text, size * SCALE)
        self._draw.text((at[0] * SCALE, at[1] * SCALE), legible(text), colour, font, anchor)

    def line(self, points: Sequence[Place], colour: str, width: float = 1) -> None:
        """Draw straight lines from point to point."""
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE), joint="curve")

    def dot(self, at: Place, radius: float, colour: str) -> None:
        """Fill a circle."""
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)

    def rectangle(self, corner: Place, opposite: Place, fill: str, edge: str | None = None, radius: float = 0) -> None:
        """Fill a rectangle, unless it is narrower than a pixel.

        Args:
            corner: its upper left corner.
            opposite: its lower right corner.
            fill: colour inside.
            edge: colour of the edge, `None` for no edge.
            radius: radius of rounded corners.
        """
        box = (corner[0] * SCALE, corner[1] * SCALE, opposite[0] * SCALE - 1, opposite[1] * SCALE - 1)
        if box[2] >= box[0] and box[3] >= box[1]:
            self._draw.rounded_rectangle(box, radius * SCALE, fill, edge, SCALE if edge else 0)


@dataclass(frozen=True, slots=True)
class Axes:
    """A rectangle on a canvas, with a linear scale in each direction.

    Args:
        canvas: the canvas.
        corner: upper left corner of the rectangle.
        size: width and height of the rectangle.
        x: the values at its left and at its right side.
        y: the values at its lower and at its upper side.
    """

    canvas: Canvas
    corner: Place
    size: tuple[float, float]
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def at(self, x: float, y: float) -> Place:
        """Return the place on the canvas of the point with these values."""
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.corner[0] + across * self.size[0], self.corner[1] + (1 - up) * self.size[1]

    def captions(self, below: str, above: str = "") -> None:
        """Write the name of the horizontal axis below the rectangle, and that of the vertical axis above it."""
        left, top = self.corner
        self.canvas.text((left + self.size[0] / 2, top + self.size[1] + 24), below, FAINT, 11, "ma")
        self.canvas.text((left, top - 6), above, FAINT, 11, "ls")

    def ticks(self, xs: Mapping[float, str], ys: Mapping[float, str], *, grid: bool = True) -> None:
        """Write texts at values, with a faint line across the rectangle at each of them.

        Args:
            xs: value -> text below the rectangle.
            ys: value -> text at the left of the rectangle.
            grid: whether lines are drawn.
        """
        for x, text in xs.items():
            foot = self.at(x, self.y[0])
            if grid:
                self.canvas.line([foot, self.at(x, self.y[1])], GRID)
            self.canvas.text((foot[0], foot[1] + 5), text, FAINT, 10, "ma")
        for y, text in ys.items():
            foot = self.at(self.x[0], y)
            if grid:
                self.canvas.line([foot, self.at(self.x[1], y)], GRID)
            self.canvas.text((foot[0] - 6, foot[1]), text, FAINT, 10, "rm")

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1.5) -> None:
        """Draw straight lines from point to point; the points are pairs of values."""
        self.canvas.line([self.at(*point) for point in points], colour, width)

    def bar(self, left: float, right: float, height: float, colour: str, gap: float = 0) -> None:
        """Fill a bar from the lower side up to the value `height`.

        Args:
            left: value at its left side.
            right: value at its right side.
            height: value at its top.
            colour: its colour.
            gap: pixels that stay free at its left and at its right.
        """
        (x0, top), (x1, bottom) = self.at(left, height), self.at(right, self.y[0])
        self.canvas.rectangle((x0 + gap, top), (x1 - gap, bottom), colour)


def blend(low: str, high: str, share: float) -> str:
    """Return the colour between two colours: `low` at 0, `high` at 1. Colours are written `#rrggbb`."""
    pairs = [(int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def heat(share: float) -> str:
    """Return the colour of a heat map for a share, which is clipped to the range from 0 to 1."""
    at = min(max(share, 0.0), 1.0) * (len(HEAT) - 1)
    low = min(int(at), len(HEAT) - 2)
    return blend(HEAT[low], HEAT[low + 1], at - low)


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A table of coloured cells with a number in each.

    Args:
        rows: texts at the left of the cells, from top to bottom.
        columns: texts below the cells, from left to right.
        values: a sequence for each row; a cell with `None` is empty.
        share: function from a value to its place on the scale of colours, from 0 to 1; see `heat`.
        text: function from a value to the text in its cell.
        marked: row and column of a cell with a frame; `None` for no such cell.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    share: Callable[[float], float]
    text: Callable[[float], str]
    marked: tuple[int, int] | None = None

    def draw(self, canvas: Canvas, corner: Place, cell: tuple[float, float], below: str, above: str = "") -> None:
        """Draw the table on a canvas.

        Args:
            canvas: the canvas.
            corner: upper left corner of the table.
            cell: width and height of each cell.
            below: text below the table, the name of its columns.
            above: text above the table, the name of its rows.
        """
        (left, top), (width, height) = corner, cell
        axes = Axes(
            canvas, corner, (width * len(self.columns), height * len(self.rows)),
            (0, len(self.columns)), (len(self.rows), 0),
        )  # fmt: skip
        axes.captions(below, above)
        axes.ticks(
            {i + 0.5: text for i, text in enumerate(self.columns)},
            {i + 0.5: text for i, text in enumerate(self.rows)},
            grid=False,
        )
        for i, line in enumerate(self.values):
            for j, value in enumerate(line):
                x, y = left + j * width, top + i * height
                if value is None:
                    canvas.rectangle((x, y), (x + width - 1, y + height - 1), GRID)
                    continue
                share = self.share(value)
                canvas.rectangle((x, y), (x + width - 1, y + height - 1), heat(share))
                canvas.text((x + width / 2, y + height / 2), self.text(value), PAPER if share < 0.5 else INK, 11, "mm")
        if self.marked is not None:
            x, y = left + self.marked[1] * width, top + self.marked[0] * height
            box = [(x, y), (x + width - 1, y), (x + width - 1, y + height - 1), (x, y + height - 1), (x, y)]
            canvas.line(box, MARK, 3)
