"""A query compiled to a circuit of leaves, sums and log-sum-exps over log-probabilities; and circuits for people.

Each branch of the diagram is a sum, each choice between branches a log-sum-exp. A group of related attributes is passed
in one step, whose probability is that given the relations, P(values AND relations) / P(relations).

leaf         log P(attribute falls in these cells | z)
    sum          children over different attributes: AND, energies add
    log-sum-exp  children that exclude one another: OR, probabilities add

Compiled from a decision diagram the circuit is deterministic and decomposable, so its value is log P(query | z)
exactly, given attributes that are independent given z. This is weighted model counting (Darwiche 2002; as a loss for
networks, Xu et al. 2018, arXiv 1711.11157); for diffusion models see LogDiff (arXiv 2602.05549).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from energyql.errors import LimitError
from energyql.kinds import CellSet
from energyql.language import Attribute, Expr, Interval, Not, OneOf, quote
from energyql.logic.diagram import (
    ALWAYS,
    DEFAULT_MAX_NODES,
    NEVER,
    Diagram,
    QueryDiagram,
    WeightVariable,
    build_diagram,
    relations_for,
)
from energyql.logic.nodes import (
    CircuitBuilder,
    CircuitNode,
    Given,
    Leaf,
    LogSumExp,
    Ref,
    Scaled,
    ScaledComplement,
    Sum,
    dependencies_first,
    operands,
    union,
)
from energyql.logic.satisfiability import report_constant, report_constant_parts
from energyql.render.graph import MOST_BOXES, Box, draw_graph
from energyql.render.markup import Markup
from energyql.vocabulary import AttributeSpec

_Values = Mapping[int, Ref]
_Branch = tuple[Callable[[_Values], Ref], int, list[int]]
"""A branch of a node: function from the values of nodes to its value, its end node, and the nodes that it needs."""


def to_nodes(diagram: QueryDiagram) -> tuple[CircuitNode, ...]:
    """Return the nodes of the circuit of a diagram's root, which must not be `NEVER`."""
    builder = CircuitBuilder()
    related: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}
    branches: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}

    def within(node: int) -> list[_Branch]:
        return _attribute_branches(diagram, builder, node)

    def conditional(way: int, both: int, condition: int, values: _Values) -> Ref:
        return builder.given(inside[both], inside[condition], _only_leaf(diagram, way, both, condition))

    def outside(node: int) -> list[_Branch]:
        variable = diagram.variables[diagram.levels[node]]
        if isinstance(variable, WeightVariable):
            return _weighted_branches(diagram, builder, node, variable)
        if variable not in diagram.group_of:
            return within(node)
        condition = diagram.conditions[diagram.group_of[variable]]
        ways: list[_Branch] = []
        for way, end in diagram.ways(node):
            if end != NEVER:
                both = diagram.conjunction([way, condition])
                for part in (both, condition):
                    _collect(part, related, within)
                ways.append((partial(conditional, way, both, condition), end, []))
        return ways

    _collect(diagram.root, branches, outside)
    inside = _fold(builder, related)
    return builder.finish(_fold(builder, branches)[diagram.root])


def _collect(root: int, branches: dict[int, list[_Branch]], of: Callable[[int], list[_Branch]]) -> None:
    """Add the branches of `root` and of all nodes that it needs, in the order in which they can be evaluated."""
    waiting: dict[int, list[_Branch]] = {}

    def needed(node: int) -> list[int]:
        if node not in waiting:
            waiting[node] = of(node)
        return [index for _, child, others in waiting[node] for index in (child, *others)]

    for node in dependencies_first(root, needed, branches):
        branches[node] = waiting[node]


def _fold(builder: CircuitBuilder, branches: Mapping[int, list[_Branch]]) -> dict[int, Ref]:
    """Return the value of each node, from the bottom up."""
    uses = Counter(child for each in branches.values() for child in {child for _, child, _ in each})
    done: dict[int, Ref] = {NEVER: False, ALWAYS: True}
    for node, each in branches.items():
        if node not in done:
            # Sums that only this branch uses are flattened into it; shared ones stay shared.
            terms = [
                builder.sum([value(done), *(builder.terms(done[child]) if uses[child] == 1 else [done[child]])])
                for value, child, _ in each
            ]
            done[node] = builder.log_sum_exp(terms)
    return done


