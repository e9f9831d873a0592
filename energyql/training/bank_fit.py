"""Fit, calibrate and measure heads on labelled samples, with more labels by a teacher (networks that read pictures)."""

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
from energyql.training.labelled import Labelled
from energyql.training.labels import LabelTable, warn_of_few_labels
from energyql.training.report import report_quality, with_gains
from energyql.training.target import Task
from energyql.training.teacher import DRAWS, Taught, teach
from energyql.vocabulary import Vocabulary

REPORT_SHARE = 0.1
"""Share of the labelled samples held out for the report, unless the table of labels says which are."""
HELD_OUT_SHARE, SECOND_HELD_OUT_SHARE = 0.12, 0.2
"""Shares of the samples that are held out to stop and calibrate first heads and second heads."""
TAUGHT_DECAY = 1 / 3
"""Factor of the weight decay of heads that learn from a teacher: with more labels, less decay is needed."""
TAUGHT_STOPPING = 1 / 8
"""Share of the teacher's pictures that is held out to stop and calibrate heads: labels by hand alone are too few."""
SMALL_REPORT_SHARE, ENOUGH_TESTS = 0.2, 200
"""Share for the report of few samples, at most `ENOUGH_TESTS`: with `REPORT_SHARE`, intervals would be wide."""


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

    A teacher, fitted to a table with numbers of pictures, may label more pictures. Heads of attributes that it reads
    clearly better than chance learn from both sorts of labels, other heads from the table only.

    Args:
        columns: attribute -> a label for each row of `latents`.
        further: number of pictures that the teacher labels, see `further_pictures`; 0 for no teacher.

    Returns:
        The heads with their reports; attribute -> second head, see `fit_second`; and the teacher's networks, if any.

    Raises:
        DataError: there are fewer than 20 samples, too few labels of an attribute, or a label is no value of it.
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
    fitted = count - (test or int(max(REPORT_SHARE * count, min(SMALL_REPORT_SHARE * count, ENOUGH_TESTS))))
    taught = Taught(latents[:0], {}, {})
    if further:
        taught = teach(task, table, labels, order[:fitted], specs, count=further)
    labelled = Labelled(latents, labels, specs).take(order)
    seen, unseen = labelled.take(slice(fitted)), labelled.take(slice(fitted, None))
    stopping = min(HELD_OUT_SHARE, len(middle) / 2 / fitted)
    stop = fitted - int(fitted * (1 - stopping))
    with task.target.work.step("heads") as folder:
        bank, fits = _fit(task, seen, taught, folder, stop, settings)
    with torch.no_grad():
        predictions = bank.predict(unseen.inputs)
    reports = report_quality(predictions, unseen.labels, specs, seen.labels)
    if table.drawn is not None:
        old = None if task.target.bank is None else heads_of(task.target.bank, "a round of labels")
        reports = with_gains(reports, old, bank, unseen.inputs, unseen.labels, table.drawn)
    second = fit_second(task, labelled, settings, taught)
    for name, report in reports.items():
        details = {**report.details, **dataclasses.asdict(fits[name])}
        details |= {"teacher": taught.report[name]} if name in taught.report else {}
        reports[name] = dataclasses.replace(report, details=details)
    return bank.with_reports(reports), second, taught.networks


def with_labels(specs: Vocabulary, labels: Mapping[str, Tensor], split: int) -> Vocabulary:
    """Attributes for which a head can be fitted to the labels, see `check_labels`."""
    usable = []
    for name, spec in specs.items():
        with suppress(DataError):
            check_labels(labels[name], spec, len(labels[name]), split)
            usable.append(spec)
    return Vocabulary(usable)


def _fit(
    task: Task, labelled: Labelled[Tensor], taught: Taught, folder: Path, stop: int, settings: HeadSettings
) -> tuple[AttributeBank, dict[str, HeadFit]]:
    """Fit the first heads, to labels by teacher and by hand where `taught` has the attribute, else by hand alone."""
    specs, fitted = labelled.vocabulary, task.prior.fitted
    heads: dict[str, Head] = {}
    fits: dict[str, HeadFit] = {}
    for stage, with_teacher in (("further", True), ("training", False)):
        group = Vocabulary(spec for name, spec in specs.items() if (name in taught.labels) == with_teacher)
        if not group:
            continue
        x, y, held_out, own = labelled.inputs, {name: labelled.labels[name] for name in group}, stop, settings
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
        course = task.course(stage, folder / stage, task.prior.seed)
        part, part_fits = train_heads(Labelled(x, y, group), own, course, held_out=held_out, fitted=fitted)
        heads |= part.heads
        fits |= part_fits
    return AttributeBank(specs, {name: heads[name] for name in specs}, fitted=fitted), fits


def fit_second(task: Task, labelled: Labelled[Tensor], settings: HeadSettings, taught: Taught) -> dict[str, Head]:
    """Fit a second head to each attribute: where it disagrees with the first, predictions are doubtful.

    Two heads that learn from almost the same samples make the same errors. So second heads learn from only the last
    half of the samples, which includes the report's, unseen by the first heads; and from every second picture of the
    teacher. They take half the steps. Attributes with too few labels in that half have no second head.
    """
    own, more = labelled.take(slice(len(labelled) // 2, None)), slice(1, None, 2)
    held_out = len(own) - int(len(own) * (1 - SECOND_HELD_OUT_SHARE))
    further = taught.latents[more]
    latents = torch.cat([further, own.inputs])
    unknown = further.new_full((len(further),), torch.nan)
    labels = {
        name: torch.cat([taught.labels[name][more] if name in taught.labels else unknown, numbers])
        for name, numbers in own.labels.items()
    }
    specs = with_labels(own.vocabulary, labels, len(latents) - held_out)
    with task.target.work.step("second heads") as checkpoint:
        if not specs:
            return {}
        settings = dataclasses.replace(settings, steps=max(1, settings.steps // 2))
        own, course = Labelled(latents, labels, specs), task.course("checking", checkpoint, task.prior.seed + 1)
        second, _ = train_heads(own, settings, course, held_out=held_out, fitted=task.prior.fitted)
    return second.heads
