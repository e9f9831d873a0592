"""Compilation of a query to a circuit that computes log P(query | z), and texts and drawings of circuits.

The nodes of a circuit are log-probabilities:

    leaf         log P(attribute has one of some values | z)
    sum          children over different attributes: AND, energies add
    log-sum-exp  children that exclude one another: OR, probabilities add

A circuit is made from the decision diagram of the query (`energyql.logic.diagram`): each branch becomes a sum, each
choice between branches a log-sum-exp. Attributes that relations of the vocabulary connect have one term together,
log(P(values AND relations) / P(relations)). If the attributes are independent given z, the value is exactly log P(query
| z): this is weighted model counting (Darwiche 2002; as a loss for networks, Xu et al. 2018, arXiv 1711.11157). LogDiff
(arXiv 2602.05549) does the same for diffusion models.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar, cast

from energyql.errors import LimitError
from energyql.kinds import CellSet
from energyql.language import Attribute, Expr, Interval, Not, OneOf, quote
from energyql.logic.diagram import (
    Diagram,
    WeightVariable,
    build_diagram,
    exits,
    relations_for,
    tested_attributes,
    tested_conditions,
    union,
    values_by_child,
)
from energyql.logic.nodes import ALWAYS, DEFAULT_MAX_NODES, NEVER, dependencies_first
from energyql.logic.satisfiability import report_constants
from energyql.render.graph import MOST_BOXES, Box, draw_graph
from energyql.render.markup import Markup
from energyql.vocabulary import AttributeSpec


@dataclass(frozen=True, slots=True)
class Leaf:
    """A node for the log-probability, in nats, that `attribute` has one of the values in `cells`, given a latent."""

    attribute: str
    cells: CellSet
    children: ClassVar[tuple[int, ...]] = ()
    """Always empty: a leaf is not computed from other nodes."""


@dataclass(frozen=True, slots=True)
class Inner:
    """A node that is computed from other nodes. `children` are their indices; they come before this node."""

    children: tuple[int, ...]


class Sum(Inner):
    """A node whose value is the sum of its children; 0 if it has no children."""


class LogSumExp(Inner):
    """A node whose value is `log(sum_i exp(child_i))` over its children."""


@dataclass(frozen=True, slots=True)
class Scaled(Inner):
    """A node for `factor * part` in the query: its value is `factor` times its child, log P of the part."""

    factor: float


@dataclass(frozen=True, slots=True)
class ScaledComplement(Inner):
    """A node for `NOT (factor * part)`: its value is `log(1 - P(part)^factor)`.

    Its children are log P(part) and log(1 - P(part)). Where P(part) is above one half, the second is used, because near
    probability 1 the first has too few digits.
    """

    factor: float


@dataclass(frozen=True, slots=True)
class Given(Inner):
    """A node for the log-probability of a part of the query, given relations of the vocabulary.

    Its value is the first child, log P(part AND relations), minus the second, log P(relations), and at most 0. If the
    part is equivalent to a condition on one attribute, `leaf` is this condition, for texts and drawings.
    """

    leaf: Leaf | None = None


CircuitNode = Leaf | Sum | LogSumExp | Scaled | ScaledComplement | Given
Ref = int | bool
"""A value in a `CircuitBuilder`: the index of a node, `True` for log-probability 0, or `False` for -infinity."""


class CircuitBuilder:
    """A circuit to which nodes are added; equal nodes get the same index. Its methods take and return a `Ref`."""

    def __init__(self, max_nodes: float = math.inf) -> None:
        self._nodes: list[CircuitNode] = []
        self._indices: dict[CircuitNode, int] = {}
        self._max_nodes = max_nodes

    def leaf(self, attribute: str, cells: CellSet) -> Ref:
        """Log-probability that `attribute` has one of the values in `cells`; `False` if there are none."""
        return self._add(Leaf(attribute, cells)) if cells else False

    def sum(self, terms: Sequence[Ref]) -> Ref:
        """Sum of values: `False` if one of them is `False`, `True` if all are `True`."""
        return self._joined(Sum, terms, neutral=True)

    def log_sum_exp(self, terms: Sequence[Ref]) -> Ref:
        """Log-sum-exp of values: `True` if one of them is `True`, `False` if all are `False`."""
        return self._joined(LogSumExp, terms, neutral=False)

    def _joined(self, kind: type[Sum | LogSumExp], terms: Sequence[Ref], neutral: bool) -> Ref:
        if any(term is not neutral for term in terms if isinstance(term, bool)):
            return not neutral
        others = tuple(term for term in terms if term is not neutral)
        return self._add(kind(others)) if len(others) > 1 else (*others, neutral)[0]

    def scaled(self, factor: float, child: Ref) -> Ref:
        """The value `factor * child`, for `factor * part` in a query, where `child` is log P(part)."""
        return child if isinstance(child, bool) or factor == 1 else self._add(Scaled((child,), factor))

    def scaled_complement(self, factor: float, child: Ref, complement: Ref) -> Ref:
        """The value `log(1 - P(part)^factor)`, where `child` is log P(part) and `complement` is log(1 - P(part))."""
        if isinstance(child, bool) or isinstance(complement, bool):
            return not child
        return self._add(ScaledComplement((child, complement), factor))

    def given(self, child: Ref, condition: Ref, leaf: Leaf | None) -> Ref:
        """The value `child - condition`: log P(part AND relations) - log P(relations); see `Given` for `leaf`."""
        if isinstance(child, bool) or isinstance(condition, bool):
            return child
        return True if child == condition else self._add(Given((child, condition), leaf))

    def terms(self, value: Ref) -> list[Ref]:
        """The children of a sum; for any other value, a list with this value alone."""
        node = None if isinstance(value, bool) else self._nodes[value]
        return list(node.children) if isinstance(node, Sum) else [value]

    def finish(self, root: Ref) -> tuple[CircuitNode, ...]:
        """The nodes on which `root` (not `False`) depends, children before their parents and `root` last."""
        if isinstance(root, bool):
            assert root, "a circuit cannot stand for FALSE"
            return (Sum(()),)
        needed = dependencies_first(root, lambda index: self._nodes[index].children)
        new = {index: number for number, index in enumerate(needed)}
        nodes = (self._nodes[index] for index in new)
        renumbered = (
            replace(node, children=tuple(new[i] for i in node.children)) if isinstance(node, Inner) else node
            for node in nodes
        )
        return tuple(renumbered)

    def _add(self, node: CircuitNode) -> int:
        if node not in self._indices:
            if len(self._nodes) >= self._max_nodes:
                raise LimitError(f"the circuit of this query needs more than {self._max_nodes:,} nodes")
            self._indices[node] = len(self._nodes)
            self._nodes.append(node)
        return self._indices[node]


_Branch = tuple[Callable[[], Ref], int, list[int]]
"""One way to make a node of a diagram true: a function that adds a condition on the node's own variable to the circuit
and returns its value, the node that must be true as well, and the nodes whose values the function uses."""


def to_nodes(diagram: Diagram) -> tuple[CircuitNode, ...]:
    """The nodes of the circuit that computes the log-probability of a diagram's query, which must be satisfiable."""
    builder = CircuitBuilder()
    values: dict[int, Ref] = {NEVER: False, ALWAYS: True}
    inside: dict[int, Ref] = {NEVER: False, ALWAYS: True}
    branches: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}
    related: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}

    def within(node: int) -> list[_Branch]:
        name = cast(str, diagram.variable(node))
        return [(partial(builder.leaf, name, cells), child, []) for cells, child in values_by_child(diagram, node)]

    def weighted(node: int, factor: float, inner: int) -> list[_Branch]:
        no, yes = diagram.nodes.children[node]
        of_yes: _Branch = lambda: builder.scaled(factor, values[inner]), yes, [inner]
        if no == NEVER:
            return [of_yes]
        complement = diagram.negation(inner)
        make = lambda: builder.scaled_complement(factor, values[inner], values[complement])  # noqa: E731
        return [of_yes, (make, no, [inner, complement])]

    def through_group(node: int, condition: int) -> Iterator[_Branch]:
        for way, end in exits(diagram, node):
            if end != NEVER:
                both = diagram.conjunction([way, condition])
                for part in (both, condition):
                    _collect(part, related, within)
                yield partial(given, way, both, condition), end, []

    def given(way: int, both: int, condition: int) -> Ref:
        return builder.given(inside[both], inside[condition], _only_leaf(diagram, way, both, condition))

    def outside(node: int) -> list[_Branch]:
        variable = diagram.variable(node)
        if isinstance(variable, WeightVariable):
            return weighted(node, variable.factor, variable.inner)
        if variable not in diagram.group_of:
            return within(node)
        return list(through_group(node, diagram.conditions[diagram.group_of[variable]]))

    _collect(diagram.root, branches, outside)
    _fold(builder, related, inside)
    _fold(builder, branches, values)
    return builder.finish(values[diagram.root])


