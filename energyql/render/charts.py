"""Charts as PIL pictures: a canvas with smooth lines, axes on a canvas, and mixtures of colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from energyql.render.pictures import FAINT, PAPER, font_for, legible

SCALE = 2
"""Width of the canvas divided by the width of the finished picture. Lines become smooth when the canvas is reduced."""
GRID = "#e5e7eb"
"""Colour of grid lines and of empty cells."""
Place = tuple[float, float]
"""A point on a canvas: distances from the left and from the top side, in pixels of the finished picture."""


class Canvas:
    """A picture to draw on, empty at first. All lengths are in pixels of the finished picture.

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
        """Write one line of text. Latin letters lose their accents, because the font of Pillow does not have them.

        Args:
            at: a point on the canvas.
            text: the text.
            colour: colour of the text, such as "#1d2433".
            size: height of the letters, in pixels.
            anchor: PIL's code for the point of the text that is put at `at`. An example is "la", the upper left corner.
        """
        font = font_for(text, size * SCALE)
        self._draw.text((at[0] * SCALE, at[1] * SCALE), legible(text), colour, font, anchor)

    def line(self, points: Sequence[Place], colour: str, width: float = 1) -> None:
        """Draw straight lines from each of `points` to the next, in the colour `colour`, `width` pixels wide."""
        self._draw.line([(x * SCALE, y * SCALE) for x, y in points], colour, round(width * SCALE), joint="curve")

    def dot(self, at: Place, radius: float, colour: str) -> None:
        """Draw a filled circle in the colour `colour` with the centre `at`; `radius` is in pixels."""
        x, y, r = at[0] * SCALE, at[1] * SCALE, radius * SCALE
        self._draw.ellipse((x - r, y - r, x + r, y + r), colour)

    def rectangle(self, corner: Place, opposite: Place, fill: str, edge: str | None = None, radius: float = 0) -> None:
        """Draw a filled rectangle; nothing is drawn if its width or height is below half a pixel.

        Args:
            corner: upper left corner of the rectangle.
            opposite: lower right corner.
            fill: colour inside, such as "#1d2433".
            edge: colour of the edge, `None` for no edge.
            radius: radius of rounded corners, in pixels; 0 for sharp corners.
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
        size: width and height of the rectangle, in pixels.
        x: the values at the left and at the right side of the rectangle.
        y: the values at the lower and at the upper side of the rectangle.
    """

    canvas: Canvas
    corner: Place
    size: tuple[float, float]
    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)

    def at(self, x: float, y: float) -> Place:
        """Return the point on the canvas, in pixels, for a value `x` on the horizontal and `y` on the vertical axis."""
        across, up = (x - self.x[0]) / (self.x[1] - self.x[0]), (y - self.y[0]) / (self.y[1] - self.y[0])
        return self.corner[0] + across * self.size[0], self.corner[1] + (1 - up) * self.size[1]

    def captions(self, below: str, above: str = "") -> None:
        """Write the names of the axes.

        Args:
            below: name of the horizontal axis, which is written below the rectangle.
            above: name of the vertical axis, which is written above the rectangle; "" for none.
        """
        left, top = self.corner
        self.canvas.text((left + self.size[0] / 2, top + self.size[1] + 24), below, FAINT, 11, "ma")
        self.canvas.text((left, top - 6), above, FAINT, 11, "ls")

    def ticks(self, xs: Mapping[float, str], ys: Mapping[float, str], *, grid: bool = True) -> None:
        """Write texts at values of the axes, and draw a grey line across the rectangle at each of the values.

        Args:
            xs: value on the horizontal axis -> text below the rectangle.
            ys: value on the vertical axis -> text at the left of the rectangle.
            grid: whether the grey lines are drawn.
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
        """Draw straight lines from each of the points to the next.

        Args:
            points: pairs of a value on the horizontal and a value on the vertical axis.
            colour: colour of the lines, such as "#1d2433".
            width: width of the lines, in pixels.
        """
        self.canvas.line([self.at(*point) for point in points], colour, width)

    def bar(self, left: float, right: float, height: float, colour: str, gap: float = 0) -> None:
        """Draw a filled bar that stands on the lower side of the rectangle.

        Args:
            left: value on the horizontal axis at the left side of the bar.
            right: value on the horizontal axis at the right side of the bar.
            height: value on the vertical axis at the top of the bar.
            colour: colour of the bar.
            gap: pixels by which the left and the right side are moved inwards, so that bars do not touch.
        """
        (x0, top), (x1, bottom) = self.at(left, height), self.at(right, self.y[0])
        self.canvas.rectangle((x0 + gap, top), (x1 - gap, bottom), colour)


def blend(low: str, high: str, share: float) -> str:
    """Return a colour between two colours. All three are written as `#rrggbb`.

    Args:
        low: the first colour.
        high: the second colour.
        share: share of the second colour, in [0, 1]; 0 gives the first colour, 1 the second.
    """
    pairs = [(int(low[i : i + 2], 16), int(high[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)
