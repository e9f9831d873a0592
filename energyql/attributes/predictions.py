"""Predictions of attribute heads, the log-probability that a value falls in given cells, and the layout of raw outputs.

A cell set is plain data, made by `energyql.logic.nodes`: yes/no values, classes or intervals. All values and gradients
are finite in float32, also where a probability is far below the smallest float, because log-probabilities are never
computed from probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from energyql.numerics.normal import log_normal_cdf, log_normal_interval
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

Cells = Sequence[bool | str | tuple[float, float]]
Array = npt.NDArray[np.float64]
Table = Array | dict[str, Array] | tuple[Array, Array]
"""Predictions of one attribute as arrays (batch,): P(yes), class -> P(class), or (mean, std)."""


class _Distribution:
    """A distribution of one attribute's value for each sample."""

    __slots__ = ()

    def log_probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return log P(the value is in one of the cells), `(batch,)`, in nats; cells do not overlap."""
        return log_probabilities([(cast(Prediction, self), cells)])[0]

    def probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return P(the value is in one of the cells), `(batch,)`; cells do not overlap."""
        return self.log_probability(cells).exp()


@dataclass(frozen=True, slots=True)
class YesNo(_Distribution):
    """`P(yes) = sigmoid(logit)`; logit `(batch,)`; cells are `True` and `False`."""

    logit: Float[Tensor, " batch"]


@dataclass(frozen=True, slots=True)
class Categorical(_Distribution):
    """`P(value k) = softmax(logits)_k`; logits `(batch, K)`; values are the K class names, of which cells are some."""

    logits: Float[Tensor, "batch classes"]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Continuous(_Distribution):
    """A normal with `mean` `(batch,)` and positive `std`, `(batch,)` or a scalar; cells are intervals (low, high)."""

    mean: Float[Tensor, " batch"]
    std: Float[Tensor, "*batch"] | float


Prediction = YesNo | Categorical | Continuous
Predictions = Mapping[str, Prediction]

_Place = tuple[int, int]
"""A block (log-sigmoids, tails, intervals), and a row of it."""


def log_probabilities(requests: Sequence[tuple[Prediction, Cells]]) -> Float[Tensor, "requests batch"]:
    """Compute the log-probabilities of many cell sets at once, with few tensor operations.

    Args:
        requests: predictions of one batch, each with a cell set; at least one.

    Returns:
        `(len(requests), batch)`, in nats, at most 0. The empty cell set gives -infinity and the full one 0.
    """
    # A class set S is a yes/no question with logit lse(S) - lse(not S), so both kinds share one log-sigmoid: exact
    # near probability 0 and near probability 1. Intervals share one log-CDF and one log-interval.
    logits: list[Tensor] = []
    tails: list[Tensor] = []
    intervals: list[tuple[Tensor, Tensor]] = []
    places: list[list[_Place]] = []
    for prediction, cells in requests:
        if isinstance(prediction, Continuous):
            places.append(_intervals(prediction, cells, tails, intervals))
        else:
            places.append([(0, len(logits))])
            logits.append(
                _yes_logit(prediction, cells) if isinstance(prediction, YesNo) else _set_logit(prediction, cells)
            )
    blocks: list[Tensor] = []
    if logits:
        blocks.append(logsigmoid(torch.stack(logits)))
    if tails:
        blocks.append(log_normal_cdf(torch.stack(tails)))
    if intervals:
        middles, widths = zip(*intervals, strict=True)
        blocks.append(log_normal_interval(torch.stack(middles), torch.stack(widths)))
    pieces = blocks[0] if len(blocks) == 1 else torch.cat(blocks)
    starts = (0, len(logits), len(logits) + len(tails))
    rows = [[starts[block] + index for block, index in place] for place in places]
    if rows == [[index] for index in range(len(pieces))]:
        return pieces
    # No complement is needed: each part is accurate by itself, and parts exclude one another.
    return torch.stack([pieces[row[0]] if len(row) == 1 else torch.logsumexp(pieces[row], dim=0) for row in rows])


def _yes_logit(prediction: YesNo, cells: Cells) -> Float[Tensor, " batch"]:
    if True in cells:
        return torch.full_like(prediction.logit, math.inf) if False in cells else prediction.logit
    return -prediction.logit if False in cells else torch.full_like(prediction.logit, -math.inf)


def _set_logit(prediction: Categorical, cells: Cells) -> Float[Tensor, " batch"]:
    inside = [index for index, value in enumerate(prediction.values) if value in cells]
    outside = [index for index, value in enumerate(prediction.values) if value not in cells]
    if not inside or not outside:
        return torch.full_like(prediction.logits[:, 0], math.inf if inside else -math.inf)
    return _log_sum(prediction.logits, inside) - _log_sum(prediction.logits, outside)


def _log_sum(logits: Float[Tensor, "batch classes"], indices: list[int]) -> Float[Tensor, " batch"]:
    if len(indices) == 1:
        return logits[:, indices[0]]
    return torch.logsumexp(logits.index_select(1, _index(tuple(indices), logits.device)), dim=1)


@lru_cache(maxsize=1024)
def _index(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """The indices as a tensor. They are cached, because copying a list to a device takes longer than all else here."""
    with torch.inference_mode(False):  # tensors made in inference mode have no gradients
        return torch.tensor(indices, device=device)


def _intervals(
    prediction: Continuous, cells: Cells, tails: list[Tensor], intervals: list[tuple[Tensor, Tensor]]
) -> list[_Place]:
    """Append the standardised bounds of each interval to `tails` or `intervals`, and return their places."""
    mean, std = prediction.mean, prediction.std
    places: list[_Place] = []
    for cell in cells:
        assert isinstance(cell, tuple)
        low, high = cell
        if math.isinf(low) or math.isinf(high):
            places.append((1, len(tails)))
            if math.isinf(low) and math.isinf(high):
                tails.append(torch.full_like(mean, math.inf))
            else:
                tails.append((high - mean) / std if math.isinf(low) else (mean - low) / std)
        else:
            places.append((2, len(intervals)))
            width = torch.as_tensor((high - low) / std, dtype=mean.dtype, device=mean.device).expand_as(mean)
            intervals.append((((low + high) / 2 - mean) / std, width))
    if not places:
        places.append((1, len(tails)))
        tails.append(torch.full_like(mean, -math.inf))
    return places


def output_count(spec: AttributeSpec) -> int:
    """Return the number of outputs of an attribute: one logit, one logit per class, or one mean."""
    return len(spec.values) if spec.kind == "categorical" else 1


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
        if spec.kind == "yes/no":
            predictions[spec.name] = YesNo(columns[:, 0])
        elif spec.kind == "categorical":
            predictions[spec.name] = Categorical(columns, spec.values)
        else:
            predictions[spec.name] = Continuous(columns[:, 0], std[spec.name])
    return predictions


def decide(predictions: Mapping[str, Prediction]) -> dict[str, npt.NDArray[Any]]:
    """Return the likeliest value of each attribute, (batch,) bool, class names or float64."""
    decided: dict[str, npt.NDArray[Any]] = {}
    for name, prediction in predictions.items():
        if isinstance(prediction, YesNo):
            decided[name] = (prediction.logit > 0).cpu().numpy()
        elif isinstance(prediction, Categorical):
            decided[name] = np.array(prediction.values)[prediction.logits.argmax(1).cpu().numpy()]
        else:
            decided[name] = prediction.mean.double().cpu().numpy()
    return decided


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
