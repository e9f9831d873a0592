"""Fit the heads of a bank: all attributes in one pass over the latents."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.bank import SLOPE, AttributeBank, Head
from energyql.attributes.outputs import output_count
from energyql.errors import DataError
from energyql.vocabulary import AttributeSpec, Vocabulary


@dataclass(frozen=True)
class HeadReport:
    """How well a head reads held-out latents.

    Attributes:
        accuracy: balanced accuracy (mean recall over classes); for a continuous attribute, 1 - mean absolute error
            divided by the range.
        temperature: what the logits were divided by to be calibrated.
        std: residual standard deviation of a continuous attribute.
    """

    accuracy: float
    temperature: float
    std: float


class _Stack(torch.nn.Module):
    """The heads of all attributes as stacked parameters, on standardised latents."""

    def __init__(self, latent_dim: int, outputs: list[int], hidden: int, random: torch.Generator) -> None:
        super().__init__()
        count, total = len(outputs), sum(outputs)
        self.outputs = outputs
        hidden_weight = torch.randn(count, hidden, latent_dim, generator=random) / math.sqrt(latent_dim)
        self.hidden_weight = torch.nn.Parameter(hidden_weight)
        self.hidden_bias = torch.nn.Parameter(torch.zeros(count, hidden))
        self.out_weight = torch.nn.Parameter(torch.randn(total, hidden, generator=random) / math.sqrt(hidden))
        self.skip_weight = torch.nn.Parameter(torch.zeros(total, latent_dim))
        self.out_bias = torch.nn.Parameter(torch.zeros(total))

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.einsum("bd,ahd->abh", x, self.hidden_weight) + self.hidden_bias[:, None]
        hidden = F.leaky_relu(hidden, SLOPE)
        parts = [hidden[i] @ weight.T for i, weight in enumerate(self.out_weight.split(self.outputs))]
        return torch.cat(parts, 1) + F.linear(x, self.skip_weight, self.out_bias)


def attribute_loss(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> Tensor:
    """Mean negative log-likelihood over the labelled rows, in nats (half squared error for continuous).

    Args:
        outputs: (batch, `output_count(spec)`).
        labels: (batch,) class index, 0/1, or number; NaN where missing.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if not len(labels):
        return outputs.sum()
    if spec.kind == "categorical":
        return F.cross_entropy(outputs, labels.long())
    if spec.kind == "yes/no":
        return F.binary_cross_entropy_with_logits(outputs[:, 0], labels)
    return 0.5 * ((outputs[:, 0] - labels) / (0.1 * (spec.high - spec.low))).square().mean()


def balanced_accuracy(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> float:
    """Mean recall over the classes present; 1 - mean absolute error over the range for a continuous attribute."""
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if spec.kind == "continuous":
        return 1 - ((outputs[:, 0] - labels).abs().mean() / (spec.high - spec.low)).item()
    decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
    classes = labels.long().unique()
    return torch.stack([(decided[labels == k] == k).float().mean() for k in classes]).mean().item()


def _temperature(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> float:
    """The divisor of the logits with the lowest held-out loss (Guo et al. 2017, arXiv 1706.04599)."""
    candidates = torch.logspace(-1, 1, 81).tolist()
    losses = [attribute_loss(outputs / t, labels, spec).item() for t in candidates]
    return float(candidates[losses.index(min(losses))])


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
    seed: int = 0,
    space: str = "w",
    truncation: tuple[float, float] = (1.0, 1.0),
    generator: str = "",
    progress: Callable[[float], None] | None = None,
) -> tuple[AttributeBank, dict[str, HeadReport]]:
    """Fit one small network an attribute, all at once.

    Args:
        latents: (n, latent_dim).
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        hidden: width of each head.
        steps, batch, lr, weight_decay: of AdamW under a one-cycle schedule.
        held_out: share of the latents, the last ones, kept for calibration and the report.
        seed: same seed, same bank; no global random state is read or changed.
        space, truncation, generator: for the bank.
        progress: called with the fraction done.

    Returns:
        The bank and a report by attribute, from the held-out latents.

    Raises:
        DataError: latents or labels are missing, of the wrong shape or no valid values, or an attribute has one class
            only, or none among the latents held out.
    """
    specs = list(vocabulary.values())
    latents = latents.float()
    if latents.ndim != 2 or not latents.isfinite().all():
        raise DataError(f"latents must be finite numbers (n, latent_dim), not of shape {tuple(latents.shape)}")
    split = int(len(latents) * (1 - held_out))
    for spec in specs:
        if spec.name not in labels:
            raise DataError(f"no labels for attribute {spec.name!r}")
        _check_labels(labels[spec.name].float(), spec, len(latents), split)
    random = torch.Generator().manual_seed(seed)
    stack = _Stack(latents.shape[1], [output_count(spec) for spec in specs], hidden, random).to(latents.device)
    mean, std = latents[:split].mean(0), latents[:split].std(0)
    std = torch.where(std > 1e-6, std, 1.0)
    x, targets = (latents - mean) / std, torch.stack([labels[spec.name].float() for spec in specs], 1)
    optimizer = torch.optim.AdamW(stack.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)

    def columns(rows: Tensor | slice) -> list[tuple[Tensor, Tensor, AttributeSpec]]:
        return list(zip(stack(x[rows]).split(stack.outputs, 1), targets[rows].unbind(1), specs, strict=True))

    for step in range(steps):
        index = torch.randint(split, (batch,), generator=random).to(latents.device)
        loss = torch.stack([attribute_loss(*column) for column in columns(index)]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress((step + 1) / steps)
    heads, reports = {}, {}
    with torch.no_grad():
        for head, (outputs, answers, spec) in zip(_split(stack, mean, std), columns(slice(split, None)), strict=True):
            temperature, residual = 1.0, 1.0
            if spec.kind == "continuous":
                error = outputs[:, 0] - answers
                residual = error[~error.isnan()].square().mean().sqrt().item()
                residual = max(residual, 1e-6 * (spec.high - spec.low))
            else:
                temperature = _temperature(outputs, answers, spec)
            heads[spec.name] = Head(
                head["hidden_weight"], head["hidden_bias"], head["out_weight"] / temperature,
                head["skip_weight"] / temperature, head["out_bias"] / temperature,
                torch.tensor(residual, device=latents.device),
            )  # fmt: skip
            reports[spec.name] = HeadReport(balanced_accuracy(outputs, answers, spec), temperature, residual)
    bank = AttributeBank(vocabulary, heads, space=space, truncation=truncation, generator=generator)
    return bank, reports


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
            raise DataError(f"{spec.name!r}: all labels are the same, so there is nothing to learn")
    for part, rows in (("to learn from", labels[:split]), ("held out", labels[split:])):
        if rows.isnan().all():
            raise DataError(f"{spec.name!r}: none of the latents {part} has a label")


def _split(stack: _Stack, mean: Tensor, std: Tensor) -> list[dict[str, Tensor]]:
    """The parameters of each head, acting on latents that are not standardised."""
    heads = []
    start = 0
    for i, outputs in enumerate(stack.outputs):
        stop = start + outputs
        hidden_weight = stack.hidden_weight[i] / std
        skip_weight = stack.skip_weight[start:stop] / std
        heads.append(
            {
                "hidden_weight": hidden_weight,
                "hidden_bias": stack.hidden_bias[i] - hidden_weight @ mean,
                "out_weight": stack.out_weight[start:stop].clone(),
                "skip_weight": skip_weight,
                "out_bias": stack.out_bias[start:stop] - skip_weight @ mean,
            }
        )
        start = stop
    return heads
