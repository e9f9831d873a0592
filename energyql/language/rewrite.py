"""Simpler trees: connectives expressed by AND, OR and NOT, and queries without the constants TRUE and FALSE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from energyql.language.expr import (
    FALSE,
    TRUE,
    And,
    Attribute,
    Cardinality,
    Constant,
    Expr,
    Joined,
    Kernel,
    Not,
    Or,
    Weight,
    allowed_counts,
)


class _Trees(Kernel[Expr]):
    """Kernel whose values are trees of AND, OR, NOT, counts and weights; constant operands are simplified away."""

    def leaf(self, node: Expr) -> Expr:
        return node

    def negation(self, value: Expr) -> Expr:
        return Constant(not value.value) if isinstance(value, Constant) else Not(value, span=value.span)

    def conjunction(self, values: Sequence[Expr]) -> Expr:
        return self._joined(And, values, neutral=TRUE, absorbing=FALSE)

    def disjunction(self, values: Sequence[Expr]) -> Expr:
        return self._joined(Or, values, neutral=FALSE, absorbing=TRUE)

    def _joined(self, kind: type[And | Or], values: Sequence[Expr], neutral: Constant, absorbing: Constant) -> Expr:
        values = [value for value in values if value != neutral] or [neutral]
        if absorbing in values:
            return absorbing
        return kind(tuple(values)) if len(values) > 1 else values[0]

    def count(self, quantifier: str, count: int, values: Sequence[Expr]) -> Expr:
        return Cardinality(quantifier, count, tuple(values))

    def weighted(self, factor: float, value: Expr) -> Expr:
        return value if isinstance(value, Constant) else Weight(factor, value)


def lower(node: Expr) -> Expr:
    """Express a connective by AND, OR, NOT, counts and weights: `a IMPLIES b` becomes `NOT a OR b`.

    Operands are kept, but constant ones are left out. The result has the span of `node`, or its own if it is an operand
    (`ALL OF (a)` becomes `a`).
    """
    if isinstance(node, And | Or | Not | Weight) or not node.children:
        return node
    lowered = node._lower(_Trees(), node.children)
    if lowered == node:
        return node
    return lowered if any(lowered is child for child in node.children) else replace(lowered, span=node.span)


def definition(node: Expr) -> str:
    """Meaning of a connective as text of a query, such as `NOT left OR right` for IMPLIES.

    `node` is any node of this connective; its own operands do not matter.
    """
    lowered = node._lower(_Trees(), [Attribute("left"), Attribute("right")])
    if not isinstance(lowered, Or):
        return str(lowered)
    return " OR ".join(f"({side})" if isinstance(side, And) else str(side) for side in lowered.operands)


def fold_constants(expr: Expr) -> Expr:
    """An equivalent tree without constants, or the tree `TRUE` or `FALSE` alone: `a OR FALSE` becomes `a`.

    Parts without constants are not changed, but for counts that are always true, such as `AT LEAST 0 OF (a, b)`, which
    become `TRUE`.
    """
    return expr.fold(without_constants)


def without_constants(node: Expr, operands: list[Expr]) -> Expr:
    """A copy of `node` with other operands and none of them constant, or TRUE or FALSE; deeper constants stay."""
    constants = [operand for operand in operands if isinstance(operand, Constant)]
    others = tuple(operand for operand in operands if not isinstance(operand, Constant))
    if isinstance(node, Cardinality):
        true = sum(constant.value for constant in constants)
        counts = range(true, true + len(others) + 1)
        truths = {count in allowed_counts(node.quantifier, node.count, len(operands)) for count in counts}
        if len(truths) == 1:
            return Constant(truths.pop())
        return Cardinality(node.quantifier, None if node.count is None else node.count - true, others)
    if not constants:
        return node.with_children(operands)
    kernel = _Trees()
    if isinstance(node, Joined) and others:  # associative: first join the others as written, then the constants
        rest = others[0] if len(others) == 1 else type(node)(others)
        operands = [rest, node._lower(kernel, constants)]
    return node._lower(kernel, operands)
