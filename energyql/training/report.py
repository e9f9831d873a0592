"""The quality of heads and judges on samples that they did not learn from, as numbers and as a picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import HEAD_KINDS, Prediction, at_rows
from energyql.attributes.quality import HeadReport, Interval, Ranking, balanced, explained, wilson
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
    """Compare each new head with the old one on the same held-out samples, to show what more labels have gained.

    The old head must have learned from pictures drawn in the same way; another may have learned from what is now held
    out.

    Args:
        latents: latents of the held-out samples.
        labels: attribute -> labels of the held-out samples, NaN where missing.

    Returns:
        Attribute -> report with more `details`: `drawn` as text and, after a comparison, `round`, a dict of `measure`
            ("balanced accuracy" or "R2"), the scores `before` and `now`, their difference `gain` with a 95 % interval
            from `low` to `high`, `samples` (held-out labels), and the numbers of labels, `labels_before` and `labels`.
    """
    compared = {}
    for name, report in reports.items():
        details, present = {**report.details, "drawn": str(drawn)}, ~labels[name].isnan()
        earlier = None if old is None else old.reports.get(name)
        if (
            old is not None and earlier is not None and present.any()
            and old.vocabulary[name] == new.vocabulary[name] and earlier.details.get("drawn") == str(drawn)
        ):  # fmt: skip
            before, now = (bank.predict(latents[present], (name,))[name] for bank in (old, new))
            counts = {"labels_before": earlier.fitted + earlier.held_out, "labels": report.fitted + report.held_out}
            details["round"] = _gain(before, now, labels[name][present]) | counts
        compared[name] = replace(report, details=details)
    return compared


def describe_gain(gains: Mapping[str, Any]) -> str:
    """Line of text about the dict `round` of `with_gains`.

    Such as "balanced accuracy 81.2 with 300 labels, 86.0 with 500: +4.8 points (+1.1 to +8.5, 95 %) on 96 random
    pictures held out".
    """
    unit, factor, digits = (" points", 100, 1) if gains["measure"] == "balanced accuracy" else ("", 1, 2)
    before, now, gain, low, high = (factor * gains[key] for key in ("before", "now", "gain", "low", "high"))
    change = f"{gain:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f}, 95 %)"
    return (
        f"{gains['measure']} {before:.{digits}f} with {gains['labels_before']} labels, "
        f"{now:.{digits}f} with {gains['labels']}: {change} on {gains['samples']} random pictures held out"
    )


def _gain(before: Prediction, now: Prediction, labels: Float[Tensor, " rows"]) -> dict[str, Any]:
    """Scores of two heads on the same samples, and the difference with a 95 % interval; keys as in `with_gains`."""
    scores = [HEAD_KINDS[now.kind].scores(prediction, labels) for prediction in (before, now)]
    kind = KINDS[now.kind]
    groups = [~labels.isnan()] if kind.numeric else [labels == value for value in labels.unique()]
    gain = variance = 0.0
    for rows in groups:
        difference, count = (scores[1] - scores[0])[rows].double(), int(rows.sum())
        gain += float(difference.mean()) / len(groups)
        squares = float(difference.square().sum())
        if not kind.numeric:
            # Half a pair more of each of the four outcomes (Agresti and Min 2005, doi 10.1002/sim.1781).
            squares, count = squares + 1, count + 2
        mean = float(difference.sum()) / count
        variance += max(squares / count - mean**2, 0.0) / count / len(groups) ** 2
    width = Z_95 * math.sqrt(variance)
    first, second = (sum(float(score[rows].mean()) for rows in groups) / len(groups) for score in scores)
    return {
        "measure": kind.measure, "before": first, "now": second,
        "gain": gain, "low": gain - width, "high": gain + width, "samples": len(labels),
    }  # fmt: skip


BINS = 10
"""Number of bins of equal width for predicted probabilities."""
ERROR_BINS, ERROR_RANGE = 24, 4.0
"""Histogram of errors: number of bins, and largest error to both sides, in predicted standard deviations."""
PLOT, LEFT, GAP, HEAD, FOOT = 168, 40, 48, 97, 52
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
    """Measure the quality of heads or of a judge on held-out samples.

    The `details` of the report of an attribute with held-out labels are:

    - `reliability`, if probabilities are predicted: a list of [predicted, observed, samples]. For an attribute with
      classes: mean probability, frequency of the class and number of samples in each bin of probabilities (all classes
      together). For a continuous attribute: a predicted quantile such as 0.1, the share of labels below it, and the
      number of all samples.
    - `confusion`, for an attribute with classes: counts, with a row for each class of the labels and a column for each
      predicted class.
    - `error`, for a continuous attribute: mean absolute error. If standard deviations are predicted, also `std`, their
      mean, and `errors`, a histogram of errors divided by them, from -4 to 4.

    Args:
        predictions: attribute -> prediction of the held-out samples; or values without probabilities, as in `labels`.
        labels: attribute -> (held out,): 0/1, class index or number; NaN where missing.
        fitted: attribute -> labels of the samples that were learned from, (fitted,), which are only counted.

    Returns:
        Attribute -> report.
    """
    reports = {}
    for name, prediction in predictions.items():
        spec, present = specs[name], ~labels[name].isnan()
        held_out, others = labels[name][present].cpu(), fitted[name][~fitted[name].isnan()].cpu()
        kind = KINDS[spec.kind]
        classes, every = kind.classes(spec), torch.cat([others, held_out])
        measured: dict[str, Any] = {"score": None, "interval": None, "recall": {}, "details": {}}
        if len(held_out):
            own = at_rows(prediction, present)
            measured |= _continuous(own, held_out) if kind.numeric else _discrete(own, held_out, classes)
            if isinstance(own, Prediction):
                measured["ranking"] = _rankings(own, held_out, spec)
        bins = measured["details"].get("reliability")
        error = sum(abs(p - o) * n for p, o, n in bins) / sum(n for _, _, n in bins) if bins else None
        counts = {label: int((every == k).sum()) for k, label in enumerate(classes)}
        reports[name] = HeadReport(spec.kind, len(others), len(held_out), counts, calibration_error=error, **measured)
    return reports


def _discrete(prediction: Prediction | Tensor, labels: Tensor, classes: Sequence[str]) -> dict[str, Any]:
    """Fields of a `HeadReport` for an attribute with classes, except `ranking`."""
    count, values = len(classes), prediction.long() if isinstance(prediction, Tensor) else prediction.number()
    confusion = torch.bincount(count * labels.long() + values, minlength=count**2).view(count, count).tolist()
    details: dict[str, Any] = {"confusion": confusion}
    if isinstance(prediction, Prediction):
        details["reliability"] = _reliability(*HEAD_KINDS[prediction.kind].outcomes(prediction, labels))
    score, interval = balanced(confusion) if all(map(sum, confusion)) else (None, None)
    rows = enumerate(zip(classes, confusion, strict=True))
    recall = {name: (row[k] / sum(row), *wilson(row[k], sum(row))) for k, (name, row) in rows if sum(row)}
    return {"score": score, "interval": interval, "recall": recall, "details": details}


def _rankings(prediction: Prediction, labels: Tensor, spec: AttributeSpec) -> dict[str, Ranking]:
    """Field `ranking` of a `HeadReport`; values that all or no samples have are left out."""
    kind, rankings = KINDS[spec.kind], {}
    for _, value in kind.bins(spec):
        index = kind.values(spec).index(value)
        true = labels == index
        if 0 < int(true.sum()) < len(true):
            logs = prediction.log_probability((value,)).double()
            rankings[kind.classes(spec)[index]] = Ranking(
                area(logs, true), weighted_share((logs - logs.max()).exp(), true), true.double().mean().item()
            )
    return rankings


def area(scores: Float[Tensor, " samples"], true: Tensor) -> Interval:
    """Area under the ROC curve: how well scores rank samples of a class above the others; with a 95 % interval.

    The interval is Wilson's for an effective number of samples, by the variance of the area (DeLong et al. 1988). If a
    class has few samples, all with high scores, that variance is too small, or 0. So the number is at most its value
    for random scores, 3 m n / (m + n + 1) with m samples of the class and n others. Equal scores count half.
    """
    ranks, m, n = _ranks(scores), int(true.sum()), int((~true).sum())
    above = (ranks[true] - _ranks(scores[true])) / n
    below = (ranks[~true] - _ranks(scores[~true])) / m
    variance = sum(part.var().item() / len(part) if len(part) > 1 else 0.0 for part in (above, below))
    return _share(above.mean().item(), variance, 3 * m * n / (m + n + 1))


def weighted_share(weights: Float[Tensor, " samples"], true: Tensor) -> Interval:
    """Weighted share of the samples that are true, with a 95 % interval.

    The interval is Wilson's for an effective number of samples, by the variance of a ratio estimator. That variance is
    too small if few samples have most of the weight. So it is at most Kish's, (sum of weights)² / sum of squares.
    """
    weights = weights / weights.sum()
    share = weights[true].sum().item()
    variance = (weights * (true.double() - share)).square().sum().item()
    return _share(share, variance, 1 / weights.square().sum().item())


def _share(share: float, variance: float, most: float) -> Interval:
    """A share with Wilson's 95 % interval, for the number of samples that gives it this variance, `most` at most."""
    count = min(most, share * (1 - share) / variance) if variance > 0 and 0 < share < 1 else most
    return share, *wilson(share * count, count)


