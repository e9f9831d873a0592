"""Calibration of a reader of words, such as CLIP, by a few labels of pictures.

A reader tells the log-odds that a text is true of a picture; a slope and an offset fit them to labels (Platt 1999).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.attributes.labels import encode_column
from energyql.attributes.predictions import YesNo
from energyql.attributes.words import Calibration, Words, open_words, read_calibrations, specs_of
from energyql.errors import ArgumentError, DataError, either
from energyql.files import sole_writer
from energyql.generators.base import draw_batches
from energyql.models import model_folder, packaged_models
from energyql.numerics.pullback import Identity
from energyql.numerics.shapes import Float
from energyql.pipeline.model import judge_mark
from energyql.training.labels import read_label_table
from energyql.training.report import report_quality
from energyql.training.target import open_source

FOLDS = 10
"""Number of folds of the labels for the report on a calibration (cross-validation)."""
SLOPE_SPREAD, OFFSET_SPREAD = 0.7, 2.0
"""Standard deviations of the prior of log slope and offset, whose means are 0: without labels, nothing changes."""
STEPS = 50
"""Largest number of steps of Newton's method."""
LEAST = 10
"""Smallest number of labels of a text for a calibration."""


def platt(log_odds: Float[Tensor, " n"], labels: Float[Tensor, " n"]) -> tuple[float, float]:
    """Slope and offset with which `slope * log_odds + offset` is most probable given labels (0 or 1) and the prior."""
    x, y, at = log_odds.double(), labels.double(), torch.zeros(2, dtype=torch.double)
    spread = torch.tensor([SLOPE_SPREAD, OFFSET_SPREAD], dtype=torch.double)

    def loss(at: Tensor) -> Tensor:
        own = F.binary_cross_entropy_with_logits(at[0].exp() * x + at[1], y, reduction="sum")
        return own + (at / spread).square().sum() / 2

    for _ in range(STEPS):
        moved = at[0].exp() * x
        probable = (moved + at[1]).sigmoid()
        inputs = torch.stack([moved, torch.ones_like(x)])
        missed = probable - y
        slope = inputs @ missed + at / spread.square()
        curvature = (inputs * probable * (1 - probable)) @ inputs.T + spread.square().reciprocal().diag()
        curvature[0, 0] += (missed * moved).sum().clamp(min=0)
        step, size = torch.linalg.solve(curvature, slope), 1.0
        while loss(at - size * step) > loss(at) and size > 1e-6:
            size /= 2
        at = at - size * step
        if step.abs().max() < 1e-9:
            break
    return at[0].exp().item(), at[1].item()


def calibrated(
    log_odds: Float[Tensor, " n"], labels: Float[Tensor, " n"], text: str, contrast: str, learned: int = 0
) -> Calibration:
    """Calibrate a text by labels of pictures, and measure it by cross-validation.

    The report is on random pictures, because others were chosen for their uncertain predictions.

    Args:
        log_odds: log-odds of the text for n pictures, before calibration.
        labels: 0 or 1; NaN where a picture has no label.
        contrast: text with which the reader compared `text` to get the log-odds.
        learned: number of pictures at the start that are not random.

    Raises:
        DataError: there are fewer than `LEAST` labels, or all are equal.
    """
    there = ~labels.isnan()
    x, y = log_odds[there].double().cpu(), labels[there].cpu()
    if len(y) < LEAST or y.min() == y.max():
        what = f"only {len(y)} labels" if len(y) < LEAST else f"only the label {'yes' if y[0] else 'no'}"
        raise DataError(f"{text!r} has {what}", hint="label some thirty pictures, with some of yes and some of no")
    left_out = torch.zeros_like(x)
    order = y.argsort(stable=True)  # every part has both labels, as far as they go
    for part in range(FOLDS):
        test = order[part::FOLDS]
        rest = torch.ones(len(y), dtype=torch.bool).index_fill(0, test, False)
        slope, offset = platt(x[rest], y[rest])
        left_out[test] = slope * x[test] + offset
    spec = {text: specs_of([text])[0]}
    random = torch.arange(len(labels))[there.cpu()] >= learned
    predictions = {text: YesNo(left_out[random].float())}
    report = report_quality(predictions, {text: y[random]}, spec, {text: y[~random]})[text]
    slope, offset = platt(x, y)
    return Calibration(contrast, slope, offset, len(y), report)


def calibrate(
    model: str | Path, labels: str | Path, reader: Words | str | Path, *, contrasts: Mapping[str, str] | None = None
) -> dict[str, Calibration]:
    """Calibrate a reader of words by a table of labels, and write the calibrations into the model folder.

    A reader of words compares pictures with texts, such as "a hat", and tells how likely a text is true of a picture.
    All labels are learned from, but the reports use only those of random pictures, not those of pictures that were
    chosen because predictions for them were uncertain.

    Args:
        model: a model folder.
        labels: the table that `energyql label` wrote. Columns whose names are no attributes of the model are texts.
        reader: the path of a folder of transformers or open_clip, a name of code, or an object.
        contrasts: text -> another text, its contrast, whose logit is subtracted to get the log-odds. By default that of
            an earlier calibration, or "a picture" (`CONTRAST`).

    Returns:
        Text -> calibration, of the texts in the table.

    Raises:
        ArgumentError: the model is a packaged one, which is not written to; another process or thread writes into its
            folder; or the reader cannot be used.
        DataError: the table is about pictures of another generator, does not state how they were drawn, has no column
            that is a text, or has too few labels.
    """
    folder = model_folder(model)
    if folder.parent == model_folder(packaged_models()[0]).parent:
        copied = either("load_model(NAME).save_pretrained(FOLDER)", f"copy the folder {folder}")
        hint = f"name a copy of it: {copied}"
        raise ArgumentError(f"{folder.name} is a packaged model, which is not written to", hint=hint)
    with sole_writer(folder, "a calibration"):
        table, words, own = read_label_table(Path(labels)), open_words(reader, judge_mark), open_source(folder)
        mark, calibrations = read_calibrations(folder)
        words = replace(words, calibrations=calibrations if mark == words.mark else {})
        texts = [name for name in table.columns if own.bank is None or name not in own.bank.vocabulary]
        if not texts or table.index is None or table.drawn is None:
            what = "no column that is a text" if table.drawn is not None else "no record of how its pictures were drawn"
            raise DataError(
                f"{labels} has {what}", hint="energyql label writes one, with a text in quotes as the attribute"
            )
        table.drawn.check_generator(own.generator, str(labels))
        specs = specs_of(texts)
        cells = {spec.name: encode_column(table.columns[spec.name], spec, str(labels)) for spec in specs}
        chosen = contrasts or {}
        start = {text: Calibration(chosen.get(text, words.calibration(text).contrast)) for text in texts}
        w = own.prior_of(table.drawn, "cpu").w(table.index)
        plain = replace(words, calibrations=start, bounded=False)
        pictures = draw_batches(own.generator.synthesize, Identity(), w, w=w)
        log_odds = torch.cat([plain.log_odds(images, texts) for _, images in pictures])
        results = {
            text: calibrated(log_odds[:, i], cells[text], text, start[text].contrast, table.learned)
            for i, text in enumerate(texts)
        }
        replace(words, calibrations={**words.calibrations, **results}).save(folder)
        return results
