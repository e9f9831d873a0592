"""Where the boxes of a directed acyclic graph go: in layers from left to right, with few crossings and short edges.

The steps are those of Sugiyama, Tagawa and Toda (1981): layers by longest path, an order in each layer by barycentres,
and coordinates that are the least-squares answer to "beside your neighbours, but not on top of each other".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

SWEEPS = 8
Point = tuple[float, float]
Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything is, from (0, 0) at the upper left.

    Args:
        corners: the upper left corner of each box.
        routes: for each edge the points that it passes: the right side of its parent and of the parent's layer, free
            places in the layers between, the left side of its child.
        width, height: of the whole.
    """

    corners: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


def arrange(
    sizes: Sequence[tuple[float, float]], edges: Sequence[Edge], *, across: float = 34, between: float = 12
) -> Layout:
    """Lay out a graph.

    Args:
        sizes: width and height of each box.
        edges: pairs (parent, child); parents stand left of their children, children in the order of the edges.
        across: free width between layers.
        between: free height between boxes of one layer.
    """
    depths = _depths(len(sizes), edges)
    heights = [height for _, height in sizes]
    layer_of = list(depths)
    chains: list[list[int]] = []
    links: list[Edge] = []  # edges cut at every layer, where a box of no size keeps them a place
    for parent, child in edges:
        chain = [parent]
        for depth in range(depths[parent] + 1, depths[child]):
            chain.append(len(heights))
            heights.append(0.0)
            layer_of.append(depth)
        chains.append([*chain, child])
        links += [(chains[-1][i], chains[-1][i + 1]) for i in range(len(chain))]
    layers = _order(layer_of, links)
    centres = _centres(layers, links, heights, between)

    widths = [max(sizes[i][0] for i in layer if i < len(sizes)) for layer in layers]
    lefts = [sum(widths[:depth]) + across * depth for depth in range(len(layers))]
    corners = [(lefts[depths[i]], centres[i] - sizes[i][1] / 2) for i in range(len(sizes))]
    routes = []
    for chain in chains:
        start, end = chain[0], chain[-1]
        side, right = (lefts[depths[start]] + width for width in (sizes[start][0], widths[depths[start]]))
        # Straight on to where its layer ends, so as not to cut a wider box above or below.
        points = [(side, centres[start]), (right, centres[start])]
        for place in chain[1:-1]:  # and through every layer on the way
            left = lefts[layer_of[place]]
            points += [(left, centres[place]), (left + widths[layer_of[place]], centres[place])]
        routes.append([*points, (lefts[depths[end]], centres[end])])
    bottom = max(corner[1] + size[1] for corner, size in zip(corners, sizes, strict=True))
    return Layout(corners, routes, lefts[-1] + widths[-1], bottom)


def _depths(count: int, edges: Sequence[Edge]) -> list[int]:
    """The longest path from a box without parents to each box."""
    children: list[list[int]] = [[] for _ in range(count)]
    waiting = [0] * count
    for parent, child in edges:
        children[parent].append(child)
        waiting[child] += 1
    depths = [0] * count
    ready = [i for i in range(count) if not waiting[i]]
    while ready:
        parent = ready.pop()
        for child in children[parent]:
            depths[child] = max(depths[child], depths[parent] + 1)
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return depths


def _order(layer_of: Sequence[int], links: Sequence[Edge]) -> list[list[int]]:
    """The boxes of each layer from top to bottom: depth first, which is perfect for a tree, then improved by sweeps."""
    below, above = _neighbours(len(layer_of), links)
    layers: list[list[int]] = [[] for _ in range(max(layer_of) + 1)]
    seen: set[int] = set()
    stack = [i for i in reversed(range(len(layer_of))) if not above[i]]
    while stack:
        box = stack.pop()
        if box not in seen:
            seen.add(box)
            layers[layer_of[box]].append(box)
            stack.extend(reversed(below[box]))
    best, fewest = layers, _crossings(layers, links)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        layers = [list(layer) for layer in layers]
        side = below if sweep % 2 else above
        for layer in reversed(layers) if sweep % 2 else layers:
            place = {box: index for each in layers for index, box in enumerate(each)}
            layer.sort(key=lambda box: _mean([float(place[other]) for other in side[box]], float(place[box])))
        found = _crossings(layers, links)
        if found < fewest:
            best, fewest = layers, found
    return best


def _crossings(layers: Sequence[Sequence[int]], links: Sequence[Edge]) -> int:
    place = {box: (depth, index) for depth, layer in enumerate(layers) for index, box in enumerate(layer)}
    gaps: dict[int, list[Edge]] = {}
    for parent, child in links:
        gaps.setdefault(place[parent][0], []).append((place[parent][1], place[child][1]))
    total = 0
    for pairs in gaps.values():
        pairs.sort()
        total += sum(a[0] < b[0] and a[1] > b[1] for i, a in enumerate(pairs) for b in pairs[i + 1 :])
    return total


def _centres(
    layers: Sequence[Sequence[int]], links: Sequence[Edge], heights: Sequence[float], between: float
) -> list[float]:
    below, above = _neighbours(len(heights), links)
    centres = [0.0] * len(heights)
    for layer in layers:
        _place(layer, [0.0] * len(layer), centres, heights, between)
    for sweep in range(2 * SWEEPS + 1):  # the last one centres parents on their children
        backwards = sweep % 2 == 0
        for layer in reversed(layers) if backwards else layers:
            wanted = [
                _mean([centres[other] for other in (below[box] if backwards else above[box])], centres[box])
                for box in layer
            ]
            _place(layer, wanted, centres, heights, between)
    top = min(centre - height / 2 for centre, height in zip(centres, heights, strict=True))
    return [centre - top for centre in centres]


def _place(
    layer: Sequence[int], wanted: Sequence[float], centres: list[float], heights: Sequence[float], between: float
) -> None:
    """Put the boxes of a layer, in their order, as near to the wanted centres as they fit, by least squares.

    Less the room that the boxes above take, the centres must not fall: isotonic regression, by pooling neighbours that
    violate the order (pool adjacent violators).
    """
    offsets = [0.0]
    for upper, lower in pairwise(layer):
        offsets.append(offsets[-1] + (heights[upper] + heights[lower]) / 2 + between)
    pools: list[tuple[float, int]] = []
    for offset, target in zip(offsets, wanted, strict=True):
        pool = (target - offset, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, count = pools.pop()
            total = count + pool[1]
            pool = ((mean * count + pool[0] * pool[1]) / total, total)
        pools.append(pool)
    places = [mean for mean, count in pools for _ in range(count)]
    for box, place, offset in zip(layer, places, offsets, strict=True):
        centres[box] = place + offset


def _neighbours(count: int, links: Sequence[Edge]) -> tuple[list[list[int]], list[list[int]]]:
    below: list[list[int]] = [[] for _ in range(count)]
    above: list[list[int]] = [[] for _ in range(count)]
    for parent, child in links:
        below[parent].append(child)
        above[child].append(parent)
    return below, above


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise
