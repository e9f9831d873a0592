"""What an attribute head predicts for each sample, and the log-probability that the value falls in given cells.

A cell set is plain data (see `energyql.logic.cells`, which makes them): the answers, classes or intervals it holds.
Everything stays finite in float32, values and gradients, also where a probability is far below the smallest float:
log-probabilities are never made from probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from energyql.numerics.normal import log_normal_cdf, log_normal_interval

Cells = Sequence[bool | str | tuple[float, float]]


@dataclass(frozen=True, slots=True)
class YesNo:
    """`P(yes) = sigmoid(logit)`; logit `(batch,)`."""

    logit: Tensor

    def log_probability(self, cells: Cells) -> Tensor:
        """`log P(the answer is in cells)`, `(batch,)`, in nats; `cells` holds `True`, `False` or both."""
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Tensor:
        """`P(the answer is in cells)`, `(batch,)`."""
        return self.log_probability(cells).exp()


@dataclass(frozen=True, slots=True)
class Categorical:
    """`P(value k) = softmax(logits)_k`; logits `(batch, K)`, values the K names in the same order."""

    logits: Tensor
    values: tuple[str, ...]

    def log_probability(self, cells: Cells) -> Tensor:
        """`log P(the class is one of cells)`, `(batch,)`, in nats."""
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Tensor:
        """`P(the class is one of cells)`, `(batch,)`."""
        return self.log_probability(cells).exp()


@dataclass(frozen=True, slots=True)
class Continuous:
    """A normal around `mean` `(batch,)` with standard deviation `std`, `(batch,)` or a scalar, positive."""

    mean: Tensor
    std: Tensor | float

    def log_probability(self, cells: Cells) -> Tensor:
        """`log P(the value is in one of the intervals)`, `(batch,)`, in nats; disjoint (low, high) pairs."""
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Tensor:
        """`P(the value is in one of the intervals)`, `(batch,)`."""
        return self.log_probability(cells).exp()


Prediction = YesNo | Categorical | Continuous
Predictions = Mapping[str, Prediction]

_Place = tuple[int, int]
"""Which of the blocks (log-sigmoids, tails, intervals), and which row of it."""


def log_probabilities(requests: Sequence[tuple[Prediction, Cells]]) -> Tensor:
    """Log-probabilities of many cell sets at once, with few tensor operations.

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


def _yes_logit(prediction: YesNo, cells: Cells) -> Tensor:
    if True in cells:
        return torch.full_like(prediction.logit, math.inf) if False in cells else prediction.logit
    return -prediction.logit if False in cells else torch.full_like(prediction.logit, -math.inf)


def _set_logit(prediction: Categorical, cells: Cells) -> Tensor:
    inside = [index for index, value in enumerate(prediction.values) if value in cells]
    outside = [index for index, value in enumerate(prediction.values) if value not in cells]
    if not inside or not outside:
        return torch.full_like(prediction.logits[:, 0], math.inf if inside else -math.inf)
    return _log_sum(prediction.logits, inside) - _log_sum(prediction.logits, outside)


def _log_sum(logits: Tensor, indices: list[int]) -> Tensor:
    if len(indices) == 1:
        return logits[:, indices[0]]
    return torch.logsumexp(logits.index_select(1, _index(tuple(indices), logits.device)), dim=1)


@lru_cache(maxsize=1024)
def _index(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Kept, because copying a list to a device takes longer than all else here."""
    with torch.inference_mode(False):  # a tensor made in inference mode could not serve a gradient
        return torch.tensor(indices, device=device)


def _intervals(
    prediction: Continuous, cells: Cells, tails: list[Tensor], intervals: list[tuple[Tensor, Tensor]]
) -> list[_Place]:
    """Adds what the intervals need to `tails` and `intervals`; returns where."""
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
