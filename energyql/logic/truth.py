"""The truth of a query for samples whose attributes have definite values: yes or no, a class, or a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.language import Attribute, Constant, Expr, Interval, Near, Predicate
from energyql.language.expr import Kernel, allowed_counts
from energyql.logic.diagram import predicate_cells
from energyql.vocabulary import AttributeSpec

Truth = npt.NDArray[np.bool_]


def satisfied(expr: Expr, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]) -> Truth:
    """Return for each sample whether a bound query is true, given the values of its attributes.

    Args:
        expr: the query, as `bind` returned it. Weights make no difference.
        values: for every attribute of the query, its value for each sample, (batch,). Values are booleans, names of
            classes, or numbers, by the kind of the attribute.
        vocabulary: the attributes. Their tolerances are used for `age = 0.7` if the query has no tolerance.

    Returns:
        Booleans of shape (batch,); of shape (1,) if the query has no attributes.
    """
    return expr.evaluate(_Truths(values, vocabulary))


def combined(expr: Expr, truths: Mapping[str, Truth]) -> Truth:
    """Return for each sample whether a query is true, given the truth of each condition in it.

    Args:
        expr: the query.
        truths: text of each condition, such as "hair = red" -> its truth for each sample, (batch,).
    """
    return expr.evaluate(_Combined(truths))


class _Truths(Kernel[Truth]):
    """The `Kernel` whose values are arrays of booleans, one for each sample: (batch,), or (1,) for constants."""

    def __init__(self, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]) -> None:
        self._values, self._vocabulary = values, vocabulary

    def leaf(self, node: Expr) -> Truth:
        match node:
            case Constant(value=value):
                return np.array([value], bool)
            case Attribute(name=name):
                return np.asarray(self._values[name], bool)
            case Interval(name=name):
                values, (low, high) = self._values[name], node.bounds(0.0)
                above = values >= low if node.low_closed else values > low
                return np.asarray(above & (values <= high if node.high_closed else values < high))
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


class _Combined(_Truths):
    """The `Kernel` of `combined`: truths of conditions are given."""

    def __init__(self, truths: Mapping[str, Truth]) -> None:
        super().__init__({}, {})
        self._truths = truths

    def leaf(self, node: Expr) -> Truth:
        return self._truths[str(node)] if isinstance(node, Predicate) else super().leaf(node)
