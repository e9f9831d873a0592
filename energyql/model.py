"""A model folder: generator, attribute heads and judge, loaded without running anything that it holds."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from energyql.attributes.bank import AttributeBank
from energyql.errors import ModelError
from energyql.evaluation.judge import Judge
from energyql.files import fingerprint, read_json, write_json, write_tensors
from energyql.generators.base import Generator
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.models import model_folder
from energyql.vocabulary import Vocabulary

FORMAT = 1


@dataclass(frozen=True)
class Model:
    """What a query needs.

    Attributes:
        name: for messages and provenance.
        generator: draws.
        bank: guides; its vocabulary is the model's.
        judge: reads attributes off pictures, independent of generator and bank; `None` if there is none.
        truncation: psi used unless a call says otherwise.
        fingerprint: SHA-256 of the generator's weights.
    """

    name: str
    generator: Generator
    bank: AttributeBank
    judge: Judge | None
    truncation: float = 1.0
    fingerprint: str = ""

    @property
    def vocabulary(self) -> Vocabulary:
        return self.bank.vocabulary


def load_model(model: str | Path, device: torch.device | str = "cpu") -> Model:
    """Load a packaged model by name, or a model folder.

    Raises:
        ModelError: it is missing or damaged, or its parts do not belong together.
    """
    folder = model_folder(model)
    config = read_json(folder / "config.json")
    try:
        if config["format"] != FORMAT:
            raise ModelError(f"{folder}: model format {config['format']!r} is unknown; this energyql reads {FORMAT}")
        generator = load_stylegan2(folder / "generator.safetensors", StyleGAN2Config(**config["generator"]))
        name, truncation = str(config["name"]), float(config["truncation"])
        if not math.isfinite(truncation):
            raise ValueError(f"truncation is {truncation}")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else error
        raise ModelError(f"{folder / 'config.json'} is damaged: {what}") from error
    bank = AttributeBank.load(folder)
    weights = fingerprint(folder / "generator.safetensors")
    if bank.generator not in ("", weights):
        raise ModelError(f"{folder}: the attributes were fitted to another generator", hint="train them again")
    size = generator.config.w_dim if bank.space == "w" else generator.config.z_dim
    if bank.latent_dim != size:
        raise ModelError(f"{folder}: heads read {bank.latent_dim} numbers but {bank.space} has {size}")
    judge = Judge.load(folder) if (folder / "judge.json").is_file() else None
    if judge is not None and dict(judge.vocabulary) != dict(bank.vocabulary):
        raise ModelError(f"{folder}: the judge does not read the attributes of the heads", hint="train it again")
    judge = None if judge is None else judge.to(device)
    return Model(name, generator.to(device), bank.to(device), judge, truncation, weights)


def load_stylegan2(path: Path, config: StyleGAN2Config) -> StyleGAN2:
    """Read the weights that `save_model` wrote, ready to draw, in float32 on the CPU.

    Raises:
        ModelError: the file is missing, damaged, or does not fit the configuration.
    """
    with torch.device("meta"):
        generator = StyleGAN2(config)
    try:
        tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        generator.load_state_dict(tensors, assign=True)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    return generator.eval().requires_grad_(False)


def save_model(folder: Path, name: str, generator: StyleGAN2, *, truncation: float = 1.0) -> str:
    """Write `generator.safetensors` (half precision) and `config.json`.

    Returns:
        The fingerprint to give to the attribute bank.
    """
    path = folder / "generator.safetensors"
    write_tensors(path, {key: value.half() for key, value in generator.state_dict().items()})
    settings = {"format": FORMAT, "name": name, "truncation": truncation}
    write_json(folder / "config.json", settings | {"generator": dataclasses.asdict(generator.config)})
    return fingerprint(path)