def _collect(root: int, branches: dict[int, list[_Branch]], of: Callable[[int], list[_Branch]]) -> None:
    """Add to `branches` the ways to make `root` true, and each node it depends on, dependencies first."""
    new: dict[int, list[_Branch]] = {}

    def needed(node: int) -> list[int]:
        new[node] = of(node)
        return [index for _, child, others in new[node] for index in (child, *others)]

    for node in dependencies_first(root, needed, branches):
        branches[node] = new[node]


def _fold(builder: CircuitBuilder, branches: Mapping[int, list[_Branch]], values: dict[int, Ref]) -> None:
    """Add to the circuit the value of each node in `branches`, and note it in `values`."""
    uses = Counter(child for each in branches.values() for child in {child for _, child, _ in each})
    for node, each in branches.items():
        if node in values:
            continue
        # Sums that only this branch uses are flattened into it; shared ones stay shared.
        terms = [
            builder.sum([make(), *(builder.terms(values[child]) if uses[child] == 1 else [values[child]])])
            for make, child, _ in each
        ]
        values[node] = builder.log_sum_exp(terms)


def _only_leaf(diagram: Diagram, way: int, both: int, condition: int) -> Leaf | None:
    """A condition on one attribute that is equivalent to the part `way` where the relations hold; `None` for none."""
    for name in sorted(tested_attributes(diagram, way), key=list(diagram.cells).index):
        atoms = [atom for atom in diagram.cells[name] if diagram.conjunction([both, diagram.falls_in(name, atom)])]
        cells = union(atoms, diagram.vocabulary[name])
        if diagram.conjunction([diagram.falls_in(name, cells), condition]) == both:
            return Leaf(name, cells)
    return None


