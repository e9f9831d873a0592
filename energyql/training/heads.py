"""The fit of heads, small networks that read attributes off latents. All heads are fitted together, and calibrated."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import SLOPE, AttributeBank, Head
from energyql.attributes.predictions import HEAD_KINDS, output_count
from energyql.errors import DataError, either
from energyql.kinds import KINDS
from energyql.numerics.pool import one_thread, to_cpu, to_device
from energyql.numerics.pullback import normalized
from energyql.numerics.shapes import Float, Int
from energyql.training.labelled import Labelled
from energyql.training.steps import Course, Optimization, StepFile, digest
from energyql.vocabulary import AttributeSpec, Vocabulary


@dataclasses.dataclass(frozen=True)
class HeadFit:
    """Steps and calibration of a fitted head, both chosen on held-out latents.

    Attributes:
        temperature: divisor of the logits; 1 for a continuous attribute.
        steps: number of steps after which the held-out loss was lowest, or of all steps if there is no early stopping.
    """

    temperature: float
    steps: int


def base_outputs(
    labels: Float[Tensor, " batch"], spec: AttributeSpec, *, balanced: bool = False
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " outputs"]]:
    """Scale and offset of an untrained head's outputs: it starts at the class frequencies or the mean of the labels.

    For a continuous attribute, the scale is the standard deviation of the labels, else 1.

    Args:
        labels: 0 or 1, class indices, or numbers; NaN where missing.
        balanced: whether the start is equal frequencies of all classes.
    """
    return HEAD_KINDS[spec.kind].base_outputs(labels[~labels.isnan()], spec, balanced)


def attribute_loss(
    outputs: Float[Tensor, "batch outputs"],
    labels: Float[Tensor, " batch"],
    spec: AttributeSpec,
    weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Mean negative log-likelihood of the labels, in nats; 0 if all are missing (NaN).

    For a continuous attribute it is half the squared error, in units of a tenth of the attribute's range. `weights` are
    factors of the loss of each class.
    """
    present, count = ~labels.isnan(), None
    if labels.device.type == "cpu":
        outputs, labels = outputs[present], labels[present]
        if not len(labels):
            return outputs.sum()
    else:  # to choose rows, a program would wait for the device
        labels, count = torch.where(present, labels, 0), present.sum().clamp(min=1)
    losses = HEAD_KINDS[spec.kind].losses(outputs, labels, spec)
    losses = losses if weights is None else losses * weights[labels.long()]
    return losses.mean() if count is None else torch.where(present, losses, 0).sum() / count


def temperature(outputs: Tensor, labels: Tensor, spec: AttributeSpec, candidates: int = 81) -> tuple[float, float]:
    """Temperature scaling (Guo et al. 2017, arXiv 1706.04599): the divisor of logits with the least loss, and the loss.

    The outputs of a continuous attribute are its means, whose divisor is 1. `candidates` divisors from 0.1 to 10 are
    tried, on a logarithmic scale.
    """
    if KINDS[spec.kind].numeric:
        return 1.0, attribute_loss(outputs, labels, spec).item()
    divisors = torch.logspace(-1, 1, candidates).tolist()
    losses = [attribute_loss(outputs / divisor, labels, spec).item() for divisor in divisors]
    best = min(losses)
    return float(divisors[losses.index(best)]), best


