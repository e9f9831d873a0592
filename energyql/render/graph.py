"""A directed acyclic graph of labelled boxes as SVG, readable on light and on dark paper.

The layout is that of Sugiyama, Tagawa and Toda, "Methods for visual understanding of hierarchical system structures",
1981: layers by longest path, an order in each layer by barycentres, and coordinates by least squares. Text and lines
have the colour of the surrounding text, and boxes a light tint of their role.
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
"""A larger graph is not drawn, since it would not be readable."""
MOST_CHARACTERS = 44
"""A longer label is cut; all of it is the box's tooltip."""
SWEEPS = 8
"""Passes over the layers that look for an order with fewer crossings; twice as many place the boxes."""

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
    """One box.

    Args:
        label: first line; for a leaf, a piece of a query.
        note: a second line, smaller.
        role: decides its shape and colour.
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
    """Draw boxes and the lines between them, from left to right.

    Args:
        boxes: at least one.
        edges: pairs of indices (parent, child) without cycles.
        title: text for screen readers.
        standalone: for a file of its own: with a background and fixed colours, not those of its surroundings.
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
    found = re.search(r' width="(\d+)" height=', drawing)
    return float(found[1]) if found else 0.0


def cut_label(text: str) -> str:
    """Return the text, cut where it is too long for a box."""
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def columns(text: str) -> int:
    """Return the width of a text in letters: Chinese and Japanese characters take two, combining ones none."""
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
    """Return a smooth path, horizontal in every point."""
    parts = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for (x0, y0), (x1, y1) in pairwise(dict.fromkeys(points)):
        middle = (x0 + x1) / 2
        parts.append(f"C{middle:.1f} {y0:.1f} {middle:.1f} {y1:.1f} {x1:.1f} {y1:.1f}")
    return "".join(parts)


def arrange(
    sizes: Sequence[tuple[float, float]], edges: Sequence[Edge], *, across: float = 34, between: float = 12
) -> tuple[list[Point], list[list[Point]]]:
    """Lay out a graph from left to right.

    Args:
        sizes: width and height of each box.
        edges: pairs (parent, child); parents stand left of their children, children in the order of the edges.
        across: free width between layers.
        between: free height between boxes of one layer.

    Returns:
        The upper left corner of each box, the least being 0 in both directions, and for each edge its points: the
        right side of its parent and of the parent's layer, free places in the layers between, the left side of its
        child.
    """
    heights = [height for _, height in sizes]
    depths = _depths(len(sizes), edges)
    chains: list[list[int]] = []  # edges cut at every layer between, where a box of no size keeps them a place
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
        # Level to the end of its layer, so as not to cut a wider box above or below, and so through every layer.
        points = [(lefts[depths[parent]] + sizes[parent][0], centres[parent])]
        points.append((lefts[depths[parent]] + widths[depths[parent]], centres[parent]))
        for i in middle:
            points += [(lefts[depths[i]], centres[i]), (lefts[depths[i]] + widths[depths[i]], centres[i])]
        routes.append([*points, (lefts[depths[child]], centres[child])])
    return corners, routes


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """Return the length of the longest path from a box without parents to each box."""
    parents: dict[int, list[int]] = {box: [] for box in range(count)}
    for parent, child in edges:
        parents[child].append(parent)
    depths = [0] * count
    for box in TopologicalSorter(parents).static_order():
        depths[box] = max((depths[parent] + 1 for parent in parents[box]), default=0)
    return depths


def _order(depths: Sequence[int], below: Sequence[Sequence[int]], above: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the boxes of each layer from top to bottom: depth first, which is best for a tree, improved by sweeps."""
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
        found = _crossings(layers, below)
        if found < fewest:
            best, fewest = layers, found
    return best


def _crossings(layers: Lists, below: Lists) -> int:
    """Return the number of pairs of links between neighbouring layers that cross."""
    place = {box: index for layer in layers for index, box in enumerate(layer)}
    total = 0
    for layer in layers:
        links = [(i, place[child]) for i, box in enumerate(layer) for child in below[box]]
        total += sum(a < c and b > d for (a, b), (c, d) in combinations(links, 2))
    return total


def _centres(layers: Lists, below: Lists, above: Lists, heights: Sequence[float], between: float) -> list[float]:
    """Return the vertical centre of each box, each as near to the mean of its neighbours as the others allow."""
    centres = [0.0] * len(heights)
    for layer in layers:
        _place(layer, [0.0] * len(layer), centres, heights, between)
    for sweep in range(2 * SWEEPS + 1):  # the last one centres parents on their children
        backwards = sweep % 2 == 0
        side = below if backwards else above
        for layer in reversed(layers) if backwards else layers:
            wanted = [_mean([centres[other] for other in side[box]], centres[box]) for box in layer]
            _place(layer, wanted, centres, heights, between)
    top = min(centre - height / 2 for centre, height in zip(centres, heights, strict=True))
    return [centre - top for centre in centres]


def _place(
    layer: Sequence[int], wanted: Sequence[float], centres: list[float], heights: Sequence[float], between: float
) -> None:
    """Set the centres of a layer's boxes, in their order, as near to the wanted ones as they fit, by least squares.

    Less the room that the boxes above take, the centres must not fall: isotonic regression, by pooling neighbours that
    violate the order (pool adjacent violators).
    """
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        offsets.append(offsets[-1] + (heights[upper] + heights[lower]) / 2 + between)
    pools: list[tuple[float, int]] = []
    for offset, target in zip(offsets, wanted, strict=True):
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
