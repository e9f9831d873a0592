"""Reading of generators and licences from model folders and checkpoints, and conversion of checkpoints to folders.

A checkpoint is a file of weights that another program saved. Its format is recognised by its content, not by its name.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from importlib import import_module
from itertools import islice, takewhile
from pathlib import Path
from textwrap import indent
from typing import Any, SupportsFloat, cast

import torch

from energyql import __version__
from energyql.errors import ArgumentError
from energyql.files import as_path, fingerprint, refuse_address, write_text
from energyql.generators.base import Generator
from energyql.generators.checkpoints.network_pickle import OFFICIAL_NAMES, Checkpoint, unpickle_official
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.state_dicts import is_safetensors, read_safetensors
from energyql.generators.checkpoints.torch_file import TRAINING_NAMES, is_torch_file, read_torch_file
from energyql.generators.checkpoints.unpickle import ObjectRecord
from energyql.generators.checkpoints.unstated import GivenSettings
from energyql.generators.diffusers import is_pipeline, open_pipeline
from energyql.generators.families import (
    CARD,
    MODULES,
    RENDER,
    UNKNOWN,
    default_truncation,
    family,
    read_generator,
    save_model,
)
from energyql.generators.onnx import OnnxGenerator, load_onnx

_FORMATS = ", ".join(formats for formats in (family(name).formats for name in MODULES) if formats)
SUPPORTED = (
    f"energyql reads its model folders, ONNX models, and checkpoints of {_FORMATS}: .pkl, .pt, .pth or .safetensors"
)
_KINDS = {
    b"\x89HDF": "an HDF5 file", b"\x93NUMPY": "a NumPy array", b"\x89PNG": "a picture", b"\xff\xd8": "a picture",
    b"\x1f\x8b": "a compressed file: unpack it first", b"<": "a web page, perhaps from a failed download",
    b"version https://git-lfs": "a pointer of Git LFS: fetch the file itself",
}  # fmt: skip
"""First bytes of a file that is no checkpoint -> what the file is, for error messages."""


def load_generator(
    path: Any, *, lr_multiplier: float | None = None, conv_clamp: float | None = None, **call: Any
) -> Generator:
    """Return the generator in a model folder, in a checkpoint of another program, or in a pipeline of diffusers.

    Nothing in files is executed.

    Args:
        path: the folder or file; a name that ends in .onnx is read by `load_onnx`, with its defaults. Or a pipeline of
            diffusers: the object, the path of its folder, or its name on a hub, `hub:owner/name`.
        lr_multiplier: learning-rate multiplier of the mapping network, called `lr_mlp` or `mapping_lr` elsewhere. A
            state dict, a file of weights without settings, lacks it: by default 0.01 is assumed, if the weights do not
            contradict it.
        conv_clamp: limit of the absolute values of activations, infinity for no limit. A state dict with the official
            names of tensors lacks it: by default 256 is assumed, if this limit does not change a few test pictures.
        call: for a pipeline, arguments of its call, such as `prompt="a cat"` and `num_inference_steps=4`. A list as
            `prompt` or `class_labels` gives the generator a class for each element. `condition` may stand for both: it
            means `prompt` for texts, else `class_labels`.

    Returns:
        The generator in float32 on the CPU, in evaluation mode, without gradients to its weights. A pipeline as an
        object stays on its device and in its precision.

    Raises:
        ModelError: the file is missing, damaged, unsafe or of an unsupported kind; it lacks a setting, and the default
            contradicts the weights; or a given setting differs from that in the file, or does not exist for its
            network.
        ArgumentError: the path is an address such as `https://...`; a setting is not above 0, or given for a model
            folder or a pipeline; `call` is given for anything but a pipeline; or the pipeline cannot be used,
            see `energyql.generators.diffusers.PipelineGenerator`.

    Warns:
        CheckpointWarning: a default of a setting, or noise or filters that the file does not hold, are assumed.
    """
    settings = GivenSettings(lr_multiplier, conv_clamp)
    for name, value in dataclasses.asdict(settings).items():
        if value is not None and not (isinstance(value, SupportsFloat) and float(value) > 0):
            raise ArgumentError(f"{name} must be above 0, not {value!r}")
    if is_pipeline(path):
        settings.refuse("a pipeline of diffusers", ArgumentError)
        return open_pipeline(path, call)
    refuse_address(path)
    path = as_path(path)
    if call:
        raise ArgumentError(f"{min(call)} cannot be given: {path} is no pipeline of diffusers", hint="leave it out")
    if path.is_dir():
        settings.refuse("a model folder", ArgumentError)
        return read_generator(path)
    with reading(path):
        if path.suffix.lower() == ".onnx":
            settings.refuse("an ONNX model")
            return load_onnx(path)
        checkpoint = dataclasses.replace(read_checkpoint(path), given=settings)
        for module in filter(None, (family(name).readers for name in MODULES)):
            for read in import_module(module).READERS:
                if (generator := read(checkpoint)) is not None:
                    return cast(Generator, generator)
        raise CheckpointError(_refusal(checkpoint), hint=SUPPORTED)


def is_foreign(path: str | Path) -> bool:
    """Whether `path` is a file, such as a checkpoint, or a pipeline of diffusers, and so no model folder."""
    return os.path.isfile(path) or is_pipeline(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Content of a file of `torch.save`, a pickle or a file of safetensors. Nothing in it is executed.

    Raises:
        ModelError: the file is missing, damaged, unsafe, or of another format.
    """
    data = file_bytes(path)
    if is_torch_file(data):
        return Checkpoint(read_torch_file(data, {**TRAINING_NAMES, **OFFICIAL_NAMES}), len(data), "PyTorch file")
    if is_safetensors(data):
        content, metadata = read_safetensors(path, data)
        return Checkpoint(content, len(data), "file of safetensors", metadata)
    if len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return Checkpoint(unpickle_official(data), len(data))
    kinds = [kind for magic, kind in _KINDS.items() if bytes(data[: len(magic)]) == magic]
    raise CheckpointError(f"it is {(kinds or ['not a checkpoint'])[0]}", hint=SUPPORTED)


