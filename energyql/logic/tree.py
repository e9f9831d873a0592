"""Walking a query's tree without recursion, so that deep queries need no deep Python stack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from energyql.language.ast import (
    And,
    Attribute,
    Cardinality,
    Expr,
    Iff,
    Implies,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
    Xor,
)

T = TypeVar("T")

Predicate = Attribute | OneOf | Interval | Near


def children(expr: Expr) -> tuple[Expr, ...]:
    """The operands of a node, from left to right; empty for predicates and constants."""
    if isinstance(expr, (And, Or, Xor, Iff, Cardinality)):
        return expr.operands
    if isinstance(expr, (Not, Weight)):
        return (expr.operand,)
    if isinstance(expr, Implies):
        return (expr.left, expr.right)
    return ()


def postorder(expr: Expr) -> list[Expr]:
    """Every node of the tree, operands before the node that holds them and from left to right."""
    stack, found = [expr], []
    while stack:
        node = stack.pop()
        found.append(node)
        stack.extend(children(node))
    return found[::-1]


def fold(expr: Expr, combine: Callable[[Expr, list[T]], T]) -> T:
    """Replace every node by `combine(node, results of its operands)`, from the leaves up; the root's result."""
    results: list[T] = []
    for node in postorder(expr):
        arity = len(children(node))
        operands = results[len(results) - arity :]
        del results[len(results) - arity :]
        results.append(combine(node, operands))
    return results[0]


def balanced(items: Sequence[T], combine: Callable[[T, T], T]) -> T:
    """Combine a non-empty sequence pairwise, as a balanced tree: the same result as a left fold of an associative
    operation, but its intermediate results stay small."""
    level = list(items)
    while len(level) > 1:
        paired = [combine(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(level) & ~1 :]
    return level[0]


def allowed_counts(node: Cardinality) -> range:
    """How many operands may be true, as a range within 0..len(operands)."""
    size = len(node.operands)
    count = node.count if node.count is not None else 0
    bounds = {
        "AT LEAST": range(max(count, 0), size + 1),
        "AT MOST": range(min(count, size) + 1),
        "EXACTLY": range(count, count + 1) if 0 <= count <= size else range(0),
        "ALL": range(size, size + 1),
        "ANY": range(1, size + 1),
        "NONE": range(1),
    }
    return bounds[node.quantifier]
