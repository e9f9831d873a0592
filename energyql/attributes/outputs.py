"""Rows of raw network outputs <-> predictions: the layout that heads and judges share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.vocabulary import AttributeSpec

Array = npt.NDArray[np.float64]
Table = Array | dict[str, Array] | tuple[Array, Array]
"""One attribute's predictions: P(yes), class -> P(class), or (mean, std); every array (batch,)."""


def output_count(spec: AttributeSpec) -> int:
    """Outputs that a network spends on an attribute: a logit, a logit a class, or a mean."""
    return len(spec.values) if spec.kind == "categorical" else 1


def split_outputs(
    outputs: Tensor, specs: Iterable[AttributeSpec], std: Mapping[str, Tensor | float]
) -> dict[str, Prediction]:
    """Cut raw outputs into one prediction an attribute.

    Args:
        outputs: (batch, sum of `output_count`), in the order of `specs`.
        specs: the attributes.
        std: residual standard deviation of each continuous attribute.
    """
    predictions: dict[str, Prediction] = {}
    start = 0
    for spec in specs:
        columns = outputs[:, start : start + output_count(spec)]
        start += columns.shape[1]
        if spec.kind == "yes/no":
            predictions[spec.name] = YesNo(columns[:, 0])
        elif spec.kind == "categorical":
            predictions[spec.name] = Categorical(columns, spec.values)
        else:
            predictions[spec.name] = Continuous(columns[:, 0], std[spec.name])
    return predictions


def decide(predictions: Mapping[str, Prediction]) -> dict[str, npt.NDArray[Any]]:
    """The likeliest value of each attribute: bool, class name or number, each of shape (batch,)."""
    decided: dict[str, npt.NDArray[Any]] = {}
    for name, prediction in predictions.items():
        if isinstance(prediction, YesNo):
            decided[name] = (prediction.logit > 0).cpu().numpy()
        elif isinstance(prediction, Categorical):
            decided[name] = np.array(prediction.values)[prediction.logits.argmax(1).cpu().numpy()]
        else:
            decided[name] = prediction.mean.double().cpu().numpy()
    return decided


def tabulate(predictions: Mapping[str, Prediction]) -> dict[str, Table]:
    """Predictions as arrays, float64, in the form that `energyql.score` takes.

    Returns:
        A probability (batch,) for yes/no, a dict class -> probability (batch,) for categorical, a pair (mean, std) of
        (batch,) for continuous attributes.
    """
    table: dict[str, Table] = {}
    for name, prediction in predictions.items():
        if isinstance(prediction, YesNo):
            table[name] = prediction.logit.double().sigmoid().cpu().numpy()
        elif isinstance(prediction, Categorical):
            columns = prediction.logits.double().softmax(1).cpu().numpy()
            table[name] = {value: columns[:, k] for k, value in enumerate(prediction.values)}
        else:
            std = torch.as_tensor(prediction.std, dtype=torch.float64).expand(prediction.mean.shape)
            table[name] = (prediction.mean.double().cpu().numpy(), std.cpu().numpy())
    return table


def select_rows(table: Table, rows: npt.NDArray[np.int64]) -> Table:
    """Some samples of a table that `tabulate` made."""
    if isinstance(table, dict):
        return {value: column[rows] for value, column in table.items()}
    return (table[0][rows], table[1][rows]) if isinstance(table, tuple) else table[rows]


def join_tables(tables: Sequence[Table]) -> Table:
    """The tables of consecutive batches, of one attribute, as one."""
    if isinstance(tables[0], dict):
        by_value = [table for table in tables if isinstance(table, dict)]
        return {value: np.concatenate([table[value] for table in by_value]) for value in tables[0]}
    if isinstance(tables[0], tuple):
        means, stds = zip(*(table for table in tables if isinstance(table, tuple)), strict=True)
        return np.concatenate(means), np.concatenate(stds)
    return np.concatenate([table for table in tables if isinstance(table, np.ndarray)])
