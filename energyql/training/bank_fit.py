"""Fit, calibrate and measure the heads of a training, with or without a teacher, and fit the second heads."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.judge import Judge
from energyql.attributes.labels import Column, ImageLabeller, encode_column
from energyql.attributes.pictures import heads_of
from energyql.errors import DataError
from energyql.numerics.shapes import Float
from energyql.progress import Report
from energyql.training.heads import HeadFit, HeadSettings, check_labels, train_heads
from energyql.training.labels import LabelTable, warn_of_few_labels
from energyql.training.report import report_quality, with_gains
from energyql.training.samples import Prior
from energyql.training.target import Target
from energyql.training.teacher import DRAWS, Taught, further_pictures, teach
from energyql.vocabulary import Vocabulary

TEST_SHARE, HELD_OUT_SHARE, SECOND_HELD_OUT_SHARE = 0.1, 0.12, 0.2
"""Share of all samples for the report; share of the others for early stopping and calibration, of the first heads; and
of the half that the second heads are fitted to."""
TAUGHT_DECAY = 1 / 3
"""Weight decay of heads that have a teacher, as a share of that of others: they have more labels."""
TAUGHT_STOPPING = 1 / 8
"""Share of the teacher's pictures that its heads are stopped and calibrated on, with the labels by hand that are held
out: these are too few alone, some 55 of 500."""
SMALL_TEST_SHARE, ENOUGH_TESTS = 0.2, 200
"""Of few samples a larger share is for the report, up to this number: intervals of fewer labels are too wide."""


def fit_bank(
    target: Target,
    prior: Prior,
    labels: LabelTable | ImageLabeller,
    latents: Float[Tensor, "rows latent_dim"],
    columns: Mapping[str, Column],
    specs: Vocabulary,
    *,
    further: int | None,
    settings: HeadSettings,
    report: Report,
) -> tuple[AttributeBank, dict[str, Head], Sequence[Judge]]:
    """Fit heads to all rows but those for the report, and measure them on these.

    Where the rows are labels by hand of pictures, a teacher that learns from the same rows labels further pictures, and
    the heads that it can teach are fitted to these as well. All heads are stopped and calibrated on labels by hand.

    Args:
        target: the model folder, with the heads from before.
        prior: of the pictures, with what heads are fitted under.
        labels: where the labels are from.
        latents: of the rows, as the heads read them.
        columns: attribute -> a cell for each row.
        specs: the attributes.
        further: number of further pictures; see `further_pictures` for the default.
        settings: of the fit.
        report: told the progress.

    Returns:
        The heads with their reports, the second heads, see `fit_second`, and the networks of the teacher.

    Raises:
        DataError: there are too few labels, or a label is no value of its attribute.
    """
    table = labels if isinstance(labels, LabelTable) else LabelTable({}, source="the labeller")
    targets = {name: encode_column(columns[name], spec, table.source) for name, spec in specs.items()}
    count, seed, test = len(latents), prior.seed % 2**63, table.test or 0
    if count < 20:
        raise DataError(f"{count} labelled samples are too few to learn from", hint="label some hundreds at least")
    warn_of_few_labels(targets, specs)
    # The rows that a table keeps for the report stay last, those that measure nothing stay first.
    first, last = table.learned, count - test
    middle = first + torch.randperm(last - first, generator=torch.Generator().manual_seed(seed))
    order = torch.cat([torch.arange(first), middle, torch.arange(last, count)])
    fitted = count - (test or int(max(TEST_SHARE * count, min(SMALL_TEST_SHARE * count, ENOUGH_TESTS))))
    taught = Taught(latents[:0], {}, {})
    if table.index is not None and further != 0:
        further = further_pictures(prior) if further is None else further
        if further:
            taught = teach(target, prior, table, targets, order[:fitted], specs, count=further, report=report)
    latents, targets = latents[order], {name: values[order] for name, values in targets.items()}
    held_out, seen = (
        {name: values[rows] for name, values in targets.items()} for rows in (slice(fitted, None), slice(fitted))
    )
    with target.work.step("heads") as folder:
        bank, fits = _fit(
            prior, latents[:fitted], seen, specs, taught, folder, settings=settings, seed=seed,
            stopping=min(HELD_OUT_SHARE, len(middle) / 2 / fitted), report=report,
        )  # fmt: skip
    with torch.no_grad():
        predictions = bank.predict(latents[fitted:])
    found = report_quality(predictions, held_out, specs, seen)
    if table.drawn is not None:
        old = None if target.bank is None else heads_of(target.bank, "a round of labels")
        found = with_gains(found, old, bank, latents[fitted:], held_out, table.drawn)
    with target.work.step("second heads") as checkpoint:
        second = fit_second(
            latents, targets, bank, settings, taught, seed=seed, device=prior.device, checkpoint=checkpoint,
            progress=lambda done: report("checking", done),
        )  # fmt: skip
    more: dict[str, dict[str, Any]] = {
        name: {"temperature": fits[name].temperature, "steps": fits[name].steps}
        | ({"teacher": taught.report[name]} if name in taught.report else {})
        for name in specs
    }
    return (
        bank.with_reports(
            {name: dataclasses.replace(each, details={**each.details, **more[name]}) for name, each in found.items()}
        ),
        second,
        taught.networks,
    )


def _fit(
    prior: Prior,
    latents: Float[Tensor, "rows latent_dim"],
    labels: Mapping[str, Tensor],
    specs: Vocabulary,
    taught: Taught,
    folder: Path,
    *,
    stopping: float,
    settings: HeadSettings,
    seed: int,
    report: Report,
) -> tuple[AttributeBank, dict[str, HeadFit]]:
    """Fit the heads that have a teacher to its labels and those by hand, and the others to labels by hand alone.

    `stopping` is the share of the rows, the last ones, that heads are stopped and calibrated on. Heads that have a
    teacher are stopped and calibrated on a part of its pictures as well. The states of the fits are in `folder`.
    """
    stop = len(latents) - int(len(latents) * (1 - stopping))
    heads: dict[str, Head] = {}
    fits: dict[str, HeadFit] = {}
    for with_teacher in (True, False):
        group = Vocabulary(spec for name, spec in specs.items() if (name in taught.labels) == with_teacher)
        if not group:
            continue
        x = torch.cat([taught.latents, latents]) if with_teacher else latents
        y = {name: torch.cat([taught.labels[name], labels[name]]) if with_teacher else labels[name] for name in group}
        held_out = stop
        if with_teacher:
            of_picture = torch.arange(len(taught.latents) // DRAWS)
            kept = (of_picture < round((1 - TAUGHT_STOPPING) * len(of_picture))).repeat(DRAWS)
            learned, others = (rows.nonzero()[:, 0] for rows in (kept, ~kept))
            by_hand = torch.arange(len(kept), len(x))
            rows = torch.cat([learned, by_hand, others])
            x, y, held_out = x[rows], {name: values[rows] for name, values in y.items()}, stop + len(others)
        stage = "further" if with_teacher else "training"
        decay = settings.weight_decay * (TAUGHT_DECAY if with_teacher else 1)
        part, found = train_heads(
            x.to(prior.device),
            {name: values.to(prior.device) for name, values in y.items()},
            group,
            dataclasses.replace(settings, weight_decay=decay),
            held_out=held_out,
            seed=seed,
            fitted=prior.fitted,
            checkpoint=folder / stage,
            progress=lambda done, stage=stage: report(stage, done),  # type: ignore[misc]
        )
        heads |= part.to("cpu").heads
        fits |= found
    return AttributeBank(specs, {name: heads[name] for name in specs}, **vars(prior.fitted)), fits


def fit_second(
    latents: Tensor,
    targets: Mapping[str, Tensor],
    bank: AttributeBank,
    settings: HeadSettings,
    taught: Taught,
    *,
    seed: int,
    device: torch.device,
    checkpoint: Path | None = None,
    progress: Callable[[float], None] = lambda _: None,
) -> dict[str, Head]:
    """Fit a second head for each attribute of `bank`, with another seed, to the last half of the rows.

    It disagrees with the first where neither has learnt enough.

    The first heads are fitted to the first rows. Two sets that shared most of their rows would share their errors too:
    with 80 % of 400 rows in common, they disagreed on 3 % of the wrong samples of moderate heads, and with the second
    set on the last half on 43 %.

    Args:
        latents: (n, latent_dim), in the space that the heads read.
        targets: attribute -> (n,), NaN where missing. Attributes with too few labels in that half get no second head.
        bank: the first heads.
        settings: of the fit of the first heads; the second take half of the steps.
        taught: what a teacher labelled for the first heads; every second latent of it is for the second heads.
        seed: of the first fit.
        device: where to compute.
        checkpoint: as for `train_heads`.
        progress: called with the fraction done.
    """
    own, more = slice(len(latents) // 2, None), slice(1, None, 2)
    held_out = len(latents[own]) - int(len(latents[own]) * (1 - SECOND_HELD_OUT_SHARE))
    latents, further = torch.cat([taught.latents[more], latents[own]]), taught.latents[more]
    unknown = further.new_full((len(further),), torch.nan)
    targets = {
        name: torch.cat([taught.labels[name][more] if name in taught.labels else unknown, values[own]])
        for name, values in targets.items()
    }
    usable = []
    for name, spec in bank.vocabulary.items():
        try:
            check_labels(targets[name], spec, len(latents), len(latents) - held_out)
            usable.append(spec)
        except DataError:
            continue
    if not usable:
        return {}
    second, _ = train_heads(
        latents.to(device),
        {name: values.to(device) for name, values in targets.items()},
        Vocabulary(usable),
        dataclasses.replace(settings, steps=max(1, settings.steps // 2)),
        held_out=held_out,
        seed=(seed + 1) % 2**63,
        fitted=bank.fitted,
        checkpoint=checkpoint,
        progress=progress,
    )
    return second.to("cpu").heads
