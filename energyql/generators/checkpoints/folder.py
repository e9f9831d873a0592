"""The generator of energyql's own model folders: `generator.safetensors` and the part of `config.json` about it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.files import fingerprint, read_json, write_tensors
from energyql.generators.checkpoints.refusal import reading
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config

WEIGHTS = "generator.safetensors"
CONFIG = "config.json"


def read_generator(folder: Path) -> StyleGAN2:
    """The generator of a model folder, in float32 on the CPU, ready to draw.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others.
    """
    path = folder / CONFIG
    with reading(path):
        config = StyleGAN2Config(**read_json(path)["generator"])
    return read_weights(folder / WEIGHTS, config)


def read_weights(path: Path, config: StyleGAN2Config) -> StyleGAN2:
    """A generator of a known architecture, from safetensors of any precision.

    Raises:
        ModelError: the file is missing, damaged, or does not fit the configuration.
    """
    with torch.device("meta"):
        generator = StyleGAN2(config)
    with reading(path):
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        except SafetensorError as error:
            raise ModelError(f"it is damaged ({error})") from error
        generator.load_state_dict(tensors, assign=True)
    return generator.eval().requires_grad_(False)


def write_generator(folder: Path, generator: StyleGAN2, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the weights, by default in half precision.

    Returns:
        The entries of `config.json` that `read_generator` needs.
    """
    write_tensors(folder / WEIGHTS, {name: tensor.to(dtype) for name, tensor in generator.state_dict().items()})
    return {"generator": dataclasses.asdict(generator.config)}


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 of the weights, by which attribute heads know their generator."""
    return fingerprint(folder / WEIGHTS)
