"""A directed acyclic graph of labelled boxes as SVG, readable on light and on dark paper.

The layout is that of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures",
1981: layers by longest path, an order in each layer by barycentres, and coordinates by least squares. Text and lines
have the colour of the text around the graph, and each box has a light colour for its role.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import TopologicalSorter
from itertools import combinations, pairwise
from typing import Literal

from energyql.render.markup import Markup, element

MOST_BOXES = 120
"""Most boxes of a graph that is drawn; a larger one would not be readable."""
MOST_CHARACTERS = 44
"""Most characters of a label in a box; a longer one is cut, and the tooltip of the box has all of it."""
SWEEPS = 8
"""Number of passes over the layers for an order with fewer crossings; twice as many passes place the boxes."""

Role = Literal["leaf", "and", "or", "not", "weight", "other", "root"]
Point = tuple[float, float]
Edge = tuple[int, int]
Lists = Sequence[Sequence[int]]
_TINTS = {"and": "#3b82f6", "or": "#e08a00", "not": "#e11d48", "weight": "#8b5cf6", "other": "#0d9488"}
_INK, _PAPER = "#1d2433", "#ffffff"
_MARGIN, _PADDING = 6.0, 12.0
_MONOSPACE = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
_SANS = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


@dataclass(frozen=True, slots=True)
class Box:
    """One box of a graph.

    Args:
        label: first line; for a leaf, a piece of a query.
        note: second line, in smaller letters; "" for none.
        role: meaning of the box, which decides its shape and colour.
    """

    label: str
    note: str = ""
    role: Role = "other"

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in pixels, for fonts with letters of average width."""
        letter = 7.9 if self.role == "leaf" else 8.6
        width = max(letter * columns(cut_label(self.label)), 6.1 * columns(self.note))
        return max(width + 2 * _PADDING, 44.0), 42.0 if self.note else 28.0


def draw_graph(boxes: Sequence[Box], edges: Sequence[Edge], *, title: str, standalone: bool = False) -> Markup:
    """Return an SVG drawing of boxes and the lines between them, parents at the left of their children.

    Args:
        boxes: at least one.
        edges: pairs of indices (parent, child) without cycles.
        title: text for screen readers.
        standalone: whether the drawing is for a file of its own, with a background and fixed colours, rather than with
            the colours of the text around it.
    """
    if len(boxes) > MOST_BOXES:
        boxes, edges = [Box(f"too large to draw: {len(boxes):,} boxes", role="root")], []
    sizes = [box.size for box in boxes]
    corners, routes = arrange(sizes, edges)
    width, height = (
        max(corner[axis] + size[axis] for corner, size in zip(corners, sizes, strict=True)) + 2 * _MARGIN
        for axis in (0, 1)
    )
    lines = [
        element("path", d=_curve(route), fill="none", stroke="currentColor", stroke_opacity=0.4, stroke_width=1.5)
        for route in routes
    ]
    shapes = [_draw_box(box, corner) for box, corner in zip(boxes, corners, strict=True)]
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
    """Return the width in pixels of a drawing that `draw_graph` returned."""
    match = re.search(r' width="(\d+)" height=', drawing)
    return float(match[1]) if match else 0.0


def cut_label(text: str) -> str:
    """Return a text, cut to `MOST_CHARACTERS` with "…" at its end if it is longer."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def columns(text: str) -> int:
    """Return the width of a text in letters: Chinese and Japanese characters count as two, combining ones as none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )


def _draw_box(box: Box, corner: Point) -> Markup:
    """Return the drawing of a box whose upper left corner is `corner`."""
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
    centre, leaf = f"{x + width / 2:.1f}", box.role == "leaf"
    label = element(
        "text",
        cut_label(box.label),
        x=centre,
        y=f"{y + (18.5 if box.note else height / 2 + 4.5):.1f}",
        font_size="13",
        font_family=_MONOSPACE if leaf else None,
        font_weight=None if leaf else "600",
        fill="currentColor",
    )
    note = element("text", box.note, x=centre, y=f"{y + 33:.1f}", font_size="11", fill="currentColor", fill_opacity=0.8)
    tooltip = element("title", box.label) if cut_label(box.label) != box.label else None
    return element("g", tooltip, shape, label, note if box.note else None, class_=f"eql-{box.role}")


