"""The table of generator architectures ("families"), and reading and writing of the generator in a model folder.

A model folder has the settings of a generator in `config.json`, and the weights in the file that its family names, as a
rule `generator.safetensors`.
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

from energyql.errors import ArgumentError, ModelError
from energyql.files import fingerprint, json_digest, read_json, read_tensors, write_json, write_tensors
from energyql.generators.base import Family, Generator, check_generator
from energyql.generators.checkpoints.reading import build_network, check_weights, reading, shown
from energyql.numerics.pool import to_cpu
from energyql.plugins import GENERATORS, check_allowed, load_plugin, make_plugin

MODULES = {
    "stylegan2": "energyql.generators.stylegan2",
    "stylegan3": "energyql.generators.stylegan3",
    "r3gan": "energyql.generators.r3gan",
    "fastgan": "energyql.generators.fastgan",
    "stylegan-xl": "energyql.generators.stylegan_xl",
    "onnx": "energyql.generators.onnx",
    "diffusers": "energyql.generators.diffusers",
}
"""Name of a family -> name of its module, which defines `FAMILY` and is imported when the family is first used. A new
architecture needs a new line here. The readers of a checkpoint of another program are tried in this order."""

CONFIG = "config.json"
"""Name of the file in a model folder with the settings of the generator."""
FORMAT = 1
"""Version number of the layout of `config.json`, saved in that file."""
CARD = "card.md"
"""Name of the file in a model folder with a description of the model."""
UNKNOWN = "unknown"
"""Text in place of a licence if a checkpoint states no licence."""
DEFAULT_KIND = "stylegan2"
"""Name of the family if `config.json` has no `kind`."""
RENDER = "render"
"""Entry of `config.json` with the name of code that draws what people see of a picture."""
NAMED = "named"
"""Value of `kind` in `config.json` if the folder has no weights, but the `name` of code that makes the generator."""


def family(name: str) -> Family:
    """Return the family (the record of an architecture in this library) called `name`, which must be in `MODULES`."""
    return cast(Family, import_module(MODULES[name]).FAMILY)


def family_of(generator: Generator) -> Family | None:
    """Return the family, the record of an architecture in this library, to which a generator belongs.

    `None` is returned for a generator of another architecture, and for a subclass of an architecture in this library.
    """
    module = type(generator).__module__
    own: Family | None = sys.modules[module].FAMILY if module in MODULES.values() else None
    return own if own is not None and type(generator) is own.network else None


def default_truncation(generator: Generator) -> float:
    """Return the default truncation psi of a model that is made from a generator.

    This is the default of the architecture, or 1 if the architecture is not in this library. Psi pulls w toward the
    mean of w: the result is `mean + psi (w - mean)`.
    """
    return getattr(family_of(generator), "truncation", 1.0)


def named_generator(name: str) -> Generator:
    """Import code by its name, and return the generator that the code makes.

    If the generator is a torch module, it is put into evaluation mode, and its parameters get no gradients.

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
    """Return the generator of a model folder, and a fingerprint of its weights.

    The entry `render` of `config.json` may name a function. With `allow_plugins`, this function becomes the method
    `render` of the generator, which draws what people see of a picture.

    Args:
        folder: a model folder.
        source: the generator, or the name of code that makes the generator, such as "package.module:make". `None` for
            the generator that `config.json` of the folder describes; for any other value that file is not read.
        allow_plugins: whether code that `config.json` names may be run. Code that `source` names is always run.

    Returns:
        The generator and the fingerprint. If the weights are in the folder, the fingerprint is the result of
        `generator_mark`. Otherwise it is the SHA-256 of parameters and buffers in memory, or "" if the generator is no
        torch module.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the other files. Or `config.json` names code, and
            `allow_plugins` is false.
        ArgumentError: the code makes no generator, or `source` is no generator.
    """
    if source is None:
        settings = _settings(folder)
        if settings.get("kind") != NAMED:
            generator = read_generator(folder)
            render = read_json(folder / CONFIG).get(RENDER)
            if render is not None and allow_plugins:
                render_by(generator, check_allowed(render, RENDER, folder, True))
            return generator, _mark(folder, generator)
        source = check_allowed(settings.get("name"), "generator", folder, allow_plugins)
    generator = named_generator(source) if isinstance(source, str) else check_generator(source)
    return generator, module_fingerprint(generator)


def render_by(generator: Any, name: str) -> None:
    """Import a function by its name, and set it as the attribute `render` of a generator.

    `render` draws what people see of a picture: `show_pictures` calls it.

    Args:
        generator: the generator.
        name: `module:function`, or the name of an installed plugin. The function takes pictures of the generator, and
            returns pictures in [-1, 1], (batch, 1 or 3, height, width).

    Raises:
        ArgumentError: there is nothing of this name, or it is a torch module, or no function.
    """
    function = load_plugin(name, GENERATORS)
    if not callable(function) or isinstance(function, torch.nn.Module):
        raise ArgumentError(f"{name} is a {type(function).__name__}, and a function of pictures is needed")
    generator.render = function


