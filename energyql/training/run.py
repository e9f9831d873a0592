"""`train_attributes`: label latents of a generator, fit heads, calibrate, report, save."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import SPACES, AttributeBank
from energyql.attributes.labels import Column, ImageLabeller, encode_column
from energyql.errors import ArgumentError, DataError, ModelError, VocabularyError
from energyql.generators.base import RANDOM, Generator
from energyql.progress import Report, reporting
from energyql.training.heads import train_heads
from energyql.training.labels import LabelTable, infer
from energyql.training.report import report_heads
from energyql.training.samples import Prior, estimate_truncation, label_prior
from energyql.training.saving import save_heads
from energyql.training.table_labels import read_label_table
from energyql.training.target import WORK, Target, check_reading, fitted_label, nothing_left, open_target
from energyql.vocabulary import Kind, Vocabulary

LABEL_SEED = 2**32
"""Seed of the samples that labellers see: not one that people draw pictures with."""
TEST_SHARE, HELD_OUT_SHARE = 0.1, 0.12
"""Of all samples for the report alone; of the rest for early stopping and calibration."""


@dataclasses.dataclass(frozen=True)
class HeadSettings:
    """How heads are fitted; see `train_heads`. Decay is strong because latents are many numbers and labels are few."""

    hidden: int = 64
    steps: int = 2000
    batch: int = 512
    lr: float = 2e-3
    weight_decay: float = 3.0
    patience: int | None = 10
    balance: bool = False


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a training made.

    Attributes:
        folder: the model folder.
        bank: all its heads, new and old.
        report: of the new heads, by attribute; see `report_heads`.
    """

    folder: Path
    bank: AttributeBank
    report: Mapping[str, Mapping[str, Any]]


