"""A circuit multiplied out: few levels, each a log-sum-exp over sums, where a circuit has an operation for each node.

AND distributes over OR, so any part of a circuit is one log-sum-exp over sums, as long as there are not too many of
them. Larger parts are split, and a level then adds up what earlier levels have returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from energyql.logic.circuit import Circuit
from energyql.logic.nodes import CircuitNode, Leaf, LogSumExp, Scaled, Sum

Term = Mapping[int, float]
"""A sum: row -> the factor that it is added with."""
Value = tuple[Term, ...]
"""The log-sum-exp of some sums, at least one."""
Levels = tuple[tuple[Value, ...], ...]
"""Rows are numbered through: first the leaves' parts, then the values of each level, in order. The last level is the
circuit's value alone."""

MOST_TERMS = 128
"""Of one value. So many cost about as much as one more level does."""
MOST_NODES = 500
"""Of a circuit that is worth the time it takes to multiply it out."""


def multiply_out(circuit: Circuit, parts: Mapping[Leaf, Sequence[int]], count: int) -> Levels | None:
    """Multiply a circuit out.

    Args:
        circuit: the circuit.
        parts: the rows that each leaf is the log-sum-exp of.
        count: number of such rows.

    Returns:
        The levels; `None` where that is no gain (too large), or not possible (complements of weighted parts).
    """
    if len(circuit.nodes) > MOST_NODES:
        return None
    work = _Work(count)
    for node in circuit.nodes:
        if not work.add(node, parts):
            return None
    return work.levels()


class _Work:
    """Values of all nodes so far. A value is `kept` where it has a row of its own."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.values: list[Value] = []
        self.kept: list[Value] = []
        self.depths = [0] * count  # of rows: leaves, then kept values

    def add(self, node: CircuitNode, parts: Mapping[Leaf, Sequence[int]]) -> bool:
        """Give a node its value; false if it cannot have one."""
        match node:
            case Leaf():
                value: Value = tuple({row: 1.0} for row in parts[node])
            case Sum(children=children):
                self._shorten(children, math.prod)
                value = ({},)
                for child in children:
                    value = tuple(_added(a, b) for a in value for b in self.values[child])
            case LogSumExp(children=children):
                self._shorten(children, sum)
                value = tuple(term for child in children for term in self.values[child])
            case Scaled(factor=factor, child=child):
                if len(self.values[child]) > 1:
                    self._keep(child)
                value = ({row: factor * times for row, times in self.values[child][0].items()},)
            case _:
                return False
        self.values.append(value)
        return True

    def levels(self) -> Levels:
        """What is kept, and the last value, by depth."""
        self._keep(len(self.values) - 1)
        rows = range(self.count, len(self.depths))
        order = sorted(rows, key=lambda row: self.depths[row])
        new = {row: row for row in range(self.count)} | {row: self.count + i for i, row in enumerate(order)}
        found: list[list[Value]] = [[] for _ in range(max(self.depths))]
        for row in order:
            value = self.kept[row - self.count]
            found[self.depths[row] - 1].append(
                tuple({new[old]: times for old, times in term.items()} for term in value)
            )
        return tuple(map(tuple, found))

    def _shorten(self, children: Sequence[int], size: Callable[[list[int]], int]) -> None:
        """Keep the longest values until what is made of all has few enough terms."""
        for child in sorted(set(children), key=lambda child: -len(self.values[child])):
            if size([len(self.values[other]) for other in children]) <= MOST_TERMS:
                return
            if len(self.values[child]) > 1:
                self._keep(child)

    def _keep(self, node: int) -> None:
        value = self.values[node]
        self.values[node] = ({len(self.depths): 1.0},)
        self.depths.append(1 + max((self.depths[row] for term in value for row in term), default=0))
        self.kept.append(value)


def _added(a: Term, b: Term) -> Term:
    total = dict(a)
    for row, times in b.items():
        total[row] = total.get(row, 0.0) + times
    return total
