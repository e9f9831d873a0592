"""The generator of energyql's own model folders: `generator.safetensors` and the part of `config.json` about it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from energyql.errors import ModelError
from energyql.files import fingerprint, read_json, write_tensors
from energyql.generators.base import Generator
from energyql.generators.checkpoints.refusal import check_weights, reading, shown
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config

WEIGHTS = "generator.safetensors"
CONFIG = "config.json"
KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "stylegan2": (StyleGAN2, StyleGAN2Config),
    "stylegan3": (StyleGAN3, StyleGAN3Config),
}
"""What `generator.kind` in the configuration stands for. A StyleGAN2 goes without."""


def read_generator(folder: Path) -> StyleGAN2 | StyleGAN3:
    """The generator of a model folder, in float32 on the CPU, ready to draw.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others.
    """
    path = folder / CONFIG
    with reading(path):
        settings = dict(read_json(path)["generator"])
        kind = settings.pop("kind", "stylegan2")
        if kind not in KINDS:
            raise ModelError(f"its generator is of an unknown kind {shown(kind)}; known are {', '.join(KINDS)}")
        network, config = KINDS[kind]
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        if unknown := settings.keys() - {field.name for field in dataclasses.fields(config)}:
            raise ModelError(f"its generator has an unknown setting {shown(min(unknown))}")
        with torch.device("meta"):
            generator: StyleGAN2 | StyleGAN3 = network(config(**settings))
    path = folder / WEIGHTS
    with reading(path):
        try:
            tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
        except SafetensorError as error:
            raise ModelError(f"it is damaged ({error})") from error
        check_weights(tensors)
        generator.load_state_dict(tensors, assign=True)
    return generator.eval().requires_grad_(False)


def write_generator(folder: Path, generator: Generator, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the weights, by default in half precision.

    Returns:
        The entries of `config.json` that `read_generator` needs.

    Raises:
        ModelError: a number is too large for `dtype`, or the generator is of a kind that has no folder.
    """
    kind = next((name for name, (network, _) in KINDS.items() if type(generator) is network), None)
    if kind is None or not isinstance(generator, StyleGAN2 | StyleGAN3):
        raise ModelError(f"a {type(generator).__name__} cannot be written; known kinds are {', '.join(KINDS)}")
    tensors = {name: tensor.to(dtype) for name, tensor in generator.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name} has numbers that do not fit {dtype}", hint="write it with dtype=torch.float32")
    write_tensors(folder / WEIGHTS, tensors)
    settings = dataclasses.asdict(generator.config)
    return {"generator": settings if kind == "stylegan2" else {"kind": kind, **settings}}


def weights_fingerprint(folder: Path) -> str:
    """SHA-256 of the weights, by which attribute heads know their generator."""
    return fingerprint(folder / WEIGHTS)


def module_fingerprint(generator: Generator) -> str:
    """SHA-256 of the parameters and buffers of a torch module; "" for anything else."""
    if not isinstance(generator, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
