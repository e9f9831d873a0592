"""Losses and scores of raw outputs, and the calibration of heads on held-out latents."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.predictions import output_count
from energyql.vocabulary import AttributeSpec


def attribute_loss(outputs: Tensor, labels: Tensor, spec: AttributeSpec, weights: Tensor | None = None) -> Tensor:
    """Mean negative log-likelihood over the labelled rows, in nats (half squared error for continuous).

    Args:
        outputs: (batch, `output_count(spec)`).
        labels: (batch,) class index, 0/1, or number; NaN where missing.
        weights: what an answer of each class counts, (classes,); all the same by default.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if not len(labels):
        return outputs.sum()
    if spec.kind == "continuous":
        return 0.5 * ((outputs[:, 0] - labels) / (0.1 * (spec.high - spec.low))).square().mean()
    if spec.kind == "categorical":
        losses = F.cross_entropy(outputs, labels.long(), reduction="none")
    else:
        losses = F.binary_cross_entropy_with_logits(outputs[:, 0], labels, reduction="none")
    return losses.mean() if weights is None else (losses * weights[labels.long()]).mean()


def balanced_accuracy(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> float:
    """Mean recall over the classes present; 1 - mean absolute error over the range for a continuous attribute."""
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    if spec.kind == "continuous":
        return 1 - ((outputs[:, 0] - labels).abs().mean() / (spec.high - spec.low)).item()
    decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
    classes = labels.long().unique()
    return torch.stack([(decided[labels == k] == k).float().mean() for k in classes]).mean().item()


def temperature(outputs: Tensor, labels: Tensor, spec: AttributeSpec, candidates: int = 81) -> tuple[float, float]:
    """The divisor of the logits, from 0.1 to 10, with the lowest loss (Guo et al. 2017, arXiv 1706.04599).

    Returns:
        The divisor, 1 for a continuous attribute, and the loss with it.
    """
    if spec.kind == "continuous":
        return 1.0, attribute_loss(outputs, labels, spec).item()
    divisors = torch.logspace(-1, 1, candidates).tolist()
    losses = [attribute_loss(outputs / divisor, labels, spec).item() for divisor in divisors]
    best = min(losses)
    return float(divisors[losses.index(best)]), best


def residual(outputs: Tensor, labels: Tensor, spec: AttributeSpec) -> float:
    """Root mean square error of a continuous attribute, never 0; 1 for the others."""
    if spec.kind != "continuous":
        return 1.0
    error = outputs[:, 0] - labels
    return max(error[~error.isnan()].square().mean().sqrt().item(), 1e-6 * (spec.high - spec.low))


def balancing_weights(labels: Tensor, spec: AttributeSpec) -> Tensor:
    """What each class must count so that all classes of the labels weigh the same, (classes,), mean 1 over the labels.

    A loss with weights c is lowest at probabilities proportional to c p, so logits minus log c are those of p again.
    """
    counts = torch.bincount(labels[~labels.isnan()].long(), minlength=max(2, output_count(spec))).float()
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 1.0)


def log_prior_shift(weights: Tensor, spec: AttributeSpec) -> Tensor:
    """What to take off the outputs of a head that was fitted with `weights`, (outputs,)."""
    return weights.log() if spec.kind == "categorical" else (weights[1] / weights[0]).log().reshape(1)
