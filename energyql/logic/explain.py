"""A circuit for people: as indented text with its size and the cells of every attribute, and as a picture."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from energyql.language import Attribute, Interval, Not, OneOf, quote
from energyql.logic.cells import CellSet
from energyql.logic.nodes import CircuitNode, Given, Leaf, LogSumExp, Scaled, ScaledComplement, Sum, operands
from energyql.render.graph import MOST_BOXES, Box, draw_graph
from energyql.render.markup import Markup

MAX_LINES = 200
"""Most lines of a drawing; what a larger circuit has below is counted, not drawn."""


PLAIN = "-log P(query), in nats: lower is better"
"""What the energy is, for most."""


def explain_circuit(nodes: Sequence[CircuitNode], cells: Mapping[str, tuple[CellSet, ...]], energy: str = PLAIN) -> str:
    """Return a circuit as indented text.

        log P(query) = sum
        ├─ log P(smile)
        ├─ log P(NOT glasses)
        └─ log P(NOT beard)

    A node with several parents stands there once; later places refer to its label `[1]`.

    Args:
        nodes: in evaluation order, the root last.
        cells: for each attribute, the cells that the query distinguishes.
        energy: what it is, in words.
    """
    lines = _draw(nodes, cells)
    if len(lines) > MAX_LINES:
        lines = [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES:,} lines more"]
    lines += ["", _sizes(nodes), f"energy = {energy}"]
    if any(isinstance(node, Given) for node in nodes):
        lines.append("given the relations: P(part AND relations) / P(relations); both counted, the part drawn")
    if cells:
        lines += ["", "cells that the query tells apart"]
        width = max(len(name) for name in cells)
        lines += [f"  {name:{width}}  {_cells_of(name, atoms)}" for name, atoms in cells.items()]
    return "\n".join(lines)


def describe(name: str, cells: CellSet, atoms: tuple[CellSet, ...]) -> str:
    """Return a cell set in the query language: `NOT smile`, `hair IN {black, gray}`, `age > 0.6`.

    Args:
        name: the attribute.
        cells: the cell set.
        atoms: all cells of the attribute; where the missing classes are fewer they are named instead.
    """
    first = cells[0]
    if isinstance(first, bool):
        return str(Attribute(name) if first else Not(Attribute(name)))
    if isinstance(first, tuple):
        bounds = [[None if math.isinf(bound) else bound for bound in cell] for cell in cells if isinstance(cell, tuple)]
        return " OR ".join(str(Interval(name, low, high)) for low, high in bounds)
    missing = [cell for atom in atoms for cell in atom if cell not in cells]
    negated = 0 < len(missing) < len(cells)
    return str(OneOf(name, tuple(map(str, missing if negated else cells)), negated))


def _draw(nodes: Sequence[CircuitNode], cells: Mapping[str, tuple[CellSet, ...]]) -> list[str]:
    uses = Counter(child for node in nodes for child in set(operands(node)))
    shared = [i for i, node in enumerate(nodes) if uses[i] > 1 and not isinstance(node, Leaf)]
    labels = {index: f"[{number}] " for number, index in enumerate(reversed(shared), start=1)}
    lines: list[str] = []
    drawn: set[int] = set()
    stack = [(len(nodes) - 1, "log P(query) = ", "")]
    while stack:
        index, head, indent = stack.pop()
        node = nodes[index]
        if index in drawn and index in labels:
            lines.append(f"{head}{labels[index]}as above")
            continue
        drawn.add(index)
        lines.append(f"{head}{labels.get(index, '')}{_title(node, cells)}")
        below = _drawn(node)
        for position in reversed(range(len(below))):
            last = position == len(below) - 1
            stack.append((below[position], indent + ("└─ " if last else "├─ "), indent + ("   " if last else "│  ")))
    return lines


def _title(node: CircuitNode, cells: Mapping[str, tuple[CellSet, ...]]) -> str:
    if isinstance(node, Leaf):
        return f"log P({describe(node.attribute, node.cells, cells[node.attribute])})"
    if isinstance(node, Sum):
        return "sum" if node.children else "0, the query is always true"
    if isinstance(node, LogSumExp):
        return "log-sum-exp"
    if isinstance(node, Scaled):
        return f"{node.factor:.12g} times"
    if isinstance(node, Given):
        if node.leaf is None:
            return "given the relations"
        return f"log P({describe(node.leaf.attribute, node.leaf.cells, cells[node.leaf.attribute])} | relations)"
    return f"log(1 - exp({node.factor:.12g} times the first)), given the second, its complement"


def _drawn(node: CircuitNode) -> tuple[int, ...]:
    """The operands of a node that are drawn below it: of a part given the relations, the part if it needs drawing."""
    if isinstance(node, Given):
        return () if node.leaf else (node.child,)
    return operands(node)


def _sizes(nodes: Sequence[CircuitNode]) -> str:
    counts = Counter(type(node) for node in nodes)
    leaves, sums, choices, given = counts[Leaf], counts[Sum], counts[LogSumExp], counts[Given]
    words = [(leaves, "leaf" if leaves == 1 else "leaves"), (sums, "sum" if sums == 1 else "sums")]
    words += [(choices, "log-sum-exp"), (given, "given the relations")]
    words += [(len(nodes) - leaves - sums - choices - given, "weighted")]
    return ", ".join(f"{count:,} {word}" for count, word in words if count)


def _cells_of(name: str, atoms: tuple[CellSet, ...]) -> str:
    if atoms == ((False,), (True,)):
        return "no | yes"
    return " | ".join(
        describe(name, atom, atoms) if isinstance(atom[0], tuple) else ", ".join(quote(str(value)) for value in atom)
        for atom in atoms
    )


def draw_circuit(
    nodes: Sequence[CircuitNode], cells: Mapping[str, tuple[CellSet, ...]], *, standalone: bool = False
) -> Markup:
    """Draw a circuit as SVG, from the probability of the query on the left to the attributes on the right.

    A leaf is drawn once for every node that reads it, which keeps lines short; any other node is drawn once.

    Args:
        nodes: in evaluation order, the root last.
        cells: for each attribute, the cells that the query distinguishes.
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
            # The complement of a weighted part is there for its precision only.
            shown = _drawn(node)[:1] if isinstance(node, ScaledComplement) else _drawn(node)
            stack += [(child, places[index]) for child in reversed(shown)]
        edges.append((parent, places[index]))
    if stack:
        boxes, edges = [Box(f"too large to draw: {len(nodes):,} nodes", role="root")], []
    title = f"A circuit of {len(nodes):,} node{'s' * (len(nodes) > 1)}, which its explanation puts into words"
    return draw_graph(boxes, edges, title=title, standalone=standalone)


def _box(node: CircuitNode, cells: Mapping[str, tuple[CellSet, ...]]) -> Box:
    if isinstance(node, Leaf):
        return Box(describe(node.attribute, node.cells, cells[node.attribute]), role="leaf")
    if isinstance(node, Sum):
        return Box("AND", "energies add", "and") if node.children else Box("TRUE", "always", "and")
    if isinstance(node, LogSumExp):
        return Box("OR", "probabilities add", "or")
    if isinstance(node, Given):
        if node.leaf is None:
            return Box("GIVEN", "the relations", "weight")
        leaf = node.leaf
        return Box(describe(leaf.attribute, leaf.cells, cells[leaf.attribute]), "given the relations", "leaf")
    factor = f"{node.factor:.12g}"
    if isinstance(node, Scaled):
        return Box(f"{factor} *", f"energy times {factor}", "weight")
    return Box(f"NOT {factor} *", f"1 - P to the {factor}", "weight")
