"""The `lace` semantics: the rules of the paper on LACE, to reproduce the paper and to compare with it.

The paper is Nie, Vahdat, Anandkumar: Controllable and Compositional Generation with Latent-Space Energy-Based Models
(2021, arXiv 2110.10873).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations

import torch
from torch import Tensor

from energyql.attributes.predictions import Predictions
from energyql.energy.circuit import CompileOptions
from energyql.errors import Contradiction, KindError, LimitError, either
from energyql.kinds import KINDS
from energyql.language import (
    And,
    Attribute,
    Cardinality,
    Constant,
    Expr,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Predicate,
    Weight,
    predicates,
)
from energyql.language.expr import Kernel
from energyql.language.rewrite import definition, fold_constants
from energyql.logic.satisfiability import check_satisfiable
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec, in_order

SIGMA = 0.1
"""Standard deviation of the Gaussian around the target of a continuous attribute, in the units of the attribute."""
LEFT_WEIGHT = 20.0
"""Weight of the left operand of an OR, relative to the right one."""
NOT_LIMIT = 0.1
"""Largest absolute value, in nats, that the value of a NOT can have."""
MAX_GROUPS = 4096
"""Most groups of operands that one count may have: `AT LEAST 3 OF` ten operands has 120 groups of three operands."""

_FINITE = 1e30  # -infinity times the alpha of a NOT would be NaN


class LaceRule:
    """The `EnergyRule` of the `lace` semantics: the energy is minus the value of the query, higher where it holds.

    The rules of the paper, applied to the tree of the query as it is written (but `a OR (b OR c)` is one OR of three):

    | part | value |
    |---|---|
    | yes/no | log sigmoid(logit) |
    | categorical `=` | log-softmax of the class |
    | continuous | `-(mean - target)^2 / (2 sigma^2)`, sigma = 0.1: a Gaussian's exponent, so 0 at the target |
    | AND | sum |
    | OR | `log(20 exp(left) + exp(right))`, applied from left to right, so that the order of operands matters |
    | NOT | `-alpha * value`, alpha = min(1, 0.1 / abs(value)); in the gradient alpha is a constant |

    The paper has no rules for other parts. Here `IN` is an OR in the order of the text, `!=` and `NOT IN` are NOT,
    `value +- tolerance` has the target `value`, and the target of an interval is its point nearest to the mean. AT
    LEAST and EXACTLY k are ORs over all groups of k operands (for EXACTLY, with NOT of all others), AT MOST k is NOT AT
    LEAST k + 1. a IMPLIES b is NOT a OR b, a XOR b is (a AND NOT b) OR (NOT a AND b), a IFF b is (a AND b) OR (NOT a
    AND NOT b); more operands are joined from left to right. A weight multiplies the value. TRUE and FALSE are removed
    before.

    Attributes:
        expr: the query without the constants TRUE and FALSE; TRUE alone if it is always true.
        attributes: names of the attributes of `expr`, in the vocabulary's order.
    """

    is_probability = False
    has_floor = True

    def __init__(self, expr: Expr, attributes: tuple[str, ...]) -> None:
        self.expr = expr
        self.attributes = attributes

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the value of the query, `(batch,)`, in nats, higher is better; it can be above 0."""
        return self.expr.evaluate(_Published(predictions))

    def draw(self) -> None:
        """Return `None`: there is no circuit to draw, because the rules apply to the tree."""

    def explain(self) -> str:
        """Return indented text with a line for each part of the query: the rule that gives its value."""
        lines: list[str] = self.expr.fold(
            lambda node, parts: [_rule_of(node), *("  " + line for part in parts for line in part)]
        )
        return "\n".join(
            [*lines, "", "energy = -value of the first line; rules of arXiv 2110.10873, not a probability"]
        )


def lace_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> LaceRule:
    """Compile a query by `compile_lace`, and also report parts of the query that are never or always true."""
    check_satisfiable(expr, vocabulary, query=options.query, max_nodes=options.max_nodes)
    return compile_lace(expr, vocabulary)


