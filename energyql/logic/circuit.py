"""A query compiled to a circuit of leaves, sums and log-sum-exps over log-probabilities, as frozen data.

    leaf         log P(attribute falls in these cells | z)
    sum          children over different attributes: AND, energies add
    log-sum-exp  children that exclude one another: OR, probabilities add

Compiled from a decision diagram the circuit is deterministic and decomposable, so its value is log P(query | z)
exactly, given attributes that are independent given z. This is weighted model counting (Darwiche 2002; as a loss for
networks, Xu et al. 2018, arXiv 1711.11157); for diffusion models see LogDiff (arXiv 2602.05549).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from energyql.errors import LimitError
from energyql.language import Expr
from energyql.logic.cells import CellSet
from energyql.logic.conversion import to_nodes
from energyql.logic.diagram import ALWAYS, DEFAULT_MAX_NODES, NEVER
from energyql.logic.explain import PLAIN, draw_circuit, explain_circuit
from energyql.logic.nodes import CircuitNode, Leaf, dependencies_first
from energyql.logic.query_diagram import QueryDiagram, build_diagram, relations_for
from energyql.logic.satisfiability import report_constant
from energyql.render.markup import Markup
from energyql.vocabulary import AttributeSpec

_SMALL = 64
"""Up to this many nodes the vocabulary's order is good enough, and no other order is tried."""


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
        """Return the circuit as indented text, with its size, what the energy is, and the cells of every attribute."""
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
        """Whether a leaf holds between two numbers; without one, a query can be as probable as one likes."""
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
    """
    groups = relations_for(expr, vocabulary) if relations else []
    diagram, key = _smallest(expr, vocabulary, max_nodes, groups)
    report_constant(expr, diagram, query=query)
    nodes = to_nodes(diagram)
    used = {node.attribute for node in nodes if isinstance(node, Leaf)}
    cells = {name: diagram.cells[name] for name in vocabulary if name in used}
    return Circuit(nodes, tuple(cells), cells, key)


def _smallest(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], max_nodes: int, groups: Sequence[Sequence[Expr]]
) -> tuple[QueryDiagram, str]:
    """The smaller diagram of two variable orders, and a key from the vocabulary's order where that fits."""
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
    found: set[int] = set()
    for node in dependencies_first(diagram.root, diagram.needs, found):
        found.add(node)
    return len(found)
