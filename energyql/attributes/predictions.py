"""Predictions of attributes (`YesNo`, `Categorical`, `Continuous`), and how heads make and learn them (`HEAD_KINDS`).

All code that depends on the kind of an attribute and needs tensors is here; `energyql.kinds` has what needs none.
Log-probabilities of possible values, and their gradients, are finite in float32 even where a probability is below the
smallest float, because they are never computed from probabilities.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from energyql.kinds import KINDS, Cell
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.normal import log_normal_cdf, log_normal_interval
from energyql.numerics.pool import to_cpu
from energyql.numerics.shapes import Float
from energyql.vocabulary import AttributeSpec

Cells = Sequence[Cell]
Array = npt.NDArray[np.float64]
Table = Array | dict[str, Array] | tuple[Array, Array]
"""Predictions of one attribute as arrays (batch,): P(yes), a dict class -> P(class), or a pair (mean, standard
deviation)."""


def table_columns(name: str, table: Any) -> dict[str, Any]:
    """Columns of a `Table`, or of one from JSON, by name: "smile", or "hair=red" etc., or "age.mean" and "age.std"."""
    if isinstance(table, dict):
        return {f"{name}={value}": column for value, column in table.items()}
    if isinstance(table, list | tuple):
        return {f"{name}.mean": table[0], f"{name}.std": table[1]}
    return {name: table}


Term = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A probability that is not computed yet: a function to its logarithm, and the function's arguments, (batch,) each.
Terms with the same function are computed together."""


class Prediction(ABC):
    """Predicted distributions of the value of one attribute, one for each sample of a batch.

    There is a derived class for each kind; this one does what is right for classes. Cells are sets of values that do
    not overlap: True, False, a class, or an interval (low, high).

    Attributes:
        kind: name of the kind of attribute.
    """

    __slots__ = ()
    kind: ClassVar[str]

    def log_probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Logarithm, in nats, of the probability that the value is in one of `cells`, (batch,).

        Cells are sets of values: True, False, a class, or an interval (low, high). They must not overlap.
        """
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Probability that the value is in one of `cells`, (batch,); see `log_probability`."""
        return self.log_probability(cells).exp()

    @abstractmethod
    def terms(self, cells: Cells) -> list[Term]:
        """Probabilities, not computed yet, whose sum is P(the value is in one of `cells`)."""

    @abstractmethod
    def number(self) -> Tensor:
        """The likeliest value of each sample, (batch,), as a number: 0 or 1, index of a class, or mean."""

    @abstractmethod
    def decide(self) -> npt.NDArray[Any]:
        """The likeliest value of each sample, (batch,): bools, names of classes, or float64 means."""

    @abstractmethod
    def table(self) -> Table:
        """The prediction as float64 arrays: P(yes), a dict class -> P(class), or a pair (mean, std)."""

    @abstractmethod
    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        """Name, tensor and right shape of each tensor, to check shapes; a deviation for all samples is left out."""

    def to(self, like: Tensor) -> Prediction:
        """The same prediction on the device and in the dtype of the tensor `like`."""
        return self.mapped(lambda tensor: tensor.to(like))

    @abstractmethod
    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        """The prediction with `function` applied to its tensors."""

    @abstractmethod
    def columns(self) -> Float[Tensor, "batch columns"]:
        """The logits as columns of one tensor, or mean and standard deviation; the inverse of `of_columns`."""

    def log_each(self, values: Sequence[bool | str]) -> list[Float[Tensor, " batch"]]:
        """Logarithm of P(value), (batch,), in nats, for each of `values` (bools or classes); not for numbers."""
        raise NotImplementedError

    @abstractmethod
    def log_mass(self) -> Float[Tensor, " batch"]:
        """Logarithm of the sum of exp(logit) over all classes; 0 for a continuous attribute.

        The classes of a yes/no attribute have the logits logit/2 and -logit/2. Under the semantics "jem", which takes
        logits as negative energies of latent and class together, queries add this number to log P(query | z).
        """

    @abstractmethod
    def certainty(self) -> Float[Tensor, " batch"]:
        """Probability of the likeliest value of each sample; 1 for a continuous attribute."""

    def leads(self) -> list[Float[Tensor, " batch"]]:
        """For each class, its logit minus the largest of the others: [logit, -logit] for yes/no, [] for numbers.

        Near 0, the prediction is unsure whether the value is this class.
        """
        return []

    def titled(self, name: str) -> tuple[list[str], Tensor]:
        """Titles and numbers to which directions in latent space are fitted.

        For classes, they are titles such as "hair = red" and the logits, (batch, classes); else `name` and the logit or
        mean.
        """
        return [name], self.columns()[:, 0]