MAX_LINES = 200
"""Most lines of a circuit as text; further lines are only counted."""
PLAIN = "-log P(query), in nats: lower is better"
"""Description of the energy of a circuit in texts for users. Under the semantics `jem` the energy has more terms."""
_SMALL = 64
"""Number of nodes up to which a diagram is so small that no second order of its variables is tried."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """The nodes of a compiled query in evaluation order: children come before their parents, the root is last.

    Circuits of `compile_query` are equal, and have equal hashes, exactly if their queries are equivalent, such as `NOT
    (a OR b)` and `NOT a AND NOT b`. Only where a diagram is too large in the vocabulary's order may circuits of
    equivalent queries be unequal.

    Args:
        nodes: the nodes; the value of the last is the log-probability of the query, in nats. The circuit of a query
            that is always true is the one node `Sum(())`.
        attributes: names of the attributes that the value depends on, in the vocabulary's order.
        cells: for each of them, the sets of values that the query tells apart, such as the ages below and above 0.6.
        key: text that identifies the function that the circuit computes; circuits are compared by it alone.
    """

    nodes: tuple[CircuitNode, ...] = field(compare=False)
    attributes: tuple[str, ...] = field(compare=False)
    cells: Mapping[str, tuple[CellSet, ...]] = field(compare=False, repr=False)
    key: str

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """The leaves in evaluation order."""
        return tuple(node for node in self.nodes if isinstance(node, Leaf))

    @property
    def has_intervals(self) -> bool:
        """Whether a leaf tests an interval with two finite bounds, such as `0.4 < age < 0.6`.

        If no leaf does, the probability of the query can come close to 1.
        """
        ends = (cell for leaf in self.leaves for cell in leaf.cells if isinstance(cell, tuple))
        return any(math.isfinite(low) and math.isfinite(high) for low, high in ends)

    def explain(self, energy: str = PLAIN) -> str:
        """The circuit as indented text, with its size and the sets of values that the query tells apart.

            log P(query) = sum
            ├─ log P(smile)
            ├─ log P(NOT glasses)
            └─ log P(NOT beard)

        A node with several parents, if it is no leaf, is printed in full once, with a label such as `[1]`, and then by
        its label. After `MAX_LINES`, lines are only counted. `energy` is the text that describes the energy.
        """
        lines = self._lines()
        if len(lines) > MAX_LINES:
            lines = [*lines[:MAX_LINES], f"... and {len(lines) - MAX_LINES:,} lines more"]
        lines += ["", _sizes(self.nodes), f"energy = {energy}"]
        if any(isinstance(node, Given) for node in self.nodes):
            lines.append("given the relations: P(part AND relations) / P(relations); both counted, the part drawn")
        if self.cells:
            lines += ["", "cells that the query tells apart"]
            width = max(map(len, self.cells))
            lines += [f"  {name:{width}}  {_cells_of(name, atoms)}" for name, atoms in self.cells.items()]
        return "\n".join(lines)

    def _lines(self) -> list[str]:
        uses = Counter(child for node in self.nodes for child in set(node.children))
        shared = [i for i, node in enumerate(self.nodes) if uses[i] > 1 and not isinstance(node, Leaf)]
        labels = {index: f"[{number}] " for number, index in enumerate(reversed(shared), start=1)}
        lines: list[str] = []
        done: set[int] = set()
        stack = [(len(self.nodes) - 1, "log P(query) = ", "")]
        while stack:
            index, head, indent = stack.pop()
            node = self.nodes[index]
            if index in done and index in labels:
                lines.append(f"{head}{labels[index]}as above")
                continue
            done.add(index)
            lines.append(f"{head}{labels.get(index, '')}{_words(node, self.cells)[0]}")
            ends = [("├─ ", "│  ")] * (len(_below(node)) - 1) + [("└─ ", "   ")]
            pairs = zip(_below(node), ends, strict=False)
            stack += reversed([(child, indent + end, indent + more) for child, (end, more) in pairs])
        return lines

    def draw(self, *, standalone: bool = False) -> Markup:
        """Draw the circuit as SVG, from the probability of the query on the left to the attributes on the right.

        A leaf is drawn once for every parent, which keeps lines short. The SVG has the colours of the page around it;
        with `standalone` it is for a separate file, with a background and fixed colours.
        """
        boxes, edges = [Box("P(query)", role="root")], []
        places: dict[int, int] = {}
        stack = [(len(self.nodes) - 1, 0)]
        while stack and len(boxes) <= MOST_BOXES:
            index, parent = stack.pop()
            node = self.nodes[index]
            if index not in places or isinstance(node, Leaf):
                places[index] = len(boxes)
                boxes.append(_words(node, self.cells)[1])
                # The complement of a weighted part is there for its precision only.
                children = _below(node)[:1] if isinstance(node, ScaledComplement) else _below(node)
                stack += [(child, places[index]) for child in reversed(children)]
            edges.append((parent, places[index]))
        count = len(self.nodes)
        if stack:
            boxes, edges = [Box(f"too large to draw: {count:,} nodes", role="root")], []
        title = f"A circuit of {count:,} node{'s' * (count > 1)}, which its explanation puts into words"
        return draw_graph(boxes, edges, title=title, standalone=standalone)

    _repr_html_ = draw

    def svg(self) -> str:
        """Text of an SVG file with a drawing of the circuit on a white background."""
        return str(self.draw(standalone=True))

    _repr_svg_ = svg


def weighted_sum(circuits: Sequence[tuple[Circuit, float]]) -> Circuit:
    """Circuit whose value is the sum of weight times value over (circuit, weight) pairs, with weights above 0."""
    nodes, roots = list[CircuitNode](), list[int]()
    for circuit, weight in circuits:
        first = len(nodes)
        for node in circuit.nodes:
            moved = tuple(first + child for child in node.children)
            nodes.append(node if isinstance(node, Leaf) else replace(node, children=moved))
        nodes.append(Scaled((len(nodes) - 1,), weight))
        roots.append(len(nodes) - 1)
    key = " + ".join(f"{weight!r} * ({circuit.key})" for circuit, weight in circuits)
    return Circuit((*nodes, Sum(tuple(roots))), (), {}, key)


def _below(node: CircuitNode) -> tuple[int, ...]:
    """The children that are shown below a node: of a `Given` not the relations, or none if it is shown as a `leaf`."""
    return node.children[: node.leaf is None] if isinstance(node, Given) else node.children


def _words(node: CircuitNode, cells: Mapping[str, tuple[CellSet, ...]]) -> tuple[str, Box]:
    """How a node is shown: a line of text for `Circuit.explain`, and a box for `Circuit.draw`."""
    match node:
        case Leaf():
            text = describe(node.attribute, node.cells, cells[node.attribute])
            return f"log P({text})", Box(text, role="leaf")
        case Sum(children=()):
            return "0, the query is always true", Box("TRUE", "always", "and")
        case Sum():
            return "sum", Box("AND", "energies add", "and")
        case LogSumExp():
            return "log-sum-exp", Box("OR", "probabilities add", "or")
        case Given(leaf=None):
            return "given the relations", Box("GIVEN", "the relations", "weight")
        case Scaled():
            factor = f"{node.factor:.12g}"
            return f"{factor} times", Box(f"{factor} *", f"energy times {factor}", "weight")
        case ScaledComplement():
            factor = f"{node.factor:.12g}"
            text = f"log(1 - exp({factor} times the first)), given the second, its complement"
            return text, Box(f"NOT {factor} *", f"1 - P to the {factor}", "weight")
    leaf = cast(Leaf, node.leaf)
    text = describe(leaf.attribute, leaf.cells, cells[leaf.attribute])
    return f"log P({text} | relations)", Box(text, "given the relations", "leaf")


def describe(name: str, cells: CellSet, atoms: tuple[CellSet, ...]) -> str:
    """The condition that an attribute has one of some values, as text of a query such as `age > 0.6 OR age < 0.2`.

    Args:
        cells: the values: at least one, but not all values of the attribute.
        atoms: sets that together contain all values, by which the shorter of `IN` and `NOT IN` is found for classes.
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