def _refusal(checkpoint: Checkpoint) -> str:
    """Error message that says what a checkpoint holds instead of a supported generator."""
    if checkpoint.network is not None and checkpoint.network.class_name:
        return f"its class {shown(checkpoint.network.class_name)} is not supported"
    content = checkpoint.content
    description = f"type {type(content).__name__}"
    if isinstance(content, dict):
        names = ", ".join(shown(key, 30) for key in islice(content, 5)) + (", ..." if len(content) > 5 else "")
        description = f"a dict with the entries {names}" if names else "a dict with no entries"
    return f"it is a {checkpoint.kind} of {description}, not of a generator"


MAX_LENGTH = 20_000
"""Number of characters after which a licence text is cut off."""
_ENTRIES = ("license", "licence", "LICENSE")
_SOURCES = ("module_src", "build_module_src")
"""Keys under which official pickles of PyTorch and of TensorFlow hold the source code of a network."""


def read_licence(path: Path) -> str:
    """Return the licence text in a checkpoint, cut to `MAX_LENGTH` characters; "" if it holds none.

    It is the entry "license", "licence" or "LICENSE" of the file. Without one, it is the first comment with "copyright"
    or "licen" at the head of a source text, as official pickles hold.
    """
    with reading(path):
        checkpoint = read_checkpoint(path)
    for holder in (checkpoint.metadata, checkpoint.content):
        for name in _ENTRIES if isinstance(holder, dict) else ():
            if isinstance(text := holder.get(name), str):
                return text.strip()[:MAX_LENGTH]
    for text in _programs(checkpoint.content):
        comment = takewhile(lambda line: line.startswith("#"), text[:MAX_LENGTH].lstrip().split("\n"))
        notice = "\n".join(line.lstrip("# ").rstrip() for line in comment).strip()
        if "copyright" in notice.lower() or "licen" in notice.lower():
            return notice
    return ""


def _programs(content: Any) -> list[str]:
    """Source texts of the networks in the content of a file; only official pickles have some."""
    values = content.values() if isinstance(content, dict) else content if isinstance(content, tuple) else [content]
    networks = [value for value in values if isinstance(value, ObjectRecord)]
    parts = [part for network in networks for part in (network.state, *network.arguments) if isinstance(part, dict)]
    return [part[name] for part in parts for name in _SOURCES if isinstance(part.get(name), str)]


def save_converted(
    folder: Path,
    name: str,
    generator: Generator,
    checkpoint: Path,
    *,
    truncation: float | None = None,
    render: str | None = None,
) -> str:
    """Write a generator from a checkpoint to a model folder in float32, and return its fingerprint (`generator_mark`).

    The entry `source` of `config.json`, and `card.md` for people, state name, SHA-256 and licence of the checkpoint and
    the version of this library. A generator without a family is a `ModelError`.
    """
    truncation = default_truncation(generator) if truncation is None else truncation
    source = {
        "file": checkpoint.name,
        "sha256": fingerprint(checkpoint),
        "licence": (not isinstance(generator, OnnxGenerator) and read_licence(checkpoint)) or UNKNOWN,
        "energyql": __version__,
    }
    write_text(folder / CARD, checkpoint_card(name, generator, source, truncation))
    facts = {"source": source, RENDER: render}
    return save_model(folder, name, generator, truncation=truncation, dtype=torch.float32, facts=facts)


def checkpoint_card(name: str, generator: Any, source: Mapping[str, str], truncation: float) -> str:
    """Text of `card.md` for a converted checkpoint, in Markdown; `source` is the entry that `save_converted` writes."""
    count = sum(parameter.numel() for parameter in generator.parameters())
    rows = {
        "architecture": type(generator).__name__,
        **({"parameters": f"{count:,}"} if count else {}),
        "default truncation": f"{truncation:g}",
        "source file": f"`{source['file']}`",
        "SHA-256 of the source": f"`{source['sha256']}`",
        "converted by": f"energyql {source['energyql']}",
    }
    settings = {name: str(value) for name, value in dataclasses.asdict(generator.config).items()}
    licence = f"The source file carries this text:\n\n{indent(source['licence'], '    ', lambda line: True)}"
    if source["licence"] == UNKNOWN:
        licence = "Unknown: the source file carries no licence. Ask its publisher before you share it or what it draws."
    return f"""# {name}

A generator of pictures. The weights are those of the source file, in full precision; other networks in it are left out.
Attributes that queries may name, if there are any, are in `vocabulary.json`.

{_table(rows)}
## Licence

{licence.rstrip()}

## Settings

{_table(settings)}"""


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())
