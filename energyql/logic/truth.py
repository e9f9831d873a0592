"""Is a query true? Two-valued logic on decided attributes, for judging finished samples."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.language.ast import (
    And,
    Attribute,
    Cardinality,
    Constant,
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
)  # fmt: skip
from energyql.logic.tree import fold
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

    def evaluate(node: Expr, operands: list[Truth]) -> Truth:
        match node:
            case Constant(value=value):
                return np.array([value], bool)
            case Attribute(name=name):
                return np.asarray(values[name], bool)
            case OneOf(name=name, values=classes, negated=negated):
                return np.isin(values[name], classes, invert=negated)
            case Interval():
                return _inside(node, values[node.name])
            case Near(name=name, value=value, tolerance=tolerance):
                allowed = vocabulary[name].tolerance if tolerance is None else tolerance
                return np.asarray(np.abs(values[name] - value) <= allowed)
            case Not():
                return ~operands[0]
            case Weight():
                return operands[0]
            case And():
                return reduce(np.logical_and, operands)
            case Or():
                return reduce(np.logical_or, operands)
            case Xor():
                return reduce(np.logical_xor, operands)
            case Implies():
                return ~operands[0] | operands[1]
            case Iff():
                return reduce(lambda a, b: a == b, operands)
            case Cardinality():
                return _counted(node, np.sum(np.broadcast_arrays(*operands), axis=0))
        raise TypeError(f"no rule for {type(node).__name__}")

    return fold(expr, evaluate)


def _inside(node: Interval, values: npt.NDArray[Any]) -> Truth:
    inside = np.ones(len(values), bool)
    if node.low is not None:
        inside &= values >= node.low if node.low_closed else values > node.low
    if node.high is not None:
        inside &= values <= node.high if node.high_closed else values < node.high
    return inside


def _counted(node: Cardinality, count: npt.NDArray[Any]) -> Truth:
    match node.quantifier:
        case "AT LEAST":
            return np.asarray(count >= node.count)
        case "AT MOST":
            return np.asarray(count <= node.count)
        case "EXACTLY":
            return np.asarray(count == node.count)
        case "ALL":
            return np.asarray(count == len(node.operands))
        case "ANY":
            return np.asarray(count > 0)
        case _:
            return np.asarray(count == 0)
