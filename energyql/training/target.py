"""The model folder that attributes are trained into: opening it, checking it, and saving heads and their report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from energyql.attributes.bank import AttributeBank, FittedLabel
from energyql.errors import ArgumentError, EnergyQLError, ModelError, VocabularyError
from energyql.files import fingerprint, read_json, replacing, write_json, write_picture
from energyql.generators.base import RANDOM, Generator, check_fitted_label
from energyql.generators.families import (
    CONFIG,
    WEIGHTS,
    family_of,
    module_fingerprint,
    read_generator,
)
from energyql.generators.load import load_generator
from energyql.models import model_folder, packaged_models
from energyql.pipeline.model import save_model
from energyql.training.report import draw_report

BANK_FILES = ("attributes.safetensors", "vocabulary.json", "report.json")
DEFAULT_TRUNCATION = 0.7
"""Truncation of a folder made from a checkpoint, which has none of its own."""
WORK = ".training"
"""Subfolder for the intermediate results of an interrupted training."""


@dataclass(frozen=True)
class Target:
    """The generator and the folder of a training.

    Attributes:
        folder: the model folder.
        generator: the generator whose latents are labelled.
        fingerprint: of its weights, for the bank.
        truncation: the model's own, `None` if the generator is not in the folder.
        bank: the heads that the folder already has.
    """

    folder: Path
    generator: Generator
    fingerprint: str
    truncation: float | None
    bank: AttributeBank | None

    def label(self, given: int | Sequence[float] | str | None, space: str) -> FittedLabel:
        """Return the label that heads are fitted under: the given one, else that of the heads in the folder.

        Raises:
            ArgumentError: the generator needs a label, or has no such label, or heads on `space` cannot be fitted
                under it.
        """
        known = None if self.bank is None else self.bank.label
        checked = check_fitted_label(known if given is None else given, self.generator)
        if checked == RANDOM and space != "w":
            raise ArgumentError(
                "heads that read z cannot tell the classes apart", hint="let them read w, or fit one class"
            )
        return checked

    def check_names(self, names: Sequence[str], replace: bool) -> None:
        """Check that attributes of these names can be added.

        Raises:
            VocabularyError: the folder already has one of them.
            ModelError: the folder has a judge, which does not read one of them.
        """
        own = {} if self.bank is None else self.bank.vocabulary
        if not replace and (taken := [name for name in names if name in own]):
            raise VocabularyError(
                f"{self.folder} already has {', '.join(map(repr, taken))}",
                hint="rename the attribute, or replace the old one with replace=True, or --replace",
            )
        if (self.folder / "judge.json").is_file() and set(names) - set(own):
            raise ModelError(
                f"the judge of {self.folder} does not read {', '.join(map(repr, names))}",
                hint="name another folder with out=, or --out: the copy there has no judge",
            )

    def check_latents(self, space: str, truncation: tuple[float, float], label: FittedLabel) -> None:
        """Check that new heads read the same latent, at the same truncation, under the same label as those there.

        Raises:
            ModelError: the folder has heads that read another one.
        """
        bank = self.bank
        if bank is not None and (bank.space, bank.truncation, bank.label) != (space, truncation, label):
            old, new = (
                f"{space} at truncation {truncation}" + ("" if label is None else f" under label {label}")
                for space, truncation, label in ((bank.space, bank.truncation, bank.label), (space, truncation, label))
            )
            raise ModelError(
                f"the attributes of {self.folder} read {old}, so new ones cannot read {new}",
                hint="choose another folder",
            )

    def save(self, bank: AttributeBank, *, replace: bool = False) -> AttributeBank:
        """Write new heads and their reports; other heads of the folder stay as they are.

        Returns:
            All heads of the folder.
        """
        merged = bank
        if self.bank is not None:
            merged = self.bank.with_heads(bank, replace=replace)
        elif self.truncation is not None:  # the truncation of a model without heads must be one of the new heads
            psi = min(max(self.truncation, bank.truncation[0]), bank.truncation[1])
            if psi != self.truncation:
                write_json(self.folder / CONFIG, read_json(self.folder / CONFIG) | {"truncation": psi})
        merged.save(self.folder)
        if merged.reports:
            picture = draw_report(merged.reports, f"Attribute heads of {self.folder.resolve().name}")
            write_picture(self.folder / "report.png", picture)
        else:
            (self.folder / "report.png").unlink(missing_ok=True)
        return merged


def open_target(model: str | Path | Generator, out: str | Path | None, truncation: float | None = None) -> Target:
    """Load the generator, and write it into the folder `out`, with this truncation, if it is not there.

    The arguments are those of `train_attributes`.

    Raises:
        ArgumentError: there must be an `out`.
        ModelError: a file is damaged, or `out` holds another generator.
    """
    if isinstance(model, str | Path):
        if not Path(model).is_file():
            return _from_folder(model, out)
        if out is None:
            raise ArgumentError(f"{model} is a checkpoint, so a model folder must be named", hint="give out=, or --out")
        return _write(load_generator(model), Path(out), truncation)
    if out is None:
        raise ArgumentError("a generator needs a folder for its attributes", hint="give out=")
    folder = Path(out)
    if family_of(model) is not None:
        return _write(model, folder, truncation)
    mark = module_fingerprint(model)
    return Target(folder, model, mark, None, _bank(folder, mark))


@contextmanager
def removing_new_folder(out: str | Path | None) -> Iterator[None]:
    """If the block raises an EnergyQLError, remove the folder that it made, unless it holds intermediate results."""
    new = out is not None and not Path(out).exists()
    try:
        yield
    except EnergyQLError:
        if out is not None and new and not (Path(out) / WORK).exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def _from_folder(model: str | Path, out: str | Path | None) -> Target:
    source = model_folder(model)
    if out is None and model in packaged_models():
        raise ArgumentError(f"the packaged model {model!r} is not changed", hint="name a folder for a copy with out=")
    folder = source if out is None else Path(out)
    if folder.resolve() != source.resolve():
        if not (folder / CONFIG).is_file():
            # The configuration last: a folder with one is a model. The judge is not copied: it reads other attributes.
            for name in (WEIGHTS, *BANK_FILES, CONFIG):
                if (source / name).is_file():
                    with replacing(folder / name) as temporary:
                        shutil.copyfile(source / name, temporary)
        elif fingerprint(folder / WEIGHTS) != fingerprint(source / WEIGHTS):
            raise ModelError(f"{folder} holds another generator than {source}", hint="choose another folder")
    return _opened(folder)


def _write(generator: Generator, folder: Path, truncation: float | None) -> Target:
    if not (folder / CONFIG).is_file():
        psi = DEFAULT_TRUNCATION if truncation is None else truncation
        # In full precision: the pictures of a converted model are those of the original.
        save_model(folder, folder.resolve().name, generator, truncation=psi, dtype=torch.float32)
    elif module_fingerprint(read_generator(folder)) != module_fingerprint(generator):
        raise ModelError(f"{folder} holds another generator", hint="choose another folder")
    return _opened(folder)


def _opened(folder: Path) -> Target:
    try:
        truncation = float(read_json(folder / CONFIG)["truncation"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} has no truncation") from error
    mark = fingerprint(folder / WEIGHTS)
    bank = _bank(folder, mark)
    return Target(folder, read_generator(folder), mark, truncation, bank)


def _bank(folder: Path, fingerprint: str) -> AttributeBank | None:
    if not (folder / "vocabulary.json").is_file():
        return None
    bank = AttributeBank.load(folder)
    if bank.generator not in ("", fingerprint):
        raise ModelError(
            f"{folder} holds attributes of another generator", hint="choose another folder, or train them again"
        )
    return bank
