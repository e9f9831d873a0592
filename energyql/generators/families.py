"""The table of generator architectures ("families"), and reading and writing of the generator in a model folder.

Functions that read raise a `ModelError` if a file is missing or damaged, or does not fit the others.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch

from energyql.errors import EARLIER, ArgumentError, ModelError
from energyql.files import fingerprint, json_digest, read_json, read_tensors, write_json, write_tensors
from energyql.generators.base import Family, Generator, check_generator
from energyql.generators.checkpoints.reading import build_network, check_weights, reading, shown
from energyql.numerics.pool import to_cpu
from energyql.plugins import GENERATORS, check_allowed, is_allowed, load_plugin, make_plugin, needs_permission

MODULES = {
    "stylegan2": "energyql.generators.stylegan2",
    "stylegan3": "energyql.generators.stylegan3",
    "r3gan": "energyql.generators.r3gan",
    "fastgan": "energyql.generators.fastgan",
    "stylegan-xl": "energyql.generators.stylegan_xl",
    "onnx": "energyql.generators.onnx",
    "diffusers": "energyql.generators.diffusers",
}
"""Name of a family -> its module, imported at the first use. Checkpoint readers are tried in this order."""

CONFIG = "config.json"
FORMAT = 1
"""Version of the layout of `config.json`, saved in that file."""
CARD = "card.md"
UNKNOWN = "unknown"
"""Stands for a licence if a checkpoint states none."""
RENDER = "render"
"""Entry of `config.json` with the name of code that draws what people see of a picture."""
NAMED = "named"
"""Value of `kind` in `config.json` if the folder has no weights, but the `name` of code that makes the generator."""


def family(name: str) -> Family:
    """The family called `name`, which must be in `MODULES`."""
    return cast(Family, import_module(MODULES[name]).FAMILY)


def family_of(generator: Generator) -> Family | None:
    """The family of a generator; `None` for an architecture, or a subclass of one, that is not in this library."""
    module = type(generator).__module__
    own: Family | None = sys.modules[module].FAMILY if module in MODULES.values() else None
    return own if own is not None and type(generator) is own.network else None


def default_truncation(generator: Generator) -> float:
    """Default truncation psi of a model that is made from a generator: that of its family, 1 without a family."""
    return getattr(family_of(generator), "truncation", 1.0)


def named_generator(name: str) -> Generator:
    """Import code by its name, and return the generator that the code makes.

    A generator that is a torch module is put into evaluation mode, and its parameters get no gradients.

    Args:
        name: `module:factory`, such as "package.module:make"; or the name of a plugin that an installed package
            registers. The factory is a class or function that is called without arguments, or the generator itself.

    Raises:
        ArgumentError: there is no such factory or plugin, or what it makes is no generator.
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
    """Return the generator of a model folder, and its fingerprint by `generator_mark` or `module_fingerprint`.

    Args:
        source: the generator, or the name of code that makes it. `None` for what `config.json` of the folder describes;
            that file is not read otherwise.
        allow_plugins: whether to run code that `config.json` names: the generator, or its `render`, see `render_by`;
            what was allowed before on this machine runs in any case, see `check_allowed`.
            Code that `source` names is always run.

    Raises:
        ModelError: `config.json` names code that may not be run.
        ArgumentError: the code makes no generator, or `source` is no generator.
    """
    if source is None:
        settings = _settings(folder)
        if settings.get("kind") != NAMED:
            generator = read_generator(folder)
            render = read_json(folder / CONFIG).get(RENDER)
            if render is not None and is_allowed(render, RENDER, folder, allow_plugins):
                render_by(generator, render)
            return generator, _mark(folder, generator)
        source = check_allowed(settings.get("name"), "generator", folder, allow_plugins)
    generator = named_generator(source) if isinstance(source, str) else check_generator(source)
    return generator, module_fingerprint(generator)


def render_by(generator: Any, name: str) -> None:
    """Import the method `render` of a generator by its name; `show_pictures` draws what people see by it.

    Args:
        name: `module:function` or an installed plugin; it returns pictures in [-1, 1], (batch, 1 or 3, height, width).
    """
    function = load_plugin(name, GENERATORS)
    if not callable(function) or isinstance(function, torch.nn.Module):
        raise ArgumentError(f"{name} is a {type(function).__name__}, and a function of pictures is needed")
    generator.render = function


def read_generator(folder: Path) -> Generator:
    """Generator of the weights that a model folder holds or names, in float32 on the CPU; code is an error."""
    own, config = _read_config(folder)
    if own.outside:
        return cast(Generator, own.network(config))
    path = folder / own.weights
    with reading(path):
        if own.read is not None:
            return cast(Generator, own.read(path, config))
        tensors = read_tensors(path)
        check_weights(tensors)
        return cast(Generator, build_network(own.network, config, tensors))


