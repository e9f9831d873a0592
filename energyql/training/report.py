"""What heads are worth on latents that they have never seen, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.training.losses import balanced_accuracy
from energyql.vocabulary import AttributeSpec

BINS = 10
ERROR_BINS, ERROR_RANGE = 24, 4.0
"""Errors of continuous attributes are counted from -4 to 4 residual standard deviations."""


def report_heads(
    predictions: Mapping[str, Prediction], labels: Mapping[str, Tensor], specs: Mapping[str, AttributeSpec]
) -> dict[str, dict[str, Any]]:
    """A report by attribute, of numbers, strings and lists only.

    All have `kind`, `samples`, `accuracy` (see `balanced_accuracy`), `reliability` and `calibration_error`.
    `reliability` is a list of [predicted, observed, samples]: probabilities against frequencies, pooled over the
    classes of a categorical attribute; for a continuous one, quantiles against the share of labels below them.
    yes/no adds `yes`, the share of yes; categorical adds `classes` and `confusion` (rows: label, columns: head);
    continuous adds `error` (mean absolute), `std`, `explained` (R²) and `errors`, counts of errors in units of std.

    Args:
        predictions: of the samples.
        labels: attribute -> (samples,), NaN where missing.
        specs: the attributes.
    """
    found = {}
    for name, prediction in predictions.items():
        known = ~labels[name].isnan()
        answers = labels[name][known]
        if len(answers):
            found[name] = _one(prediction, known, answers, specs[name])
        else:
            found[name] = {"kind": specs[name].kind, "samples": 0}
    return found


def _one(prediction: Prediction, known: Tensor, answers: Tensor, spec: AttributeSpec) -> dict[str, Any]:
    report: dict[str, Any] = {"kind": spec.kind, "samples": len(answers)}
    if isinstance(prediction, YesNo):
        logits = prediction.logit[known]
        report["accuracy"] = balanced_accuracy(logits[:, None], answers, spec)
        report["yes"] = answers.mean().item()
        report["reliability"] = _reliability(logits.sigmoid(), answers)
    elif isinstance(prediction, Categorical):
        logits = prediction.logits[known]
        truth = torch.nn.functional.one_hot(answers.long(), len(spec.values))
        report["accuracy"] = balanced_accuracy(logits, answers, spec)
        report["classes"] = list(spec.values)
        confusion = torch.zeros(len(spec.values), len(spec.values), dtype=torch.int64)
        pairs = (answers.long().cpu(), logits.argmax(1).cpu())
        report["confusion"] = confusion.index_put_(pairs, torch.tensor(1), accumulate=True).tolist()
        report["reliability"] = _reliability(logits.softmax(1).flatten(), truth.flatten().float())
    else:
        report |= _continuous(prediction, known, answers, spec)
    pairs_ = report["reliability"]
    total = sum(count for _, _, count in pairs_)
    report["calibration_error"] = sum(abs(p - o) * count for p, o, count in pairs_) / total
    return report


def _continuous(prediction: Continuous, known: Tensor, answers: Tensor, spec: AttributeSpec) -> dict[str, Any]:
    mean = prediction.mean[known]
    std = torch.as_tensor(prediction.std, device=mean.device).expand(known.shape)[known]
    errors = answers - mean
    quantiles = torch.linspace(0, 1, BINS + 1)[1:-1].tolist()
    below = torch.special.ndtr(errors / std)
    counts = torch.histc((errors / std).clamp(-ERROR_RANGE, ERROR_RANGE), ERROR_BINS, -ERROR_RANGE, ERROR_RANGE)
    spread = (answers - answers.mean()).square().mean()
    return {
        "accuracy": balanced_accuracy(mean[:, None], answers, spec),
        "error": errors.abs().mean().item(),
        "std": std.mean().item(),
        "explained": (1 - errors.square().mean() / spread).item() if spread > 0 else 0.0,
        "reliability": [[q, (below <= q).float().mean().item(), len(answers)] for q in quantiles],
        "errors": [int(count) for count in counts.tolist()],
    }


def _reliability(probabilities: Tensor, answers: Tensor) -> list[list[float]]:
    """Mean probability, frequency and samples of each bin of equal width that is not empty."""
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    found = []
    for i in range(BINS):
        inside = bins == i
        if count := int(inside.sum()):
            found.append([probabilities[inside].mean().item(), answers[inside].mean().item(), count])
    return found
