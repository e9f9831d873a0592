"""The `product` semantics: negation normal form, then AND = sum and OR = log-sum-exp, with no decision diagram.

This is the plain reading of "AND adds energies, OR is a log-sum-exp, NOT negates". It is not a probability: an OR
counts what its branches share as often as they share it, so its value can be above 0 and the energy below 0; and an
attribute that occurs twice counts twice. In return its size is linear in the query's.

Every node has two values, its own and its negation's, so that pushing NOT to the leaves takes no expansion:

| node | value | value of its negation |
|---|---|---|
| literal | log P(cells) | log P(the other cells) |
| AND | sum | log-sum-exp of negations |
| OR | log-sum-exp | sum of negations |
| XOR, two at a time | OR of (a, not b), (not a, b) | OR of (a, b), (not a, not b) |
| IFF | the negation of XOR, folded likewise | |
| a IMPLIES b | OR of (not a, b) | AND of (a, not b) |
| AT LEAST, AT MOST, EXACTLY | log-sum-exp over the allowed truth assignments of the operands | over the others |
| weight w | w times the value | w times the negation's value |

The assignments of a cardinality are summed by dynamic programming over counts, not listed. A weight passes through
NOT: `NOT (2 * a)` is `2 * NOT a` here, while `exact` takes the complement of the weighted predicate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from energyql.energy.exact import CircuitRule
from energyql.errors import Contradiction
from energyql.language.ast import And, Cardinality, Constant, Expr, Iff, Implies, Not, Or, Weight, Xor
from energyql.logic.cells import CellSet, holds, partition, predicate_cells, union
from energyql.logic.circuit import Circuit
from energyql.logic.nodes import Builder, Folded, Leaf
from energyql.logic.tree import Predicate, allowed_counts, balanced, fold
from energyql.vocabulary import AttributeSpec

Pair = tuple[Folded, Folded]
"""The value of a part of the query and the value of its negation."""

MAX_NODES = 1_000_000
"""Largest circuit; only cardinalities over very many operands, which need count * size nodes, come near."""


def compile_product(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> CircuitRule:
    """Compile a bound query to the circuit of the table above.

    Raises:
        Contradiction: what remains after folding constants is FALSE.
        LimitError: the circuit is too large.
    """
    cells = partition(expr, vocabulary)
    compiler = _Compiler(vocabulary, cells)
    value, _ = fold(expr, compiler.combine)
    if value is False:
        raise Contradiction("the query is always false")
    nodes = compiler.builder.finish(value)
    used = {node.attribute for node in nodes if isinstance(node, Leaf)}
    kept = {name: atoms for name, atoms in cells.items() if name in used}
    key = f"product {hashlib.sha256(repr(nodes).encode()).hexdigest()}"
    return CircuitRule(Circuit(nodes, tuple(kept), kept, key), is_probability=False)


class _Compiler:
    def __init__(self, vocabulary: Mapping[str, AttributeSpec], cells: Mapping[str, tuple[CellSet, ...]]) -> None:
        self.builder = Builder(MAX_NODES)
        self._vocabulary = vocabulary
        self._cells = cells

    def combine(self, expr: Expr, operands: list[Pair]) -> Pair:
        """The pair of a node from the pairs of its operands."""
        match expr:
            case Constant(value=truth):
                return truth, not truth
            case Not():
                return operands[0][::-1]
            case Weight(factor=factor):
                value, negation = operands[0]
                return self.builder.scaled(factor, value), self.builder.scaled(factor, negation)
            case And():
                return self._and(*operands)
            case Or():
                return self._or(*operands)
            case Implies():
                return self._or(operands[0][::-1], operands[1])
            case Xor():
                return balanced(operands, self._xor)
            case Iff():
                return balanced(operands, lambda a, b: self._xor(a, b)[::-1])
            case Cardinality():
                return self._count(expr, operands)
        assert isinstance(expr, Predicate)
        return self._literal(expr)

    def _literal(self, predicate: Predicate) -> Pair:
        name, spec = predicate.name, self._vocabulary[predicate.name]
        cells, atoms = predicate_cells(predicate, spec), self._cells[predicate.name]
        inside = union([atom for atom in atoms if holds(cells, atom)], spec)
        outside = union([atom for atom in atoms if not holds(cells, atom)], spec)
        if not inside or not outside:
            return bool(inside), bool(outside)
        return self.builder.leaf(name, inside), self.builder.leaf(name, outside)

    def _and(self, *pairs: Pair) -> Pair:
        return self.builder.sum([value for value, _ in pairs]), self.builder.log_sum_exp([other for _, other in pairs])

    def _or(self, *pairs: Pair) -> Pair:
        return self._and(*(pair[::-1] for pair in pairs))[::-1]

    def _xor(self, a: Pair, b: Pair) -> Pair:
        add, either = self.builder.sum, self.builder.log_sum_exp
        return (
            either([add([a[0], b[1]]), add([a[1], b[0]])]),
            either([add([a[0], b[0]]), add([a[1], b[1]])]),
        )

    def _count(self, expr: Cardinality, pairs: list[Pair]) -> Pair:
        if expr.quantifier == "ALL":
            return self._and(*pairs)
        if expr.quantifier == "ANY":
            return self._or(*pairs)
        if expr.quantifier == "NONE":
            return self._or(*pairs)[::-1]
        allowed = allowed_counts(expr)
        add, either = self.builder.sum, self.builder.log_sum_exp
        exactly: list[Folded] = [True]  # exactly[j]: the assignments of the operands so far with j of them true
        for value, negation in pairs:
            more = [False, *(add([value, count]) for count in exactly)]
            fewer = [*(add([negation, count]) for count in exactly), False]
            exactly = [either([a, b]) for a, b in zip(more, fewer, strict=True)]
        inside = [count for number, count in enumerate(exactly) if number in allowed]
        return either(inside), either([count for number, count in enumerate(exactly) if number not in allowed])
