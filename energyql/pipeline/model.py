"""Models: generator, attribute heads and judge, loaded from a folder without running code from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.judge import Judge
from energyql.attributes.labels import ImageLabeller, read_images
from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, ModelError
from energyql.files import fingerprint, read_json, write_json
from energyql.generators.base import RANDOM, Generator, Label, check_fitted_label, check_label, latent_size
from energyql.generators.checkpoints.reading import reading
from energyql.generators.families import CONFIG, WEIGHTS, module_fingerprint, read_generator, write_generator
from energyql.models import model_folder
from energyql.vocabulary import Vocabulary

FORMAT = 1
Values = dict[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,): bool, names of classes, or numbers."""


@dataclass(frozen=True)
class Model:
    """A generator with attribute heads and, if there is one, a judge.

    Attributes:
        name: for messages and provenance.
        generator: draws the pictures.
        bank: attribute heads that guide the sampler; its vocabulary is the model's.
        judge: reads attributes off pictures, independent of generator and bank: a `Judge`, or a function such as
            `train_attributes` takes; `None` if there is none. Queries about other attributes get no verdict.
        truncation: psi used unless a call says otherwise.
        fingerprints: SHA-256 of the weights of "generator", "attributes" and "judge".
    """

    name: str
    generator: Generator
    bank: AttributeBank
    judge: ImageLabeller | None = None
    truncation: float = 1.0
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary:
        """The attributes that queries may name."""
        return self.bank.vocabulary

    @property
    def report(self) -> Mapping[str, HeadReport]:
        """Quality of the heads on held-out latents, by attribute; heads that were not measured have none."""
        return self.bank.reports

    @property
    def device(self) -> torch.device:
        """The device of the generator's tensors; that of the heads if it has none."""
        module = self.generator if isinstance(self.generator, torch.nn.Module) else torch.nn.Module()
        return next((tensor.device for tensor in (*module.parameters(), *module.buffers())), self.bank.device)

    def check_label(self, label: int | Sequence[float] | None) -> Label | None:
        """Return a label under which the heads are valid, as it is recorded; by default the one they were fitted under.

        Raises:
            ArgumentError: the generator has no such label, or needs one, or the heads were fitted under another.
        """
        known = self.bank.label
        fallback = None if isinstance(known, str) else known
        checked = check_label(fallback if label is None else label, self.generator)
        if known == RANDOM and isinstance(checked, tuple):
            raise ArgumentError(
                f"the attributes of model {self.name!r} hold for every class, not between classes",
                hint=f"give a class from 0 to {len(checked) - 1}",
            )
        if known not in (None, RANDOM, checked):
            raise ArgumentError(
                f"the attributes of model {self.name!r} do not hold under label {checked}",
                hint=f"they were fitted under label {known}: use that, or train them for {checked}",
            )
        return checked

    def check_truncation(self, truncation: float | None) -> float:
        """Return a psi under which the heads are valid; by default the model's own.

        Raises:
            ArgumentError: the heads were fitted under others.
        """
        psi = self.truncation if truncation is None else truncation
        low, high = self.bank.truncation
        if not low <= psi <= high:
            allowed = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ArgumentError(
                f"the attributes of model {self.name!r} do not hold at truncation {psi:g}",
                hint=f"they were fitted at truncation {allowed}: use that, or train them for {psi:g}",
            )
        return psi

    def judge_images(self, images: Tensor) -> Values:
        """Return the judge's values of images (n, channels, height, width), by the attributes that it reads."""
        if self.judge is None:
            return {}
        with torch.inference_mode():
            return read_images(self.judge, images, self.vocabulary)

    def to(self, device: torch.device | str) -> Model:
        """Return the model on a device, in evaluation mode. Torch modules are moved in place, as in torch."""
        for part in (self.generator, self.judge):
            if isinstance(part, torch.nn.Module):
                part.to(device).eval()
        return replace(self, bank=self.bank.to(device))


def load_model(model: str | Path, device: torch.device | str = "cpu", *, generator: Generator | None = None) -> Model:
    """Load a packaged model by name, or a model folder.

    Args:
        model: a packaged model's name, such as "avatars", or a folder.
        device: where to compute.
        generator: for a folder that holds only the attributes of this generator of one's own.

    Returns:
        The model in evaluation mode, for arguments such as `generate(..., model=model)`.

    Raises:
        ModelError: it is missing or damaged, or its parts do not fit together.
    """
    if generator is not None:
        folder = Path(model)
        bank, mark = AttributeBank.load(folder), module_fingerprint(generator)
        _check_fitted_to(folder, bank, generator, mark)
        prints = {"generator": mark, "attributes": fingerprint(folder / "attributes.safetensors")}
        return Model(folder.resolve().name, generator, bank, None, bank.truncation[1], prints).to(device)
    folder = model_folder(model)
    path = folder / CONFIG
    config = read_json(path)
    with reading(path):
        if config["format"] != FORMAT:
            raise ModelError(f"model format {config['format']!r} is unknown; this energyql reads {FORMAT}")
        name, truncation = str(config["name"]), float(config["truncation"])
        if not math.isfinite(truncation):
            raise ValueError(f"truncation is {truncation}")
    generator = read_generator(folder)
    if not any((folder / file).is_file() for file in ("vocabulary.json", "attributes.safetensors")):
        hint = "fit some with energyql train"
        raise ModelError(f"model {name!r} has no attributes yet, so it cannot be queried", hint=hint)
    bank = AttributeBank.load(folder)
    weights = {path.stem: fingerprint(path) for path in sorted(folder.glob("*.safetensors"))}
    _check_fitted_to(folder, bank, generator, weights["generator"])
    size = latent_size(generator, bank.space)
    if bank.latent_dim != size:
        raise ModelError(f"{folder}: heads read {bank.latent_dim} numbers but {bank.space} has {size}")
    judge = Judge.load(folder) if (folder / "judge.json").is_file() else None
    if judge is not None and dict(judge.vocabulary) != dict(bank.vocabulary):
        raise ModelError(f"{folder}: the judge does not read the attributes of the heads", hint="train it again")
    return Model(name, generator, bank, judge, truncation, weights).to(device)


def _check_fitted_to(folder: Path, bank: AttributeBank, generator: Generator, mark: str) -> None:
    if bank.generator not in ("", mark):
        hint = "train them again, or use the generator they were fitted to"
        raise ModelError(f"{folder}: the attributes were fitted to another generator", hint=hint)
    try:
        if bank.label is not None:
            check_fitted_label(bank.label, generator)
    except ArgumentError as error:
        raise ModelError(f"{folder}: {error.message}", hint="train the attributes again") from None


def save_model(
    folder: Path, name: str, generator: Generator, *, truncation: float = 1.0, dtype: torch.dtype = torch.float16
) -> str:
    """Write `generator.safetensors`, by default in half precision, and `config.json`.

    Returns:
        The fingerprint to give to the attribute bank.
    """
    described = write_generator(folder, generator, dtype=dtype)
    write_json(folder / CONFIG, {"format": FORMAT, "name": name, "truncation": truncation, **described})
    return fingerprint(folder / WEIGHTS)


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; "auto" is a GPU if there is one.

    Raises:
        ArgumentError: there is no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.ones(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ArgumentError(f"device {name!r} is not available here", hint="use auto, cpu, cuda or mps") from error
    return device