def read_generator(folder: Path) -> Generator:
    """Return the generator whose weights are in a model folder, in float32 on the CPU. No code in the folder is run.

    If `config.json` names files outside the folder as the weights, such as a pipeline of diffusers, these are read.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the other files; or the folder has no weights, but names
            code that makes the generator.
    """
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
    """Return the path of the file of weights in a model folder; the file is missing if the generator is code.

    Raises:
        ModelError: `config.json` is missing or damaged.
    """
    kind = str(_settings(folder).get("kind", DEFAULT_KIND))
    return folder / (family(kind).weights if kind in MODULES else Family.weights)


def generator_mark(folder: Path) -> str:
    """Return the SHA-256 of the file of weights in a model folder; for an ONNX model, a digest of file and settings.

    With other settings, such as another scale of the noise, the same ONNX file is another generator.

    Raises:
        ModelError: a file is missing or damaged.
    """
    own, config = _read_config(folder)
    mark = fingerprint(folder / own.weights)
    return mark if own.read is None else json_digest([mark, dataclasses.asdict(config)])


def _read_config(folder: Path) -> tuple[Family, Any]:
    """Return the family of the generator in a model folder, and its settings.

    Raises:
        ModelError: `config.json` is missing or damaged, or names code that makes the generator.
    """
    settings, path = _settings(folder), folder / CONFIG
    if settings.get("kind") == NAMED:
        check_allowed(settings.get("name"), "generator", folder, False)
    with reading(path):
        kind = settings.pop("kind", DEFAULT_KIND)
        if kind not in MODULES:
            raise ModelError(f"its generator is of an unknown kind {shown(kind)}; known are {', '.join(MODULES)}")
        own = family(kind)
        settings = {name: tuple(value) if isinstance(value, list) else value for name, value in settings.items()}
        if unknown := settings.keys() - {field.name for field in dataclasses.fields(own.config)}:
            raise ModelError(f"its generator has an unknown setting {shown(min(unknown))}")
        return own, own.config(**settings)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the settings of the generator, the entry `generator` of `config.json` in a model folder.

    Raises:
        ModelError: the file is missing or damaged.
    """
    with reading(folder / CONFIG):
        return dict(read_json(folder / CONFIG)["generator"])


def write_generator(folder: Path, generator: Generator, *, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """Write the file of weights, as a rule `generator.safetensors`, to a model folder, and return the settings.

    Nothing is written for a family whose weights stay outside model folders.

    Args:
        folder: the model folder, which is made if it is missing.
        generator: a generator of one of the architectures in this library.
        dtype: precision of the weights in the file.

    Returns:
        The dict `{"generator": settings}`. The caller must write its entry to `config.json`: this function does not,
        and `read_generator` needs the entry.

    Raises:
        ModelError: a weight is too large for `dtype`, or the generator has another architecture.
        ArgumentError: the file cannot be written.
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
    settings = dataclasses.asdict(network.config)
    return {"generator": settings if own.name == DEFAULT_KIND else {"kind": own.name, **settings}}


def save_model(
    folder: Path,
    name: str,
    generator: Generator,
    *,
    truncation: float = 1.0,
    dtype: torch.dtype = torch.float16,
    source: Mapping[str, str] | None = None,
    render: str | None = None,
) -> str:
    """Write a generator to a model folder: the weights to the file of its family, the settings to `config.json`.

    Args:
        folder: the model folder, which is made if it is missing.
        name: name of the model, saved in `config.json`.
        generator: a generator of one of the architectures in this library.
        truncation: default truncation psi of the model, saved in `config.json`.
        dtype: precision of the weights in the file.
        source: texts that say where the generator is from, by name, such as `{"file": "ffhq.pkl"}`. They are saved as
            the entry `source` of `config.json`; with `None` there is no such entry.
        render: name of the function that draws what people see of a picture, saved as the entry `render`; `None` for no
            such entry.

    Returns:
        The fingerprint of the weights: the result of `generator_mark`, or of `module_fingerprint` if the weights stay
        outside the folder. Attributes that are trained for this generator are saved with this fingerprint, so that they
        are not used with other weights.

    Raises:
        ModelError: a weight is too large for `dtype`, or the generator has another architecture.
        ArgumentError: a file cannot be written.
    """
    described = write_generator(folder, generator, dtype=dtype)
    config = {"format": FORMAT, "name": name, "truncation": truncation, **described}
    optional = {"source": source, RENDER: render}
    write_json(folder / CONFIG, config | {entry: value for entry, value in optional.items() if value is not None})
    return _mark(folder, generator)


def _mark(folder: Path, generator: Generator) -> str:
    """Return the fingerprint of a generator that is in a model folder, and also in memory.

    If the folder has a file of weights, the fingerprint is computed from this file (`generator_mark`). Otherwise it is
    computed from the weights in memory (`module_fingerprint`).
    """
    return generator_mark(folder) if weights_file(folder).is_file() else module_fingerprint(generator)


def module_fingerprint(module: object) -> str:
    """Return the SHA-256, as hexadecimal text, of the names and values of all parameters and buffers of a torch module.

    "" is returned for an object that is no torch module.
    """
    if not isinstance(module, torch.nn.Module):
        return ""
    digest = hashlib.sha256()
    state = dict(sorted(module.state_dict().items()))
    for name, tensor in zip(state, to_cpu([*state.values()]), strict=True):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
