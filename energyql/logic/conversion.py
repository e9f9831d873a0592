"""From the diagram of a query to the nodes of its circuit.

Each branch of the diagram is a sum, each choice between branches a log-sum-exp. A group of related attributes is passed
in one step, whose probability is that given the relations, P(values AND relations) / P(relations).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

from energyql.logic.cells import union
from energyql.logic.diagram import ALWAYS, NEVER, Diagram, WeightVariable
from energyql.logic.nodes import CircuitBuilder, CircuitNode, Leaf, Ref, dependencies_first
from energyql.logic.query_diagram import QueryDiagram

_Values = Mapping[int, Ref]
_Branch = tuple[Callable[[_Values], Ref], int, list[int]]
"""The value of a branch, from the values of other nodes; the node that it leads to; the nodes that the value needs."""


def to_nodes(diagram: QueryDiagram) -> tuple[CircuitNode, ...]:
    """Return the nodes of the circuit of a diagram's root, which must not be `NEVER`."""
    builder = CircuitBuilder()
    related: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}
    branches: dict[int, list[_Branch]] = {NEVER: [], ALWAYS: []}

    def within(node: int) -> list[_Branch]:
        return _attribute_branches(diagram, builder, node)

    def given(way: int, both: int, condition: int, values: _Values) -> Ref:
        return builder.given(inside[both], inside[condition], _only_leaf(diagram, way, both, condition))

    def outside(node: int) -> list[_Branch]:
        variable = diagram.variables[diagram.levels[node]]
        if isinstance(variable, WeightVariable):
            return _weighted_branches(diagram, builder, node, variable)
        if variable not in diagram.group_of:
            return within(node)
        condition = diagram.conditions[diagram.group_of[variable]]
        found: list[_Branch] = []
        for way, end in diagram.ways(node):
            if end != NEVER:
                both = diagram.conjunction([way, condition])
                for part in (both, condition):
                    _collect(part, related, within)
                found.append((partial(given, way, both, condition), end, []))
        return found

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
    found: list[_Branch] = []
    for cells, child in diagram.branches(node):
        if child != NEVER:
            found.append((partial(_constant, builder.leaf(name, cells)), child, []))
    return found


def _constant(value: Ref, values: _Values) -> Ref:
    return value


def _weighted_branches(diagram: Diagram, builder: CircuitBuilder, node: int, variable: WeightVariable) -> list[_Branch]:
    factor, inner = variable.factor, variable.inner
    no, yes = diagram.children[node]
    found: list[_Branch] = [(lambda values: builder.scaled(factor, values[inner]), yes, [inner])]
    if no != NEVER:
        complement = diagram.negation(inner)
        found.append(
            (
                lambda values: builder.scaled_complement(factor, values[inner], values[complement]),
                no,
                [inner, complement],
            )
        )
    return found


def _only_leaf(diagram: QueryDiagram, way: int, both: int, condition: int) -> Leaf | None:
    """Return the attribute and cells that a way through a group comes down to, given the relations, if there is one."""
    for name in sorted(diagram.attributes(way), key=list(diagram.cells).index):
        atoms = [atom for atom in diagram.cells[name] if diagram.conjunction([both, diagram.falls_in(name, atom)])]
        cells = union(atoms, diagram.vocabulary[name])
        if diagram.conjunction([diagram.falls_in(name, cells), condition]) == both:
            return Leaf(name, cells)
    return None
