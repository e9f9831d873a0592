"""A model folder: generator, attribute heads and judge, loaded without running anything that it holds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from energyql.attributes.bank import AttributeBank
from energyql.errors import ModelError
from energyql.evaluation.judge import Judge
from energyql.files import fingerprint, read_json, write_json
from energyql.generators.base import Generator
from energyql.generators.checkpoints.folder import read_generator, weights_fingerprint, write_generator
from energyql.generators.checkpoints.refusal import reading
from energyql.models import model_folder
from energyql.vocabulary import Vocabulary

FORMAT = 1
NO_ATTRIBUTES = "fit some with energyql train"


@dataclass(frozen=True)
class Model:
    """What a query needs.

    Attributes:
        name: for messages and provenance.
        generator: draws.
        bank: guides; its vocabulary is the model's.
        judge: reads attributes off pictures, independent of generator and bank; `None` if there is none.
        truncation: psi used unless a call says otherwise.
        fingerprints: SHA-256 of the weights of "generator", "attributes" and "judge".
    """

    name: str
    generator: Generator
    bank: AttributeBank
    judge: Judge | None
    truncation: float = 1.0
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    @property
    def vocabulary(self) -> Vocabulary:
        return self.bank.vocabulary


def load_model(model: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load a packaged model by name, or a model folder.

    Raises:
        ModelError: it is missing or damaged, or its parts do not belong together.
    """
    folder = model_folder(model)
    path = folder / "config.json"
    config = read_json(path)
    with reading(path):
        if config["format"] != FORMAT:
            raise ModelError(f"model format {config['format']!r} is unknown; this energyql reads {FORMAT}")
        name, truncation = str(config["name"]), float(config["truncation"])
        if not math.isfinite(truncation):
            raise ValueError(f"truncation is {truncation}")
    generator = read_generator(folder)
    if not any((folder / file).is_file() for file in ("vocabulary.json", "attributes.safetensors")):
        raise ModelError(f"model {name!r} has no attributes yet, so no query can be asked of it", hint=NO_ATTRIBUTES)
    bank = AttributeBank.load(folder)
    weights = {path.stem: fingerprint(path) for path in sorted(folder.glob("*.safetensors"))}
    if bank.generator not in ("", weights["generator"]):
        raise ModelError(f"{folder}: the attributes were fitted to another generator", hint="train them again")
    size = generator.config.w_dim if bank.space == "w" else generator.config.z_dim
    if bank.latent_dim != size:
        raise ModelError(f"{folder}: heads read {bank.latent_dim} numbers but {bank.space} has {size}")
    judge = Judge.load(folder) if (folder / "judge.json").is_file() else None
    if judge is not None and dict(judge.vocabulary) != dict(bank.vocabulary):
        raise ModelError(f"{folder}: the judge does not read the attributes of the heads", hint="train it again")
    judge = None if judge is None else judge.to(device)
    return Model(name, generator.to(device), bank.to(device), judge, truncation, weights)


def save_model(
    folder: Path,
    name: str,
    generator: Generator,
    *,
    truncation: float = 1.0,
    dtype: torch.dtype = torch.float16,
) -> str:
    """Write `generator.safetensors`, by default in half precision, and `config.json`.

    Returns:
        The fingerprint to give to the attribute bank.
    """
    described = write_generator(folder, generator, dtype=dtype)
    write_json(folder / "config.json", {"format": FORMAT, "name": name, "truncation": truncation, **described})
    return weights_fingerprint(folder)
