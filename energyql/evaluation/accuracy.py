"""Conditional accuracy, attribute by attribute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.language import And, Expr, Near, Not, Predicate, Weight
from energyql.logic.truth import satisfied
from energyql.vocabulary import AttributeSpec


def conditional_accuracy(
    query: Expr, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]
) -> dict[str, float] | None:
    """How well samples match each attribute that a query asks for: the ACC of Nie et al. 2021 (arXiv 2110.10873).

    Args:
        query: bound; a conjunction of conditions on one attribute each, or a single one.
        values: what an independent judge sees, attribute -> (n,).
        vocabulary: of the model.

    Returns:
        Condition -> share of samples that meet it; for `age = 0.7`, one minus the mean distance to the target over the
        attribute's range, as published. Nothing for any other query: accuracy is not defined there, and
        `satisfied` is what there is.
    """
    conditions = query.operands if isinstance(query, And) else (query,)
    found: dict[str, float] = {}
    for condition in conditions:
        plain = condition.operand if isinstance(condition, Weight) else condition
        literal = plain.operand if isinstance(plain, Not) else plain
        if not isinstance(literal, Predicate):
            return None
        if isinstance(plain, Near):
            spec = vocabulary[plain.name]
            missed = np.abs(values[plain.name] - plain.value).mean() / (spec.high - spec.low)
            found[str(plain)] = max(0.0, 1.0 - float(missed))
        else:
            found[str(plain)] = float(satisfied(plain, values, vocabulary).mean())
    return found
