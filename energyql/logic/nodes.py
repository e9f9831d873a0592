"""Nodes of ordered decision diagrams, each stored once, and what is computed with them: if-then-else and cofactors.

A node tests a variable, and has one child for each of its values. It stands for a formula: "the child of the value is
true". Here a variable is only its level, its place in the order of tests; `energyql.logic.diagram` knows what it means.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import TypeVar, cast

from energyql.errors import LimitError, either

NEVER, ALWAYS = 0, 1
"""Indices of the two nodes without children in every diagram: false and true."""
DEFAULT_MAX_NODES = 100_000
BRANCHES_PER_NODE = 4
"""Limit of the children of all nodes together, per `max_nodes`. It limits memory: a node that tests an attribute with
many thresholds has many children."""
WORK_PER_NODE = 12
"""Limit of the number of steps while a diagram is built, per `max_nodes`. It limits time."""

_BELOW_ALL = 1 << 80

T = TypeVar("T")


def dependencies_first(root: T, needed: Callable[[T], Iterable[T]], done: Container[T] = ()) -> Iterator[T]:
    """Yield `root` and all that it depends on, directly or not, each item after those that it depends on.

    Args:
        needed: function from an item to the items that it directly depends on; called once for each item.
        done: items that are left out, for which `needed` is not called.
    """
    stack = [] if root in done else [(root, iter(needed(root)))]
    visited = {root}
    while stack:
        index, rest = stack[-1]
        missing = next((each for each in rest if each not in visited and each not in done), None)
        if missing is None:
            stack.pop()
            yield index
        else:
            visited.add(missing)
            stack.append((missing, iter(needed(missing))))


class Nodes:
    """A growing store of nodes, in which two formulas are equivalent exactly if they have the same node.

    Args:
        values: function from a level to the number of values of its variable.
        max_nodes: number of nodes above which a `LimitError` is raised. Children and steps are limited by multiples of
            it.

    Attributes:
        levels: for each node, the level of the variable that it tests. Variables of small levels are tested first.
        children: for each node, the indices of its children, one for each value.
    """

    def __init__(self, values: Callable[[int], int], max_nodes: int) -> None:
        self.max_nodes, self._values = max_nodes, values
        self.levels: list[int] = [_BELOW_ALL, _BELOW_ALL]
        self.children: list[tuple[int, ...]] = [(), ()]
        self._unique: dict[tuple[int, tuple[int, ...]], int] = {}
        self._memo: dict[tuple[int, int, int], int] = {}
        self._constrained: dict[tuple[int, int], int] = {}
        self._branches, self._work = 0, 0

    def node(self, level: int, children: tuple[int, ...]) -> int:
        """The node that tests the variable of `level` and has these `children`; their one node if all are equal.

        Raises:
            LimitError: the diagram became too large.
        """
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

    def choice(self, test: int, then: int, otherwise: int) -> int:
        """The node of "if `test` then `then` else `otherwise`", by which NOT, AND, OR and counts are computed.

        Raises:
            LimitError: the diagram became too large.
        """
        root = _normal(test, then, otherwise)
        stack = [root]
        while stack:
            key = stack[-1]
            if self._result(key) is not None:
                stack.pop()
                continue
            level = min(self.levels[key[0]], self.levels[key[1]], self.levels[key[2]])
            sides = [self.cofactors(node, level) for node in key]
            parts = [_normal(*triple) for triple in zip(*sides, strict=True)]
            results = [self._result(part) for part in parts]
            if None in results:
                stack.extend(part for part, result in zip(parts, results, strict=True) if result is None)
                continue
            self._work += len(parts)
            if self._work > WORK_PER_NODE * self.max_nodes:
                raise self._too_large()
            self._memo[key] = self.node(level, tuple(cast("list[int]", results)))
            stack.pop()
        return cast(int, self._result(root))

    def _result(self, key: tuple[int, int, int]) -> int | None:
        """The node of `choice(*key)` if it is trivial or was computed before, else `None`."""
        test, then, otherwise = key
        if test == ALWAYS or then == otherwise:
            return then
        if test == NEVER:
            return otherwise
        return test if then == ALWAYS and otherwise == NEVER else self._memo.get(key)

    def cofactors(self, node: int, level: int) -> tuple[int, ...]:
        """For each value of the variable of `level`, the node of what the formula becomes if the variable has it.

        `level` must be at most that of the variable that `node` tests.
        """
        if self.levels[node] == level:
            return self.children[node]
        return (node,) * self._values(level)

    def constrain(self, node: int, condition: int) -> int:
        """A node that is true for the same values as `node` wherever `condition`, a node other than `NEVER`, is true.

        Two nodes that agree wherever `condition` is true give the same result. It is the generalized cofactor of
        Coudert and Madre (1990): a value that the condition excludes is replaced by the first that it allows.

        Raises:
            LimitError: the diagram became too large.
        """

        def sides(pair: tuple[int, int]) -> list[tuple[int, int]]:
            if pair[1] == ALWAYS or pair[0] in (NEVER, ALWAYS):
                return []
            level = min(self.levels[pair[0]], self.levels[pair[1]])
            pairs = list(zip(self.cofactors(pair[0], level), self.cofactors(pair[1], level), strict=True))
            allowed = next(each for each in pairs if each[1] != NEVER)
            return [each if each[1] != NEVER else allowed for each in pairs]

        results = self._constrained
        for pair in dependencies_first((node, condition), sides, results):
            if len(results) > WORK_PER_NODE * self.max_nodes:
                raise self._too_large()
            parts = tuple(results[part] for part in sides(pair))
            results[pair] = self.node(min(self.levels[each] for each in pair), parts) if parts else pair[0]
        return results[node, condition]

    def _too_large(self) -> LimitError:
        semantics = either('semantics="product"', "--semantics product")
        remedy = f"use {semantics}, which needs no diagram, or write the query in smaller parts"
        return LimitError(f"the decision diagram of this query needs more than {self.max_nodes:,} nodes; {remedy}")


def _normal(test: int, then: int, otherwise: int) -> tuple[int, int, int]:
    """Arguments of `choice` with the same result, in one form for a AND b and b AND a, so that it is computed once."""
    if then == test:
        then = ALWAYS
    if otherwise == test:
        otherwise = NEVER
    if otherwise == NEVER and then < test:  # AND commutes
        test, then = then, test
    elif then == ALWAYS and otherwise < test:  # OR commutes
        test, otherwise = otherwise, test
    return test, then, otherwise
