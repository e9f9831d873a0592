"""Predictions of attributes, a class for each kind with all that needs tensors, and the layout of raw outputs.

Other code calls methods of a prediction, or of the class of a kind, `PREDICTIONS[spec.kind]`. The parts that need no
tensors are in `energyql.kinds`.

A cell set is plain data, made by `energyql.kinds`: yes/no values, classes or intervals. All values and gradients are
finite in float32, also where a probability is far below the smallest float, because log-probabilities are never
computed from probabilities.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from energyql.kinds import KINDS, Cell
from energyql.numerics.normal import log_normal_cdf, log_normal_interval
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

Cells = Sequence[Cell]
Array = npt.NDArray[np.float64]
Table = Array | dict[str, Array] | tuple[Array, Array]
"""Predictions of one attribute as arrays (batch,): P(yes), class -> P(class), or (mean, std)."""

_Place = tuple[int, int]
"""A block of `_Blocks` by number (0 logits, 1 tails, 2 intervals), and a row of it."""


@dataclass
class _Blocks:
    """Arguments, (batch,) each, of log-sigmoid, `log_normal_cdf` and `log_normal_interval` (middle and width)."""

    logits: list[Tensor] = field(default_factory=list)
    tails: list[Tensor] = field(default_factory=list)
    intervals: list[tuple[Tensor, Tensor]] = field(default_factory=list)


class Prediction(ABC):
    """A distribution of one attribute's value for each sample, and how its kind is predicted.

    In the methods, the number of a value is 0 for no and 1 for yes, the index of a class, or the value of a continuous
    attribute. Outputs are those of a head, `(batch, outputs)`. The defaults of methods are for kinds with classes.

    Attributes:
        kind: name of the kind.
        elementwise: whether each attribute has one output, so that many are computed in one operation.
    """

    __slots__ = ()
    kind: ClassVar[str]
    elementwise: ClassVar[bool] = False

    def log_probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return log P(the value is in one of the cells), `(batch,)`, in nats; cells do not overlap."""
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return P(the value is in one of the cells), `(batch,)`; cells do not overlap."""
        return self.log_probability(cells).exp()

    @abstractmethod
    def place(self, cells: Cells, blocks: _Blocks) -> list[_Place]:
        """Add the terms of P(cells) to the blocks, and return their places; P(cells) is the sum of the terms."""

    @abstractmethod
    def number(self) -> Tensor:
        """Return the number of the likeliest value, (batch,); the mean of a continuous attribute."""

    @abstractmethod
    def decide(self) -> npt.NDArray[Any]:
        """Return the likeliest value, (batch,) bool, class names or float64."""

    @abstractmethod
    def table(self) -> Table:
        """Return the prediction as float64 arrays."""

    @abstractmethod
    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        """Return the name of each tensor, the tensor, and the shape that it must have."""

    def to(self, like: Tensor) -> Prediction:
        """Return the prediction on the device and in the dtype of a tensor."""
        return self.mapped(lambda tensor: tensor.to(like))

    def at(self, rows: Tensor) -> Prediction:
        """Return the prediction for some of the samples, on the CPU; `rows` is (batch,) bool."""
        return self.mapped(lambda tensor: tensor[rows].cpu() if tensor.ndim else tensor.cpu())

    @abstractmethod
    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        """Return the prediction with a function applied to its tensors."""

    @abstractmethod
    def columns(self) -> Float[Tensor, "batch columns"]:
        """Return the outputs, followed by the standard deviation of a continuous attribute."""

    def log_each(self, values: Sequence[bool | str]) -> list[Float[Tensor, " batch"]]:
        """Return log P of each of some values, each as a tensor of its own."""
        raise NotImplementedError

    @abstractmethod
    def log_mass(self) -> Float[Tensor, " batch"]:
        """Return the log-sum-exp of the logits; 0 for a kind without logits."""

    @abstractmethod
    def certainty(self) -> Float[Tensor, " batch"]:
        """Return the probability of the likeliest value; 1 for a continuous attribute."""

    def leads(self) -> list[Float[Tensor, " batch"]]:
        """Return the logit of each class minus the largest logit of the others; an empty list for other kinds."""
        return []

    @abstractmethod
    def titled(self, name: str) -> tuple[list[str], Tensor]:
        """Return titles and their numbers, (batch,) or (batch, titles), to which directions of latents are fitted."""

    def outcomes(self, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Return predicted probabilities of values, and whether `labels`, numbers of values, agree; of equal shape."""
        raise NotImplementedError

    def scores(self, labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return a score for each sample, given `labels`, numbers of values.

        The quality is the mean of the scores, over classes for kinds with classes, else over samples.
        """
        return (self.number() == labels).float()

    @classmethod
    def fits(cls, value: object, spec: AttributeSpec) -> bool:
        """Return whether a value is a prediction of an attribute of this kind."""
        return isinstance(value, cls)

    @classmethod
    def output_count(cls, spec: AttributeSpec) -> int:
        """Return the number of outputs of an attribute: one logit, one logit per class, or one mean."""
        return 1

    @classmethod
    @abstractmethod
    def of_outputs(cls, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Prediction:
        """Return the prediction with these outputs; `std` is the standard deviation of a continuous attribute."""

    @classmethod
    @abstractmethod
    def of_table(cls, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Prediction:
        """Return the prediction whose `table` holds these columns, in this order."""

    @classmethod
    @abstractmethod
    def certain(cls, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        """Return outputs that predict the values with these numbers, with logits of size `logit`."""

    @classmethod
    def decode(cls, numbers: Array, spec: AttributeSpec) -> npt.NDArray[Any]:
        """Return the values with these numbers, (batch,) bool, class names or float64."""
        return np.asarray(np.array(KINDS[spec.kind].values(spec))[numbers.astype(int)])

    @classmethod
    @abstractmethod
    def losses(cls, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Return minus the log-likelihood of labels, in nats; see `energyql.training.heads.attribute_loss`."""

    @classmethod
    @abstractmethod
    def divergence(cls, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return KL(P(value | then) || P(value | now)) of outputs, and its derivative with respect to `now`.

        Outputs are of one attribute, or of several that are `elementwise`: the divergence is (batch, attributes).
        """

    @classmethod
    def base_outputs(
        cls, labels: Float[Tensor, " batch"], spec: AttributeSpec, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        """Return scale and offset of the outputs, (outputs,) each: the offset predicts the frequencies of the labels.

        If `balanced` is true, it predicts equal frequencies of classes.
        """
        count = cls.output_count(spec)
        scale, offset = torch.ones(count, device=labels.device), torch.zeros(count, device=labels.device)
        if not balanced:
            # Half a label more of each class keeps the logit of an absent class finite.
            shares = torch.bincount(labels.long(), minlength=len(KINDS[spec.kind].classes(spec))).float() + 0.5
            offset = cls.logits_of((shares / shares.sum()).log())
        return scale, offset

    @classmethod
    def logits_of(cls, logs: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        """Return the outputs for which the classes have these log-probabilities."""
        return logs

    @classmethod
    def shift_of(cls, weights: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        """Return the shift in outputs that weights of the classes in the loss cause."""
        return weights.log()


@dataclass(frozen=True, slots=True)
class YesNo(Prediction):
    """`P(yes) = sigmoid(logit)`; logit `(batch,)`; cells are `True` and `False`."""

    kind, elementwise = "yes/no", True
    logit: Float[Tensor, " batch"]

    def place(self, cells: Cells, blocks: _Blocks) -> list[_Place]:
        if True in cells:
            row = torch.full_like(self.logit, math.inf) if False in cells else self.logit
        else:
            row = -self.logit if False in cells else torch.full_like(self.logit, -math.inf)
        blocks.logits.append(row)
        return [(0, len(blocks.logits) - 1)]

    def number(self) -> Tensor:
        return (self.logit > 0).long()

    def decide(self) -> npt.NDArray[Any]:
        return (self.logit > 0).cpu().numpy()

    def table(self) -> Table:
        return self.logit.double().sigmoid().cpu().numpy()

    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        return [("logit", self.logit, (batch,))]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        return YesNo(function(self.logit))

    def columns(self) -> Float[Tensor, "batch columns"]:
        return self.logit[:, None]

    def log_each(self, values: Sequence[bool | str]) -> list[Float[Tensor, " batch"]]:
        # Not as a log-sigmoid, which exporters write as the logarithm of a number that can be 0.
        return [-softplus(-self.logit if value else self.logit) for value in values]

    def log_mass(self) -> Float[Tensor, " batch"]:
        return softplus(self.logit) - self.logit / 2

    def certainty(self) -> Float[Tensor, " batch"]:
        return self.logit.abs().sigmoid()

    def leads(self) -> list[Float[Tensor, " batch"]]:
        return [self.logit, -self.logit]

    def titled(self, name: str) -> tuple[list[str], Tensor]:
        return [name], self.logit

    def outcomes(self, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        return self.logit.sigmoid(), labels

    @classmethod
    def of_outputs(cls, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Prediction:
        return cls(outputs[:, 0])

    @classmethod
    def of_table(cls, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Prediction:
        (yes,) = columns
        return cls(yes.log() - torch.log1p(-yes))  # infinite for 0 and 1, which the log-sigmoid takes

    @classmethod
    def certain(cls, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return (logit * (2 * numbers - 1))[:, None]

    @classmethod
    def losses(cls, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")

    @classmethod
    def divergence(cls, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        p = then.sigmoid()
        divergence = p * (F.softplus(-now) - F.softplus(-then)) + (1 - p) * (F.softplus(now) - F.softplus(then))
        return divergence, now.sigmoid() - p

    @classmethod
    def logits_of(cls, logs: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        return logs[1:] - logs[:1]

    @classmethod
    def shift_of(cls, weights: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        return (weights[1] / weights[0]).log().reshape(1)


@dataclass(frozen=True, slots=True)
class Categorical(Prediction):
    """`P(value k) = softmax(logits)_k`; logits `(batch, K)`; values are the K class names, of which cells are some."""

    kind = "categorical"
    logits: Float[Tensor, "batch classes"]
    values: tuple[str, ...]

    def place(self, cells: Cells, blocks: _Blocks) -> list[_Place]:
        inside = [index for index, value in enumerate(self.values) if value in cells]
        outside = [index for index, value in enumerate(self.values) if value not in cells]
        if not inside or not outside:
            row = torch.full_like(self.logits[:, 0], math.inf if inside else -math.inf)
        else:
            row = _log_sum(self.logits, inside) - _log_sum(self.logits, outside)
        blocks.logits.append(row)
        return [(0, len(blocks.logits) - 1)]

    def number(self) -> Tensor:
        return self.logits.argmax(1)

    def decide(self) -> npt.NDArray[Any]:
        return np.asarray(np.array(self.values)[self.number().cpu().numpy()])

    def table(self) -> Table:
        columns = self.logits.double().softmax(1).cpu().numpy()
        return {value: columns[:, k] for k, value in enumerate(self.values)}

    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        return [("logits", self.logits, (batch, len(self.values)))]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        return type(self)(function(self.logits), self.values)

    def columns(self) -> Float[Tensor, "batch columns"]:
        return self.logits

    def log_each(self, values: Sequence[bool | str]) -> list[Float[Tensor, " batch"]]:
        classes = torch.log_softmax(self.logits, dim=1)
        return [classes[:, self.values.index(str(value))] for value in values]

    def log_mass(self) -> Float[Tensor, " batch"]:
        return self.logits.logsumexp(1)

    def certainty(self) -> Float[Tensor, " batch"]:
        return self.logits.softmax(1).amax(1)

    def leads(self) -> list[Float[Tensor, " batch"]]:
        others = [torch.cat([self.logits[:, :k], self.logits[:, k + 1 :]], 1) for k in range(self.logits.shape[1])]
        return [self.logits[:, k] - other.amax(1) for k, other in enumerate(others)]

    def titled(self, name: str) -> tuple[list[str], Tensor]:
        return [f"{name} = {value}" for value in self.values], self.logits

    def outcomes(self, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        return self.logits.softmax(1).flatten(), F.one_hot(labels.long(), len(self.values)).float().flatten()

    @classmethod
    def fits(cls, value: object, spec: AttributeSpec) -> bool:
        return isinstance(value, cls) and value.values == spec.values

    @classmethod
    def output_count(cls, spec: AttributeSpec) -> int:
        return len(spec.values)

    @classmethod
    def of_outputs(cls, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Prediction:
        return cls(outputs, spec.values)

    @classmethod
    def of_table(cls, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Prediction:
        return cls(torch.stack(list(columns), dim=1).log(), spec.values)

    @classmethod
    def certain(cls, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return logit * (numbers[:, None] == torch.arange(len(spec.values), device=numbers.device)).to(numbers)

    @classmethod
    def losses(cls, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        return F.cross_entropy(outputs, labels.long(), reduction="none")

    @classmethod
    def divergence(cls, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        p, log_p, log_q = then.softmax(1), then.log_softmax(1), now.log_softmax(1)
        return (p * (log_p - log_q)).sum(1, keepdim=True), log_q.exp() - p


@dataclass(frozen=True, slots=True)
class Continuous(Prediction):
    """A normal with `mean` `(batch,)` and positive `std`, `(batch,)` or a scalar; cells are intervals (low, high)."""

    kind, elementwise = "continuous", True
    mean: Float[Tensor, " batch"]
    std: Float[Tensor, "*batch"] | float

    def place(self, cells: Cells, blocks: _Blocks) -> list[_Place]:
        """Add the standardised bounds of each interval to the blocks, and return their places."""
        mean, std, tails, intervals = self.mean, self.std, blocks.tails, blocks.intervals
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

    def number(self) -> Tensor:
        return self.mean

    def decide(self) -> npt.NDArray[Any]:
        return self.mean.double().cpu().numpy()

    def table(self) -> Table:
        std = torch.as_tensor(self.std, dtype=torch.float64).expand(self.mean.shape)
        return self.mean.double().cpu().numpy(), std.cpu().numpy()

    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        spread = [self.std] if isinstance(self.std, Tensor) and self.std.ndim else []
        return [("mean", self.mean, (batch,)), *(("std", tensor, (batch,)) for tensor in spread)]

    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        return Continuous(function(self.mean), function(torch.as_tensor(self.std)))

    def columns(self) -> Float[Tensor, "batch columns"]:
        std = torch.as_tensor(self.std, device=self.mean.device).expand(self.mean.shape)
        return torch.stack([self.mean, std], 1)

    def log_mass(self) -> Float[Tensor, " batch"]:
        return torch.zeros_like(self.mean)

    def certainty(self) -> Float[Tensor, " batch"]:
        return torch.ones_like(self.mean)

    def titled(self, name: str) -> tuple[list[str], Tensor]:
        return [name], self.mean

    def scores(self, labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        spread = (labels - labels.mean()).square().mean().clamp(min=1e-12)
        return 1 - (labels - self.mean).square() / spread

    @classmethod
    def of_outputs(cls, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Prediction:
        return cls(outputs[:, 0], std)

    @classmethod
    def of_table(cls, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Prediction:
        return cls(*columns)

    @classmethod
    def certain(cls, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return numbers[:, None]

    @classmethod
    def decode(cls, numbers: Array, spec: AttributeSpec) -> npt.NDArray[Any]:
        return numbers.astype(np.float64)

    @classmethod
    def losses(cls, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Return half the squared errors in units of a tenth of the range."""
        return 0.5 * ((outputs[:, 0] - labels) / (0.1 * (spec.high - spec.low))).square()

    @classmethod
    def divergence(cls, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        difference = (now - then) / std
        return difference.square() / 2, difference / std

    @classmethod
    def base_outputs(
        cls, labels: Float[Tensor, " batch"], spec: AttributeSpec, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        scale = labels.std(correction=0).clamp(min=1e-3 * (spec.high - spec.low))
        return scale.reshape(1), labels.mean().reshape(1)


PREDICTIONS: dict[str, type[Prediction]] = {each.kind: each for each in (YesNo, Categorical, Continuous)}
"""The class of the predictions of each kind."""


def log_probabilities(requests: Sequence[tuple[Prediction, Cells]]) -> Float[Tensor, "requests batch"]:
    """Compute the log-probabilities of many cell sets at once, with few tensor operations.

    Args:
        requests: predictions of one batch, each with a cell set; at least one.

    Returns:
        `(len(requests), batch)`, in nats, at most 0. The empty cell set gives -infinity and the full one 0.
    """
    # A class set S is a yes/no question with logit lse(S) - lse(not S), so both kinds share one log-sigmoid: exact
    # near probability 0 and near probability 1. Intervals share one log-CDF and one log-interval.
    arguments = _Blocks()
    places = [prediction.place(cells, arguments) for prediction, cells in requests]
    logits, tails, intervals = arguments.logits, arguments.tails, arguments.intervals
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


def _log_sum(logits: Float[Tensor, "batch classes"], indices: list[int]) -> Float[Tensor, " batch"]:
    if len(indices) == 1:
        return logits[:, indices[0]]
    return torch.logsumexp(logits.index_select(1, _index(tuple(indices), logits.device)), dim=1)


@lru_cache(maxsize=1024)
def _index(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Return indices as a tensor, which is cached: a copy to a device takes longer than the rest of the computation."""
    with torch.inference_mode(False):  # tensors made in inference mode have no gradients
        return torch.tensor(indices, device=device)


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