def correlated(predictions: Float[Tensor, " samples"], labels: Float[Tensor, " samples"]) -> Interval | None:
    """Spearman's rank correlation, with the 95 % interval of Bonett and Wright (2000).

    It is `None` for fewer than four samples, or if all predictions or all labels are equal.
    """
    ranks = torch.stack([_ranks(predictions), _ranks(labels)])
    count = len(labels)
    if count < 4 or bool((ranks == ranks[:, :1]).all(1).any()):
        return None
    value = torch.corrcoef(ranks)[0, 1].item()
    most = 1 - 6 / (count**3 - count)  # half a step below 1, where the transform is infinite
    inner, spread = math.atanh(max(-most, min(most, value))), Z_95 * math.sqrt((1 + value**2 / 2) / (count - 3))
    return value, min(value, math.tanh(inner - spread)), max(value, math.tanh(inner + spread))


def _ranks(values: Float[Tensor, " samples"]) -> Float[Tensor, " samples"]:
    """Ranks from 1 (float64); equal values have the mean of their ranks."""
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    ranks: Tensor = counts.cumsum(0) - (counts - 1) / 2
    return ranks.double()[places]


def _continuous(prediction: Prediction | Tensor, labels: Tensor) -> dict[str, Any]:
    """Fields of a `HeadReport` for a continuous attribute."""
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
    return {"score": score, "interval": interval, "details": details, "correlation": correlated(mean, labels)}


