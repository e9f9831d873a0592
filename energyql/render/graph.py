"""A graph of labelled boxes as SVG, readable on light and on dark paper.

Text and lines are drawn in the colour of the surrounding text, and boxes are tinted so lightly that it stays readable.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from energyql.render.layers import Edge, Point, arrange
from energyql.render.markup import Markup, element, join

MOST_BOXES = 120
"""A larger graph is not drawn: nobody could read it."""
MOST_CHARACTERS = 44
"""A longer label is cut; the whole of it is the box's tooltip."""

Role = Literal["leaf", "and", "or", "not", "weight", "other", "root"]
_TINTS: dict[Role, str] = {
    "and": "#3b82f6",
    "or": "#e08a00",
    "not": "#e11d48",
    "weight": "#8b5cf6",
    "other": "#0d9488",
}
_INK, _PAPER = "#1d2433", "#ffffff"
_MARGIN, _PADDING = 6.0, 12.0
_MONOSPACE = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


@dataclass(frozen=True, slots=True)
class Box:
    """One box.

    Args:
        label: what it says; for a leaf, a piece of a query.
        note: a second line, smaller.
        role: decides its shape and colour.
    """

    label: str
    note: str = ""
    role: Role = "other"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, for fonts whose letters are about as wide as most."""
        letter = 7.9 if self.role == "leaf" else 8.6
        width = max(letter * columns(shorten(self.label)), 6.1 * columns(self.note))
        return max(width + 2 * _PADDING, 44.0), 42.0 if self.note else 28.0


def draw_graph(boxes: Sequence[Box], edges: Sequence[Edge], *, title: str, standalone: bool = False) -> Markup:
    """Draw boxes and the lines between them, from left to right.

    Args:
        boxes: at least one.
        edges: pairs of indices (parent, child) without cycles.
        title: what a screen reader says.
        standalone: for a file of its own: with a background, and not in the colours of its surroundings.
    """
    if len(boxes) > MOST_BOXES:
        boxes, edges = [Box(f"too large to draw: {len(boxes):,} boxes", role="root")], []
    layout = arrange([box.size for box in boxes], edges)
    width, height = layout.width + 2 * _MARGIN, layout.height + 2 * _MARGIN
    lines = [
        element("path", d=_curve(route), fill="none", stroke="currentColor", stroke_opacity=0.4, stroke_width=1.5)
        for route in layout.routes
    ]
    shapes = [_draw_box(box, corner) for box, corner in zip(boxes, layout.corners, strict=True)]
    content = element("g", *lines, *shapes, transform=f"translate({_MARGIN:g} {_MARGIN:g})")
    background = element("rect", width="100%", height="100%", fill=_PAPER) if standalone else None
    return element(
        "svg",
        background,
        content,
        xmlns="http://www.w3.org/2000/svg" if standalone else None,
        class_="eql-graph",
        role="img",
        aria_label=title,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        color=_INK if standalone else None,
        font_family=_SANS,
        text_anchor="middle",
    )


def graph_width(drawing: Markup) -> float:
    """The width of a drawing that `draw_graph` made."""
    found = re.search(r' width="(\d+)" height=', drawing)
    return float(found[1]) if found else 0.0


def shorten(text: str) -> str:
    """The start of a text that is too long for a box."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def columns(text: str) -> int:
    """Widths of a letter that a text takes: Chinese and Japanese characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _draw_box(box: Box, corner: Point) -> Markup:
    (x, y), (width, height) = corner, box.size
    tint = _TINTS.get(box.role, "currentColor")
    plain = tint == "currentColor"
    shape = element(
        "rect",
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        width=f"{width:.1f}",
        height=f"{height:.1f}",
        rx=f"{height / 2 if box.role == 'leaf' else 7:g}",
        fill=tint,
        fill_opacity=0.0 if box.role == "root" else 0.06 if plain else 0.16,
        stroke=tint,
        stroke_opacity=0.45 if plain else 0.9,
        stroke_dasharray="4 3" if box.role == "root" else None,
    )
    centre = f"{x + width / 2:.1f}"
    leaf = box.role == "leaf"
    label = element(
        "text",
        shorten(box.label),
        x=centre,
        y=f"{y + (18.5 if box.note else height / 2 + 4.5):.1f}",
        font_size="13",
        font_family=_MONOSPACE if leaf else None,
        font_weight=None if leaf else "600",
        fill="currentColor",
    )
    note = element("text", box.note, x=centre, y=f"{y + 33:.1f}", font_size="11", fill="currentColor", fill_opacity=0.8)
    tooltip = element("title", box.label) if shorten(box.label) != box.label else None
    return element("g", tooltip, shape, label, note if box.note else None, class_=f"eql-{box.role}")


def _curve(points: Sequence[Point]) -> str:
    """A smooth line that leaves and enters every point level."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(dict.fromkeys(points)):
        middle = (x0 + x1) / 2
        parts.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return str(join(parts))
