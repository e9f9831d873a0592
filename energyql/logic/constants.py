"""Removes TRUE and FALSE from inside a tree, and nothing else."""

from __future__ import annotations

from energyql.language.ast import And, Cardinality, Constant, Expr, Iff, Implies, Not, Or, Weight, Xor
from energyql.logic.tree import allowed_counts, fold


def fold_constants(expr: Expr) -> Expr:
    """An equivalent tree that is a constant or holds none: `a AND TRUE` becomes `a`, `a OR TRUE` becomes `TRUE`.

    What holds no constant stays as written, except a cardinality that every count satisfies, such as `AT LEAST 0 OF`,
    which is `TRUE`.
    """
    return fold(expr, _without_constants)


def _without_constants(node: Expr, operands: list[Expr]) -> Expr:
    """The node over folded operands, with TRUE and FALSE among them removed."""
    truths = [operand.value for operand in operands if isinstance(operand, Constant)]
    others = tuple(operand for operand in operands if not isinstance(operand, Constant))
    match node:
        case Not(span=span):
            return Constant(not truths[0]) if truths else Not(operands[0], span=span)
        case Weight(factor=factor, span=span):
            return operands[0] if truths else Weight(factor, operands[0], span=span)
        case And():
            return Constant(False) if False in truths else _joined(And, others, True)
        case Or():
            return Constant(True) if True in truths else _joined(Or, others, False)
        case Xor():
            rest, flip = _joined(Xor, others, False), sum(truths) % 2 == 1
            return _flipped(rest) if flip else rest
        case Iff():
            rest, flip = _joined(Iff, others, True), truths.count(False) % 2 == 1
            return _flipped(rest) if flip else rest
        case Implies():
            left, right = operands
            if left == Constant(False) or right == Constant(True):
                return Constant(True)
            if left == Constant(True):
                return right
            return Not(left) if right == Constant(False) else Implies(left, right)
        case Cardinality():
            return _counted(node, others, sum(truths))
    return node


def _joined(kind: type[And] | type[Or] | type[Xor] | type[Iff], others: tuple[Expr, ...], neutral: bool) -> Expr:
    if len(others) > 1:
        return kind(others)
    return others[0] if others else Constant(neutral)


def _flipped(expr: Expr) -> Expr:
    return Constant(not expr.value) if isinstance(expr, Constant) else Not(expr)


def _counted(node: Cardinality, others: tuple[Expr, ...], already: int) -> Expr:
    """A cardinality of which `already` operands are known to be true and `others` are open."""
    allowed = {count - already for count in allowed_counts(node)} & set(range(len(others) + 1))
    if not allowed or len(allowed) == len(others) + 1:
        return Constant(bool(allowed))
    if node.count is None:
        return Cardinality(node.quantifier, None, others)
    return Cardinality(node.quantifier, node.count - already, others)