def _attribute_branches(diagram: Diagram, builder: CircuitBuilder, node: int) -> list[_Branch]:
    name = diagram.variables[diagram.levels[node]]
    assert isinstance(name, str)
    branches: list[_Branch] = []
    for cells, child in diagram.branches(node):
        if child != NEVER:
            branches.append((partial(_constant, builder.leaf(name, cells)), child, []))
    return branches


def _constant(value: Ref, values: _Values) -> Ref:
    return value


def _weighted_branches(diagram: Diagram, builder: CircuitBuilder, node: int, variable: WeightVariable) -> list[_Branch]:
    factor, inner = variable.factor, variable.inner
    no, yes = diagram.children[node]
    branches: list[_Branch] = [(lambda values: builder.scaled(factor, values[inner]), yes, [inner])]
    if no != NEVER:
        complement = diagram.negation(inner)
        branches.append(
            (
                lambda values: builder.scaled_complement(factor, values[inner], values[complement]),
                no,
                [inner, complement],
            )
        )
    return branches


def _only_leaf(diagram: QueryDiagram, way: int, both: int, condition: int) -> Leaf | None:
    """Return the leaf that is equivalent to a way through a group, given the relations, or `None` if there is none."""
    for name in sorted(diagram.attributes(way), key=list(diagram.cells).index):
        atoms = [atom for atom in diagram.cells[name] if diagram.conjunction([both, diagram.falls_in(name, atom)])]
        cells = union(atoms, diagram.vocabulary[name])
        if diagram.conjunction([diagram.falls_in(name, cells), condition]) == both:
            return Leaf(name, cells)
    return None


MAX_LINES = 200
"""Most lines of a drawing as text; further nodes are only counted."""


PLAIN = "-log P(query), in nats: lower is better"
"""Description of the energy under most semantics."""


