"""Predictions of several attributes by name, and the layout of raw outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from energyql.attributes.kinds import (
    PREDICTIONS,
    Categorical,
    Cells,
    Continuous,
    Prediction,
    Table,
    YesNo,
    log_probabilities,
)
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

__all__ = [
    "Categorical", "Cells", "Continuous", "Prediction", "Predictions", "Table", "YesNo", "decide", "likeliest",
    "log_probabilities", "output_count", "split_outputs", "tabulate",
]  # fmt: skip

Predictions = Mapping[str, Prediction]


def output_count(spec: AttributeSpec) -> int:
    """Return the number of outputs of an attribute: one logit, one logit per class, or one mean."""
    return PREDICTIONS[spec.kind].output_count(spec)


def split_outputs(
    outputs: Float[Tensor, "batch outputs"], specs: Iterable[AttributeSpec], std: Mapping[str, Tensor | float]
) -> dict[str, Prediction]:
    """Split raw outputs into one prediction per attribute.

    Args:
        outputs: `output_count` columns for each of `specs`, in their order.
        specs: the attributes.
        std: residual standard deviation of each continuous attribute.
    """
    predictions: dict[str, Prediction] = {}
    start = 0
    for spec in specs:
        columns = outputs[:, start : start + output_count(spec)]
        start += columns.shape[1]
        spread = std[spec.name] if KINDS[spec.kind].numeric else 1.0
        predictions[spec.name] = PREDICTIONS[spec.kind].of_outputs(columns, spec, spread)
    return predictions


def decide(predictions: Mapping[str, Prediction]) -> dict[str, npt.NDArray[Any]]:
    """Return the likeliest value of each attribute, (batch,) bool, class names or float64."""
    return {name: prediction.decide() for name, prediction in predictions.items()}


def likeliest(table: Table) -> npt.NDArray[Any]:
    """Return the likeliest values of one attribute, (batch,), as `decide` does, of predictions as arrays."""
    if isinstance(table, tuple):
        return table[0]
    if not isinstance(table, dict):
        return np.asarray(table > 0.5)
    return np.asarray(np.array(list(table))[np.stack(list(table.values())).argmax(0)])


def tabulate(predictions: Mapping[str, Prediction]) -> dict[str, Table]:
    """Convert predictions to float64 arrays, in the form that `energyql.score` takes.

    Returns:
        A probability (batch,) for yes/no, a dict class -> probability (batch,) for categorical, a pair (mean, std) of
        (batch,) for continuous attributes.
    """
    return {name: prediction.table() for name, prediction in predictions.items()}
