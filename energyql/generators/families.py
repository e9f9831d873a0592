"""The table of generator architectures, and reading and writing the generator of a model folder with it."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from energyql.errors import ModelError
from energyql.files import fingerprint, read_json, read_tensors, write_tensors
from energyql.generators.base import Family, Generator, check_generator
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, reading, shown
from energyql.plugins import GENERATORS, check_allowed, load_plugin, make_plugin

MODULES = (
    "energyql.generators.stylegan2",
    "energyql.generators.stylegan3",
    "energyql.generators.r3gan",
    "energyql.generators.fastgan",
    "energyql.generators.stylegan_xl",
)
"""Modules with a `FAMILY` each. A new architecture is a new module and a line here."""
FAMILIES: dict[str, Family] = {family.name: family for family in (import_module(name).FAMILY for name in MODULES)}
"""Name -> family, in the order in which a foreign checkpoint is offered to their readers."""

CONFIG, WEIGHTS = "config.json", "generator.safetensors"
DEFAULT_KIND = "stylegan2"
"""The family of a folder whose configuration has no `kind`."""
NAMED = "named"
"""`kind` where a folder does not hold its generator, but has the `name` of code that makes it."""


def family_of(generator: Generator) -> Family | None:
    """Return the family of a generator; `None` for a class that is in no family, subclasses included."""
    return next((family for family in FAMILIES.values() if type(generator) is family.network), None)


def default_truncation(generator: Generator) -> float:
    """Return psi of a model that is made from a generator, unless a call says otherwise: that of its family, or 1."""
    family = family_of(generator)
    return 1.0 if family is None else family.truncation


def named_generator(name: str) -> Generator:
    """Import the generator called `module:factory`, or that of an installed package; see `energyql.plugins`.

    The factory is a class or a function without arguments. What it makes is in evaluation mode, without gradients to
    its weights.

    Raises:
        ArgumentError: there is no such factory, or what it makes is no generator.
    """
    found = load_plugin(name, GENERATORS)
    if inspect.isclass(found) or (callable(found) and not isinstance(found, Generator)):
        found = make_plugin(found, name)
    generator = check_generator(found, name)
    if isinstance(generator, torch.nn.Module):
        generator.eval().requires_grad_(False)
    return generator


def open_generator(
    folder: Path, given: Generator | str | None = None, *, allow_plugins: bool = False
) -> tuple[Generator, str]:
    """Return the generator of a model folder, and its fingerprint.

    Args:
        folder: of a model.
        given: the generator, or its name as for `named_generator`, for a folder that does not hold it.
        allow_plugins: whether a name in the folder is followed.

    Raises:
        ModelError: as for `read_generator`.
        ArgumentError: as for `named_generator`.
    """
    if given is None:
        settings = _settings(folder)
        if settings.get("kind") != NAMED:
            return read_generator(folder), fingerprint(folder / WEIGHTS)
        given = check_allowed(settings.get("name"), "generator", folder, allow_plugins)
    generator = named_generator(given) if isinstance(given, str) else check_generator(given)
    return generator, module_fingerprint(generator)


def read_generator(folder: Path) -> Generator:
    """Read the generator of a model folder, in float32 on the CPU, ready to draw. Nothing in the folder is executed.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others; or the folder only names its generator.
    """
    settings, path = _settings(folder), folder / CONFIG
    if settings.get("kind") == NAMED:
        check_allowed(settings.get("name"), "generator", folder, False)
    with reading(path):
        kind = settings.pop("kind", DEFAULT_KIND)
        if kind not in FAMILIES:
            raise ModelError(f"its generator is of an unknown kind {shown(kind)}; known are {', '.join(FAMILIES)}")
        family = FAMILIES[kind]
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        if unknown := settings.keys() - {field.name for field in dataclasses.fields(family.config)}:
            raise ModelError(f"its generator has an unknown setting {shown(min(unknown))}")
        config = family.config(**settings)
    path = folder / WEIGHTS
    with reading(path):
        tensors = read_tensors(path)
        check_weights(tensors)
        try:
            generator: Generator = build_network(family.network, config, tensors)
        except CheckpointError as error:
            raise ModelError(
                f"{folder / CONFIG} does not fit its weights in {path}: {error.message}",
                hint="both must come from one conversion: convert or copy the model again",
            ) from error
    return generator


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the generator in the configuration of a model folder."""
    path = folder / CONFIG
    with reading(path):
        return dict(read_json(path)["generator"])


def write_generator(folder: Path, generator: Generator, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the weights, by default in half precision.

    Returns:
        The entries of `config.json` that `read_generator` needs.

    Raises:
        ModelError: a number is too large for `dtype`, or the generator is in no family.
    """
    family = family_of(generator)
    if family is None:
        raise ModelError(
            f"a {type(generator).__name__} cannot be written; known kinds are {', '.join(FAMILIES)}",
            hint="give it as code by name, module:factory, which the folder then records",
        )
    network: Any = generator
    tensors = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name} has numbers that do not fit {dtype}", hint="write it with dtype=torch.float32")
    write_tensors(folder / WEIGHTS, tensors)
    settings = dataclasses.asdict(network.config)
    return {"generator": settings if family.name == DEFAULT_KIND else {"kind": family.name, **settings}}


def module_fingerprint(module: object) -> str:
    """Return the SHA-256 of the parameters and buffers of a torch module; "" for anything else."""
    if not isinstance(module, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
