"""Nodes of circuits, and the cells of attributes at their leaves.

A *cell set* is a plain tuple, so that data can travel from here to the attribute heads without either side
importing the other:

    yes/no       the truths it holds          (False,)  (True,)  (False, True)
    categorical  the classes it holds         ("black", "gray")           in the vocabulary's order
    continuous   disjoint intervals, sorted   ((-inf, 0.2), (0.8, inf))

The empty tuple holds no value. Under a continuous density a single point has probability zero, so `<` and `<=`
draw the same boundary, and an interval without width is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from energyql.errors import LimitError
from energyql.kinds import KINDS, CellSet
from energyql.language import Expr, Predicate, predicates
from energyql.vocabulary import AttributeSpec


def predicate_cells(predicate: Predicate, spec: AttributeSpec) -> CellSet:
    """Return the values for which a predicate is true."""
    return KINDS[spec.kind].cells(predicate, spec)


def partition(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> dict[str, tuple[CellSet, ...]]:
    """Split the range of every attribute in `expr` into the cells that the query distinguishes.

    Returns:
        For each name, in the vocabulary's order, disjoint cell sets that together hold every value. Classes that no
        predicate separates share a cell.
    """
    mentioned: dict[str, list[CellSet]] = {}
    for node in predicates(expr):
        mentioned.setdefault(node.name, []).append(predicate_cells(node, vocabulary[node.name]))
    specs = {name: spec for name, spec in vocabulary.items() if name in mentioned}
    return {name: KINDS[spec.kind].partition(mentioned[name], spec) for name, spec in specs.items()}


def holds(cells: CellSet, atom: CellSet) -> bool:
    """Return whether `cells` holds all of `atom`, one of the cells that `partition` made from it and others."""
    first = atom[0]
    if isinstance(first, tuple):
        return any(cell[0] <= first[0] and first[1] <= cell[1] for cell in cells if isinstance(cell, tuple))
    return first in cells


def union(atoms: Iterable[CellSet], spec: AttributeSpec) -> CellSet:
    """Return the union of disjoint cell sets in canonical form: sorted, neighbouring intervals merged."""
    return KINDS[spec.kind].union((part for atom in atoms for part in atom), spec)


@dataclass(frozen=True, slots=True)
class Leaf:
    """`log P(attribute falls in cells | z)`."""

    attribute: str
    cells: CellSet


@dataclass(frozen=True, slots=True)
class Sum:
    """The sum of the children, which are indices of earlier nodes; 0 without any."""

    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class LogSumExp:
    """`log(sum_i exp(child_i))`."""

    children: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scaled:
    """`factor * child`: the log-probability of a weighted part."""

    factor: float
    child: int


@dataclass(frozen=True, slots=True)
class ScaledComplement:
    """`log(1 - exp(factor * child))`: the log-probability that a weighted part is false.

    `complement` is the node of `log(1 - exp(child))`: it keeps the digits that `child` loses near probability 1.
    """

    factor: float
    child: int
    complement: int


@dataclass(frozen=True, slots=True)
class Given:
    """`child - condition`: the log-probability of a part, given a condition that the part implies.

    It is at most 0: what rounding adds is cut off. Where the part concerns one attribute only, `leaf` names it.
    """

    child: int
    condition: int
    leaf: Leaf | None = None


CircuitNode = Leaf | Sum | LogSumExp | Scaled | ScaledComplement | Given
Ref = int | bool
"""A value under construction: the index of a node, or a truth value, which needs no node."""


def operands(node: CircuitNode) -> tuple[int, ...]:
    """Return the indices of the nodes from which a node is computed."""
    if isinstance(node, (Sum, LogSumExp)):
        return node.children
    if isinstance(node, Scaled):
        return (node.child,)
    if isinstance(node, Given):
        return node.child, node.condition
    return (node.child, node.complement) if isinstance(node, ScaledComplement) else ()


def dependencies_first(root: int, needed: Callable[[int], Iterable[int]], done: Container[int]) -> Iterator[int]:
    """Yield `root` and what it needs, directly or through others, as far as `done` lacks it.

    Each index comes after those that it needs, from left to right; the caller adds it to `done` before the next.
    """
    stack = [root]
    while stack:
        missing = [] if stack[-1] in done else [index for index in needed(stack[-1]) if index not in done]
        stack.extend(reversed(missing))
        if not missing and (index := stack.pop()) not in done:
            yield index


class CircuitBuilder:
    """A circuit under construction; equal nodes get one index. `True` and `False` are log-probabilities 0 and -inf.

    Args:
        max_nodes: number of nodes above which a `LimitError` is raised.
    """

    def __init__(self, max_nodes: float = math.inf) -> None:
        self._nodes: list[CircuitNode] = []
        self._indices: dict[CircuitNode, int] = {}
        self._max_nodes = max_nodes

    def leaf(self, attribute: str, cells: CellSet) -> Ref:
        """Return a leaf; without cells, `False`."""
        return self._add(Leaf(attribute, cells)) if cells else False

    def sum(self, terms: Sequence[Ref]) -> Ref:
        """Return the sum of some values."""
        if any(term is False for term in terms):
            return False
        others = tuple(term for term in terms if term is not True)
        if len(others) < 2:
            return others[0] if others else True
        return self._add(Sum(others))

    def log_sum_exp(self, terms: Sequence[Ref]) -> Ref:
        """Return the log-sum-exp of some values; `True` if one of them is `True`."""
        if any(term is True for term in terms):
            return True
        others = tuple(term for term in terms if term is not False)
        if len(others) < 2:
            return others[0] if others else False
        return self._add(LogSumExp(others))

    def scaled(self, factor: float, child: Ref) -> Ref:
        """Return a value times a factor."""
        return child if isinstance(child, bool) or factor == 1 else self._add(Scaled(factor, child))

    def scaled_complement(self, factor: float, child: Ref, complement: Ref) -> Ref:
        """Return the complement of a scaled value; see `ScaledComplement`."""
        if isinstance(child, bool) or isinstance(complement, bool):
            return not child
        return self._add(ScaledComplement(factor, child, complement))

    def given(self, child: Ref, condition: Ref, leaf: Leaf | None) -> Ref:
        """Return a value given a condition that it implies; see `Given`."""
        if isinstance(child, bool) or isinstance(condition, bool):
            return child
        return True if child == condition else self._add(Given(child, condition, leaf))

    def terms(self, value: Ref) -> list[Ref]:
        """Return the terms of a sum; for any other value, a list of the value."""
        node = None if isinstance(value, bool) else self._nodes[value]
        return list(node.children) if isinstance(node, Sum) else [value]

    def finish(self, root: Ref) -> tuple[CircuitNode, ...]:
        """Return the nodes that `root` needs, renumbered, `root` last. `True` becomes the empty sum."""
        if isinstance(root, bool):
            assert root, "a circuit cannot stand for FALSE"
            return (Sum(()),)
        new: dict[int, int] = {}
        for index in dependencies_first(root, lambda index: operands(self._nodes[index]), new):
            new[index] = len(new)
        return tuple(_renumbered(self._nodes[index], new) for index in new)

    def _add(self, node: CircuitNode) -> int:
        index = self._indices.get(node)
        if index is None:
            index = self._indices[node] = len(self._nodes)
            self._nodes.append(node)
            if index >= self._max_nodes:
                raise LimitError(f"the circuit of this query needs more than {self._max_nodes:,} nodes")
        return index


def _renumbered(node: CircuitNode, new: dict[int, int]) -> CircuitNode:
    if isinstance(node, (Sum, LogSumExp)):
        return replace(node, children=tuple(new[child] for child in node.children))
    if isinstance(node, Scaled):
        return replace(node, child=new[node.child])
    if isinstance(node, ScaledComplement):
        return replace(node, child=new[node.child], complement=new[node.complement])
    if isinstance(node, Given):
        return replace(node, child=new[node.child], condition=new[node.condition])
    return node