def train_attributes(
    model: str | Path | Generator,
    labels: LabelTable | str | Path | ImageLabeller,
    out: str | Path | None = None,
    *,
    vocabulary: Vocabulary | None = None,
    kinds: Mapping[str, Kind] | None = None,
    only: Sequence[str] | None = None,
    count: int = 10_000,
    space: str | None = None,
    truncation: float | tuple[float, float] | None = None,
    label: int | Sequence[float] | str | None = None,
    seed: int | None = None,
    replace: bool = False,
    settings: HeadSettings | None = None,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Trained:
    """Teach a generator attributes, and save them into a model folder with a report.

    A training that is interrupted goes on when it is called again, and ends as if it had never stopped. Attributes
    that the folder has already stay as they are, to the last bit.

    Args:
        model: a packaged model, a model folder, a checkpoint of any supported kind, or a generator of your own.
        labels: a `LabelTable`, the path of a CSV or Parquet file (see `read_label_table`), or a function or torch
            module that is shown pictures (see `ImageLabeller`).
        out: the model folder to make or to add to; by default that of `model`.
        vocabulary: what the labels are; inferred by default.
        kinds: kinds of single attributes, where inferring them goes wrong.
        only: attributes to train, all by default.
        count: pictures that a labeller is shown.
        space: the latent that heads read, "w", "z" or, for a StyleGAN, which sees nothing else of z, its "direction";
            by default that of the model's other heads, else "w".
        truncation: psi of the latents, or a range of it from which every sample gets its own. By default that of the
            model's other heads, else that of the latents of a table, else that of the model.
        label: of a conditional generator: the class of all pictures, or as many numbers as it has classes; or "random"
            for a class of its own each, after which the heads hold for every class. By default that of the model's
            other heads.
        seed: of the samples; picture i of `energyql.generate(seed=...)` is sample i. 0 by default for a table.
        replace: let a new attribute take the place of one with the same name.
        settings: of the fit.
        device: where pictures are drawn and heads are fitted.
        progress: show progress bars.

    Returns:
        The folder, all heads of the model, and a report of the new ones.

    Raises:
        EnergyQLError: files, labels and model do not fit together; the message says what to do.
    """
    if isinstance(labels, str | Path):
        labels = read_label_table(Path(labels))
    settings = settings or HeadSettings()
    psi = _range(truncation)
    if isinstance(labels, LabelTable):
        known = labels.vocabulary
        names = list(labels.columns)
    else:
        known = getattr(labels, "vocabulary", None)
        names = list(known) if isinstance(known, Vocabulary) else []
    with nothing_left(out):
        target = open_target(model, out, None if psi is None else psi[1])
        _check_names(names if only is None else list(only), target, replace)
        device = torch.device(device)
        if isinstance(target.generator, torch.nn.Module):
            target.generator.to(device).eval()
        space = space or (target.bank.space if target.bank is not None else "w")
        if space not in SPACES:
            raise ArgumentError(f"heads read one of {', '.join(SPACES)}, not {space!r}")
        label = fitted_label(target, label, space)
        seed = seed if seed is not None else 0 if isinstance(labels, LabelTable) else LABEL_SEED
        prior = Prior(target.generator, seed, psi or (1.0, 1.0), device, label)
        psi = psi or _default_truncation(target, labels, space, prior)
        prior = dataclasses.replace(prior, truncation=psi)
        check_reading(target, space, psi, label)
        with reporting(progress) as report:
            latents, columns = _labelled(prior, labels, count, space, target, only, replace, report)
            specs = infer(columns, kinds, vocabulary or known)
            source = labels.source if isinstance(labels, LabelTable) else "the labeller"
            targets = {name: encode_column(columns[name], spec, source) for name, spec in specs.items()}
            test = labels.test if isinstance(labels, LabelTable) else None
            order = _order(len(latents), test, seed)
            test = test if test is not None else int(TEST_SHARE * len(latents))
            latents, targets = latents[order], {name: values[order] for name, values in targets.items()}
            fitted = len(latents) - test
            bank, fits = train_heads(
                latents[:fitted].to(device),
                {name: values[:fitted].to(device) for name, values in targets.items()}, specs,
                held_out=HELD_OUT_SHARE, seed=seed % 2**63, space=space, truncation=psi, label=label,
                generator=target.fingerprint, checkpoint=target.folder / WORK / "heads.safetensors",
                progress=lambda done: report("training", done), **dataclasses.asdict(settings),
            )  # fmt: skip
            bank = bank.to("cpu")
        rows = slice(fitted, None) if test else slice(int(fitted * (1 - HELD_OUT_SHARE)), None)
        with torch.no_grad():
            found = report_heads(
                bank.predict(latents[rows]), {name: values[rows] for name, values in targets.items()}, specs
            )
        for name, fit in fits.items():
            found[name] |= {"temperature": fit.temperature, "steps": fit.steps, "labels": _count(targets[name])}
        merged = save_heads(target, bank, found, replace=replace)
        shutil.rmtree(target.folder / WORK, ignore_errors=True)
        return Trained(target.folder, merged, found)


def _range(truncation: float | tuple[float, float] | None) -> tuple[float, float] | None:
    if truncation is None:
        return None
    low, high = truncation if isinstance(truncation, tuple) else (truncation, truncation)
    if not 0 <= low <= high <= 2:
        raise ArgumentError(f"truncation is a number or a range (low, high) in 0 to 2, not {truncation!r}")
    return float(low), float(high)


def _default_truncation(
    target: Target, labels: LabelTable | ImageLabeller, space: str, prior: Prior
) -> tuple[float, float]:
    if target.bank is not None:
        return target.bank.truncation
    if isinstance(labels, LabelTable) and labels.latents is not None and space == "w":
        psi = estimate_truncation(prior, labels.latents, labels.source)
    else:
        psi = 1.0 if target.truncation is None else target.truncation
    return psi, psi


def _check_names(names: Sequence[str], target: Target, replace: bool) -> None:
    """Before anything takes time."""
    taken = [name for name in names if target.bank is not None and name in target.bank.vocabulary]
    if taken and not replace:
        raise VocabularyError(
            f"{target.folder} already has {', '.join(map(repr, taken))}",
            hint="rename the attribute, or replace the old one with replace=True, or --replace",
        )
    if (target.folder / "judge.json").is_file() and set(names) - set(target.bank.vocabulary if target.bank else ()):
        raise ModelError(
            f"the judge of {target.folder} does not know {', '.join(map(repr, names))}",
            hint="name another folder with out=, or --out: the copy there goes without a judge",
        )


def _labelled(
    prior: Prior,
    labels: LabelTable | ImageLabeller,
    count: int,
    space: str,
    target: Target,
    only: Sequence[str] | None,
    replace: bool,
    report: Report,
) -> tuple[Tensor, Mapping[str, Column]]:
    """Latents in the space that heads read, and the cells of each attribute."""
    if not isinstance(labels, LabelTable):
        columns: Mapping[str, Column] = label_prior(
            prior, count, labels, target.folder / WORK / "labels", generator=target.fingerprint,
            check=lambda names: _check_names(names if only is None else only, target, replace),
            progress=lambda done: report("labelling", done),
        )  # fmt: skip
        index = torch.arange(count)
    else:
        columns, index = labels.columns, torch.arange(0) if labels.index is None else labels.index
    if only is not None:
        if unknown := [name for name in only if name not in columns]:
            raise VocabularyError(f"there are no labels for {unknown[0]!r}", hint=f"labels: {', '.join(columns)}")
        columns = {name: columns[name] for name in only}
    if isinstance(labels, LabelTable) and labels.latents is not None:
        first = torch.arange(1)
        own = (prior.w(first) if space == "w" else prior.z(first)).shape[1]
        if labels.latents.shape[1] != own:
            raise DataError(f"{labels.source}: latents of {labels.latents.shape[1]} numbers, but {space} has {own}")
        return labels.latents, columns
    if isinstance(labels, LabelTable) and prior.truncation[0] != prior.truncation[1]:
        raise ArgumentError("pictures that were labelled by hand have one truncation", hint="give that, not a range")
    if isinstance(labels, LabelTable) and prior.label == RANDOM:
        raise ArgumentError("pictures that were labelled by hand have one class label", hint='give that, not "random"')
    return (prior.w(index) if space == "w" else prior.z(index)), columns


def _order(count: int, test: int | None, seed: int) -> Tensor:
    """Rows in the order of training: mixed, but rows that are meant for the report stay at the end."""
    if count < 20:
        raise DataError(f"{count} labelled samples are too few to learn from", hint="label some hundreds at least")
    mixed = count - (test or 0)
    random = torch.Generator().manual_seed(seed % 2**63)
    return torch.cat([torch.randperm(mixed, generator=random), torch.arange(mixed, count)])


def _count(values: Tensor) -> int:
    return int((~values.isnan()).sum())