@dataclass(frozen=True, slots=True)
class YesNo(Prediction):
    """A prediction of a yes/no attribute.

    Attributes:
        logit: log-odds of yes, (batch,), so that `P(yes) = sigmoid(logit)`.
    """

    kind = "yes/no"
    logit: Float[Tensor, " batch"]

    def terms(self, cells: Cells) -> list[Term]:
        yes, no = True in cells, False in cells
        if yes == no:
            return [(logsigmoid, (torch.full_like(self.logit, math.inf if yes else -math.inf),))]
        return [(logsigmoid, (self.logit if yes else -self.logit,))]

    def number(self) -> Tensor:
        return (self.logit > 0).long()

    def decide(self) -> npt.NDArray[Any]:
        return (self.logit > 0).cpu().numpy()

    def table(self) -> Table:
        # In whole vectors, because the last numbers of others round differently.
        sizes = few_sizes(len(self.logit))
        (yes,) = in_batches(lambda rows: (rows.double().sigmoid(),), self.logit[:, None], sizes)
        return yes[:, 0].cpu().numpy()

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


@dataclass(frozen=True, slots=True)
class Categorical(Prediction):
    """A prediction of one of K classes: `P(class k) = softmax(logits)_k`.

    Attributes:
        logits: (batch, K).
        values: names of the K classes.
    """

    kind = "categorical"
    logits: Float[Tensor, "batch classes"]
    values: tuple[str, ...]

    def terms(self, cells: Cells) -> list[Term]:
        # The set S is a yes/no question with the logit lse(S) - lse(not S).
        inside = [index for index, value in enumerate(self.values) if value in cells]
        outside = [index for index, value in enumerate(self.values) if value not in cells]
        if not inside or not outside:
            return [(logsigmoid, (torch.full_like(self.logits[:, 0], math.inf if inside else -math.inf),))]
        return [(logsigmoid, (_log_sum(self.logits, inside) - _log_sum(self.logits, outside),))]

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


@dataclass(frozen=True, slots=True)
class Continuous(Prediction):
    """A prediction of a continuous attribute: a normal distribution of its value, for each sample of a batch.

    Attributes:
        mean: means, (batch,).
        std: standard deviations, (batch,), or one for all samples; above 0.
    """

    kind = "continuous"
    mean: Float[Tensor, " batch"]
    std: Float[Tensor, "*batch"] | float

    def terms(self, cells: Cells) -> list[Term]:
        mean, std = self.mean, self.std
        terms: list[Term] = []
        for cell in cells:
            assert isinstance(cell, tuple)
            low, high = cell
            if math.isinf(low) and math.isinf(high):
                terms.append((log_normal_cdf, (torch.full_like(mean, math.inf),)))
            elif math.isinf(low) or math.isinf(high):
                terms.append((log_normal_cdf, ((high - mean) / std if math.isinf(low) else (mean - low) / std,)))
            else:
                width = torch.as_tensor((high - low) / std, dtype=mean.dtype, device=mean.device).expand_as(mean)
                terms.append((log_normal_interval, (((low + high) / 2 - mean) / std, width)))
        return terms or [(log_normal_cdf, (torch.full_like(mean, -math.inf),))]

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


P = TypeVar("P", bound=Prediction)


