"""The model folder that attributes are trained into, and the generator that they are about."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from energyql.attributes.bank import AttributeBank, FittedLabel
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.files import read_json, replacing, write_json
from energyql.generators.base import RANDOM, Generator, check_fitted_label
from energyql.generators.families import (
    CONFIG,
    WEIGHTS,
    family_of,
    module_fingerprint,
    read_generator,
    weights_fingerprint,
)
from energyql.generators.load import load_generator
from energyql.models import model_folder, packaged_models
from energyql.pipeline.model import save_model

BANK_FILES = ("attributes.safetensors", "vocabulary.json")
DEFAULT_TRUNCATION = 0.7
"""Truncation of a folder made from a checkpoint, which has none of its own."""
WORK = ".training"
"""Subfolder for what an interrupted training has done so far."""


@dataclass(frozen=True)
class Target:
    """Where training reads from and writes to.

    Attributes:
        folder: the model folder.
        generator: whose latents are labelled.
        fingerprint: of its weights, for the bank.
        truncation: the model's own, `None` where the generator is not in the folder.
        bank: the heads that the folder has already.
    """

    folder: Path
    generator: Generator
    fingerprint: str
    truncation: float | None
    bank: AttributeBank | None


def open_target(model: str | Path | Generator, out: str | Path | None, truncation: float | None = None) -> Target:
    """Find the generator, and put it into the folder `out` if it is not there.

    Args:
        model: a packaged model, a model folder, a checkpoint file, or a generator.
        out: the model folder to make or add to; by default that of `model`.
        truncation: of a folder that is made.

    Raises:
        ArgumentError: there must be an `out`.
        ModelError: a file is damaged, or `out` holds another generator.
    """
    if isinstance(model, str | Path):
        return _from_checkpoint(Path(model), out, truncation) if Path(model).is_file() else _from_folder(model, out)
    if out is None:
        raise ArgumentError("a generator needs a folder for its attributes", hint="give out=")
    folder = Path(out)
    if family_of(model) is not None:
        return _write(model, folder, truncation)
    mark = module_fingerprint(model)
    bank = _bank(folder)
    if bank is not None and bank.generator not in ("", mark):
        raise ModelError(f"{folder} holds attributes of another generator", hint="choose another folder")
    return Target(folder, model, mark, None, bank)


@contextmanager
def nothing_left(out: str | Path | None) -> Iterator[None]:
    """If the block is refused, remove the folder that it made, unless that holds work to go on from."""
    new = out is not None and not Path(out).exists()
    try:
        yield
    except EnergyQLError:
        if out is not None and new and not (Path(out) / WORK).exists():
            shutil.rmtree(out, ignore_errors=True)
        raise


def fitted_label(target: Target, label: int | Sequence[float] | str | None, space: str) -> FittedLabel:
    """The label that heads are fitted under: the given one, else that of the heads that are there.

    Raises:
        ArgumentError: the generator needs a label, or has no such label, or has no heads on `space` that can be fitted
            under it.
    """
    known = None if target.bank is None else target.bank.label
    checked = check_fitted_label(known if label is None else label, target.generator)
    if checked == RANDOM and space != "w":
        raise ArgumentError("heads that read z cannot tell the classes apart", hint="let them read w, or fit one class")
    return checked


def check_reading(target: Target, space: str, truncation: tuple[float, float], label: FittedLabel) -> None:
    """Heads in one folder read the same latent, at the same truncation, under the same label.

    Raises:
        ModelError: the folder has heads that read another one.
    """
    bank = target.bank
    if bank is not None and (bank.space, bank.truncation, bank.label) != (space, truncation, label):
        raise ModelError(
            f"the attributes of {target.folder} read {_reading(bank.space, bank.truncation, bank.label)}, so new ones "
            f"cannot read {_reading(space, truncation, label)}",
            hint="choose another folder",
        )


def _reading(space: str, truncation: tuple[float, float], label: FittedLabel) -> str:
    return f"{space} at truncation {truncation}" + ("" if label is None else f" under label {label}")


def set_truncation(target: Target, allowed: tuple[float, float]) -> None:
    """Let the truncation of a model without heads be one that its new heads know."""
    if target.truncation is None or target.bank is not None:
        return
    psi = min(max(target.truncation, allowed[0]), allowed[1])
    if psi != target.truncation:
        write_json(target.folder / CONFIG, read_json(target.folder / CONFIG) | {"truncation": psi})


def _from_folder(model: str | Path, out: str | Path | None) -> Target:
    source = model_folder(model)
    if out is None and model in packaged_models():
        raise ArgumentError(f"the packaged model {model!r} is not changed", hint="name a folder for a copy with out=")
    folder = source if out is None else Path(out)
    if folder.resolve() != source.resolve():
        if (folder / CONFIG).is_file():
            if weights_fingerprint(folder) != weights_fingerprint(source):
                raise ModelError(f"{folder} holds another generator than {source}", hint="choose another folder")
        else:
            # The configuration last: a folder with one is a model. A judge stays behind, for it reads other attributes.
            for name in (WEIGHTS, *BANK_FILES, CONFIG):
                if (source / name).is_file():
                    with replacing(folder / name) as temporary:
                        shutil.copyfile(source / name, temporary)
    return _opened(folder)


def _from_checkpoint(path: Path, out: str | Path | None, truncation: float | None) -> Target:
    if out is None:
        raise ArgumentError(f"{path} is a checkpoint, so a model folder must be named", hint="give out=, or --out")
    return _write(load_generator(path), Path(out), truncation)


def _write(generator: Generator, folder: Path, truncation: float | None) -> Target:
    if (folder / CONFIG).is_file():
        if module_fingerprint(read_generator(folder)) != module_fingerprint(generator):
            raise ModelError(f"{folder} holds another generator", hint="choose another folder")
    else:
        psi = DEFAULT_TRUNCATION if truncation is None else truncation
        # In full precision: the pictures of a converted model are those of the original.
        save_model(folder, folder.resolve().name, generator, truncation=psi, dtype=torch.float32)
    return _opened(folder)


def _opened(folder: Path) -> Target:
    try:
        truncation = float(read_json(folder / CONFIG)["truncation"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} has no truncation") from error
    bank, mark = _bank(folder), weights_fingerprint(folder)
    if bank is not None and bank.generator not in ("", mark):
        raise ModelError(f"{folder}: the attributes were fitted to another generator", hint="train them again")
    return Target(folder, read_generator(folder), mark, truncation, bank)


def _bank(folder: Path) -> AttributeBank | None:
    return AttributeBank.load(folder) if (folder / "vocabulary.json").is_file() else None
