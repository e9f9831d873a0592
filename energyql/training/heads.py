"""Fit the heads of a bank: all attributes in one pass over the latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank, FittedLabel
from energyql.attributes.predictions import output_count
from energyql.errors import DataError
from energyql.numerics.pullback import normalized
from energyql.training.fitting import Fit, HeadReport
from energyql.training.losses import attribute_loss, balanced_accuracy
from energyql.training.progress_file import digest, read_state, write_state
from energyql.training.stack import HeadStack
from energyql.vocabulary import AttributeSpec, Vocabulary

__all__ = ["HeadReport", "attribute_loss", "balanced_accuracy", "train_heads"]

LOOKS = 30
"""How often in a training the heads are tried on the held-out latents, and the state is written."""
WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


def train_heads(
    latents: Tensor,
    labels: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    *,
    hidden: int = 64,
    steps: int = 3000,
    batch: int = 512,
    lr: float = 2e-3,
    weight_decay: float = 1e-2,
    held_out: float = 0.15,
    balance: bool = False,
    patience: int | None = None,
    seed: int = 0,
    space: str = "w",
    truncation: tuple[float, float] = (1.0, 1.0),
    label: FittedLabel = None,
    generator: str = "",
    checkpoint: Path | None = None,
    progress: Callable[[float], None] | None = None,
) -> tuple[AttributeBank, dict[str, HeadReport]]:
    """Fit one small network an attribute, all at once.

    The loss is the log-likelihood on the data as they are, so that probabilities mean what they say for rare classes
    too. `balance` weighs classes equally and takes the weights out of the logits afterwards, which is exact.

    Args:
        latents: (n, latent_dim): w, or z for the other spaces.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        hidden: width of each head.
        steps, batch, lr, weight_decay: of AdamW; the rate rises, then falls along a cosine to 0.
        held_out: share of the latents, the last ones, kept for early stopping, calibration and the report.
        balance: learn as if all classes were equally frequent.
        patience: keep each head as it was when it did best on the held-out latents, and stop when none has become
            better for so many looks out of `LOOKS`. `None` trains to the end and keeps that.
        seed: same seed, same bank; no global random state is read or changed.
        space, truncation, label, generator: for the bank.
        checkpoint: a file for the state; where an interrupted training left one, it goes on. Removed at the end.
        progress: called with the fraction done.

    Returns:
        The bank and a report by attribute, from the held-out latents.

    Raises:
        DataError: latents or labels are missing, of the wrong shape or no valid values, or an attribute has one class
            only, or none among the latents held out.
    """
    specs = list(vocabulary.values())
    latents = normalized(latents.float()) if space == "direction" else latents.float()
    if latents.ndim != 2 or not latents.isfinite().all():
        raise DataError(f"latents must be finite numbers (n, latent_dim), not of shape {tuple(latents.shape)}")
    split = int(len(latents) * (1 - held_out))
    for spec in specs:
        if spec.name not in labels:
            raise DataError(f"no labels for attribute {spec.name!r}")
        _check_labels(labels[spec.name].float(), spec, len(latents), split)
    targets = torch.stack([labels[spec.name].float() for spec in specs], 1)
    mean, std = latents[:split].mean(0), latents[:split].std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    random = torch.Generator().manual_seed(seed)
    stack = HeadStack(latents.shape[1], [output_count(spec) for spec in specs], hidden, random).to(latents.device)
    fit = Fit(stack, (latents - mean) / std, targets, specs, split, balance)
    settings = (hidden, steps, batch, lr, weight_decay, held_out, balance, patience, seed, vocabulary.to_dict())
    run = digest(settings, latents, targets)
    optimizer = torch.optim.AdamW(stack.parameters(), lr=lr, weight_decay=weight_decay)
    step = fit.restore(read_state(checkpoint, run), optimizer, random)
    every = max(1, steps // LOOKS)
    while step < steps and not fit.finished(patience):
        for group in optimizer.param_groups:
            group["lr"] = lr * _rate(step / steps)
        index = torch.randint(split, (batch,), generator=random).to(latents.device)
        optimizer.zero_grad()
        fit.loss(index).backward()
        optimizer.step()
        step += 1
        if step % every == 0 or step == steps:
            if patience is not None:
                fit.look(step)
            if checkpoint is not None and step < steps:
                write_state(checkpoint, run, fit.state(optimizer, random, step))
        if progress is not None:
            progress(step / steps)
    if progress is not None and step < steps:
        progress(1.0)
    if patience is None:
        fit.look(step)
    heads, reports = fit.calibrated(mean, std)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    bank = AttributeBank(vocabulary, heads, space=space, truncation=truncation, label=label, generator=generator)
    return bank, reports


def _rate(done: float) -> float:
    """Share of the learning rate when so much of the training is done."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def _check_labels(labels: Tensor, spec: AttributeSpec, count: int, split: int) -> None:
    if tuple(labels.shape) != (count,):
        raise DataError(f"{spec.name!r}: {count} latents but labels of shape {tuple(labels.shape)}")
    known = labels[~labels.isnan()]
    if spec.kind == "continuous":
        if known.isinf().any():
            raise DataError(f"{spec.name!r}: a label is infinite")
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
            raise DataError(f"{spec.name!r}: none of the latents {part} has a label")