def residual(outputs: Float[Tensor, "batch outputs"], labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Root mean square error of the means (column 0) of a continuous attribute; 1 for other kinds, or without labels.

    It is at least a millionth of the attribute's range: it becomes a predicted standard deviation, which must not be 0.
    """
    if not KINDS[spec.kind].numeric or labels.isnan().all():
        return 1.0
    error = outputs[:, 0] - labels
    return max(error[~error.isnan()].square().mean().sqrt().item(), 1e-6 * (spec.high - spec.low))


def residuals(
    outputs: Float[Tensor, "batch outputs"], labels: Mapping[str, Float[Tensor, " batch"]], vocabulary: Vocabulary
) -> dict[str, Float[Tensor, ""]]:
    """Run `residual` for each attribute; `outputs` has them side by side in the order of `vocabulary`."""
    parts = outputs.split([output_count(spec) for spec in vocabulary.values()], 1)
    return {
        name: torch.tensor(residual(part, labels[name], spec))
        for part, (name, spec) in zip(parts, vocabulary.items(), strict=True)
    }


def balancing_weights(labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " classes"]:
    """Weight of each class, so that all classes count equally in a loss; the mean weight of all labels is 1.

    A loss with weights c is lowest at probabilities proportional to c p, where p are those without weights. So
    subtracting log c from the logits removes the effect of the weights.
    """
    counts = torch.bincount(labels[~labels.isnan()].long(), minlength=len(KINDS[spec.kind].classes(spec))).float()
    present = counts > 0
    return torch.where(present, counts.sum() / (present.sum() * counts.clamp(min=1)), 1.0)


MORE = (
    f"label some hundreds of pictures at least: {either('sample_pictures', 'energyql sample')} draws them, and with "
    f"{either('unsure=True', '--unsure')} those that teach most; from a table with their numbers a teacher learns to "
    "label thousands more"
)
"""Hint where there are too few labels to fit heads."""
CHECKS = 30
"""About how many times a fit of heads measures the held-out loss, and writes its state to a file."""


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Settings of the fit of heads. The weight decay is strong, because latents are large and labels are few.

    Attributes:
        hidden: width of the hidden layer of each head.
        steps: largest number of steps of AdamW.
        batch: number of latents in a step.
        lr: highest learning rate; the rate rises, then falls along a cosine to 0.
        patience: training stops when no head improves at this many successive measurements of the held-out loss, of
            which there are about 30; each head is kept as it was at its lowest loss. With `None`, all steps are done,
            and the last state is kept.
        balance: whether to learn as if all classes were equally frequent. The logits are corrected afterwards, so that
            probabilities are still those under the frequencies in the labels.
    """

    hidden: int = 64
    steps: int = 2000
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 3.0
    patience: int | None = 10
    balance: bool = False


@one_thread()  # its operations are small
def train_heads(
    labelled: Labelled[Tensor],
    settings: HeadSettings,
    course: Course = Course(),  # noqa: B008 (frozen)
    *,
    held_out: float | int = 0.15,
    fitted: FittedUnder = FittedUnder(),  # noqa: B008 (frozen)
) -> tuple[AttributeBank, dict[str, HeadFit]]:
    """Fit one small network, a head, for each attribute; all heads are fitted together, and end on the CPU.

    Unless the settings balance classes, the loss is the negative log-likelihood of the data as they are, so that
    probabilities of rare classes are calibrated too.

    Args:
        labelled: latents: w if `fitted.space` is "w", features if it is "features", else z.
        held_out: number (int) or share (float) of the last latents, for early stopping and calibration.
        fitted: conditions of the training, which the bank records.

    Raises:
        DataError: latents are not finite or labels do not fit, see `check_labels`.
    """
    vocabulary, labels, seed, steps = labelled.vocabulary, labelled.labels, course.seed, settings.steps
    specs, latents = list(vocabulary.values()), labelled.inputs.to(torch.device(course.device)).float()
    latents = normalized(latents) if fitted.space == "direction" else latents
    if latents.ndim != 2 or not latents.isfinite().all():
        raise DataError(f"latents must be finite numbers (n, latent_dim), not of shape {tuple(latents.shape)}")
    split = len(latents) - held_out if isinstance(held_out, int) else int(len(latents) * (1 - held_out))
    for spec in specs:
        if spec.name not in labels:
            raise DataError(f"no labels for attribute {spec.name!r}")
        check_labels(labels[spec.name].float(), spec, len(latents), split)
    targets = labelled.targets.to(latents.device)
    mean, std = latents[:split].mean(0), latents[:split].std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    random = torch.Generator().manual_seed(seed)
    fit = _Fit((latents - mean) / std, targets, specs, split, settings, random)
    identity = digest((held_out, seed, settings, vocabulary.to_dict(), latents.device.type), latents, targets)
    optimization = Optimization(
        fit.network, random, StepFile(course.checkpoint, identity), steps=steps, lr=settings.lr,
        weight_decay=settings.weight_decay,
    )  # fmt: skip
    optimization.resume()
    while (done := optimization.step) < steps and (settings.patience is None or fit.since < settings.patience):
        index = to_device(torch.randint(split, (settings.batch,), generator=random), latents.device)
        optimization.descend(fit.loss(index))
        done += 1
        if done % max(1, steps // CHECKS) == 0 or done == steps:
            if settings.patience is not None:
                fit.evaluate(done)
            optimization.write()
        course.progress(done / steps)
    if optimization.step < steps:
        course.progress(1.0)
    if settings.patience is None:
        fit.evaluate(steps)
    heads, fits = fit.calibrated(mean, std)
    return AttributeBank(vocabulary, heads, fitted=fitted).to("cpu"), fits


def check_labels(labels: Tensor, spec: AttributeSpec, count: int, split: int) -> None:
    """Raise a `DataError` if a head cannot be fitted to the labels of an attribute.

    There must be `count` labels of valid values, not all of one class, some of them among the first `split`, which are
    learned from, and some among the others, which are held out.
    """
    if tuple(labels.shape) != (count,):
        raise DataError(f"{spec.name!r}: {count} latents but labels of shape {tuple(labels.shape)}")
    numbers = labels[~labels.isnan()]
    if KINDS[spec.kind].numeric:
        if numbers.isinf().any():
            raise DataError(f"{spec.name!r}: a label is infinite")
        check_spread(numbers, spec)
    else:
        classes = len(KINDS[spec.kind].classes(spec))
        wrong = ~torch.isin(numbers, torch.arange(classes, dtype=numbers.dtype, device=numbers.device))
        if wrong.any():
            raise DataError(f"{spec.name!r}: labels are 0 to {classes - 1}, not {numbers[wrong][0].item():g}")
        if len(numbers.unique()) < 2:
            raise DataError(f"{spec.name!r}: all labels are the same, so there is nothing to learn", hint=MORE)
    for part, rows in (("to learn from", labels[:split]), ("held out", labels[split:])):
        if rows.isnan().all():
            raise DataError(f"{spec.name!r}: none of the latents {part} has a label", hint=MORE)


def check_spread(numbers: Float[Tensor, " batch"], spec: AttributeSpec) -> None:
    """Raise a `DataError` if the labels of a continuous attribute are so large that squared errors overflow float32."""
    if len(numbers) and not (10 * (numbers - numbers.mean())).square().sum().isfinite():
        wrong = f"{spec.name!r}: labels up to {numbers.abs().max().item():g} are too large to learn from"
        raise DataError(wrong, hint="give the labels in another unit, or their logarithms")


class _Fit:
    """The heads in training, their data, and the best state of each head so far.

    A head's output is `scale` times that of its layers, plus `offset` (`base_outputs`). So training starts at the
    frequencies of the labels, and converges as fast for an age in years as for one in 0 to 1. `x`, (n, latent_dim), is
    standardised; `targets`, (n, attributes), is NaN where missing.
    """

    def __init__(
        self, x: Tensor, targets: Tensor, specs: list[AttributeSpec], split: int, settings: HeadSettings,
        random: torch.Generator,
    ) -> None:  # fmt: skip
        self.x, self.targets, self.specs, self.split = x, targets, specs, split
        self.outputs = [output_count(spec) for spec in specs]
        self.rows = [slice(end - count, end) for count, end in zip(self.outputs, accumulate(self.outputs), strict=True)]
        count, total, hidden, size = len(specs), sum(self.outputs), settings.hidden, x.shape[1]
        parameters = {
            "hidden_weight": torch.randn(count, hidden, size, generator=random) / math.sqrt(size),
            "hidden_bias": torch.zeros(count, hidden),
            "out_weight": torch.randn(total, hidden, generator=random) / math.sqrt(hidden),
            "skip_weight": torch.zeros(total, size),
            "out_bias": torch.zeros(total),
        }
        self.network = torch.nn.ParameterDict(parameters).to(x.device)
        self.parameters: dict[str, Tensor] = dict(self.network.items())
        self.scale, self.offset = torch.ones(total, device=x.device), torch.zeros(total, device=x.device)
        self.best = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}
        self.best_loss, self.best_step = torch.full((count,), math.inf), torch.zeros(count, dtype=torch.int64)
        self.since = torch.zeros((), dtype=torch.int64)  # number of evaluations since a head improved
        buffers = {f"best_{name}": tensor for name, tensor in self.best.items()}
        buffers |= {"best_loss": self.best_loss, "best_step": self.best_step, "since": self.since}
        for name, tensor in buffers.items():  # so that they are in the state of the network, from which a fit continues
            self.network.register_buffer(name, tensor)
        self.weights: list[Tensor | None] = [None] * count
        self.shifts = [torch.zeros(count, device=x.device) for count in self.outputs]
        for i, (rows, spec) in enumerate(zip(self.rows, specs, strict=True)):
            labels = targets[:split, i]
            self.scale[rows], self.offset[rows] = base_outputs(labels, spec, balanced=settings.balance)
            if settings.balance and not KINDS[spec.kind].numeric:
                self.weights[i] = weights = balancing_weights(labels, spec)
                self.shifts[i] = HEAD_KINDS[spec.kind].shift_of(weights)

    def predict(self, x: Float[Tensor, "batch latent_dim"], state: Mapping[str, Tensor]) -> Sequence[Tensor]:
        """Outputs of each head, (batch, outputs), for standardised latents."""
        # One product for the hidden layers of all heads.
        hidden = F.leaky_relu(F.linear(x, state["hidden_weight"].flatten(0, 1), state["hidden_bias"].flatten()), SLOPE)
        hidden = hidden.unflatten(1, (len(self.specs), -1))
        parts = [hidden[:, i] @ weight.T for i, weight in enumerate(state["out_weight"].split(self.outputs))]
        outputs = torch.cat(parts, 1) + F.linear(x, state["skip_weight"], state["out_bias"])
        return cast(tuple[Tensor, ...], (outputs * self.scale + self.offset).split(self.outputs, 1))

    def loss(self, index: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Sum of the losses of all heads."""
        parts = self.predict(self.x[index], self.parameters)
        columns = zip(parts, self.targets[index].unbind(1), self.specs, self.weights, strict=True)
        return torch.stack([attribute_loss(*column) for column in columns]).sum()

    @torch.no_grad()
    def held_out(self, state: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Outputs and labels of each head for the held-out latents; logits without the shift by class weights."""
        parts, labels = self.predict(self.x[self.split :], state), self.targets[self.split :].unbind(1)
        outputs = [part - shift for part, shift in zip(parts, self.shifts, strict=True)]
        moved = to_cpu([*outputs, *labels])
        return list(zip(moved[: len(outputs)], moved[len(outputs) :], strict=True))

    @torch.no_grad()
    def evaluate(self, step: int) -> None:
        """Copy each head whose held-out loss, at its best temperature, is the lowest so far to `best`."""
        self.since += 1
        for i, (outputs, labels) in enumerate(self.held_out(self.parameters)):
            loss = temperature(outputs, labels, self.specs[i], candidates=17)[1]
            if loss < self.best_loss[i]:
                self.best_loss[i], self.best_step[i] = loss, step
                self.since.zero_()
                for name, tensor in self.best.items():
                    where: int | slice = i if name.startswith("hidden") else self.rows[i]
                    tensor[where] = self.parameters[name][where]

    @torch.no_grad()
    def calibrated(self, mean: Tensor, std: Tensor) -> tuple[dict[str, Head], dict[str, HeadFit]]:
        """Heads at their best, calibrated, and for latents that are not standardised by `mean` and `std`."""
        heads, fits = {}, {}
        for i, (outputs, labels) in enumerate(self.held_out(self.best)):
            spec, rows, scale = self.specs[i], self.rows[i], self.scale[self.rows[i]]
            divisor, error = temperature(outputs, labels, spec)[0], residual(outputs, labels, spec)
            hidden_weight = self.best["hidden_weight"][i] / std
            skip_weight = scale[:, None] * self.best["skip_weight"][rows] / std
            bias = scale * self.best["out_bias"][rows] + self.offset[rows] - skip_weight @ mean
            heads[spec.name] = Head(
                hidden_weight, self.best["hidden_bias"][i] - hidden_weight @ mean,
                scale[:, None] * self.best["out_weight"][rows] / divisor, skip_weight / divisor,
                (bias - self.shifts[i]) / divisor, torch.tensor(error, device=mean.device),
            )  # fmt: skip
            fits[spec.name] = HeadFit(divisor, int(self.best_step[i]))
        return heads, fits