def compile_query(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], *, query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES, relations: bool = True,
) -> Circuit:  # fmt: skip
    """Compile a bound query to a circuit whose value is the exact log-probability of the query, in nats.

    A part `factor * operand`, with a weight other than 1, counts as one condition that is independent of all others and
    has the log-probability `factor * log P(operand)`. So weighted parts under AND have the energy `sum_i w_i E_i`.

    Args:
        expr: the query, as `bind` returned it.
        vocabulary: the attributes that the query may use.
        query: the text that `expr` was parsed from, which errors and warnings show; `None` for no text.
        max_nodes: the largest number of nodes that the decision diagram of the query may have.
        relations: whether the probability is conditioned on the relations of the vocabulary that concern the query,
            such as `NOT (smile AND frown)` for a query about `smile`.

    Raises:
        Contradiction: nothing satisfies the query; the error says which parts cannot hold together.
        LimitError: the diagram needs more than `max_nodes` nodes.
        VocabularyError: the text of a relation is not a valid query about attributes of the vocabulary.

    Warns:
        TautologyWarning: everything satisfies the query.
        ConstantPartWarning: a part of the query is never or always true; one warning for each cause, at most three.
    """
    diagram, key = _smallest(expr, vocabulary, max_nodes, relations_for(expr, vocabulary) if relations else [])
    nodes = () if diagram.root == NEVER else to_nodes(diagram)  # first, because the report adds nodes to the diagram
    report_constants(expr, diagram, query=query)
    used = {node.attribute for node in nodes if isinstance(node, Leaf)}
    cells = {name: diagram.cells[name] for name in diagram.cells if name in used}
    return Circuit(nodes, tuple(cells), cells, key)


def _smallest(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], max_nodes: int, groups: Sequence[Sequence[Expr]]
) -> tuple[Diagram, str]:
    """The smaller of the diagrams in two orders of attributes, and the key by which its circuit is compared.

    The second order is tried only above `_SMALL` nodes. The key is that of the vocabulary's order, because only there
    have equivalent queries the same one; if that diagram is too large, diagram and key are those of the second order.
    """
    diagram = build_diagram(expr, vocabulary, max_nodes, groups)
    key = diagram.digest(diagram.root)
    key = " given ".join([key, *map(diagram.digest, tested_conditions(diagram))])
    if diagram.order == "occurrence":
        return diagram, f"occurrence {key}"
    if diagram.root in (NEVER, ALWAYS) or len(diagram.nodes.levels) <= _SMALL:
        return diagram, key

    def size(diagram: Diagram) -> int:
        return sum(1 for _ in dependencies_first(diagram.root, diagram.needs))

    with suppress(LimitError):
        other = Diagram(expr, vocabulary, groups, order="occurrence", max_nodes=len(diagram.nodes.levels))
        if size(other) < size(diagram):
            other.nodes.max_nodes = max_nodes  # complements of weighted parts may still be added
            return other, key
    return diagram, key
