"""Fit a judge to labelled pictures: a network that shares nothing with the heads but the kind of its labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import split_outputs
from energyql.attributes.quality import HeadReport
from energyql.training.heads import residuals
from energyql.training.picture_fit import PictureFit, PictureSettings, read_outputs
from energyql.training.report import report_quality
from energyql.vocabulary import Vocabulary

TEST_SHARE = 0.2
"""Share of the pictures for the report."""


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
) -> tuple[Judge | None, dict[str, HeadReport]]:
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
        The judge, of the attributes that it reads clearly better than chance on the pictures for the report, or `None`
        if there is none (see `HeadReport.judges`); and a report of every attribute. The standard deviation of a number
        is that of the errors on the pictures for the report.

    Raises:
        DataError: the rows to learn from have no labels of an attribute.
    """
    order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))
    tested = max(1, round(TEST_SHARE * len(order)))
    test, rows = order.split([tested, len(order) - tested])
    fit = PictureFit(pictures, labels, vocabulary, settings or PictureSettings(), rows=rows, seed=seed, device=device)
    fit.run(checkpoint, progress)
    judge = fit.finish()
    outputs = read_outputs(judge, pictures[test])
    unseen, learnt = ({name: labels[name][part].float() for name in vocabulary} for part in (test, rows))
    std = residuals(outputs, unseen, vocabulary)
    judge.std.copy_(torch.stack(list(std.values())))
    predictions = split_outputs(outputs, vocabulary.values(), std)
    judge.report = report_quality(predictions, unseen, vocabulary, learnt)
    chosen = [name for name, report in judge.report.items() if report.judges]
    return judge.only(chosen) if chosen else None, judge.report