def compile_lace(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> LaceRule:
    """Compile a query, as `bind` returned it, under the `lace` semantics.

    Raises:
        Contradiction: the query is FALSE after the removal of constants, as `smile AND FALSE` is.
        LimitError: a count, such as `AT LEAST 3 OF (...)`, has more than 4096 groups of operands.
    """
    folded = fold_constants(expr)
    if folded == Constant(False):
        raise Contradiction("the query is always false")
    for node in folded.walk():
        if isinstance(node, Cardinality) and _groups(node) > MAX_GROUPS:
            raise LimitError(
                f"{node.head} {len(node.operands)} operands expands to {_groups(node):,} groups "
                f"under the published rules, more than {MAX_GROUPS:,}",
                hint=either('semantics="exact"', "--semantics exact") + " counts without expanding",
            )
    used = {node.name for node in predicates(folded)}
    return LaceRule(folded, tuple(in_order(used, vocabulary)))


def log_or(left: Float[Tensor, "*shape"], right: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Value of `left OR right` by the paper, which weights the left 20 times: `log(20 exp(left) + exp(right))`."""
    return torch.logsumexp(torch.stack([left + math.log(LEFT_WEIGHT), right]), 0)


def negated(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Value of a NOT by the paper: `-alpha * value`, alpha = min(1, 0.1 / abs(value)), a constant in the gradient."""
    value = value.clamp(-_FINITE, _FINITE)
    size = value.detach().abs()
    alpha = NOT_LIMIT / size.clamp(min=NOT_LIMIT)  # the minimum with 1, without dividing by 0
    return -alpha * value


class _Published(Kernel[Tensor]):
    """The `Kernel` with the rules of `LaceRule`; its values are tensors (batch,), higher where a part holds."""

    def __init__(self, predictions: Predictions) -> None:
        self._predictions = predictions

    def leaf(self, node: Expr) -> Tensor:
        if isinstance(node, Constant):  # only TRUE on its own is left, and it depends on nothing
            return torch.zeros(())
        assert isinstance(node, Predicate)
        prediction = self._predictions[node.name]
        allowed = node.form in KINDS[prediction.kind].queries.forms
        match node:
            case Attribute() if allowed:
                return prediction.log_each((True,))[0]
            case OneOf(values=values) if allowed:
                either = reduce(log_or, prediction.log_each(values))
                return negated(either) if node.negated else either
            case Near(value=target) if allowed:
                return _gaussian(prediction.number() - target)
            case Interval(low=low, high=high) if allowed:
                mean = prediction.number()
                return _gaussian(mean - mean.detach().clamp(low, high))
        raise KindError(f"{node.name!r} is used as another kind than its head predicts")

    def negation(self, value: Tensor) -> Tensor:
        return negated(value)

    def conjunction(self, values: Sequence[Tensor]) -> Tensor:
        return reduce(torch.add, values)

    def disjunction(self, values: Sequence[Tensor]) -> Tensor:
        return reduce(log_or, values)

    def count(self, quantifier: str, count: int, values: Sequence[Tensor]) -> Tensor:
        if quantifier == "AT MOST":
            return negated(self.count("AT LEAST", count + 1, values))
        if quantifier == "AT LEAST":
            return self.disjunction([self.conjunction(group) for group in combinations(values, count)])
        size, nots = len(values), [negated(value) for value in values]
        groups = [set(group) for group in combinations(range(size), count)]
        signed = [[values[i] if i in group else nots[i] for i in range(size)] for group in groups]
        return self.disjunction([self.conjunction(parts) for parts in signed])

    def weighted(self, factor: float, value: Tensor) -> Tensor:
        return factor * value

    def chain(self, combine: Callable[[Tensor, Tensor], Tensor], values: Sequence[Tensor]) -> Tensor:
        return reduce(combine, values)  # OR does not commute, so the order counts


def _gaussian(distance: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
    return -(distance**2) / (2 * SIGMA**2)


def _groups(node: Cardinality) -> int:
    return 1 if node.count is None else math.comb(len(node.operands), node.count + (node.quantifier == "AT MOST"))


def _rule_of(node: Expr) -> str:
    match node:
        case Not():
            return "NOT: -min(1, 0.1 / |value|) * value"
        case And():
            return "AND: sum"
        case Or():
            return "OR: log(20 exp(left) + exp(right))"
        case Weight(factor=factor):
            return f"{factor:g} times"
        case Cardinality():
            return node.head
        case Predicate() | Constant():
            return str(node)
    return f"{node.word}: {definition(node)}"
