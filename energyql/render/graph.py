"""A directed acyclic graph of labelled boxes as SVG, readable on light and on dark backgrounds.

The layout is that of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures",
1981: layers by the longest path, an order with few crossings, then coordinates by least squares.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import combinations, pairwise
from typing import Any, Literal

from rich.cells import cell_len

from energyql.render.markup import Markup, element

MOST_BOXES = 120
"""Largest number of boxes in a graph that is drawn; a larger graph would not be readable."""
MOST_CHARACTERS = 44
"""Largest number of characters of a label; a longer label is cut, and a tooltip shows all of it."""
SWEEPS = 8
"""Passes over the layers that search for an order with fewer crossings; 2 * SWEEPS + 1 then place the boxes."""

Role = Literal["leaf", "and", "or", "not", "weight", "other", "root"]
Point = tuple[float, float]
Edge = tuple[int, int]
Lists = Sequence[Sequence[int]]
_TINTS = {"and": "#3b82f6", "or": "#e08a00", "not": "#e11d48", "weight": "#8b5cf6", "other": "#0d9488"}
_INK, _PAPER = "#1d2433", "#ffffff"
_MARGIN, _PADDING = 6.0, 12.0
_ACROSS, _BETWEEN = 34, 12
"""Free width between layers, and free height between the boxes of a layer, in pixels."""
_MONOSPACE = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a graph.

    Args:
        label: first line of text; in a box without children (a leaf) a piece of a query.
        note: second line of text, in smaller letters; "" for none.
        role: what the box means in a query, such as "and"; it decides on shape and colour.
    """

    label: str
    note: str = ""
    role: Role = "other"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the box in pixels, estimated from the number of letters."""
        letter = 7.9 if self.role == "leaf" else 8.6
        width = max(letter * cell_len(cut_label(self.label)), 6.1 * cell_len(self.note))
        return max(width + 2 * _PADDING, 44.0), 42.0 if self.note else 28.0


def draw_graph(boxes: Sequence[Box], edges: Sequence[Edge], *, title: str, standalone: bool = False) -> Markup:
    """SVG drawing of boxes and the lines between them, with parents at the left of their children.

    Args:
        boxes: at least one. More than `MOST_BOXES` are replaced by a single box, which says that the graph is too
            large.
        edges: pairs (parent, child) of positions in `boxes`, without cycles.
        title: text for screen readers.
        standalone: whether the drawing becomes a file, with a background and fixed colours. Otherwise it is part of a
            page, and has the text colour of the page.
    """
    if len(boxes) > MOST_BOXES:
        boxes, edges = [Box(f"too large to draw: {len(boxes):,} boxes", role="root")], []
    sizes = [box.size for box in boxes]
    corners, routes = arrange(sizes, edges)
    ends = [(x + wide, y + high) for (x, y), (wide, high) in zip(corners, sizes, strict=True)]
    width, height = (max(each) + 2 * _MARGIN for each in zip(*ends, strict=True))
    stroke: dict[str, Any] = {"fill": "none", "stroke": "currentColor", "stroke_opacity": 0.4, "stroke_width": 1.5}
    lines = [element("path", d=_curve(route), **stroke) for route in routes]
    shapes = [_draw_box(box, corner) for box, corner in zip(boxes, corners, strict=True)]
    content = element("g", *lines, *shapes, transform=f"translate({_MARGIN:g} {_MARGIN:g})")
    background = element("rect", width="100%", height="100%", fill=_PAPER) if standalone else None
    return element(
        "svg", background, content, xmlns="http://www.w3.org/2000/svg" if standalone else None, class_="eql-graph",
        role="img", aria_label=title, viewBox=f"0 0 {width:.0f} {height:.0f}", width=f"{width:.0f}",
        height=f"{height:.0f}", color=_INK if standalone else None, font_family=_SANS, text_anchor="middle",
    )  # fmt: skip


def graph_width(drawing: Markup) -> float:
    """Width in pixels of a drawing that `draw_graph` returned."""
    match = re.search(r' width="(\d+)" height=', drawing)
    return float(match[1]) if match else 0.0


def cut_label(text: str) -> str:
    """Return `text`; if it has more than 44 characters, it is cut to 44, of which the last is "…"."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def _draw_box(box: Box, corner: Point) -> Markup:
    """SVG of a box with the upper left corner at `corner`, in pixels."""
    (x, y), (width, height), leaf, root = corner, box.size, box.role == "leaf", box.role == "root"
    tint = _TINTS.get(box.role)
    shape = element(
        "rect", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{width:.1f}", height=f"{height:.1f}",
        rx=f"{height / 2 if leaf else 7:g}", fill=tint or "currentColor",
        fill_opacity=0.16 if tint else 0.0 if root else 0.06, stroke=tint or "currentColor",
        stroke_opacity=0.9 if tint else 0.45, stroke_dasharray="4 3" if root else None,
    )  # fmt: skip
    label = element(
        "text", cut_label(box.label), x=f"{x + width / 2:.1f}",
        y=f"{y + (18.5 if box.note else height / 2 + 4.5):.1f}", font_size="13",
        font_family=_MONOSPACE if leaf else None, font_weight=None if leaf else "600", fill="currentColor",
    )  # fmt: skip
    place = {"x": f"{x + width / 2:.1f}", "y": f"{y + 33:.1f}"}
    note = element("text", box.note, **place, font_size="11", fill="currentColor", fill_opacity=0.8)
    tooltip = element("title", box.label) if cut_label(box.label) != box.label else None
    return element("g", tooltip, shape, label, note if box.note else None, class_=f"eql-{box.role}")


