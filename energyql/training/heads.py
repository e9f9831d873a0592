"""Fit the heads of a bank, all attributes in one pass over the latents, and calibrate them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import SLOPE, AttributeBank, Head
from energyql.attributes.predictions import PREDICTIONS, output_count
from energyql.errors import DataError
from energyql.kinds import KINDS
from energyql.numerics.pullback import normalized
from energyql.numerics.shapes import Float, Int
from energyql.training.steps import StepFile, digest, learning_rate, optimizer_state, restore_optimizer
from energyql.vocabulary import AttributeSpec, Vocabulary


@dataclass(frozen=True)
class HeadFit:
    """How a head was stopped and calibrated on held-out latents.

    Attributes:
        temperature: divisor of the logits, by calibration.
        std: residual standard deviation of a continuous attribute.
        steps: number of steps after which the head was best.
    """

    temperature: float
    std: float
    steps: int


class HeadStack(torch.nn.Module):
    """The heads of all attributes, one hidden layer of the same width each, on standardised latents.

    The outputs of the layers are multiplied by `scale` and added to `offset`, which `fit_outputs` sets: training starts
    at the base rates, and converges as fast for an age in years as for one in 0 to 1.

    `outputs` holds the number of outputs of each head, `hidden` is the width of each.
    """

    scale: Float[Tensor, " outputs"]
    offset: Float[Tensor, " outputs"]

    def __init__(self, latent_dim: int, outputs: Sequence[int], hidden: int, random: torch.Generator) -> None:
        super().__init__()
        count, total = len(outputs), sum(outputs)
        self.outputs = list(outputs)
        hidden_weight = torch.randn(count, hidden, latent_dim, generator=random) / math.sqrt(latent_dim)
        self.hidden_weight = torch.nn.Parameter(hidden_weight)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(count, hidden))
        self.out_weight = torch.nn.Parameter(torch.randn(total, hidden, generator=random) / math.sqrt(hidden))
        self.skip_weight = torch.nn.Parameter(torch.zeros(total, latent_dim))
        self.out_bias = torch.nn.Parameter(torch.zeros(total))
        self.register_buffer("scale", torch.ones(total))
        self.register_buffer("offset", torch.zeros(total))

    def fit_outputs(self, i: int, labels: Tensor, spec: AttributeSpec, *, balanced: bool = False) -> None:
        """Start head i at the base rate of its labels, or at equal probabilities if classes are balanced."""
        rows = self.rows(i)
        self.scale[rows], self.offset[rows] = base_outputs(labels, spec, balanced=balanced)

    def forward(self, x: Float[Tensor, "batch latent_dim"]) -> Float[Tensor, "batch outputs"]:
        """Map standardised latents to the outputs of all heads side by side."""
        # One product for the hidden layers of all heads.
        hidden = F.leaky_relu(F.linear(x, self.hidden_weight.flatten(0, 1), self.hidden_bias.flatten()), SLOPE)
        hidden = hidden.unflatten(1, (len(self.outputs), -1))
        parts = [hidden[:, i] @ weight.T for i, weight in enumerate(self.out_weight.split(self.outputs))]
        outputs = torch.cat(parts, 1) + F.linear(x, self.skip_weight, self.out_bias)
        return outputs * self.scale + self.offset

    def rows(self, i: int) -> slice:
        """Return the positions of the outputs of head i."""
        start = sum(self.outputs[:i])
        return slice(start, start + self.outputs[i])

    def copy_head(self, i: int, source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        """Copy head i from one set of parameters to another."""
        for name in source:
            where: int | slice = i if name.startswith("hidden") else self.rows(i)
            target[name][where] = source[name][where]

    def head(self, i: int, parameters: Mapping[str, Tensor], mean: Tensor, std: Tensor) -> Head:
        """Return head i of `parameters` for latents that are not standardised by mean and std (latent_dim,)."""
        rows = self.rows(i)
        scale = self.scale[rows]
        hidden_weight = parameters["hidden_weight"][i] / std
        skip_weight = scale[:, None] * parameters["skip_weight"][rows] / std
        return Head(
            hidden_weight,
            parameters["hidden_bias"][i] - hidden_weight @ mean,
            scale[:, None] * parameters["out_weight"][rows],
            skip_weight,
            scale * parameters["out_bias"][rows] + self.offset[rows] - skip_weight @ mean,
            torch.ones((), device=mean.device),
        )


def base_outputs(
    labels: Float[Tensor, " batch"], spec: AttributeSpec, *, balanced: bool = False
) -> tuple[Float[Tensor, " outputs"], Float[Tensor, " outputs"]]:
    """Return the scale of the outputs of an attribute, and the outputs that predict the base rate of its labels.

    With `balanced`, all classes are predicted with equal probabilities.
    """
    return PREDICTIONS[spec.kind].base_outputs(labels[~labels.isnan()], spec, balanced)


def attribute_loss(
    outputs: Float[Tensor, "batch outputs"],
    labels: Float[Tensor, " batch"],
    spec: AttributeSpec,
    weights: Float[Tensor, " classes"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean negative log-likelihood of the labelled rows, in nats.

    For a continuous attribute it is half the squared error in units of a tenth of the range. A label is a class index,
    0 or 1, or a number; NaN where missing. `weights` are those of the labels of each class, equal by default.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if not len(labels):
        return outputs.sum()
    losses = PREDICTIONS[spec.kind].losses(outputs, labels, spec)
    return losses.mean() if weights is None else (losses * weights[labels.long()]).mean()


def balanced_accuracy(outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Return the mean recall of the classes present; for a continuous attribute 1 - mean absolute error / range."""
    known = ~labels.isnan()
    decided, labels = PREDICTIONS[spec.kind].of_outputs(outputs[known], spec, 1.0).number(), labels[known]
    if KINDS[spec.kind].numeric:
        return 1 - ((decided - labels).abs().mean() / (spec.high - spec.low)).item()
    classes = labels.long().unique()
    return torch.stack([(decided[labels == k] == k).float().mean() for k in classes]).mean().item()


