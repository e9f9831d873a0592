"""Ordered decision diagrams with many-valued variables: reduced, shared, and bounded in size.

A node tests which cell one attribute falls in and has one child for each cell; `NEVER` and `ALWAYS` are the ends. Equal
nodes are one node and a node whose children are all equal is dropped, so under one variable order two formulas are
equivalent exactly if they have the same node (Bryant 1986; for weighted model counting, Darwiche 2002).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from energyql.errors import LimitError
from energyql.language import Constant, Expr, Predicate
from energyql.language.cardinality import allowed_counts
from energyql.language.node import Kernel, Node
from energyql.logic.cells import CellSet, holds, partition, predicate_cells, union
from energyql.logic.nodes import dependencies_first
from energyql.vocabulary import AttributeSpec

NEVER, ALWAYS = 0, 1
DEFAULT_MAX_NODES = 100_000
BRANCHES_PER_NODE = 4
"""Limit of the branches of all nodes, for each of `max_nodes`: many thresholds make wide nodes."""
WORK_PER_NODE = 12
"""Limit of the branches visited, for each of `max_nodes`, which bounds the time as well as the size."""

Order = Literal["vocabulary", "occurrence"]
_BELOW_ALL = 1 << 80


@dataclass(frozen=True, slots=True)
class WeightVariable:
    """The variable for the truth of the opaque predicate `factor * inner`; `inner` is a node."""

    factor: float
    inner: int


Variable = str | WeightVariable
"""The name of an attribute, whose values are its cells, or a weighted part."""


class Diagram(Kernel[int]):
    """All diagrams of one query, sharing nodes.

    Args:
        expr: the query whose attributes and thresholds make the variables. `expr.evaluate(diagram)`
            returns its node.
        vocabulary: kinds, classes and ranges of the attributes.
        order: of the variables. "vocabulary" is the vocabulary's order, then weighted parts; it is the same for every
            query, which makes diagrams comparable. "occurrence" follows the text, and is smaller where related
            attributes are written side by side.
        max_nodes: raise `LimitError` beyond this many nodes; those with many branches count for more.
    """

    def __init__(
        self,
        expr: Expr,
        vocabulary: Mapping[str, AttributeSpec],
        *,
        order: Order = "vocabulary",
        max_nodes: int = DEFAULT_MAX_NODES,
    ) -> None:
        self.vocabulary = vocabulary
        self.cells = partition(expr, vocabulary)
        self.order = order
        self.max_nodes = max_nodes
        self.variables: dict[int, Variable] = {}
        self.levels: list[int] = [_BELOW_ALL, _BELOW_ALL]  # of node i: the key of its variable, small ones at the top
        self.children: list[tuple[int, ...]] = [(), ()]
        self._unique: dict[tuple[int, tuple[int, ...]], int] = {}
        self._memo: dict[tuple[int, int, int], int] = {}
        self._branches, self._work = 0, 0
        self._level_of: dict[Variable, int] = {}
        self._digests: dict[int, str] = {NEVER: "false", ALWAYS: "true"}
        if order == "vocabulary":
            for name in self.cells:
                self.level(name)

    def leaf(self, node: Node[Any]) -> int:
        """Return the node of a predicate or constant."""
        if isinstance(node, Constant):
            return ALWAYS if node.value else NEVER
        assert isinstance(node, Predicate)
        return self.falls_in(node.name, predicate_cells(node, self.vocabulary[node.name]))

    def falls_in(self, name: str, cells: CellSet) -> int:
        """Return the node of "the attribute falls in these cells", which may be none."""
        truths = tuple(ALWAYS if cells and holds(cells, atom) else NEVER for atom in self.cells[name])
        return self.node(self.level(name), truths)

    def negation(self, value: int) -> int:
        """Return the node of NOT."""
        return self.choice(value, NEVER, ALWAYS)

    def conjunction(self, values: Sequence[int]) -> int:
        """Return the node of the AND of some nodes."""
        return self.chain(lambda left, right: self.choice(left, right, NEVER), [ALWAYS, *values])

    def disjunction(self, values: Sequence[int]) -> int:
        """Return the node of the OR of some nodes."""
        return self.chain(lambda left, right: self.choice(left, ALWAYS, right), [NEVER, *values])

    def count(self, quantifier: str, count: int, values: Sequence[int]) -> int:
        """Return the node of a count, by dynamic programming: `ends[j]` is "j are true so far, and the rest fits"."""
        allowed = allowed_counts(quantifier, count, len(values))
        ends = [ALWAYS if number in allowed else NEVER for number in range(len(values) + 1)]
        # Operands of late variables come first, so that each choice adds nodes on top of finished ones.
        for operand in sorted(values, key=lambda node: self.levels[node], reverse=True):
            ends = [self.choice(operand, ends[number + 1], ends[number]) for number in range(len(ends) - 1)]
        return ends[0]

    def weighted(self, factor: float, value: int) -> int:
        """Return the node of a weighted part, which is an opaque predicate."""
        if value not in (NEVER, ALWAYS):
            variable = self.variables[self.levels[value]]
            if isinstance(variable, WeightVariable) and self.children[value] == (NEVER, ALWAYS):
                product = factor * variable.factor  # 2 * (3 * smile) is 6 * smile
                if 0 < product < math.inf:
                    factor, value = product, variable.inner
        factor = float(f"{factor:.12g}")  # as thresholds: 0.1 * (3 * a) and 0.3 * a are one predicate
        if factor == 1 or value in (NEVER, ALWAYS):
            return value
        return self.node(self.level(WeightVariable(factor, value)), (NEVER, ALWAYS))

    def choice(self, test: int, then: int, otherwise: int) -> int:
        """Return the node of "if test then `then` else `otherwise`", to which every other operator reduces."""
        root = _normal(test, then, otherwise)
        stack = [root]
        while stack:
            key = stack[-1]
            if self._known(key) is not None:
                stack.pop()
                continue
            level = min(self.levels[key[0]], self.levels[key[1]], self.levels[key[2]])
            sides = [self.cofactors(node, level) for node in key]
            parts = [_normal(*triple) for triple in zip(*sides, strict=True)]
            results = [self._known(part) for part in parts]
            if None in results:
                stack.extend(part for part, result in zip(parts, results, strict=True) if result is None)
                continue
            self._work += len(parts)
            if self._work > WORK_PER_NODE * self.max_nodes:
                raise self._too_large()
            self._memo[key] = self.node(level, tuple(result for result in results if result is not None))
            stack.pop()
        result = self._known(root)
        assert result is not None
        return result

    def branches(self, node: int) -> list[tuple[CellSet, int]]:
        """Return the different children of an attribute's node, each with all the cells that lead to it."""
        name = self.variables[self.levels[node]]
        assert isinstance(name, str)
        atoms: dict[int, list[CellSet]] = {}
        for atom, child in zip(self.cells[name], self.children[node], strict=True):
            atoms.setdefault(child, []).append(atom)
        spec = self.vocabulary[name]
        merged = [(union(group, spec), child) for child, group in atoms.items()]
        return merged[::-1] if spec.kind == "yes/no" else merged  # in the drawing, yes comes before no

    def digest(self, node: int) -> str:
        """Return a digest of the function of a node: equal for equivalent functions, also of different queries.

        It is comparable between diagrams of the same order; only the vocabulary's order is the same for every query.
        """
        for top in dependencies_first(node, self.needs, self._digests):
            variable = self.variables[self.levels[top]]
            if isinstance(variable, WeightVariable):
                children = [self._digests[child] for child in self.children[top]]
                text = f"weight {self._weight_digest(variable)}: {children}"
            else:
                text = f"{variable!r}: {[(cells, self._digests[child]) for cells, child in self.branches(top)]}"
            self._digests[top] = hashlib.sha256(text.encode()).hexdigest()
        return self._digests[node]

    def needs(self, node: int) -> list[int]:
        """Return the nodes that a node is made of: its children, and the inside of a weighted part."""
        variable = self.variables.get(self.levels[node])
        inner = [variable.inner] if isinstance(variable, WeightVariable) else []
        return [*self.children[node], *inner]

    def level(self, variable: Variable) -> int:
        """Return the key of a variable: those of small keys are tested first."""
        level = self._level_of.get(variable)
        if level is None:
            level = len(self.variables)
            if isinstance(variable, WeightVariable) and self.order == "vocabulary":
                # Below all attributes, in an order that does not depend on the query: that of the digests.
                level = len(self.cells) + int(self._weight_digest(variable)[:16], 16)
            self._level_of[variable] = level
            self.variables[level] = variable
        return level

    def _weight_digest(self, variable: WeightVariable) -> str:
        return hashlib.sha256(f"{variable.factor!r} * {self.digest(variable.inner)}".encode()).hexdigest()

    def _known(self, key: tuple[int, int, int]) -> int | None:
        test, then, otherwise = key
        if test == ALWAYS or then == otherwise:
            return then
        if test == NEVER:
            return otherwise
        if then == ALWAYS and otherwise == NEVER:
            return test
        return self._memo.get(key)

    def cofactors(self, node: int, level: int) -> tuple[int, ...]:
        """Return what remains of a node under each value of the variable of a level that is not below the node's."""
        if self.levels[node] == level:
            return self.children[node]
        variable = self.variables[level]
        return (node,) * (len(self.cells[variable]) if isinstance(variable, str) else 2)

    def node(self, level: int, children: tuple[int, ...]) -> int:
        """Return the node of the variable of a level with these children."""
        if all(child == children[0] for child in children):
            return children[0]
        node = self._unique.get((level, children))
        if node is None:
            node = len(self.levels)
            self._branches += len(children)
            if node >= self.max_nodes + 2 or self._branches > BRANCHES_PER_NODE * self.max_nodes:
                raise self._too_large()
            self.levels.append(level)
            self.children.append(children)
            self._unique[level, children] = node
        return node

    def _too_large(self) -> LimitError:
        return LimitError(
            f"the decision diagram of this query needs more than {self.max_nodes:,} nodes; "
            'use semantics="product", which needs no diagram, or write the query in smaller parts'
        )


def _normal(test: int, then: int, otherwise: int) -> tuple[int, int, int]:
    """Spellings of one if-then-else brought to one, so that the memo finds it."""
    if then == test:
        then = ALWAYS
    if otherwise == test:
        otherwise = NEVER
    if otherwise == NEVER and then < test:  # AND commutes
        test, then = then, test
    elif then == ALWAYS and otherwise < test:  # OR commutes
        test, otherwise = otherwise, test
    return test, then, otherwise
