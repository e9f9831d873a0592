"""The table of generator architectures, and functions that read and write the generator of a model folder."""

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
"""Name -> family. The readers of the first family try a foreign checkpoint first."""

CONFIG = "config.json"
"""File of a model folder with the settings of the generator."""
WEIGHTS = "generator.safetensors"
"""File of a model folder with the weights of the generator."""
DEFAULT_KIND = "stylegan2"
"""The family of a folder whose configuration has no `kind`."""
NAMED = "named"
"""`kind` in the configuration of a folder that has only the `name` of code that makes the generator."""


def family_of(generator: Generator) -> Family | None:
    """Return the family of a generator; `None` if its class is in no family, as a subclass of a family's class is."""
    return next((family for family in FAMILIES.values() if type(generator) is family.network), None)


def default_truncation(generator: Generator) -> float:
    """Return the default psi of a model that is made from a generator: that of its family, or 1 without a family."""
    family = family_of(generator)
    return 1.0 if family is None else family.truncation


def named_generator(name: str) -> Generator:
    """Return the generator that the code called `name` makes, in evaluation mode, without gradients to its weights.

    Args:
        name: `module:factory`, or the name of a plugin of an installed package; see `energyql.plugins`. The factory is
            a class or a function without arguments, or the generator itself.

    Raises:
        ArgumentError: there is no such factory, or it makes no generator.
    """
    plugin = load_plugin(name, GENERATORS)
    if inspect.isclass(plugin) or (callable(plugin) and not isinstance(plugin, Generator)):
        plugin = make_plugin(plugin, name)
    generator = check_generator(plugin, name)
    if isinstance(generator, torch.nn.Module):
        generator.eval().requires_grad_(False)
    return generator


def open_generator(
    folder: Path, source: Generator | str | None = None, *, allow_plugins: bool = False
) -> tuple[Generator, str]:
    """Return the generator of a model folder, and its fingerprint: SHA-256 of its weights, "" if it is no torch module.

    Args:
        folder: a model folder.
        source: the generator, or the name of its code (see `named_generator`), for a folder that does not hold it.
        allow_plugins: whether code that the folder names may be run.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others; or the folder names code, which is not
            allowed.
        ArgumentError: the code makes no generator, or `source` is no generator.
    """
    if source is None:
        settings = _settings(folder)
        if settings.get("kind") != NAMED:
            return read_generator(folder), fingerprint(folder / WEIGHTS)
        source = check_allowed(settings.get("name"), "generator", folder, allow_plugins)
    generator = named_generator(source) if isinstance(source, str) else check_generator(source)
    return generator, module_fingerprint(generator)


def read_generator(folder: Path) -> Generator:
    """Return the generator whose weights are in a model folder, in float32 on the CPU. No code is executed.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others; or the folder only names code that makes the
            generator.
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
    """Return the settings of the generator in the configuration of a model folder, in the form of JSON.

    Raises:
        ModelError: the file is missing or damaged.
    """
    path = folder / CONFIG
    with reading(path):
        return dict(read_json(path)["generator"])


def write_generator(folder: Path, generator: Generator, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the weights of a generator to a model folder, and return the entries for `config.json`.

    Args:
        folder: a folder that exists.
        generator: a generator of a family.
        dtype: precision of the weights in the file.

    Returns:
        The entries of `config.json` that `read_generator` needs; this function does not write them.

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
