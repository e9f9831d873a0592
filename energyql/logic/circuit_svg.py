"""A circuit as a picture, in words for people who have never seen one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from energyql.logic.cells import CellSet
from energyql.logic.explain import describe
from energyql.logic.nodes import Leaf, LogSumExp, Node, Scaled, ScaledComplement, Sum, operands
from energyql.render.graph import MOST_BOXES, Box, draw_graph
from energyql.render.markup import Markup


def draw_circuit(
    nodes: Sequence[Node], cells: Mapping[str, tuple[CellSet, ...]], *, standalone: bool = False
) -> Markup:
    """Draw a circuit as SVG, from the probability of the query on the left to the attributes on the right.

    A leaf is drawn once for every node that reads it, which keeps lines short; any other node is drawn once.

    Args:
        nodes: in evaluation order, the root last.
        cells: for each attribute, the cells that the query can tell apart.
        standalone: see `draw_graph`.
    """
    root = len(nodes) - 1
    boxes, edges = [Box("P(query)", role="root")], []
    places: dict[int, int] = {}
    stack = [(root, 0)]
    while stack and len(boxes) <= MOST_BOXES:
        index, parent = stack.pop()
        node = nodes[index]
        if index not in places or isinstance(node, Leaf):
            places[index] = len(boxes)
            boxes.append(_box(node, cells))
            # The complement of a weighted part is there for its digits and says nothing new.
            shown = operands(node)[:1] if isinstance(node, ScaledComplement) else operands(node)
            stack += [(child, places[index]) for child in reversed(shown)]
        edges.append((parent, places[index]))
    if stack:
        boxes, edges = [Box(f"too large to draw: {len(nodes):,} nodes", role="root")], []
    title = f"A circuit of {len(nodes):,} node{'s' * (len(nodes) > 1)}, which its explanation puts into words"
    return draw_graph(boxes, edges, title=title, standalone=standalone)


def _box(node: Node, cells: Mapping[str, tuple[CellSet, ...]]) -> Box:
    if isinstance(node, Leaf):
        return Box(describe(node.attribute, node.cells, cells[node.attribute]), role="leaf")
    if isinstance(node, Sum):
        return Box("AND", "energies add", "and") if node.children else Box("TRUE", "always", "and")
    if isinstance(node, LogSumExp):
        return Box("OR", "probabilities add", "or")
    factor = f"{node.factor:.12g}"
    if isinstance(node, Scaled):
        return Box(f"{factor} *", f"energy times {factor}", "weight")
    return Box(f"NOT {factor} *", f"1 - P to the {factor}", "weight")
