"""The quality of heads on samples that they were not fitted to: numbers, and a picture with a card per attribute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.numerics.shapes import Float
from energyql.render.charts import Axes, Canvas, Place, blend
from energyql.render.pictures import FAINT, INK, PAPER
from energyql.training.heads import balanced_accuracy
from energyql.vocabulary import AttributeSpec

BINS = 10
ERROR_BINS, ERROR_RANGE = 24, 4.0
"""Errors of continuous attributes are counted from -4 to 4 residual standard deviations."""
PLOT, LEFT, GAP, HEAD, FOOT = 168, 40, 48, 82, 52
CARD = (LEFT + 2 * PLOT + GAP + 24, HEAD + PLOT + FOOT)
MARGIN, TITLE = 24, 62
LINE, PALE, NEUTRAL, CARD_EDGE, LOWEST = "#2563eb", "#93b4f5", "#9ca3af", "#e2e8f0", "#f1f5fb"
SHARES = {0.0: "0", 0.25: "", 0.5: "0.5", 0.75: "", 1.0: "1"}


def report_heads(
    predictions: Mapping[str, Prediction], labels: Mapping[str, Tensor], specs: Mapping[str, AttributeSpec]
) -> dict[str, dict[str, Any]]:
    """Return a report by attribute, of numbers, strings and lists only.

    All have `kind`, `samples`, `accuracy` (see `balanced_accuracy`), `reliability` and `calibration_error`.
    `reliability` is a list of [predicted, observed, samples]: probabilities against frequencies, pooled over the
    classes of a categorical attribute; for a continuous one, quantiles against the share of labels below them.
    yes/no adds `yes`, the share of yes; categorical adds `classes` and `confusion` (rows: label, columns: head);
    continuous adds `error` (mean absolute), `std`, `explained` (R²) and `errors`, a histogram in units of std.

    Labels are (samples,), NaN where missing.
    """
    found = {}
    for name, prediction in predictions.items():
        spec, known = specs[name], ~labels[name].isnan()
        found[name] = {"kind": spec.kind, "samples": int(known.sum())}
        if known.any():
            found[name] |= _one(prediction, known, labels[name][known], spec)
    return found


def _one(prediction: Prediction, known: Tensor, labels: Tensor, spec: AttributeSpec) -> dict[str, Any]:
    if isinstance(prediction, YesNo):
        logits = prediction.logit[known]
        report: dict[str, Any] = {
            "accuracy": balanced_accuracy(logits[:, None], labels, spec),
            "yes": labels.mean().item(),
            "reliability": _reliability(logits.sigmoid(), labels),
        }
    elif isinstance(prediction, Categorical):
        logits, count = prediction.logits[known], len(spec.values)
        pairs = (labels.long().cpu(), logits.argmax(1).cpu())
        confusion = torch.zeros(count, count, dtype=torch.int64)
        one_hot = torch.nn.functional.one_hot(labels.long(), count).float()
        report = {
            "accuracy": balanced_accuracy(logits, labels, spec),
            "classes": list(spec.values),
            "confusion": confusion.index_put_(pairs, torch.tensor(1), accumulate=True).tolist(),
            "reliability": _reliability(logits.softmax(1).flatten(), one_hot.flatten()),
        }
    else:
        report = _continuous(prediction, known, labels, spec)
    bins = report["reliability"]
    report["calibration_error"] = sum(abs(p - o) * n for p, o, n in bins) / sum(n for _, _, n in bins)
    return report


def _continuous(prediction: Continuous, known: Tensor, labels: Tensor, spec: AttributeSpec) -> dict[str, Any]:
    mean = prediction.mean[known]
    std = torch.as_tensor(prediction.std, device=mean.device).expand(known.shape)[known]
    errors = labels - mean
    quantiles = torch.linspace(0, 1, BINS + 1)[1:-1].tolist()
    below = torch.special.ndtr(errors / std)
    counts = torch.histc((errors / std).clamp(-ERROR_RANGE, ERROR_RANGE), ERROR_BINS, -ERROR_RANGE, ERROR_RANGE)
    spread = (labels - labels.mean()).square().mean()
    return {
        "accuracy": balanced_accuracy(mean[:, None], labels, spec),
        "error": errors.abs().mean().item(),
        "std": std.mean().item(),
        "explained": (1 - errors.square().mean() / spread).item() if spread > 0 else 0.0,
        "reliability": [[q, (below <= q).float().mean().item(), len(labels)] for q in quantiles],
        "errors": [int(count) for count in counts.tolist()],
    }


def _reliability(probabilities: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> list[list[float]]:
    """Return mean probability, frequency and samples of each bin of equal width that is not empty."""
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    found = []
    for i in range(BINS):
        inside = bins == i
        if count := int(inside.sum()):
            found.append([probabilities[inside].mean().item(), labels[inside].mean().item(), count])
    return found


def draw_report(reports: Mapping[str, Mapping[str, Any]], title: str = "Attribute heads") -> Image.Image:
    """Draw the reports of `report_heads`.

    On the left of each card, predicted probabilities against observed frequencies: the curve of a calibrated head lies
    on the diagonal, and a dot is larger where more samples are. On the right, how many samples each probability has,
    the confusion matrix of the classes, or the errors in units of the predicted standard deviation beside the standard
    normal density.
    """
    columns = min(3, max(1, math.ceil(math.sqrt(len(reports)))))
    rows = max(1, math.ceil(len(reports) / columns))
    canvas = Canvas(2 * MARGIN + columns * CARD[0] + (columns - 1) * MARGIN, TITLE + rows * (CARD[1] + MARGIN))
    canvas.text((MARGIN, 20), title, INK, 20)
    for i, (name, report) in enumerate(reports.items()):
        corner = MARGIN + i % columns * (CARD[0] + MARGIN), TITLE + i // columns * (CARD[1] + MARGIN)
        _card(canvas, corner, name, report)
    return canvas.picture()


def _card(canvas: Canvas, corner: Place, name: str, report: Mapping[str, Any]) -> None:
    x, y = corner
    canvas.rectangle(corner, (x + CARD[0], y + CARD[1]), PAPER, CARD_EDGE, 8)
    canvas.text((x + 16, y + 12), _cut(name, 34), INK, 16)
    canvas.text((x + CARD[0] - 16, y + 16), report["kind"], FAINT, 11, "ra")
    if not report["samples"]:
        canvas.text((x + 16, y + 36), "no labels among the samples of the report", FAINT)
        return
    canvas.text((x + 16, y + 36), _summary(report), FAINT)
    _curve(Axes(canvas, (x + LEFT, y + HEAD), (PLOT, PLOT)), report)
    right = (x + LEFT + PLOT + GAP, y + HEAD)
    if "confusion" in report:
        _confusion(canvas, right, report["classes"], report["confusion"])
    elif "errors" in report:
        _errors(canvas, right, report["errors"])
    else:
        _counts(Axes(canvas, right, (PLOT, PLOT)), report["reliability"])


def _summary(report: Mapping[str, Any]) -> str:
    said = f"{report['samples']:,} samples, calibration error {report['calibration_error']:.3f}, "
    if report["kind"] == "continuous":
        return said + f"mean error {report['error']:.3g}, R2 {report['explained']:.2f}"
    return said + f"balanced accuracy {100 * report['accuracy']:.1f} %"


def _curve(axes: Axes, report: Mapping[str, Any]) -> None:
    """Draw observed frequencies over predicted probabilities."""
    continuous = report["kind"] == "continuous"
    axes.captions(
        *(("quantile predicted", "share of labels below") if continuous else ("probability predicted", "observed"))
    )
    axes.ticks(SHARES, SHARES)
    axes.line([(0, 0), (1, 1)], NEUTRAL, 1)
    points = report["reliability"]
    most = max(n for _, _, n in points)
    axes.line([(p, observed) for p, observed, _ in points], PALE)
    for p, observed, n in points:
        axes.canvas.dot(axes.at(p, observed), 3 if continuous else 2 + 4 * math.sqrt(n / most), LINE)


def _counts(axes: Axes, reliability: Sequence[Sequence[float]]) -> None:
    """Draw the share of samples in each tenth of the predicted probability."""
    total = sum(n for _, _, n in reliability)
    axes.captions("probability predicted", "share of samples")
    axes.ticks(SHARES, SHARES)
    for p, _, n in reliability:
        tenth = min(int(p * 10), 9)
        axes.bar(tenth / 10, (tenth + 1) / 10, n / total, LINE, gap=1)


def _confusion(canvas: Canvas, corner: Place, classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Draw the shares of each predicted class (columns) among the samples of each labelled class (rows)."""
    axes = Axes(canvas, corner, (PLOT, PLOT), (0, len(classes)), (len(classes), 0))
    axes.captions("head", "label by row, % of it")
    for i, row in enumerate(confusion):
        for j, count in enumerate(row):
            share = count / max(1, sum(row))
            canvas.rectangle(axes.at(j, i), axes.at(j + 1, i + 1), blend(LOWEST, LINE, share), PAPER)
            if len(classes) <= 8:
                canvas.text(axes.at(j + 0.5, i + 0.5), f"{100 * share:.0f}", PAPER if share > 0.55 else INK, 10, "mm")
    if len(classes) <= 12:
        beside = {i + 0.5: _cut(name, 6) for i, name in enumerate(classes)}
        letters = PLOT // (6 * len(classes))
        below = {i + 0.5: _cut(name, letters) for i, name in enumerate(classes) if letters > 3}
        axes.ticks(below, beside, grid=False)


def _errors(canvas: Canvas, corner: Place, errors: Sequence[int]) -> None:
    """Draw the density of the errors, in standard deviations from -4 to 4, and the standard normal density."""
    total, width = sum(errors), 8 / len(errors)
    density = [count / total / width for count in errors]
    axes = Axes(canvas, corner, (PLOT, PLOT), (-4, 4), (0, max(0.45, *density) * 1.05))
    axes.captions("error / standard deviation", "density, and a normal's")
    for i, value in enumerate(density):
        axes.bar(-4 + i * width, -4 + (i + 1) * width, value, LINE)
    at = [-4 + 0.1 * i for i in range(81)]
    axes.line([(e, math.exp(-0.5 * e * e) / math.sqrt(2 * math.pi)) for e in at], INK)
    axes.line([(-4, 0), (4, 0)], NEUTRAL, 1)
    axes.ticks({tick: str(tick) for tick in (-4, -2, 0, 2, 4)}, {}, grid=False)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: max(1, length - 1)] + "."
