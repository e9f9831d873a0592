"""Charts as PIL pictures: a canvas with smooth lines, axes on a canvas, and mixtures of colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from energyql.render.pictures import FAINT, PAPER, font_for, legible

SCALE = 2
"""Width of the canvas divided by that of the finished picture: lines become smooth when it is reduced."""
GRID = "#e5e7eb"
"""Colour of grid lines and of empty cells."""
Place = tuple[float, float]
"""Point on a canvas: distances from the left and the top side, in pixels of the finished picture."""


class Canvas:
    """A picture to draw on, empty at first. All lengths are in pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._sheet = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)
        self._draw = ImageDraw.Draw(self._sheet)

    def picture(self) -> Image.Image:
        """The finished picture."""
        return self._sheet.resize(self._size, Image.Resampling.LANCZOS)

    def text(self, at: Place, text: str, colour: str, size: int = 11, anchor: str = "la") -> None:
        """Write one line of text `size` pixels high. Latin letters lose accents, which Pillow's font lacks.

        Args:
            anchor: PIL's code for the point of the text that is put at `at`, such as "la", the upper left corner.
        """
        font = font_for(text, size * SCALE)
        self._draw.text((at[0] * SCALE, at[1] * SCALE), legible(text), colour, font, anchor)

    def line(self, points: Sequence[Place], colour: str, width: float = 1) -> None:
        """Draw straight lines from each of `points` to the next, `width` pixels wide."""
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE), joint="curve")

    def dot(self, at: Place, radius: float, colour: str) -> None:
        """Draw a filled circle with the centre `at`."""
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)

    def rectangle(self, corner: Place, opposite: Place, fill: str, edge: str | None = None, radius: float = 0) -> None:
        """Draw a filled rectangle with corners rounded by `radius`; none if a side is shorter than half a pixel."""
        box = (corner[0] * SCALE, corner[1] * SCALE, opposite[0] * SCALE - 1, opposite[1] * SCALE - 1)
        if box[2] >= box[0] and box[3] >= box[1]:
            self._draw.rounded_rectangle(box, radius * SCALE, fill, edge, SCALE if edge else 0)


@dataclass(frozen=True, slots=True)
class Axes:
    """A rectangle on a canvas, with a linear scale in each direction.

    Args:
        corner: upper left corner of the rectangle.
        size: width and height, in pixels.
        x: values at the left and at the right side.
        y: values at the lower and at the upper side.
    """

    canvas: Canvas
    corner: Place
    size: tuple[float, float]
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def at(self, x: float, y: float) -> Place:
        """The point on the canvas for a value on the horizontal and a value on the vertical axis."""
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.corner[0] + across * self.size[0], self.corner[1] + (1 - up) * self.size[1]

    def captions(self, below: str, above: str = "") -> None:
        """Write the names of the horizontal axis, below the rectangle, and of the vertical axis, above it."""
        left, top = self.corner
        self.canvas.text((left + self.size[0] / 2, top + self.size[1] + 24), below, FAINT, 11, "ma")
        self.canvas.text((left, top - 6), above, FAINT, 11, "ls")

    def ticks(self, xs: Mapping[float, str], ys: Mapping[float, str], *, grid: bool = True) -> None:
        """Write texts at values of the horizontal and the vertical axis, with grey lines across the rectangle."""
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
        """Draw straight lines from each point, a pair of values on the axes, to the next, `width` pixels wide."""
        self.canvas.line([self.at(*point) for point in points], colour, width)

    def bar(self, left: float, right: float, height: float, colour: str, gap: float = 0) -> None:
        """Draw a filled bar on the lower side, between values on the axes, `gap` pixels narrower at each side."""
        (x0, top), (x1, bottom) = self.at(left, height), self.at(right, self.y[0])
        self.canvas.rectangle((x0 + gap, top), (x1 - gap, bottom), colour)


def blend(low: str, high: str, share: float) -> str:
    """Colour between two colours, all written as `#rrggbb`; `share` of the second is in [0, 1]."""
    pairs = [(int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
