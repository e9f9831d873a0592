"""Two-valued truth of a query on decided attributes, for judging finished samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.language import Attribute, Constant, Expr, Interval, Near, Predicate
from energyql.language.expr import Kernel, Node, allowed_counts
from energyql.logic.nodes import predicate_cells
from energyql.vocabulary import AttributeSpec

Truth = npt.NDArray[np.bool_]


def satisfied(expr: Expr, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]) -> Truth:
    """Evaluate a bound query on decided values.

    Args:
        expr: the query. Weights do not matter to its truth.
        values: attribute -> (batch,) bool, class names or numbers, for every attribute of the query.
        vocabulary: gives the tolerance of `=` where the query does not.

    Returns:
        (batch,) bool; of shape (1,) for a query without attributes.
    """
    return expr.evaluate(_Truths(values, vocabulary))


class _Truths(Kernel[Truth]):
    """Arrays of truths, (batch,) or (1,)."""

    def __init__(self, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]) -> None:
        self._values, self._vocabulary = values, vocabulary

    def leaf(self, node: Node[Any]) -> Truth:
        match node:
            case Constant(value=value):
                return np.array([value], bool)
            case Attribute(name=name):
                return np.asarray(self._values[name], bool)
            case Interval(name=name):
                values = self._values[name]
                inside = np.ones(len(values), bool)
                if node.low is not None:
                    inside &= values >= node.low if node.low_closed else values > node.low
                if node.high is not None:
                    inside &= values <= node.high if node.high_closed else values < node.high
                return inside
            case Near(name=name, value=value, tolerance=tolerance):
                allowed = self._vocabulary[name].tolerance if tolerance is None else tolerance
                return np.asarray(np.abs(self._values[name] - value) <= allowed)
            case Predicate(name=name):
                return np.isin(self._values[name], predicate_cells(node, self._vocabulary[name]))
        raise TypeError(f"no rule for {type(node).__name__}")

    def negation(self, value: Truth) -> Truth:
        return ~value

    def conjunction(self, values: Sequence[Truth]) -> Truth:
        return reduce(np.logical_and, values)

    def disjunction(self, values: Sequence[Truth]) -> Truth:
        return reduce(np.logical_or, values)

    def choice(self, test: Truth, then: Truth, otherwise: Truth) -> Truth:
        return np.where(test, then, otherwise)

    def count(self, quantifier: str, count: int, values: Sequence[Truth]) -> Truth:
        allowed = allowed_counts(quantifier, count, len(values))
        true = np.sum(np.broadcast_arrays(*values), axis=0)
        return np.asarray((allowed.start <= true) & (true < allowed.stop))

    def weighted(self, factor: float, value: Truth) -> Truth:
        return value