def temperature(outputs: Tensor, labels: Tensor, spec: AttributeSpec, candidates: int = 81) -> tuple[float, float]:
    """Return the divisor of the logits, from 0.1 to 10, with the lowest loss (Guo et al. 2017, arXiv 1706.04599).

    Returns:
        The divisor, 1 for a continuous attribute, and the loss with it.
    """
    if KINDS[spec.kind].numeric:
        return 1.0, attribute_loss(outputs, labels, spec).item()
    divisors = torch.logspace(-1, 1, candidates).tolist()
    losses = [attribute_loss(outputs / divisor, labels, spec).item() for divisor in divisors]
    best = min(losses)
    return float(divisors[losses.index(best)]), best


def residual(outputs: Float[Tensor, "batch outputs"], labels: Float[Tensor, " batch"], spec: AttributeSpec) -> float:
    """Return the root mean square error of a continuous attribute, never 0; 1 for the other kinds."""
    if not KINDS[spec.kind].numeric:
        return 1.0
    error = outputs[:, 0] - labels
    return max(error[~error.isnan()].square().mean().sqrt().item(), 1e-6 * (spec.high - spec.low))


def residuals(
    outputs: Float[Tensor, "batch outputs"], labels: Mapping[str, Float[Tensor, " batch"]], vocabulary: Vocabulary
) -> dict[str, Float[Tensor, ""]]:
    """Return the root mean square error of each attribute, as `residual` has it; 1 where no label is known."""
    found = {}
    parts = outputs.split([output_count(spec) for spec in vocabulary.values()], 1)
    for part, (name, spec) in zip(parts, vocabulary.items(), strict=True):
        known = not labels[name].isnan().all()
        found[name] = torch.tensor(residual(part, labels[name], spec) if known else 1.0)
    return found


def balancing_weights(labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " classes"]:
    """Return weights of the classes that make all classes count equally, with mean 1 over the labels.

    A loss with weights c is lowest at probabilities proportional to c p, so logits minus log c are those of p.
    """
    counts = torch.bincount(labels[~labels.isnan()].long(), minlength=len(KINDS[spec.kind].classes(spec))).float()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 1.0)


def log_prior_shift(weights: Float[Tensor, " classes"], spec: AttributeSpec) -> Float[Tensor, " outputs"]:
    """Return the shift of the outputs of a head that was fitted with `weights`."""
    return PREDICTIONS[spec.kind].shift_of(weights)


CHECKS = 30
"""Number of evaluations on the held-out latents during a training; the state is written after each."""


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """Settings of the fit. The weight decay is strong, because latents are large and labels are few.

    Attributes:
        hidden: width of each head.
        steps: number of steps of AdamW.
        batch: latents in a step.
        lr: highest learning rate; the rate rises, then falls along a cosine to 0.
        weight_decay: of AdamW.
        patience: keep each head at its best on the held-out latents, and stop when no head has improved in this many of
            the `CHECKS` evaluations. `None` trains to the end and keeps the last state.
        balance: learn as if all classes were equally frequent. The weights of the classes are removed from the logits
            afterwards, which is exact.
    """

    hidden: int = 64
    steps: int = 2000
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 3.0
    patience: int | None = 10
    balance: bool = False


