"""Predictions of attributes, one class for each kind of attribute: `YesNo`, `Categorical` and `Continuous`.

The table `PREDICTIONS` has the class of each kind. A class has all code that depends on the kind and needs tensors;
`energyql.kinds` has the code that needs none. `split_outputs` makes predictions from the outputs of several heads.

A cell is a set of values of an attribute: True, False, a class, or an interval (low, high). Log-probabilities are never
computed from probabilities. So log-probabilities of cells that the attribute can take, and the gradients of these, are
finite in float32, even where a probability is below the smallest float.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, TypeVar

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
"""Predictions of one attribute as arrays (batch,). For yes/no it is P(yes). For a categorical attribute it is a dict
class -> P(class). For a continuous attribute it is a pair (mean, standard deviation)."""


def table_columns(name: str, table: Any) -> dict[str, Any]:
    """Return column name -> column of a table of predictions, for the attribute `name`.

    Args:
        name: what the names of the columns begin with, such as "hair" for the columns "hair=red" and "hair=gray".
        table: predictions as in `Table`, or as in a JSON file: numbers in place of arrays, a list in place of a pair.
    """
    if isinstance(table, dict):
        return {f"{name}={value}": column for value, column in table.items()}
    if isinstance(table, list | tuple):
        return {f"{name}.mean": table[0], f"{name}.std": table[1]}
    return {name: table}


Term = tuple[Callable[..., Tensor], tuple[Tensor, ...]]
"""A probability that is not computed yet: a pair (function, arguments). The function takes these arguments, (batch,)
each, and returns the logarithm of the probability. Terms with the same function are computed together, in one call."""


class Prediction(ABC):
    """Predicted distributions of the value of one attribute, one for each sample of a batch.

    There is a derived class for each kind of attribute. The outputs of a head are a tensor `(batch, outputs)`. A yes/no
    attribute has one output, a logit. A categorical attribute has one logit for each class. A continuous attribute has
    one output, the mean.

    In all methods, the number of a value is 0 for no and 1 for yes, the index of a class, or the value of a continuous
    attribute. Labels are given as such numbers. Methods of this class that are not abstract do what is right for
    attributes with classes; derived classes replace some of them.

    Attributes:
        kind: name of the kind of attribute.
        elementwise: whether a head of this kind has one output; outputs of several such heads are computed together.
    """

    __slots__ = ()
    kind: ClassVar[str]
    elementwise: ClassVar[bool] = False

    def log_probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return the logarithm, in nats, of the probability that the value is in one of `cells`, `(batch,)`.

        Cells are sets of values: True, False, a class, or an interval (low, high). They must not overlap.
        """
        return log_probabilities([(self, cells)])[0]

    def probability(self, cells: Cells) -> Float[Tensor, " batch"]:
        """Return the probability that the value is in one of `cells`, `(batch,)`.

        Cells are sets of values: True, False, a class, or an interval (low, high). They must not overlap.
        """
        return self.log_probability(cells).exp()

    @abstractmethod
    def terms(self, cells: Cells) -> list[Term]:
        """Return probabilities, not computed yet, whose sum is P(the value is in one of `cells`); see `Term`.

        Cells are sets of values: True, False, a class, or an interval (low, high). They must not overlap.
        """

    @abstractmethod
    def number(self) -> Tensor:
        """Return the likeliest value of each sample, (batch,), as a number: 0 or 1, index of a class, or mean."""

    @abstractmethod
    def decide(self) -> npt.NDArray[Any]:
        """Return the likeliest value of each sample as an array (batch,): bools, names of classes, or float64 means."""

    @abstractmethod
    def table(self) -> Table:
        """Return the prediction as float64 arrays: P(yes), or a dict class -> P(class), or a pair (mean, std)."""

    @abstractmethod
    def tensors(self, batch: int) -> list[tuple[str, Tensor, tuple[int, ...]]]:
        """Return a triple (name, tensor, right shape) for each tensor of the prediction, to check shapes.

        `batch` is the number of samples that the prediction should have. A standard deviation that is the same for all
        samples is left out.
        """

    def to(self, like: Tensor) -> Prediction:
        """Return the same prediction on the device and in the dtype of the tensor `like`."""
        return self.mapped(lambda tensor: tensor.to(like))

    def at(self, rows: Tensor) -> Prediction:
        """Return the prediction, on the CPU, for the samples where `rows`, (batch,) bool, is true."""
        return self.mapped(lambda tensor: tensor[rows].cpu() if tensor.ndim else tensor.cpu())

    @abstractmethod
    def mapped(self, function: Callable[[Tensor], Tensor]) -> Prediction:
        """Return a prediction whose tensors are the results of `function` for the tensors of this prediction."""

    @abstractmethod
    def columns(self) -> Float[Tensor, "batch columns"]:
        """Return the prediction as columns of one tensor, from which `of_columns` makes the prediction again.

        There is one column (the logit) for a yes/no attribute, a column (a logit) for each class of a categorical
        attribute, and two columns, mean and standard deviation, for a continuous attribute.
        """

    def log_each(self, values: Sequence[bool | str]) -> list[Float[Tensor, " batch"]]:
        """Return log P(value), (batch,), in nats, for each of `values` (bools or classes).

        Not for continuous attributes.
        """
        raise NotImplementedError

    @abstractmethod
    def log_mass(self) -> Float[Tensor, " batch"]:
        """Return the logarithm of the sum of exp(logit) over all classes; 0 for a continuous attribute.

        The two classes of a yes/no attribute have the logits logit/2 and -logit/2. Under the semantics "jem", which
        takes logits as negative energies of latent and class together, queries add this number to log P(query | z).
        """

    @abstractmethod
    def certainty(self) -> Float[Tensor, " batch"]:
        """Return the probability of the likeliest value of each sample; 1 for a continuous attribute."""

    def leads(self) -> list[Float[Tensor, " batch"]]:
        """Return for each class its logit minus the largest logit of the other classes.

        A number near 0 means that the prediction is unsure whether the value is this class. For a yes/no attribute the
        list is [logit, -logit], for a continuous attribute [].
        """
        return []

    def titled(self, name: str) -> tuple[list[str], Tensor]:
        """Return titles and numbers of the prediction, to which directions in latent space are fitted.

        For a categorical attribute, the numbers are the logits, (batch, classes), and each class has a title such as
        "hair = red". Otherwise the numbers are the logit or the mean, (batch,), and the only title is `name`, the name
        of the attribute.
        """
        return [name], self.columns()[:, 0]

    def outcomes(self, labels: Float[Tensor, " batch"]) -> tuple[Tensor, Tensor]:
        """Return two tensors: predicted probabilities of values, and for each of them 1 if the value is right, else 0.

        A value is right if it is the label. From the two tensors calibration is measured: how often values with some
        predicted probability are right. For a yes/no attribute the tensors are P(yes) and the labels, (batch,). For a
        categorical attribute they have an entry for each sample and class, (batch * classes,). Not for continuous
        attributes.

        `labels` are 0 or 1, or indices of classes.
        """
        raise NotImplementedError

    def scores(self, labels: Float[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return a score for each sample, from which the quality of a head is computed.

        For attributes with classes, the score is 1 if the likeliest value is the label, else 0. The mean of the scores
        of each class, averaged over classes, is the balanced accuracy. For a continuous attribute, the score is
        1 - squared error / variance of the labels, and the mean of the scores of all samples is R2.

        `labels` are numbers of values: 0 or 1, indices of classes, or the continuous values.
        """
        return (self.number() == labels).float()

    @classmethod
    def fits(cls, value: object, spec: AttributeSpec) -> bool:
        """Return whether `value` is a prediction of this class, and has the classes of the attribute `spec`, if any."""
        return isinstance(value, cls)

    @classmethod
    def output_count(cls, spec: AttributeSpec) -> int:
        """Return how many outputs a head of the attribute has: one logit, or one logit for each class, or one mean."""
        return 1

    @classmethod
    @abstractmethod
    def of_outputs(cls, outputs: Tensor, spec: AttributeSpec, std: Tensor | float) -> Prediction:
        """Make the prediction of one attribute from the outputs of a head.

        Args:
            outputs: logits or means, (batch, outputs).
            spec: the attribute.
            std: standard deviation of the prediction of a continuous attribute; other kinds ignore it.
        """

    @classmethod
    @abstractmethod
    def of_table(cls, columns: Sequence[Float[Tensor, " batch"]], spec: AttributeSpec) -> Prediction:
        """Make the prediction of one attribute from probabilities, as the method `table` returns them.

        Args:
            columns: one column with P(yes); or a column with P(class) for each class; or two columns, means and
                standard deviations.
            spec: the attribute.
        """

    @classmethod
    @abstractmethod
    def certain(cls, numbers: Float[Tensor, " batch"], spec: AttributeSpec, logit: float) -> Float[Tensor, "batch _"]:
        """Return the outputs that a head would have if it were almost sure of the given values of its attribute.

        - Yes/no: the output is `logit` for yes, and `-logit` for no.
        - Categorical: the output of the class that is the value is `logit`; the outputs of other classes are 0.
        - Continuous: the output is the value.

        Args:
            numbers: for each row, the value as a number: 1 for yes and 0 for no, the index of a class, or a continuous
                value.
            spec: the attribute.
            logit: a positive number; the larger it is, the nearer the probability of the value is to 1.
        """

    @classmethod
    def decode(cls, numbers: Array, spec: AttributeSpec) -> npt.NDArray[Any]:
        """Convert numbers to the values of an attribute, an array (batch,): bools, names of classes, or float64.

        Args:
            numbers: the values as numbers: 0 or 1, indices of classes, or continuous values.
            spec: the attribute.
        """
        return np.asarray(np.array(KINDS[spec.kind].values(spec))[numbers.astype(int)])

    @classmethod
    @abstractmethod
    def losses(cls, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Return the training loss of each sample.

        The loss is minus the log-likelihood of the label, in nats. For a continuous attribute, it is half the squared
        error, where errors are measured in tenths of the attribute's range.

        Args:
            outputs: outputs of the head, (batch, outputs).
            labels: numbers of values: 0 or 1, indices of classes, or continuous values.
            spec: the attribute.
        """

    @classmethod
    @abstractmethod
    def divergence(cls, now: Tensor, then: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Return the KL divergence between the predictions of two sets of outputs of a head, and its derivative.

        Edits use it to measure how much a prediction has changed.

        Args:
            now: outputs of one attribute, (batch, outputs). If the kind is `elementwise`, outputs of several attributes
                side by side, (batch, attributes).
            then: other outputs of the same shape.
            std: standard deviations of continuous attributes; other kinds ignore it.

        Returns:
            KL(P(value | then) || P(value | now)), in nats, (batch, attributes), and its derivative with respect to
            `now`, in the shape of `now`.
        """

    @classmethod
    def base_outputs(
        cls, labels: Float[Tensor, " batch"], spec: AttributeSpec, balanced: bool
    ) -> tuple[Tensor, Tensor]:
        """Return scale and offset, (outputs,) each, for the training of a head on labels.

        The network that is trained returns numbers x, and the outputs of the head are scale * x + offset. So x = 0
        predicts the mean of the labels, or the frequencies of their classes.

        Args:
            labels: numbers of values: 0 or 1, indices of classes, or continuous values.
            spec: the attribute.
            balanced: whether x = 0 predicts equal frequencies of all classes instead.
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
        """Return the outputs of a head, (outputs,), that predict the log-probabilities `logs` of the classes."""
        return logs

    @classmethod
    def shift_of(cls, weights: Float[Tensor, " classes"]) -> Float[Tensor, " outputs"]:
        """Return the shift of a head's outputs that is caused by weights of the classes in the training loss.

        A class with a larger weight in the loss gets larger logits. After the training, the shift is subtracted from
        the outputs, so that probabilities are right again. `weights` has the weight of each class.
        """
        return weights.log()


@dataclass(frozen=True, slots=True)
class YesNo(Prediction):
    """A prediction of a yes/no attribute.

    Attributes:
        logit: log-odds of yes, (batch,), so that `P(yes) = sigmoid(logit)`.
    """

    kind, elementwise = "yes/no", True
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
    """A prediction of a continuous attribute: a normal distribution of its value, for each sample of a batch.

    Attributes:
        mean: means, (batch,).
        std: standard deviations, (batch,), or one for all samples; above 0.
    """

    kind, elementwise = "continuous", True
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
        """Return half the squared error of each sample, in units of (a tenth of the attribute's range)²."""
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
"""The class of predictions of each kind, by the name of the kind."""


def log_probabilities(requests: Sequence[tuple[Prediction, Cells]]) -> Float[Tensor, "requests batch"]:
    """Compute many log-probabilities together, with few tensor operations.

    Args:
        requests: at least one pair of a prediction and cells (sets of its values) that do not overlap. All predictions
            are of the same batch.

    Returns:
        For each pair, log P(the value is in one of the cells), `(len(requests), batch)`, in nats, at most 0. It is
        -infinity if the pair has no cells, and 0 if its cells cover all values.
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
    """Return indices as a tensor on a device; the tensor is cached, because a copy to a GPU takes long."""
    with torch.inference_mode(False):  # tensors made in inference mode have no gradients
        return torch.tensor(indices, device=device)


Predictions = Mapping[str, Prediction]
Readings = TypeVar("Readings")


def output_count(spec: AttributeSpec) -> int:
    """Return how many outputs a head of the attribute has: one logit, or one logit for each class, or one mean."""
    return PREDICTIONS[spec.kind].output_count(spec)


def split_outputs(
    outputs: Float[Tensor, "batch outputs"], specs: Iterable[AttributeSpec], std: Mapping[str, Tensor | float]
) -> dict[str, Prediction]:
    """Split the outputs of several heads into one prediction for each attribute.

    Args:
        outputs: outputs of the heads side by side, in the order of `specs`. An attribute has `output_count(spec)`
            columns.
        specs: the attributes.
        std: standard deviation of the prediction of each continuous attribute, by name.

    Returns:
        Attribute -> prediction.
    """
    predictions: dict[str, Prediction] = {}
    start = 0
    for spec in specs:
        columns = outputs[:, start : start + output_count(spec)]
        start += columns.shape[1]
        spread = std[spec.name] if KINDS[spec.kind].numeric else 1.0
        predictions[spec.name] = PREDICTIONS[spec.kind].of_outputs(columns, spec, spread)
    return predictions


def of_columns(columns: Float[Tensor, "batch columns"], spec: AttributeSpec) -> Prediction:
    """Make a prediction from its columns; the inverse of the method `Prediction.columns`.

    Args:
        columns: the logit, or a logit for each class, or mean and standard deviation.
        spec: the attribute.
    """
    return PREDICTIONS[spec.kind].of_outputs(columns[:, : output_count(spec)], spec, columns[:, -1])


def on_cpu(values: Mapping[str, Readings]) -> dict[str, Readings]:
    """Return a copy of a dict, by attribute, with its predictions and tensors on the CPU; other values stay the same.

    All tensors are moved by one transfer, because each transfer waits for the device.
    """
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


def decide(predictions: Mapping[str, Prediction]) -> dict[str, npt.NDArray[Any]]:
    """Return for each attribute the likeliest values: array (batch,) of bools, names of classes, or float64 means."""
    return {name: prediction.decide() for name, prediction in on_cpu(predictions).items()}


def likeliest(table: Table) -> npt.NDArray[Any]:
    """Return the likeliest values of one attribute, an array (batch,) of bools, names of classes, or means.

    `table` has its predictions: P(yes), or a dict class -> P(class), or a pair (means, standard deviations).
    """
    if isinstance(table, tuple):
        return table[0]
    if not isinstance(table, dict):
        return np.asarray(table > 0.5)
    return np.asarray(np.array(list(table))[np.stack(list(table.values())).argmax(0)])


def tabulate(predictions: Mapping[str, Prediction]) -> dict[str, Table]:
    """Convert predictions, by attribute, to float64 arrays (batch,), in the form that `energyql.score` takes.

    Returns:
        For each attribute: P(yes) if it is yes/no; a dict class -> P(class) if it is categorical; a pair (mean,
        standard deviation) if it is continuous.
    """
    return {name: prediction.table() for name, prediction in on_cpu(predictions).items()}
