"""Fit a judge to labelled pictures: a network that shares nothing with the heads but the kind of its labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import output_count
from energyql.numerics.shapes import Float
from energyql.training.heads import balanced_accuracy, residual
from energyql.training.picture_fit import PictureFit, PictureSettings, read_outputs
from energyql.vocabulary import AttributeSpec, Vocabulary

TEST_SHARE = 0.2
"""Share of the pictures for the report."""
LEAST_SKILL = 0.3
"""Least skill of a judge: 0 is chance, 1 is perfect. A verdict of less skill says little of one picture."""
_Z = 1.96


def fit_judge(
    pictures: Tensor,
    labels: Mapping[str, Tensor],
    vocabulary: Vocabulary,
    settings: PictureSettings | None = None,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    checkpoint: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> tuple[Judge | None, dict[str, dict[str, Any]]]:
    """Train a judge on pictures. Classes count equally, because queries ask for rare ones as well.

    Args:
        pictures: (n, 3, side, side) uint8.
        labels: attribute -> (n,) float: 0/1, class index or number; NaN where missing.
        vocabulary: the attributes; `labels` must have each.
        settings: of the fit.
        seed: same seed, same judge; it also chooses the rows for the report.
        device: where to train.
        checkpoint: file for the state; an interrupted training with the same data continues from it.
        progress: called with the fraction done.

    Returns:
        The judge, of the attributes that it reads clearly better than chance on the rows for the report, or `None` if
        there is none; and a report of every attribute: `accuracy` (see `balanced_accuracy`), `skill` (see `examine`)
        with its 95 % `interval`, `samples` of the report, `labels` in all, and whether the judge `reads` it. The first
        three are `None` where too few labels are among the samples of the report.

    Raises:
        DataError: the rows to learn from have no labels of an attribute.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    tested = max(1, round(TEST_SHARE * len(order)))
    test, rows = order.split([tested, len(order) - tested])
    fit = PictureFit(pictures, labels, vocabulary, settings or PictureSettings(), rows=rows, seed=seed, device=device)
    fit.run(checkpoint, progress)
    judge = fit.finish()
    outputs = read_outputs(judge, pictures[test]).split([output_count(spec) for spec in vocabulary.values()], 1)
    for i, (part, spec) in enumerate(zip(outputs, vocabulary.values(), strict=True)):
        answers = labels[spec.name].float()
        known = ~answers.isnan()
        judge.std[i] = residual(part, answers[test], spec) if known[test].any() else 1.0
        judge.report[spec.name] = examine(part, answers[test], spec) | {"labels": int(known.sum())}
    chosen = [name for name, numbers in judge.report.items() if numbers["reads"]]
    return judge.only(chosen) if chosen else None, judge.report


def examine(outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> dict[str, Any]:
    """Return the quality of outputs on rows that took no part in the training; see `fit_judge`.

    The skill is 0 at chance and 1 where all is right: balanced accuracy on that scale, or R2 of a number.
    """
    known = ~labels.isnan()
    outputs, labels = outputs[known], labels[known]
    count = max(2, output_count(spec))
    unknown = {"accuracy": None, "skill": None, "interval": None, "samples": len(labels), "reads": False}
    if spec.kind == "continuous":
        squares = (labels - labels.mean()).square()
        rest = (outputs[:, 0] - labels).square()
        if len(labels) < 3 or not squares.mean() > 0:
            return unknown
        share = rest.mean() / squares.mean()
        value = 1 - share.item()
        spread = ((rest - share * squares) / squares.mean()).std().item() / math.sqrt(len(labels))
    else:
        if len(labels.unique()) < count:  # a class is missing, so nothing is known of its recall
            return unknown
        decided = outputs.argmax(1) if spec.kind == "categorical" else (outputs[:, 0] > 0).long()
        chance, variance = 1 / count, 0.0
        for k in range(count):
            right = (decided[labels == k] == k).float()
            recall = (right.sum().item() + 1) / (len(right) + 2)  # never 0 or 1, where the error would seem to be 0
            variance += recall * (1 - recall) / (len(right) + 2) / count**2
        value = (balanced_accuracy(outputs, labels, spec) - chance) / (1 - chance)
        spread = math.sqrt(variance) / (1 - chance)
    interval = [value - _Z * spread, min(1.0, value + _Z * spread)]
    return {
        "accuracy": balanced_accuracy(outputs, labels, spec),
        "skill": value,
        "interval": interval,
        "samples": len(labels),
        "reads": interval[0] > 0 and value >= LEAST_SKILL,
    }
