"""Simpler trees: functions that express connectives by AND, OR and NOT, or remove the constants TRUE and FALSE."""

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
    """Operations from which connectives are computed (a `Kernel`), whose arguments and results are trees.

    Each operation returns a tree of AND, OR, NOT, counts and weights. So these operations replace any other connective
    by its definition, such as `a IMPLIES b` by `NOT a OR b`. AND, OR, NOT and weights that have a constant TRUE or
    FALSE as an operand are simplified.
    """

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
    """Return `node` with its connective expressed by AND, OR, NOT, counts and weights.

    Operands are not changed, but constant ones are left out. `a IMPLIES b` becomes `NOT a OR b`. The result has the
    span of `node`. But if the result is an operand, it keeps the span of the operand (`ALL OF (a)` becomes `a`).
    """
    if isinstance(node, And | Or | Not | Weight) or not node.children:
        return node
    lowered = node._lower(_Trees(), node.children)
    if lowered == node:
        return node
    return lowered if any(lowered is child for child in node.children) else replace(lowered, span=node.span)


def definition(node: Expr) -> str:
    """Return the meaning of a connective as the text of a query, with the operands `left` and `right`.

    For IMPLIES the text is `NOT left OR right`. `node` is any node of this connective; its own operands do not matter.
    """
    lowered = node._lower(_Trees(), [Attribute("left"), Attribute("right")])
    if not isinstance(lowered, Or):
        return str(lowered)
    return " OR ".join(f"({side})" if isinstance(side, And) else str(side) for side in lowered.operands)


def fold_constants(expr: Expr) -> Expr:
    """Return an equivalent tree without constants; if that is not possible, the tree `TRUE` or `FALSE` alone.

    `a OR FALSE` becomes `a`, and `a OR TRUE` becomes `TRUE`. Parts of the query that contain no constant are not
    changed. The exception is a count that is always true, such as `AT LEAST 0 OF (a, b)`, which becomes `TRUE`.
    """
    return expr.fold(without_constants)


def without_constants(node: Expr, operands: list[Expr]) -> Expr:
    """Return `node` with `operands` in place of its own operands, and simplified.

    The result is the constant TRUE or FALSE, or a node without constants among its operands. Constants
    deeper inside of `operands` are not removed.
    """
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