def _curve(points: Sequence[Point]) -> str:
    """Smooth line through points, horizontal at each of them, for the attribute `d` of an SVG path."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(dict.fromkeys(points)):
        middle = (x0 + x1) / 2
        parts.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return "".join(parts)


def arrange(sizes: Sequence[tuple[float, float]], edges: Sequence[Edge]) -> tuple[list[Point], list[list[Point]]]:
    """Layout of a graph: upper left corner of each box, and points of each line, in pixels; the least x and y are 0.

    A line goes from the right side of the parent, through gaps between boxes of other layers, to the left side of the
    child.

    Args:
        sizes: width and height of each box, in pixels.
        edges: pairs (parent, child) of positions in `sizes`, without cycles. Children of a box are drawn from top to
            bottom in the order of the edges, unless more lines would then cross.
    """
    heights = [height for _, height in sizes]
    depths = _depths(len(sizes), edges)
    chains: list[list[int]] = []  # each edge as a row of boxes, with a box of height 0 in every layer between
    for parent, child in edges:
        count = len(depths)
        depths += range(depths[parent] + 1, depths[child])
        chains.append([parent, *range(count, len(depths)), child])
    heights += [0.0] * (len(depths) - len(sizes))
    below, above = [list[int]() for _ in depths], [list[int]() for _ in depths]
    for upper, lower in (link for chain in chains for link in pairwise(chain)):
        below[upper].append(lower)
        above[lower].append(upper)
    layers = _order(depths, below, above)
    centres = _centres(layers, below, above, heights)

    widths = [max(sizes[i][0] for i in layer if i < len(sizes)) for layer in layers]
    lefts = [sum(widths[:depth]) + _ACROSS * depth for depth in range(len(layers))]
    corners = [(lefts[depths[i]], centres[i] - height / 2) for i, (_, height) in enumerate(sizes)]
    routes = []
    for chain in chains:
        # Horizontal across every layer, so that the line crosses no wider box above or below.
        lines = [[(lefts[depths[i]] + end, centres[i]) for end in (0.0, widths[depths[i]])] for i in chain]
        lines[0][0] = lefts[depths[chain[0]]] + sizes[chain[0]][0], centres[chain[0]]
        routes.append([point for line in lines for point in line][:-1])
    return corners, routes


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """Layer of each box: the number of edges on the longest path to it from a box without parents."""
    parents: dict[int, list[int]] = {box: [] for box in range(count)}
    for parent, child in edges:
        parents[child].append(parent)
    depths = [0] * count
    for box in TopologicalSorter(parents).static_order():
        depths[box] = max((depths[parent] + 1 for parent in parents[box]), default=0)
    return depths


def _order(depths: Sequence[int], below: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> list[list[int]]:
    """Boxes of each layer from top to bottom, in an order in which few lines cross, by mean positions of neighbours.

    It starts from a depth-first search, in which no lines of a tree cross; the best order of all passes is kept.
    """
    layers: list[list[int]] = [[] for _ in range(max(depths) + 1)]
    stack = [box for box in reversed(range(len(depths))) if not above[box]]
    while stack:
        box = stack.pop()
        if box not in layers[depths[box]]:
            layers[depths[box]].append(box)
            stack.extend(reversed(below[box]))
    best, fewest = layers, _crossings(layers, below)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        layers = [list(layer) for layer in layers]
        for layer in reversed(layers) if sweep % 2 else layers:
            place = {box: float(index) for each in layers for index, box in enumerate(each)}
            side = below if sweep % 2 else above
            layer.sort(key=lambda box: _mean([place[other] for other in side[box]], place[box]))
        if (crossings := _crossings(layers, below)) < fewest:
            best, fewest = layers, crossings
    return best


def _crossings(layers: Lists, below: Lists) -> int:
    """Number of pairs of lines between neighbouring layers that cross."""
    place = {box: index for layer in layers for index, box in enumerate(layer)}
    total = 0
    for layer in layers:
        links = [(i, place[child]) for i, box in enumerate(layer) for child in below[box]]
        total += sum(a < c and b > d for (a, b), (c, d) in combinations(links, 2))
    return total


def _centres(layers: Lists, below: Lists, above: Lists, heights: Sequence[float]) -> list[float]:
    """Vertical centre of each box, in pixels, near the mean centre of its children; the highest box begins at 0."""
    centres = [0.0] * len(heights)
    for layer in layers:
        _place(layer, [0.0] * len(layer), centres, heights)
    for sweep in range(2 * SWEEPS + 1):  # the last one centres parents on their children
        backwards = sweep % 2 == 0
        side = below if backwards else above
        for layer in reversed(layers) if backwards else layers:
            targets = [_mean([centres[other] for other in side[box]], centres[box]) for box in layer]
            _place(layer, targets, centres, heights)
    top = min(centre - height / 2 for centre, height in zip(centres, heights, strict=True))
    return [centre - top for centre in centres]


def _place(layer: Sequence[int], targets: Sequence[float], centres: list[float], heights: Sequence[float]) -> None:
    """Set the vertical centres of a layer's boxes, without overlap, as near to `targets` as possible by least squares.

    Isotonic regression (pool adjacent violators) of the targets minus the height that the boxes above need.
    """
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        offsets.append(offsets[-1] + (heights[upper] + heights[lower]) / 2 + _BETWEEN)
    pools: list[tuple[float, int]] = []
    for offset, target in zip(offsets, targets, strict=True):
        mean, count = target - offset, 1
        while pools and pools[-1][0] > mean:
            last, others = pools.pop()
            mean, count = (last * others + mean * count) / (others + count), others + count
        pools.append((mean, count))
    places = [mean for mean, count in pools for _ in range(count)]
    for box, place, offset in zip(layer, places, offsets, strict=True):
        centres[box] = place + offset


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
