"""Fit the heads of a bank: all attributes in one pass over the latents."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank, FittedLabel
from energyql.attributes.heads import Head
from energyql.attributes.predictions import output_count
from energyql.errors import DataError
from energyql.files import write_tensors
from energyql.numerics.pullback import normalized
from energyql.numerics.shapes import Float, Int
from energyql.training.heads import (
    HeadFit,
    HeadStack,
    attribute_loss,
    balancing_weights,
    log_prior_shift,
    residual,
    temperature,
)
from energyql.training.steps import RUN, digest, learning_rate, optimizer_state, read_state, restore_optimizer
from energyql.vocabulary import AttributeSpec, Vocabulary

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
    space: str = "w",
    truncation: tuple[float, float] = (1.0, 1.0),
    label: FittedLabel = None,
    generator: str = "",
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
        space: latent that the heads read, for the bank.
        truncation: range of psi of the latents, for the bank.
        label: class label of the latents, for the bank.
        generator: fingerprint of the generator, for the bank.
        checkpoint: file for the state; an interrupted training with the same data continues from it. Removed at the
            end.
        progress: called with the fraction done.

    Returns:
        The bank, and by attribute how its head was stopped and calibrated on the held-out latents.

    Raises:
        DataError: latents or labels are missing, of the wrong shape or no valid values, or an attribute has one class
            only, or none among the latents held out.
    """
    specs, steps = list(vocabulary.values()), settings.steps
    latents = normalized(latents.float()) if space == "direction" else latents.float()
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
    run = digest((settings, held_out, seed, vocabulary.to_dict()), latents, targets)
    optimizer = torch.optim.AdamW(stack.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    step = fit.restore(read_state(checkpoint, run), optimizer, random)
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
            if checkpoint is not None and step < steps:
                write_tensors(checkpoint, {RUN: run, **fit.state(optimizer, random, step)})
        progress(step / steps)
    if step < steps:
        progress(1.0)
    if settings.patience is None:
        fit.evaluate(step)
    heads, fits = fit.calibrated(mean, std)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    bank = AttributeBank(vocabulary, heads, space=space, truncation=truncation, label=label, generator=generator)
    return bank, fits


def check_labels(labels: Tensor, spec: AttributeSpec, count: int, split: int) -> None:
    """Check the labels of an attribute for a fit to the first `split` of `count` rows.

    Raises:
        DataError: their shape or a value is wrong, all are the same, or a part of the rows has none.
    """
    if tuple(labels.shape) != (count,):
        raise DataError(f"{spec.name!r}: {count} latents but labels of shape {tuple(labels.shape)}")
    known = labels[~labels.isnan()]
    if spec.kind == "continuous":
        if known.isinf().any():
            raise DataError(f"{spec.name!r}: a label is infinite", hint="correct it, or leave it out: NaN is no label")
    else:
        classes = max(2, output_count(spec))
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
            if balance and spec.kind != "continuous":
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