def weights_file(folder: Path) -> Path:
    """Path of the file of weights in a model folder; there is no such file if the generator is code."""
    kind = str(_settings(folder).get("kind"))
    return folder / (family(kind).weights if kind in MODULES else Family.weights)


def generator_mark(folder: Path) -> str:
    """SHA-256 of the file of weights in a model folder; for an ONNX model of its settings too.

    With other settings, such as another scale of the noise, the same ONNX file is another generator.
    """
    own, config = _read_config(folder)
    mark = fingerprint(folder / own.weights)
    return mark if own.read is None else json_digest([mark, dataclasses.asdict(config)])


def _read_config(folder: Path) -> tuple[Family, Any]:
    """Family and settings of the generator in a model folder, which must not be code."""
    settings, path = _settings(folder), folder / CONFIG
    if settings.get("kind") == NAMED:
        raise needs_permission(settings.get("name"), "generator", folder)
    with reading(path):
        if "kind" not in settings:
            raise ModelError(f"{path} {EARLIER}", hint="convert its checkpoint again, or train it again")
        kind = settings.pop("kind")
        if kind not in MODULES:
            raise ModelError(f"its generator is of an unknown kind {shown(kind)}; known are {', '.join(MODULES)}")
        own = family(kind)
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        if unknown := settings.keys() - {field.name for field in dataclasses.fields(own.config)}:
            raise ModelError(f"its generator has an unknown setting {shown(min(unknown))}")
        return own, own.config(**settings)


def _settings(folder: Path) -> dict[str, Any]:
    """Entry `generator` of `config.json` in a model folder."""
    with reading(folder / CONFIG):
        return dict(read_json(folder / CONFIG)["generator"])


def write_generator(folder: Path, generator: Generator, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the weights of a generator to a model folder, unless they stay outside, and return its settings.

    The caller must write the result, `{"generator": settings}`, to `config.json`: `read_generator` needs it.
    """
    own = family_of(generator)
    if own is None:
        problem = f"a {type(generator).__name__} cannot be written; known kinds are {', '.join(MODULES)}"
        raise ModelError(problem, hint="give it as code by name, module:factory, which the folder then records")
    network: Any = generator
    if own.read is not None:
        network.save(folder / own.weights)
    elif not own.outside:
        tensors = {name: tensor.to(dtype) for name, tensor in network.state_dict().items()}
        if wrong := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
            raise ModelError(
                f"{wrong[0]} has numbers that do not fit {dtype}", hint="write it with dtype=torch.float32"
            )
        write_tensors(folder / own.weights, tensors)
    return {"generator": {"kind": own.name, **dataclasses.asdict(network.config)}}


def save_model(
    folder: Path,
    name: str,
    generator: Generator,
    *,
    truncation: float = 1.0,
    dtype: torch.dtype = torch.float16,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """Write a generator to a model folder: the weights to the file of its family, the settings to `config.json`.

    Args:
        folder: the model folder, which is made if it is missing.
        name: name of the model, saved in `config.json`.
        generator: a generator of one of the architectures in this library.
        truncation: default truncation psi of the model, saved in `config.json`.
        dtype: precision of the weights in the file.
        facts: further entries of `config.json`: `source`, the origin of the generator, such as `{"file": "ffhq.pkl"}`;
            and `render`, the name of the function that draws what people see of a picture. `None` leaves one out.

    Returns:
        The fingerprint of the weights. Attributes that are trained for the generator are saved with it, so that they
        are not used with other weights.

    Raises:
        ModelError: a weight is too large for `dtype`, or the generator has another architecture.
        ArgumentError: a file cannot be written.
    """
    described = write_generator(folder, generator, dtype=dtype)
    config = {"format": FORMAT, "name": name, "truncation": truncation, **described}
    further = {entry: value for entry, value in (facts or {}).items() if value is not None}
    write_json(folder / CONFIG, config | further)
    return _mark(folder, generator)


def _mark(folder: Path, generator: Generator) -> str:
    """`generator_mark` of a generator; `module_fingerprint` if the folder has no file of weights."""
    return generator_mark(folder) if weights_file(folder).is_file() else module_fingerprint(generator)


def module_fingerprint(module: object) -> str:
    """SHA-256, as hexadecimal text, of the parameters and buffers of a torch module; "" for any other object."""
    if not isinstance(module, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    state = dict(sorted(module.state_dict().items()))
    for name, tensor in zip(state, to_cpu([*state.values()]), strict=True):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
