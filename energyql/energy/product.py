"""The `product` semantics: negation normal form, then AND = sum and OR = log-sum-exp, with no decision diagram."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from energyql.energy.circuit import CircuitRule, CompileOptions
from energyql.errors import Contradiction
from energyql.kinds import CellSet
from energyql.language import Constant, Expr, Predicate
from energyql.language.expr import Kernel, allowed_counts
from energyql.logic.circuit import Circuit, CircuitBuilder, Leaf, Ref
from energyql.logic.diagram import holds, partition, predicate_cells, union
from energyql.logic.satisfiability import check_satisfiable
from energyql.vocabulary import AttributeSpec

Pair = tuple[Ref, Ref]
"""The value of a part of the query, and the value of the part's negation."""

MAX_NODES = 1_000_000
"""Most nodes of a circuit. Only a count of very many operands has so many: about the square of their number."""


def product_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> CircuitRule:
    """Compile a query by `compile_product`, and also report parts of the query that are never or always true."""
    check_satisfiable(expr, vocabulary, query=options.query, max_nodes=options.max_nodes)
    return compile_product(expr, vocabulary)


def compile_product(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> CircuitRule:
    """Compile a query, as `bind` returned it, under the `product` semantics.

    The result is not a probability: an OR counts each operand that holds, so the energy can be below 0, and an
    attribute that occurs twice counts twice. In return the size of the circuit is linear in that of the query, but for
    counts such as `AT LEAST 2 OF`. Each node of the query has two values, so that NOT just swaps them:

    | node | value | value of its negation |
    |---|---|---|
    | predicate | log P(values that satisfy it) | log P(all other values) |
    | AND | sum | log-sum-exp of negations |
    | OR | log-sum-exp | sum of negations |
    | choice between b and c by a | OR of (a, b), (not a, c) | OR of (a, not b), (not a, not c) |
    | AT LEAST, AT MOST, EXACTLY | log-sum-exp over allowed truth values of the operands | log-sum-exp over the others |
    | weight w | w times the value | w times the negation's value |

    XOR, IFF and IMPLIES are choices: `a XOR b` is "NOT b where a holds, else b". A weight can be exchanged with a NOT:
    `NOT (2 * a)` is `2 * NOT a`, while under `exact` it has the probability 1 - P(a)^2.

    Raises:
        Contradiction: the query is FALSE after the removal of constants and of predicates that no value satisfies.
        LimitError: the circuit needs more than `MAX_NODES` (a million) nodes.
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

    def leaf(self, node: Expr) -> Pair:
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
        true, false = (either([add([test[0], then[side]]), add([test[1], otherwise[side]])]) for side in (0, 1))
        return true, false

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