def explain_circuit(nodes: Sequence[CircuitNode], cells: Mapping[str, tuple[CellSet, ...]], energy: str = PLAIN) -> str:
    """Return a circuit as indented text.

        log P(query) = sum
        ├─ log P(smile)
        ├─ log P(NOT glasses)
        └─ log P(NOT beard)

    A node with several parents is printed once; later places refer to its label `[1]`.

    Args:
        nodes: nodes of the circuit in evaluation order, the root last.
        cells: for each attribute, the cells that the query distinguishes.
        energy: description of the energy.
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
    done: set[int] = set()
    stack = [(len(nodes) - 1, "log P(query) = ", "")]
    while stack:
        index, head, indent = stack.pop()
        node = nodes[index]
        if index in done and index in labels:
            lines.append(f"{head}{labels[index]}as above")
            continue
        done.add(index)
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
    """Return the operands of a node that are drawn below it: of a `Given` without `leaf` only the part."""
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

    A leaf is drawn once for every parent, which keeps lines short; any other node is drawn once.

    Args:
        nodes: nodes of the circuit in evaluation order, the root last.
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
            children = _drawn(node)[:1] if isinstance(node, ScaledComplement) else _drawn(node)
            stack += [(child, places[index]) for child in reversed(children)]
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


_SMALL = 64
"""Number of nodes up to which only the vocabulary's order is tried."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The nodes of a compiled query in evaluation order: children come before their parents, the root is last.

    Two circuits are equal exactly if their queries are equivalent, however they are spelled; and equal circuits hash
    equal. (Where the vocabulary's variable order is too large and another was used, equality is only sufficient.)

    Args:
        nodes: the nodes; the value of the last is the log-probability of the query, in nats. A query that is always
            true is the single node `Sum(())`.
        attributes: names of the attributes that the value depends on, in the vocabulary's order.
        cells: for these attributes, the cells that the query distinguishes.
        key: hexadecimal digest of the function that the circuit computes.
    """

    nodes: tuple[CircuitNode, ...] = field(compare=False)
    attributes: tuple[str, ...] = field(compare=False)
    cells: Mapping[str, tuple[CellSet, ...]] = field(compare=False, repr=False)
    key: str

    def explain(self, energy: str = PLAIN) -> str:
        """Return the circuit as indented text, with its size, the text `energy`, and the cells of every attribute."""
        return explain_circuit(self.nodes, self.cells, energy)

    def svg(self) -> str:
        """Return the circuit as a complete SVG file, on white."""
        return str(draw_circuit(self.nodes, self.cells, standalone=True))

    _repr_svg_ = svg

    def draw(self) -> Markup:
        """Return the circuit as SVG for a page, in the page's colours."""
        return draw_circuit(self.nodes, self.cells)

    _repr_html_ = draw

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves in evaluation order."""
        return tuple(node for node in self.nodes if isinstance(node, Leaf))

    @property
    def has_intervals(self) -> bool:
        """Whether a leaf is a bounded interval; without one, the probability can be arbitrarily near to 1."""
        ends = (cell for leaf in self.leaves for cell in leaf.cells if isinstance(cell, tuple))
        return any(math.isfinite(low) and math.isfinite(high) for low, high in ends)


def compile_query(
    expr: Expr,
    vocabulary: Mapping[str, AttributeSpec],
    *,
    query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES,
    relations: bool = True,
) -> Circuit:
    """Compile a bound query to a circuit whose value is its exact log-probability.

    A weight other than 1 makes its operand one opaque predicate with `log p = factor * log P(operand)`, so weighted
    conjuncts add up to `sum_i w_i E_i`.

    Args:
        expr: the query, as `bind` returned it.
        vocabulary: the attributes it may use.
        query: the text it came from, for drawing errors.
        max_nodes: the largest decision diagram to build.
        relations: whether the probability is that given the vocabulary's relations (`relations_for`).

    Raises:
        Contradiction: nothing satisfies the query; the error says which parts clash.
        LimitError: the diagram needs more than `max_nodes` nodes.

    Warns:
        TautologyWarning: everything satisfies the query.
        ConstantPartWarning: a part of it is never or always true; see `report_constant_parts`.
    """
    groups = relations_for(expr, vocabulary) if relations else []
    diagram, key = _smallest(expr, vocabulary, max_nodes, groups)
    report_constant(expr, diagram, query=query)
    nodes = to_nodes(diagram)
    report_constant_parts(expr, diagram, query=query)
    used = {node.attribute for node in nodes if isinstance(node, Leaf)}
    cells = {name: diagram.cells[name] for name in vocabulary if name in used}
    return Circuit(nodes, tuple(cells), cells, key)


def _smallest(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], max_nodes: int, groups: Sequence[Sequence[Expr]]
) -> tuple[QueryDiagram, str]:
    """Return the smaller diagram of two variable orders, and a key, from the vocabulary's order if that fits."""
    diagram = build_diagram(expr, vocabulary, max_nodes, groups)
    key = diagram.digest(diagram.root)
    key = " given ".join([key, *map(diagram.digest, diagram.concerned())])
    if diagram.order == "occurrence":
        return diagram, f"occurrence {key}"
    if diagram.root in (NEVER, ALWAYS) or len(diagram.levels) <= _SMALL:
        return diagram, key
    with suppress(LimitError):
        other = QueryDiagram(expr, vocabulary, groups, order="occurrence", max_nodes=len(diagram.levels))
        if _size(other) < _size(diagram):
            other.max_nodes = max_nodes  # complements of weighted parts may still be added
            return other, key
    return diagram, key


def _size(diagram: QueryDiagram) -> int:
    nodes: set[int] = set()
    for node in dependencies_first(diagram.root, diagram.needs, nodes):
        nodes.add(node)
    return len(nodes)
