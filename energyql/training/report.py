"""The quality of heads and judges on samples that they did not learn from, and the gain of a round of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import Prediction
from energyql.attributes.quality import HeadReport, balanced, explained, wilson
from energyql.kinds import KINDS, Kind
from energyql.numerics.shapes import Float
from energyql.render.charts import Axes, Canvas, Place, blend
from energyql.render.pictures import FAINT, INK, NO, PAPER
from energyql.training.labels import Drawn
from energyql.vocabulary import AttributeSpec

Z_95 = 1.96
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""


@torch.no_grad()
def with_gains(
    reports: Mapping[str, HeadReport],
    old: AttributeBank | None,
    new: AttributeBank,
    latents: Float[Tensor, "rows latent_dim"],
    labels: Mapping[str, Tensor],
    drawn: Drawn,
) -> dict[str, HeadReport]:
    """Compare new heads with the old ones of the same name on the held-out rows, and add the outcome to their reports.

    Heads are compared only if the old ones were fitted to labels of the same pictures, since other trainings may have
    used these rows.

    Args:
        reports: on the new heads.
        old: the heads before the round, if there are any.
        new: the heads after the round.
        latents: of the rows that are held out.
        labels: attribute -> (rows,), NaN where missing.
        drawn: how the pictures were drawn.

    Returns:
        Reports whose `details` have `drawn`, a text, and `round` where heads were compared: `measure`, "balanced
        accuracy" or "R2"; `before` and `now`; `gain`, their difference, with a 95 % interval from `low` to `high`;
        `samples`, the labelled rows; `labels_before` and `labels`, those of the old and of the new head.
    """
    found = {}
    for name, report in reports.items():
        details, known = {**report.details, "drawn": str(drawn)}, ~labels[name].isnan()
        earlier = None if old is None else old.reports.get(name)
        if old is not None and earlier is not None and known.any():
            same = old.vocabulary[name] == new.vocabulary[name] and earlier.details.get("drawn") == str(drawn)
            if same:
                before, now = (bank.predict(latents[known], (name,))[name] for bank in (old, new))
                details["round"] = _gain(before, now, labels[name][known]) | {
                    "labels_before": earlier.fitted + earlier.held_out, "labels": report.fitted + report.held_out
                }  # fmt: skip
        found[name] = replace(report, details=details)
    return found


def describe_gain(found: Mapping[str, Any]) -> str:
    """Return the gain of a round, as `with_gains` measures it, in one line."""
    unit, factor, digits = (" points", 100, 1) if found["measure"] == "balanced accuracy" else ("", 1, 2)
    before, now, gain, low, high = (factor * found[key] for key in ("before", "now", "gain", "low", "high"))
    change = f"{gain:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f}, 95 %)"
    return (
        f"{found['measure']} {before:.{digits}f} with {found['labels_before']} labels, "
        f"{now:.{digits}f} with {found['labels']}: {change} on {found['samples']} random pictures held out"
    )


def _gain(before: Prediction, now: Prediction, labels: Float[Tensor, " rows"]) -> dict[str, Any]:
    """Return the paired difference of two heads, and its interval."""
    scores = [prediction.scores(labels) for prediction in (before, now)]
    classified = not KINDS[now.kind].numeric
    groups = (
        [labels == value for value in labels.unique()] if classified else [torch.ones_like(labels, dtype=torch.bool)]
    )
    gain = variance = 0.0
    for rows in groups:
        difference, count = (scores[1] - scores[0])[rows].double(), int(rows.sum())
        gain += float(difference.mean()) / len(groups)
        squares = float(difference.square().sum())
        if classified:  # half a pair more of each of the four outcomes (Agresti and Min 2005, doi 10.1002/sim.1781)
            squares, count = squares + 1, count + 2
        mean = float(difference.sum()) / count
        variance += max(squares / count - mean**2, 0.0) / count / len(groups) ** 2
    width = Z_95 * math.sqrt(variance)
    before_, now_ = (sum(float(score[rows].mean()) for rows in groups) / len(groups) for score in scores)
    return {
        "measure": KINDS[now.kind].measure, "before": before_, "now": now_,
        "gain": gain, "low": gain - width, "high": gain + width, "samples": len(labels),
    }  # fmt: skip


BINS = 10
ERROR_BINS, ERROR_RANGE = 24, 4.0
"""Errors of continuous attributes are counted from -4 to 4 residual standard deviations."""
PLOT, LEFT, GAP, HEAD, FOOT = 168, 40, 48, 82, 52
CARD = (LEFT + 2 * PLOT + GAP + 24, HEAD + PLOT + FOOT)
MARGIN, TITLE = 24, 62
LINE, PALE, NEUTRAL, CARD_EDGE, LOWEST = "#2563eb", "#93b4f5", "#9ca3af", "#e2e8f0", "#f1f5fb"
SHARES = {0.0: "0", 0.25: "", 0.5: "0.5", 0.75: "", 1.0: "1"}


def report_quality(
    predictions: Mapping[str, Prediction | Tensor],
    labels: Mapping[str, Tensor],
    specs: Mapping[str, AttributeSpec],
    fitted: Mapping[str, Tensor],
) -> dict[str, HeadReport]:
    """Measure heads or a judge on held-out samples.

    The `details` of all reports with held-out labels and probabilities have `reliability`, a list of [predicted,
    observed, samples]: probabilities against frequencies, pooled over the classes of a categorical attribute; for a
    continuous one, quantiles against the share of labels below them. Attributes with classes have `confusion`, counts
    (rows: label, columns: prediction); continuous ones have `error` (mean absolute), and with probabilities `std` and
    `errors`, a histogram in units of std.

    Args:
        predictions: by attribute, of the held-out samples; or values without probabilities, (held out,), as labels are
            written.
        labels: of the held-out samples, (held out,): 0/1, class index or number; NaN where missing.
        specs: the attributes.
        fitted: labels of the samples that were learnt from, (fitted,), NaN where missing.
    """
    found = {}
    for name, prediction in predictions.items():
        spec, known = specs[name], ~labels[name].isnan()
        held_out, others = labels[name][known].cpu(), fitted[name][~fitted[name].isnan()].cpu()
        kind = KINDS[spec.kind]
        classes = kind.classes(spec)
        every = torch.cat([others, held_out])
        measured: dict[str, Any] = {"score": None, "interval": None, "recall": {}, "details": {}}
        if len(held_out):
            own = prediction.at(known) if isinstance(prediction, Prediction) else prediction[known].cpu()
            measured = _continuous(own, held_out) if kind.numeric else _discrete(own, held_out, classes)
        bins = measured["details"].get("reliability")
        error = sum(abs(p - o) * n for p, o, n in bins) / sum(n for _, _, n in bins) if bins else None
        found[name] = HeadReport(
            spec.kind, len(others), len(held_out), {label: int((every == k).sum()) for k, label in enumerate(classes)},
            calibration_error=error, **measured,
        )  # fmt: skip
    return found


def _discrete(prediction: Prediction | Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    indices, count = labels.long(), len(classes)
    details: dict[str, Any] = {}
    decided = prediction.long() if isinstance(prediction, Tensor) else prediction.number()
    if isinstance(prediction, Prediction):
        details["reliability"] = _reliability(*prediction.outcomes(labels))
    confusion = torch.bincount(count * indices + decided, minlength=count**2).view(count, count).tolist()
    totals = [sum(row) for row in confusion]
    score, interval = balanced(confusion) if all(totals) else (None, None)
    recall = {
        name: (row[k] / total, *wilson(row[k], total))
        for k, (name, row, total) in enumerate(zip(classes, confusion, totals, strict=True))
        if total
    }
    return {"score": score, "interval": interval, "recall": recall, "details": {"confusion": confusion, **details}}


def _continuous(prediction: Prediction | Tensor, labels: Tensor) -> dict[str, Any]:
    columns = prediction[:, None] if isinstance(prediction, Tensor) else prediction.columns()
    mean, *deviation = columns.t().contiguous()
    errors = labels - mean
    score, interval = explained(errors.tolist(), labels.tolist()) or (None, None)
    details: dict[str, Any] = {"error": errors.abs().mean().item()}
    for std in deviation:
        quantiles = torch.linspace(0, 1, BINS + 1)[1:-1].tolist()
        below = torch.special.ndtr(errors / std)
        counts = torch.histc((errors / std).clamp(-ERROR_RANGE, ERROR_RANGE), ERROR_BINS, -ERROR_RANGE, ERROR_RANGE)
        details |= {
            "std": std.mean().item(),
            "reliability": [[q, (below <= q).float().mean().item(), len(labels)] for q in quantiles],
            "errors": [int(count) for count in counts.tolist()],
        }
    return {"score": score, "interval": interval, "recall": {}, "details": details}


def _reliability(probabilities: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> list[list[float]]:
    """Return mean probability, frequency and samples of each bin of equal width that is not empty."""
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    found = []
    for i in range(BINS):
        inside = bins == i
        if count := int(inside.sum()):
            found.append([probabilities[inside].mean().item(), labels[inside].mean().item(), count])
    return found


def draw_report(reports: Mapping[str, HeadReport], title: str = "Attribute heads") -> Image.Image:
    """Draw the reports of `report_quality` on heads.

    On the left of each card, predicted probabilities against observed frequencies: the curve of a calibrated head lies
    on the diagonal, and a dot is larger where more samples are. On the right, how many samples each probability has,
    the confusion matrix of the classes, or the errors in units of the predicted standard deviation beside the standard
    normal density. Weak heads have a red frame.
    """
    columns = min(3, max(1, math.ceil(math.sqrt(len(reports)))))
    rows = max(1, math.ceil(len(reports) / columns))
    canvas = Canvas(2 * MARGIN + columns * CARD[0] + (columns - 1) * MARGIN, TITLE + rows * (CARD[1] + MARGIN))
    canvas.text((MARGIN, 20), title, INK, 20)
    for i, (name, report) in enumerate(reports.items()):
        corner = MARGIN + i % columns * (CARD[0] + MARGIN), TITLE + i // columns * (CARD[1] + MARGIN)
        _card(canvas, corner, name, report)
    return canvas.picture()


def _card(canvas: Canvas, corner: Place, name: str, report: HeadReport) -> None:
    x, y = corner
    canvas.rectangle(corner, (x + CARD[0], y + CARD[1]), PAPER, NO if report.weak else CARD_EDGE, 8)
    canvas.text((x + 16, y + 12), _cut(name, 34), INK, 16)
    canvas.text((x + CARD[0] - 16, y + 16), f"{report.kind}{', weak' if report.weak else ''}", FAINT, 11, "ra")
    for line, text in enumerate(_summary(report)):
        canvas.text((x + 16, y + 34 + 15 * line), text, NO if report.weak and not line else FAINT)
    if not report.held_out:
        return
    details = report.details
    _curve(Axes(canvas, (x + LEFT, y + HEAD), (PLOT, PLOT)), report.kind, details["reliability"])
    right = (x + LEFT + PLOT + GAP, y + HEAD)
    panel = KINDS[report.kind].panel
    if panel == "confusion":
        _confusion(canvas, right, list(report.labels), details["confusion"])
    elif panel == "errors":
        _errors(canvas, right, details["errors"])
    else:
        _counts(Axes(canvas, right, (PLOT, PLOT)), details["reliability"])


def _summary(report: HeadReport) -> tuple[str, str]:
    """Return a line with the score, and one with what it rests on."""
    if not report.held_out:
        return "no label was held out", f"{report.fitted:,} labels"
    score = str(report) if KINDS[report.kind].numeric else f"{report}, chance {report.chance:.2f}"
    counts = f"{report.held_out:,} labels held out of {report.fitted + report.held_out:,}"
    return score, f"{counts}, calibration error {report.calibration_error:.3f}"


def _curve(axes: Axes, kind: Kind, points: Sequence[Sequence[float]]) -> None:
    """Draw observed frequencies over predicted probabilities."""
    continuous = KINDS[kind].numeric
    axes.captions(
        *(("quantile predicted", "share of labels below") if continuous else ("probability predicted", "observed"))
    )
    axes.ticks(SHARES, SHARES)
    axes.line([(0, 0), (1, 1)], NEUTRAL, 1)
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
