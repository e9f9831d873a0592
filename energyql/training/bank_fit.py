"""Fit, calibrate and measure heads: small networks that predict attributes of pictures from latents.

A teacher (networks that read pictures) may label more pictures for the heads. Each attribute also gets a second head,
which is fitted to half of the samples only. Where the two heads of an attribute disagree, predictions are doubtful.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.judge import Judge
from energyql.attributes.labels import Column, encode_column
from energyql.attributes.pictures import heads_of
from energyql.errors import DataError
from energyql.numerics.shapes import Float
from energyql.training.heads import MORE, HeadFit, HeadSettings, check_labels, train_heads
from energyql.training.labels import LabelTable, warn_of_few_labels
from energyql.training.report import report_quality, with_gains
from energyql.training.target import Task
from energyql.training.teacher import DRAWS, Taught, teach
from energyql.vocabulary import Vocabulary

TEST_SHARE = 0.1
"""Share of the labelled samples that are held out for the report on the heads, if the table of labels does not say
which samples are for the report. With fewer than 2,000 samples, the larger `SMALL_TEST_SHARE` is used."""
HELD_OUT_SHARE, SECOND_HELD_OUT_SHARE = 0.12, 0.2
"""Shares of the samples that are held out to decide when the training of heads stops, and to calibrate the heads. The
first number is for the first heads: a share of the samples that are not for the report. The second number is for the
second heads: a share of the last half of all samples; the other samples are not used for second heads."""
TAUGHT_DECAY = 1 / 3
"""Factor of the weight decay of heads that learn from labels by a teacher. Heads with more labels need less decay."""
TAUGHT_STOPPING = 1 / 8
"""Share of the pictures labelled by the teacher that are held out to decide when the training of heads stops, and to
calibrate the heads. Labels by hand are held out too, but these alone are too few: of 500 labels by hand, only some 55
are held out."""
SMALL_TEST_SHARE, ENOUGH_TESTS = 0.2, 200
"""If there are fewer than 2,000 labelled samples, the share `SMALL_TEST_SHARE` is for the report on the heads, but at
most `ENOUGH_TESTS` samples. With only `TEST_SHARE` of so few samples, the confidence intervals of the scores would be
too wide."""


def fit_bank(
    task: Task,
    latents: Float[Tensor, "rows latent_dim"],
    columns: Mapping[str, Column],
    specs: Vocabulary,
    *,
    further: int,
    settings: HeadSettings,
) -> tuple[AttributeBank, dict[str, Head], Sequence[Judge]]:
    """Fit a head to each attribute of labelled samples, and measure the heads on samples kept for the report.

    If the labels are a table with numbers of pictures, a teacher (networks that learn from the table) labels further
    pictures. Heads of attributes that the teacher reads clearly better than chance learn from the table and from labels
    by the teacher; both sorts of labels also decide when their training stops, and calibrate them. Other heads use the
    table only.

    Args:
        task: the model folder, the prior samples and their labels.
        latents: latents of the labelled samples, a row each, in the space that the heads read.
        columns: attribute -> a label for each row of `latents`.
        specs: the attributes to fit.
        further: number of pictures that the teacher labels, see `further_pictures`; 0 for no teacher.
        settings: settings of the fit.

    Returns:
        Three values. First, the heads with their reports. Second, attribute -> second head, see `fit_second`. Third,
            the networks of the teacher; the list is empty if no teacher labelled pictures.

    Raises:
        DataError: there are fewer than 20 samples, too few labels of an attribute, or a label that is no value of its
            attribute.
    """
    table, seed = task.table or LabelTable({}, source="the labeller"), task.prior.seed % 2**63
    labels = {name: encode_column(columns[name], spec, table.source) for name, spec in specs.items()}
    count, test = len(latents), table.test or 0
    if count < 20:
        raise DataError(f"{count} labelled samples are too few to learn from", hint=MORE)
    warn_of_few_labels(labels, specs)
    # Rows for the report are the last ones, and stay last. Rows that are only learned from stay first.
    first, last = table.learned, count - test
    middle = first + torch.randperm(last - first, generator=torch.Generator().manual_seed(seed))
    order = torch.cat([torch.arange(first), middle, torch.arange(last, count)])
    fitted = count - (test or int(max(TEST_SHARE * count, min(SMALL_TEST_SHARE * count, ENOUGH_TESTS))))
    taught = Taught(latents[:0], {}, {})
    if further:
        taught = teach(task, table, labels, order[:fitted], specs, count=further)
    latents, labels = latents[order], {name: numbers[order] for name, numbers in labels.items()}
    held_out, seen = (
        {name: numbers[rows] for name, numbers in labels.items()} for rows in (slice(fitted, None), slice(fitted))
    )
    stopping = min(HELD_OUT_SHARE, len(middle) / 2 / fitted)
    stop = fitted - int(fitted * (1 - stopping))
    with task.target.work.step("heads") as folder:
        bank, fits = _fit(task, latents[:fitted], seen, specs, taught, folder, stop=stop, settings=settings)
    with torch.no_grad():
        predictions = bank.predict(latents[fitted:])
    reports = report_quality(predictions, held_out, specs, seen)
    if table.drawn is not None:
        old = None if task.target.bank is None else heads_of(task.target.bank, "a round of labels")
        reports = with_gains(reports, old, bank, latents[fitted:], held_out, table.drawn)
    second = fit_second(task, latents, labels, bank, settings, taught)
    for name, report in reports.items():
        details = {**report.details, **dataclasses.asdict(fits[name])}
        details |= {"teacher": taught.report[name]} if name in taught.report else {}
        reports[name] = dataclasses.replace(report, details=details)
    return bank.with_reports(reports), second, taught.networks


def with_labels(specs: Vocabulary, labels: Mapping[str, Tensor], split: int) -> Vocabulary:
    """Return the attributes that have enough labels for the fit of a head, see `check_labels`.

    Args:
        specs: the attributes.
        labels: attribute -> (n,): 0/1, class index or number; NaN where missing.
        split: heads learn from the first `split` labels; the other labels are held out.
    """
    usable = []
    for name, spec in specs.items():
        with suppress(DataError):
            check_labels(labels[name], spec, len(labels[name]), split)
            usable.append(spec)
    return Vocabulary(usable)


def fit_heads(
    task: Task, latents: Tensor, labels: Mapping[str, Tensor], specs: Vocabulary, settings: HeadSettings, *,
    held_out: float | int, stage: str, checkpoint: Path | None = None, seed: int = 0,
) -> tuple[AttributeBank, dict[str, HeadFit]]:  # fmt: skip
    """Fit heads by `train_heads` on the device of a training, and return them on the CPU.

    Args:
        task: the prior samples, with the seed and the device of the training.
        latents: (n, latent_dim), in the space that the heads read.
        labels: attribute -> (n,): 0/1, class index or number; NaN where missing.
        specs: the attributes.
        settings: settings of the fit.
        held_out: number or share of the last latents that stop and calibrate the heads.
        stage: name of the fit in reports of progress.
        checkpoint: file for the state of the fit; `None` for no file.
        seed: number that is added to the seed of the samples to get the seed of the fit.
    """
    device = task.prior.device
    bank, fits = train_heads(
        latents.to(device), {name: labels[name].to(device) for name in specs}, specs, settings, held_out=held_out,
        seed=(task.prior.seed % 2**63 + seed) % 2**63, fitted=task.prior.fitted, checkpoint=checkpoint,
        progress=task.progress(stage),
    )  # fmt: skip
    return bank.to("cpu"), fits


def _fit(
    task: Task,
    latents: Float[Tensor, "rows latent_dim"],
    labels: Mapping[str, Tensor],
    specs: Vocabulary,
    taught: Taught,
    folder: Path,
    *,
    stop: int,
    settings: HeadSettings,
) -> tuple[AttributeBank, dict[str, HeadFit]]:
    """Fit the first head of each attribute; `fit_second` fits the second heads.

    Heads of the attributes in `taught.labels` are fitted to labels by the teacher and by hand, other heads to labels by
    hand alone.

    Args:
        task: the model folder and the prior samples.
        latents: latents of samples that were labelled by hand or by a function.
        labels: attribute -> labels of these samples, (rows,): 0/1, class index or number; NaN where missing.
        specs: the attributes.
        taught: latents and labels of the pictures that the teacher labelled.
        folder: folder for the states of the fits, from which an interrupted training continues.
        stop: how many of the last `latents` are held out to stop and calibrate all heads. Heads that learn from the
            teacher are stopped and calibrated on the share `TAUGHT_STOPPING` of its pictures as well.
        settings: settings of the fit.

    Returns:
        The heads; and attribute -> `HeadFit`, the number of steps of the fit and the temperature of the head.
    """
    heads: dict[str, Head] = {}
    fits: dict[str, HeadFit] = {}
    for stage, with_teacher in (("further", True), ("training", False)):
        group = Vocabulary(spec for name, spec in specs.items() if (name in taught.labels) == with_teacher)
        if not group:
            continue
        x, y, held_out, own = latents, {name: labels[name] for name in group}, stop, settings
        if with_teacher:
            pictures = len(taught.latents) // DRAWS
            first = (torch.arange(pictures) < round((1 - TAUGHT_STOPPING) * pictures)).repeat(DRAWS)
            x = torch.cat([taught.latents[first], x, taught.latents[~first]])
            y = {
                name: torch.cat([taught.labels[name][first], numbers, taught.labels[name][~first]])
                for name, numbers in y.items()
            }
            held_out += int((~first).sum())
            own = dataclasses.replace(settings, weight_decay=settings.weight_decay * TAUGHT_DECAY)
        part, part_fits = fit_heads(task, x, y, group, own, held_out=held_out, stage=stage, checkpoint=folder / stage)
        heads |= part.heads
        fits |= part_fits
    return AttributeBank(specs, {name: heads[name] for name in specs}, **vars(task.prior.fitted)), fits


def fit_second(
    task: Task,
    latents: Tensor,
    labels: Mapping[str, Tensor],
    bank: AttributeBank,
    settings: HeadSettings,
    taught: Taught,
) -> dict[str, Head]:
    """Fit a second head for each attribute of `bank`, with another seed, to the last half of the labelled samples.

    Where the first and the second head of an attribute disagree, predictions are doubtful. Second heads use only the
    last half of the samples, because two heads that learn from almost the same samples make the same errors. The last
    half contains the samples for the report, from which first heads do not learn. In a test with 400 samples, second
    heads that shared 80 % of the samples with the first heads disagreed on only 3 % of the wrong predictions. Second
    heads on the last half disagreed on 43 %.

    Args:
        task: the model folder and the prior samples.
        latents: (n, latent_dim), all labelled latents, in the space that the heads read.
        labels: attribute -> (n,): 0/1, class index or number; NaN where missing.
        bank: the first heads.
        settings: settings of the fit of the first heads; second heads take half of the steps.
        taught: latents and labels by the teacher. Second heads learn from every second of these latents.

    Returns:
        Attribute -> second head. Attributes with too few labels of the last half of the samples are left out.
    """
    own, more = slice(len(latents) // 2, None), slice(1, None, 2)
    held_out = len(latents[own]) - int(len(latents[own]) * (1 - SECOND_HELD_OUT_SHARE))
    latents, further = torch.cat([taught.latents[more], latents[own]]), taught.latents[more]
    unknown = further.new_full((len(further),), torch.nan)
    labels = {
        name: torch.cat([taught.labels[name][more] if name in taught.labels else unknown, numbers[own]])
        for name, numbers in labels.items()
    }
    specs = with_labels(bank.vocabulary, labels, len(latents) - held_out)
    with task.target.work.step("second heads") as checkpoint:
        if not specs:
            return {}
        settings = dataclasses.replace(settings, steps=max(1, settings.steps // 2))
        second, _ = fit_heads(
            task, latents, labels, specs, settings, held_out=held_out, stage="checking", checkpoint=checkpoint, seed=1
        )
    return second.heads