def train_heads(
    latents: Tensor,
    labels: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    settings: HeadSettings,
    *,
    held_out: float | int = 0.15,
    seed: int = 0,
    fitted: FittedUnder = FittedUnder(),  # noqa: B008 (frozen)
    checkpoint: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[AttributeBank, dict[str, HeadFit]]:
    """Fit one small network for each attribute, all at once.

    The loss is the log-likelihood on the data as they are, so that probabilities of rare classes are calibrated too.

    Args:
        latents: (n, latent_dim): w, features, or z for the other spaces.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        settings: of the fit.
        held_out: share of the latents, or their number; the last ones are for early stopping and calibration.
        seed: same seed, same bank; no global random state is read or changed.
        fitted: what the latents are and how they were drawn, for the bank.
        checkpoint: file for the state; a training with the same data continues from it, and has nothing to do if the
            state is that at the end.
        progress: called with the fraction done.

    Returns:
        The bank, and by attribute how its head was stopped and calibrated on the held-out latents.

    Raises:
        DataError: latents or labels are missing, of the wrong shape or no valid values, or an attribute has one class
            only, or none among the latents held out.
    """
    specs, steps = list(vocabulary.values()), settings.steps
    latents = normalized(latents.float()) if fitted.space == "direction" else latents.float()
    if latents.ndim != 2 or not latents.isfinite().all():
        raise DataError(f"latents must be finite numbers (n, latent_dim), not of shape {tuple(latents.shape)}")
    split = len(latents) - held_out if isinstance(held_out, int) else int(len(latents) * (1 - held_out))
    for spec in specs:
        if spec.name not in labels:
            raise DataError(f"no labels for attribute {spec.name!r}", hint="give labels of it, or leave it out")
        check_labels(labels[spec.name].float(), spec, len(latents), split)
    targets = torch.stack([labels[spec.name].float() for spec in specs], 1)
    mean, std = latents[:split].mean(0), latents[:split].std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    random = torch.Generator().manual_seed(seed)
    outputs = [output_count(spec) for spec in specs]
    stack = HeadStack(latents.shape[1], outputs, settings.hidden, random).to(latents.device)
    fit = _Fit(stack, (latents - mean) / std, targets, specs, split, settings.balance)
    identity = digest((settings, held_out, seed, vocabulary.to_dict(), latents.device.type), latents, targets)
    file = StepFile(checkpoint, identity)
    optimizer = torch.optim.AdamW(stack.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    step = fit.restore(file.read_tensors(), optimizer, random)
    every = max(1, steps // CHECKS)
    while step < steps and (settings.patience is None or fit.since < settings.patience):
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * learning_rate(step / steps)
        index = torch.randint(split, (settings.batch,), generator=random).to(latents.device)
        optimizer.zero_grad()
        fit.loss(index).backward()
        optimizer.step()
        step += 1
        if step % every == 0 or step == steps:
            if settings.patience is not None:
                fit.evaluate(step)
            if checkpoint is not None:
                file.write_tensors(fit.state(optimizer, random, step))
        progress(step / steps)
    if step < steps:
        progress(1.0)
    if settings.patience is None:
        fit.evaluate(step)
    heads, fits = fit.calibrated(mean, std)
    return AttributeBank(vocabulary, heads, **vars(fitted)), fits


def check_labels(labels: Tensor, spec: AttributeSpec, count: int, split: int) -> None:
    """Check the labels of an attribute for a fit to the first `split` of `count` rows.

    Raises:
        DataError: their shape or a value is wrong, all are the same, or a part of the rows has none.
    """
    if tuple(labels.shape) != (count,):
        raise DataError(f"{spec.name!r}: {count} latents but labels of shape {tuple(labels.shape)}")
    known = labels[~labels.isnan()]
    if KINDS[spec.kind].numeric:
        if known.isinf().any():
            raise DataError(f"{spec.name!r}: a label is infinite", hint="correct it, or leave it out: NaN is no label")
    else:
        classes = len(KINDS[spec.kind].classes(spec))
        wrong = ~torch.isin(known, torch.arange(classes, dtype=known.dtype, device=known.device))
        if wrong.any():
            raise DataError(f"{spec.name!r}: labels are 0 to {classes - 1}, not {known[wrong][0].item():g}")
        if len(known.unique()) < 2:
            raise DataError(
                f"{spec.name!r}: all labels are the same, so there is nothing to learn",
                hint="leave it out, or label more samples",
            )
    for part, rows in (("to learn from", labels[:split]), ("held out", labels[split:])):
        if rows.isnan().all():
            raise DataError(f"{spec.name!r}: none of the latents {part} has a label", hint="label more samples")


class _Fit:
    """The heads in training, their data, and the best state of each head so far."""

    def __init__(
        self, stack: HeadStack, x: Tensor, targets: Tensor, specs: list[AttributeSpec], split: int, balance: bool
    ) -> None:
        self.stack, self.x, self.targets, self.specs, self.split = stack, x, targets, specs, split
        self.parameters = {name: parameter.detach() for name, parameter in stack.named_parameters()}
        self.best = {name: parameter.clone() for name, parameter in self.parameters.items()}
        self.best_loss = torch.full((len(specs),), math.inf)
        self.best_step = torch.zeros(len(specs), dtype=torch.int64)
        self.since = 0  # evaluations since a head improved
        self.weights: list[Tensor | None] = [None] * len(specs)
        self.shifts = [torch.zeros(count, device=x.device) for count in stack.outputs]
        for i, spec in enumerate(specs):
            stack.fit_outputs(i, targets[:split, i], spec, balanced=balance)
            if balance and not KINDS[spec.kind].numeric:
                weights = balancing_weights(targets[:split, i], spec)
                self.weights[i], self.shifts[i] = weights, log_prior_shift(weights, spec)

    def loss(self, index: Int[Tensor, " batch"]) -> Float[Tensor, ""]:
        """Return the sum of the losses of all heads on a batch."""
        parts = self.stack(self.x[index]).split(self.stack.outputs, 1)
        columns = zip(parts, self.targets[index].unbind(1), self.specs, self.weights, strict=True)
        return torch.stack([attribute_loss(*column) for column in columns]).sum()

    @torch.no_grad()
    def held_out(self, parameters: Mapping[str, Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return outputs and labels of each head on the held-out latents, without the effect of class weights."""
        outputs = torch.func.functional_call(self.stack, dict(parameters), (self.x[self.split :],))
        parts = outputs.split(self.stack.outputs, 1)
        labels = self.targets[self.split :].unbind(1)
        return [(part - shift, label) for part, shift, label in zip(parts, self.shifts, labels, strict=True)]

    def evaluate(self, step: int) -> None:
        """Keep the heads that have a new lowest held-out loss, each at its best temperature."""
        self.since += 1
        for i, (outputs, labels) in enumerate(self.held_out(self.parameters)):
            loss = temperature(outputs, labels, self.specs[i], candidates=17)[1]
            if loss < self.best_loss[i]:
                self.best_loss[i], self.best_step[i], self.since = loss, step, 0
                self.stack.copy_head(i, self.parameters, self.best)

    def state(self, optimizer: torch.optim.Optimizer, random: torch.Generator, step: int) -> dict[str, Tensor]:
        """Return all tensors that a continued training needs."""
        state = {f"now/{name}": tensor for name, tensor in self.parameters.items()}
        state |= {f"best/{name}": tensor for name, tensor in self.best.items()}
        state |= optimizer_state(optimizer)
        counters = torch.tensor([step, self.since])
        return state | {
            "counters": counters, "loss": self.best_loss, "step": self.best_step, "random": random.get_state()
        }  # fmt: skip

    def restore(
        self, state: Mapping[str, Tensor] | None, optimizer: torch.optim.Optimizer, random: torch.Generator
    ) -> int:
        """Load a state; return its number of steps."""
        if state is None:
            return 0
        for name in self.parameters:
            self.parameters[name].copy_(state[f"now/{name}"])
            self.best[name].copy_(state[f"best/{name}"])
        restore_optimizer(optimizer, state)
        self.best_loss, self.best_step = state["loss"].clone(), state["step"].clone()
        random.set_state(state["random"])
        step, self.since = (int(number) for number in state["counters"])
        return step

    @torch.no_grad()
    def calibrated(self, mean: Tensor, std: Tensor) -> tuple[dict[str, Head], dict[str, HeadFit]]:
        """Return the best state of each head, calibrated by temperature or residual, and how each was calibrated."""
        heads, fits = {}, {}
        for i, (outputs, labels) in enumerate(self.held_out(self.best)):
            spec, head = self.specs[i], self.stack.head(i, self.best, mean, std)
            divisor, error = temperature(outputs, labels, spec)[0], residual(outputs, labels, spec)
            heads[spec.name] = dataclasses.replace(
                head,
                out_weight=head.out_weight / divisor,
                skip_weight=head.skip_weight / divisor,
                out_bias=(head.out_bias - self.shifts[i]) / divisor,
                std=torch.tensor(error, device=mean.device),
            )
            fits[spec.name] = HeadFit(divisor, error, int(self.best_step[i]))
        return heads, fits