class HeadKind(ABC, Generic[P]):
    """How heads of one kind of attribute are read, fitted and measured, with one object for each kind.

    The outputs of a head are a tensor (batch, outputs): one logit for yes/no, a logit for each class, or one mean.
    Labels are numbers: 0 for no and 1 for yes, the index of a class, or the value of a continuous attribute. This class
    does what is right for classes.

    Attributes:
        prediction: the class of predictions of this kind.
        elementwise: whether a head of this kind has one output; outputs of several such heads are computed together.
    """

    prediction: type[P]
    elementwise = False

    def outcomes(self, prediction: P, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Predicted probabilities of values, and for each 1 if the value is the label, else 0, to measure calibration.

        They are (batch,), P(yes) and the label, or (batch * classes,); not for continuous attributes.
        """
        raise NotImplementedError

    def scores(self, prediction: P, labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Scores of the samples, from which the quality of a head is computed.

        For classes, 1 if the likeliest value is the label, else 0; the balanced accuracy is the mean over classes. For
        numbers, 1 - squared error / variance of the labels; R2 is the mean.
        """
        return (prediction.number() == labels).float()

    def fits(self, value: object, spec: AttributeSpec) -> bool:
        """Whether a value is a prediction of this class, with the classes of the attribute, if any."""
        return isinstance(value, self.prediction)

    def output_count(self, spec: AttributeSpec) -> int:
        """Number of outputs of a head of the attribute."""
        return 1

    @abstractmethod
    def of_outputs(self, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> P:
        """Make the prediction of one attribute from outputs of its head, (batch, outputs); `std` is for numbers."""

    @abstractmethod
    def of_table(self, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> P:
        """Make the prediction of one attribute from the columns of a `Table`: probabilities, or mean and deviation."""

    @abstractmethod
    def certain(self, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        """Outputs of a head that is almost sure of given values: `logit` for yes or the class, `-logit` for no.

        Outputs of other classes are 0; a continuous value is its own output. `logit` is a positive number.
        """

    def decode(self, numbers: Array, spec: AttributeSpec) -> npt.NDArray[Any]:
        """The values that numbers stand for, (batch,): bools, names of classes, or float64."""
        return np.asarray(np.array(KINDS[spec.kind].values(spec))[numbers.astype(int)])

    @abstractmethod
    def losses(self, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Training loss of each sample, from outputs of the head and labels: minus the log-likelihood, in nats.

        For a continuous attribute, it is half the squared error, with errors in tenths of the attribute's range.
        """

    @abstractmethod
    def divergence(self, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """KL divergence between predictions, in nats, (batch, attributes), and its derivative with respect to `now`.

        It is KL(P(value | then) || P(value | now)); edits measure by it how much a prediction has changed. The outputs
        `now` and `then` are those of one attribute, (batch, outputs), or, for an `elementwise` kind, of several,
        (batch, attributes). `std` is for continuous attributes.
        """

    def base_outputs(
        self, labels: Float[Tensor, " batch"], spec: AttributeSpec, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        """Scale and offset, (outputs,) each, by which a network in training turns its numbers x into a head's outputs.

        x = 0 then predicts the mean of the labels, or the frequencies of their classes; equal ones if `balanced`.
        """
        count = self.output_count(spec)
        scale, offset = torch.ones(count, device=labels.device), torch.zeros(count, device=labels.device)
        if not balanced:
            # Half a label more of each class keeps the logit of an absent class finite.
            shares = torch.bincount(labels.long(), minlength=len(KINDS[spec.kind].classes(spec))).float() + 0.5
            offset = self.logits_of((shares / shares.sum()).log())
        return scale, offset

    def logits_of(self, logs: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        """Outputs of a head, (outputs,), that predict the log-probabilities `logs` of the classes."""
        return logs

    def shift_of(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        """Shift of a head's outputs by weights of the classes in the loss; it is subtracted after the training."""
        return weights.log()


class _YesNoHeads(HeadKind[YesNo]):
    prediction, elementwise = YesNo, True

    def outcomes(self, prediction: YesNo, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        return prediction.logit.sigmoid(), labels

    def of_outputs(self, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> YesNo:
        return YesNo(outputs[:, 0])

    def of_table(self, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> YesNo:
        (yes,) = columns
        return YesNo(yes.log() - torch.log1p(-yes))  # infinite for 0 and 1, which the log-sigmoid takes

    def certain(self, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return (logit * (2 * numbers - 1))[:, None]

    def losses(self, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")

    def divergence(self, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        p = then.sigmoid()
        divergence = p * (F.softplus(-now) - F.softplus(-then)) + (1 - p) * (F.softplus(now) - F.softplus(then))
        return divergence, now.sigmoid() - p

    def logits_of(self, logs: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        return logs[1:] - logs[:1]

    def shift_of(self, weights: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        return (weights[1] / weights[0]).log().reshape(1)


class _CategoricalHeads(HeadKind[Categorical]):
    prediction = Categorical

    def outcomes(self, prediction: Categorical, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        return prediction.logits.softmax(1).flatten(), F.one_hot(
            labels.long(), len(prediction.values)
        ).float().flatten()

    def fits(self, value: object, spec: AttributeSpec) -> bool:
        return isinstance(value, self.prediction) and value.values == spec.values

    def output_count(self, spec: AttributeSpec) -> int:
        return len(spec.values)

    def of_outputs(self, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Categorical:
        return self.prediction(outputs, spec.values)

    def of_table(self, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Categorical:
        return self.prediction(torch.stack(list(columns), dim=1).log(), spec.values)

    def certain(self, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return logit * (numbers[:, None] == torch.arange(len(spec.values), device=numbers.device)).to(numbers)

    def losses(self, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        return F.cross_entropy(outputs, labels.long(), reduction="none")

    def divergence(self, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        p, log_p, log_q = then.softmax(1), then.log_softmax(1), now.log_softmax(1)
        return (p * (log_p - log_q)).sum(1, keepdim=True), log_q.exp() - p


class _ContinuousHeads(HeadKind[Continuous]):
    prediction, elementwise = Continuous, True

    def scores(self, prediction: Continuous, labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        spread = (labels - labels.mean()).square().mean().clamp(min=1e-12)
        return 1 - (labels - prediction.mean).square() / spread

    def of_outputs(self, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Continuous:
        return Continuous(outputs[:, 0], std)

    def of_table(self, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Continuous:
        return Continuous(*columns)

    def certain(self, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        return numbers[:, None]

    def decode(self, numbers: Array, spec: AttributeSpec) -> npt.NDArray[Any]:
        return numbers.astype(np.float64)

    def losses(self, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Half the squared error of each sample, in units of (a tenth of the attribute's range)²."""
        return 0.5 * ((outputs[:, 0] - labels) / (0.1 * (spec.high - spec.low))).square()

    def divergence(self, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        difference = (now - then) / std
        return difference.square() / 2, difference / std

    def base_outputs(
        self, labels: Float[Tensor, " batch"], spec: AttributeSpec, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        scale = labels.std(correction=0).clamp(min=1e-3 * (spec.high - spec.low))
        return scale.reshape(1), labels.mean().reshape(1)


HEAD_KINDS: dict[str, HeadKind[Any]] = {
    each.prediction.kind: each for each in (_YesNoHeads(), _CategoricalHeads(), _ContinuousHeads())
}
"""Name of a kind of attribute -> how its heads are read, fitted and measured."""


def log_probabilities(requests: Sequence[tuple[Prediction, Cells]]) -> Float[Tensor, "requests batch"]:
    """Compute many log-probabilities together, (requests, batch), in nats, with few tensor operations.

    Each request is a prediction of the same batch and cells that do not overlap. The result is at most 0, -infinity if
    there are no cells, and 0 if they cover all values.
    """
    groups: dict[Callable[..., Tensor], list[tuple[Tensor, ...]]] = {}
    places: list[list[tuple[Callable[..., Tensor], int]]] = []
    for prediction, cells in requests:
        places.append([])
        for function, arguments in prediction.terms(cells):
            group = groups.setdefault(function, [])
            places[-1].append((function, len(group)))
            group.append(arguments)
    logs = {function: function(*map(torch.stack, zip(*group, strict=True))) for function, group in groups.items()}
    if len(logs) == 1 and all(len(place) == 1 for place in places):
        return logs.popitem()[1]
    # No complement is needed: each part is accurate by itself, and parts exclude one another.
    parts = [[logs[function][index] for function, index in place] for place in places]
    return torch.stack([part[0] if len(part) == 1 else torch.logsumexp(torch.stack(part), 0) for part in parts])


def _log_sum(logits: Float[Tensor, "batch classes"], indices: list[int]) -> Float[Tensor, " batch"]:
    if len(indices) == 1:
        return logits[:, indices[0]]
    return torch.logsumexp(logits.index_select(1, _index(tuple(indices), logits.device)), dim=1)


@lru_cache(maxsize=1024)
def _index(indices: tuple[int, ...], device: torch.device) -> Tensor:
    """Indices as a tensor on a device; cached, because a copy to a GPU takes long."""
    with torch.inference_mode(False):  # tensors made in inference mode have no gradients
        return torch.tensor(indices, device=device)


Predictions = Mapping[str, Prediction]
Readings = TypeVar("Readings")


def output_count(spec: AttributeSpec) -> int:
    """Number of outputs that a head of the attribute has: one logit, one for each class, or one mean."""
    return HEAD_KINDS[spec.kind].output_count(spec)


def split_outputs(
    outputs: Float[Tensor, "batch outputs"], specs: Iterable[AttributeSpec], std: Mapping[str, Tensor | float]
) -> dict[str, Prediction]:
    """Split outputs of several heads, side by side in the order of `specs`, into one prediction for each attribute."""
    predictions: dict[str, Prediction] = {}
    start = 0
    for spec in specs:
        columns = outputs[:, start : start + output_count(spec)]
        start += columns.shape[1]
        spread = std[spec.name] if KINDS[spec.kind].numeric else 1.0
        predictions[spec.name] = HEAD_KINDS[spec.kind].of_outputs(columns, spec, spread)
    return predictions


def of_columns(columns: Float[Tensor, "batch columns"], spec: AttributeSpec) -> Prediction:
    """Make a prediction from the result of `Prediction.columns`."""
    made: Prediction = HEAD_KINDS[spec.kind].of_outputs(columns[:, : output_count(spec)], spec, columns[:, -1])
    return made


def on_cpu(values: Mapping[str, Readings]) -> dict[str, Readings]:
    """Copy the predictions and tensors in a dict to the CPU, in one transfer, because each waits; other values stay."""
    tensors: list[Tensor] = []

    def mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(value, Prediction):
            return value.mapped(function)
        return function(value) if isinstance(value, Tensor) else value

    def noted(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    same = {name: mapped(value, noted) for name, value in values.items()}
    moved = iter(to_cpu(tensors))
    return {name: mapped(value, lambda _: next(moved)) for name, value in same.items()}


def at_rows(value: Prediction | Tensor, rows: Tensor) -> Any:
    """A prediction, or numbers (batch,), on the CPU, for the samples where `rows`, (batch,) bool, is true."""
    if isinstance(value, Prediction):
        return value.mapped(lambda tensor: tensor[rows].cpu() if tensor.ndim else tensor.cpu())
    return value[rows].cpu()


def decide(predictions: Mapping[str, Prediction]) -> dict[str, npt.NDArray[Any]]:
    """For each attribute the likeliest values, (batch,): bools, names of classes, or float64 means."""
    return {name: prediction.decide() for name, prediction in on_cpu(predictions).items()}


def likeliest(table: Table) -> npt.NDArray[Any]:
    """The likeliest values in a `Table`, (batch,): bools, names of classes, or means."""
    if isinstance(table, tuple):
        return table[0]
    if not isinstance(table, dict):
        return np.asarray(table > 0.5)
    return np.asarray(np.array(list(table))[np.stack(list(table.values())).argmax(0)])


def tabulate(predictions: Mapping[str, Prediction]) -> dict[str, Table]:
    """The `Table` of each prediction, in the form that `energyql.score` takes."""
    return {name: prediction.table() for name, prediction in on_cpu(predictions).items()}
