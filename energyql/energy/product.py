"""The `product` semantics: negation normal form, then AND = sum and OR = log-sum-exp, with no decision diagram.

This is the plain reading of "AND adds energies, OR is a log-sum-exp, NOT negates". It is not a probability: an OR
counts what its branches share as often as they share it, so its value can be above 0 and the energy below 0; and an
attribute that occurs twice counts twice. In return its size is linear in the query's.

XOR, IFF and IMPLIES are lowered to these (`energyql.language.expr.Kernel`): `a XOR b` chooses between NOT b and b by a.
Every node has two values, its own and its negation's, so that pushing NOT to the leaves takes no expansion:

| node | value | value of its negation |
|---|---|---|
| literal | log P(cells) | log P(the other cells) |
| AND | sum | log-sum-exp of negations |
| OR | log-sum-exp | sum of negations |
| choice between b and c by a | OR of (a, b), (not a, c) | OR of (a, not b), (not a, not c) |
| AT LEAST, AT MOST, EXACTLY | log-sum-exp over the allowed truth assignments of the operands | over the others |
| weight w | w times the value | w times the negation's value |

The assignments of a cardinality are summed by dynamic programming over counts, not listed. A weight passes through
NOT: `NOT (2 * a)` is `2 * NOT a` here, while `exact` takes the complement of the weighted predicate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from energyql.energy.circuit import CircuitRule
from energyql.errors import Contradiction
from energyql.kinds import CellSet
from energyql.language import Constant, Expr, Predicate
from energyql.language.expr import Kernel, Node, allowed_counts
from energyql.logic.circuit import Circuit
from energyql.logic.nodes import CircuitBuilder, Leaf, Ref, holds, partition, predicate_cells, union
from energyql.vocabulary import AttributeSpec

Pair = tuple[Ref, Ref]
"""The value of a part of the query and the value of its negation."""

MAX_NODES = 1_000_000
"""Most nodes of a circuit; only cardinalities over very many operands need so many (count * size)."""


def compile_product(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> CircuitRule:
    """Compile a bound query to the circuit of the table above.

    Raises:
        Contradiction: what remains after folding constants is FALSE.
        LimitError: the circuit is too large.
    """
    cells = partition(expr, vocabulary)
    compiler = _Compiler(vocabulary, cells)
    value, _ = expr.evaluate(compiler)
    if value is False:
        raise Contradiction("the query is always false")
    nodes = compiler.builder.finish(value)
    used = {node.attribute for node in nodes if isinstance(node, Leaf)}
    own_cells = {name: atoms for name, atoms in cells.items() if name in used}
    key = f"product {hashlib.sha256(repr(nodes).encode()).hexdigest()}"
    return CircuitRule(Circuit(nodes, tuple(own_cells), own_cells, key), is_probability=False)


class _Compiler(Kernel[Pair]):
    def __init__(self, vocabulary: Mapping[str, AttributeSpec], cells: Mapping[str, tuple[CellSet, ...]]) -> None:
        self.builder = CircuitBuilder(MAX_NODES)
        self._vocabulary = vocabulary
        self._cells = cells

    def leaf(self, node: Node[Any]) -> Pair:
        if isinstance(node, Constant):
            return node.value, not node.value
        assert isinstance(node, Predicate)
        name, spec = node.name, self._vocabulary[node.name]
        cells, atoms = predicate_cells(node, spec), self._cells[name]
        inside = union([atom for atom in atoms if holds(cells, atom)], spec)
        outside = union([atom for atom in atoms if not holds(cells, atom)], spec)
        if not inside or not outside:
            return bool(inside), bool(outside)
        return self.builder.leaf(name, inside), self.builder.leaf(name, outside)

    def negation(self, value: Pair) -> Pair:
        return value[::-1]

    def conjunction(self, values: Sequence[Pair]) -> Pair:
        return self.builder.sum([true for true, _ in values]), self.builder.log_sum_exp([false for _, false in values])

    def disjunction(self, values: Sequence[Pair]) -> Pair:
        return self.conjunction([value[::-1] for value in values])[::-1]

    def choice(self, test: Pair, then: Pair, otherwise: Pair) -> Pair:
        add, either = self.builder.sum, self.builder.log_sum_exp
        return (
            either([add([test[0], then[0]]), add([test[1], otherwise[0]])]),
            either([add([test[0], then[1]]), add([test[1], otherwise[1]])]),
        )

    def count(self, quantifier: str, count: int, values: Sequence[Pair]) -> Pair:
        allowed = allowed_counts(quantifier, count, len(values))
        add, either = self.builder.sum, self.builder.log_sum_exp
        exactly: list[Ref] = [True]  # exactly[j]: the assignments of the operands so far with j of them true
        for value, negation in values:
            more = [False, *(add([value, counted]) for counted in exactly)]
            fewer = [*(add([negation, counted]) for counted in exactly), False]
            exactly = [either([a, b]) for a, b in zip(more, fewer, strict=True)]
        inside = [counted for number, counted in enumerate(exactly) if number in allowed]
        return either(inside), either([counted for number, counted in enumerate(exactly) if number not in allowed])

    def weighted(self, factor: float, value: Pair) -> Pair:
        return self.builder.scaled(factor, value[0]), self.builder.scaled(factor, value[1])