def _curve(points: Sequence[Point]) -> str:
    """Return an SVG path: a smooth line through points that is horizontal in each of them."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(dict.fromkeys(points)):
        middle = (x0 + x1) / 2
        parts.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return "".join(parts)


def arrange(
    sizes: Sequence[tuple[float, float]], edges: Sequence[Edge], *, across: float = 34, between: float = 12
) -> tuple[list[Point], list[list[Point]]]:
    """Return places for the boxes and lines of a graph, parents at the left of their children.

    Args:
        sizes: width and height of each box.
        edges: pairs of indices (parent, child); children are placed in the order of the edges if possible.
        across: free width between layers.
        between: free height between boxes of one layer.

    Returns:
        The upper left corner of each box, the least coordinates being 0; and for each edge the points of its line: at
        the right side of its parent and of the parent's layer, at free places in the layers between, and at the left
        side of its child.
    """
    heights = [height for _, height in sizes]
    depths = _depths(len(sizes), edges)
    chains: list[list[int]] = []  # each edge as a row of boxes, with a box of height 0 in every layer between
    for parent, child in edges:
        between_them = range(depths[parent] + 1, depths[child])
        chains.append([parent, *range(len(depths), len(depths) + len(between_them)), child])
        depths += between_them
        heights += [0.0] * len(between_them)
    below: list[list[int]] = [[] for _ in depths]
    above: list[list[int]] = [[] for _ in depths]
    for upper, lower in (link for chain in chains for link in pairwise(chain)):
        below[upper].append(lower)
        above[lower].append(upper)
    layers = _order(depths, below, above)
    centres = _centres(layers, below, above, heights, between)

    widths = [max(sizes[i][0] for i in layer if i < len(sizes)) for layer in layers]
    lefts = [sum(widths[:depth]) + across * depth for depth in range(len(layers))]
    corners = [(lefts[depths[i]], centres[i] - height / 2) for i, (_, height) in enumerate(sizes)]
    routes = []
    for parent, *middle, child in chains:
        # Horizontal across every layer, so that the line crosses no wider box above or below.
        points = [(lefts[depths[parent]] + sizes[parent][0], centres[parent])]
        points.append((lefts[depths[parent]] + widths[depths[parent]], centres[parent]))
        for i in middle:
            points += [(lefts[depths[i]], centres[i]), (lefts[depths[i]] + widths[depths[i]], centres[i])]
        routes.append([*points, (lefts[depths[child]], centres[child])])
    return corners, routes


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return for each of `count` boxes the number of edges on the longest path to it from a box without parents."""
    parents: dict[int, list[int]] = {box: [] for box in range(count)}
    for parent, child in edges:
        parents[child].append(parent)
    depths = [0] * count
    for box in TopologicalSorter(parents).static_order():
        depths[box] = max((depths[parent] + 1 for parent in parents[box]), default=0)
    return depths


def _order(depths: Sequence[int], below: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the boxes of each layer from top to bottom, in an order with few crossings.

    The first order is that of a search by depth, the best one for a tree; passes over the layers improve it.

    Args:
        depths: layer of each box.
        below: children of each box.
        above: parents of each box.
    """
    layers: list[list[int]] = [[] for _ in range(max(depths) + 1)]
    seen: set[int] = set()
    stack = [box for box in reversed(range(len(depths))) if not above[box]]
    while stack:
        box = stack.pop()
        if box not in seen:
            seen.add(box)
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
        crossings = _crossings(layers, below)
        if crossings < fewest:
            best, fewest = layers, crossings
    return best


def _crossings(layers: Lists, below: Lists) -> int:
    """Return the number of crossings of lines between neighbouring layers; `below` has the children of each box."""
    place = {box: index for layer in layers for index, box in enumerate(layer)}
    total = 0
    for layer in layers:
        links = [(i, place[child]) for i, box in enumerate(layer) for child in below[box]]
        total += sum(a < c and b > d for (a, b), (c, d) in combinations(links, 2))
    return total


def _centres(layers: Lists, below: Lists, above: Lists, heights: Sequence[float], between: float) -> list[float]:
    """Return the vertical centre of each box: as near to the mean of its neighbours as the other boxes allow.

    Args:
        layers: boxes of each layer from top to bottom.
        below: children of each box.
        above: parents of each box.
        heights: height of each box.
        between: free height between boxes of one layer.
    """
    centres = [0.0] * len(heights)
    for layer in layers:
        _place(layer, [0.0] * len(layer), centres, heights, between)
    for sweep in range(2 * SWEEPS + 1):  # the last one centres parents on their children
        backwards = sweep % 2 == 0
        side = below if backwards else above
        for layer in reversed(layers) if backwards else layers:
            targets = [_mean([centres[other] for other in side[box]], centres[box]) for box in layer]
            _place(layer, targets, centres, heights, between)
    top = min(centre - height / 2 for centre, height in zip(centres, heights, strict=True))
    return [centre - top for centre in centres]


def _place(
    layer: Sequence[int], targets: Sequence[float], centres: list[float], heights: Sequence[float], between: float
) -> None:
    """Set the entries of `centres` of a layer's boxes as near to their targets as they fit, by least squares.

    The boxes keep their order. Minus the room that the boxes above need, the centres must not decrease, so this is an
    isotonic regression, computed by pooling neighbours that violate the order (pool adjacent violators).
    """
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        offsets.append(offsets[-1] + (heights[upper] + heights[lower]) / 2 + between)
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
    """Return the mean of values, or `otherwise` if there are none."""
    return sum(values) / len(values) if values else otherwise