def _reliability(probabilities: Float[Tensor, " batch"], labels: Float[Tensor, " batch"]) -> list[list[float]]:
    """[mean probability, share of labels that are 1, number of samples] of each bin that is not empty."""
    bins = (probabilities * BINS).long().clamp(max=BINS - 1)
    masks = [bins == i for i in bins.unique()]
    return [[probabilities[mask].mean().item(), labels[mask].mean().item(), int(mask.sum())] for mask in masks]


def draw_report(reports: Mapping[str, HeadReport], title: str = "Attribute heads") -> Image.Image:
    """Draw a card for each attribute: the reliability of its head, and a chart that depends on its kind.

    The curve of a calibrated head lies on the diagonal; larger dots stand for more samples. The chart is a histogram of
    probabilities (yes/no), a confusion matrix (classes), or a histogram of errors in predicted standard deviations
    beside the standard normal (numbers). A weak head has a red frame.
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
        canvas.text((x + 16, y + 34 + 15 * line), text, NO if report.weak and line == 0 else FAINT)
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


def _summary(report: HeadReport) -> tuple[str, ...]:
    """Lines of text about a head: score, ranking, and numbers of labels with the calibration error."""
    if not report.held_out:
        return "no label was held out", f"{report.fitted:,} labels"
    score = str(report) if KINDS[report.kind].numeric else f"{report}, chance {report.chance:.2f}"
    return score, report.ranking_text, f"{report.counts}, calibration error {report.calibration_error:.3f}"


def _curve(axes: Axes, kind: Kind, points: Sequence[Sequence[float]]) -> None:
    """Draw observed frequencies against predicted probabilities, or shares of labels against predicted quantiles."""
    continuous = KINDS[kind].numeric
    if continuous:
        axes.captions("quantile predicted", "share of labels below")
    else:
        axes.captions("probability predicted", "observed")
    axes.ticks(SHARES, SHARES)
    axes.line([(0, 0), (1, 1)], NEUTRAL, 1)
    most = max(n for _, _, n in points)
    axes.line([(p, observed) for p, observed, _ in points], PALE)
    for p, observed, n in points:
        axes.canvas.dot(axes.at(p, observed), 3 if continuous else 2 + 4 * math.sqrt(n / most), LINE)


def _counts(axes: Axes, reliability: Sequence[Sequence[float]]) -> None:
    """Draw the share of samples in each tenth of the predicted probability, as columns."""
    total = sum(n for _, _, n in reliability)
    axes.captions("probability predicted", "share of samples")
    axes.ticks(SHARES, SHARES)
    for p, _, n in reliability:
        tenth = min(int(p * 10), 9)
        axes.bar(tenth / 10, (tenth + 1) / 10, n / total, LINE, gap=1)


def _confusion(canvas: Canvas, corner: Place, classes: Sequence[str], confusion: Sequence[Sequence[int]]) -> None:
    """Draw a confusion matrix: a cell shows the share of its predicted class among the samples of its row."""
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
    """Draw a histogram of errors in standard deviations, with the density of the standard normal."""
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
