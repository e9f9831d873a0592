"""Load a generator from any supported file, and the licence in it. The content decides on the format, not the name."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from energyql.errors import ArgumentError
from energyql.files import as_path, refuse_address
from energyql.generators.base import Generator
from energyql.generators.checkpoints.network_pickle import OFFICIAL_NAMES, Checkpoint, unpickle_official
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.state_dicts import is_safetensors, read_safetensors
from energyql.generators.checkpoints.torch_file import TRAINING_NAMES, is_torch_file, read_torch_file
from energyql.generators.checkpoints.unpickle import ObjectRecord
from energyql.generators.checkpoints.unstated import GivenSettings
from energyql.generators.families import FAMILIES, read_generator

UNKNOWN = "unknown"
"""Licence of what carries none."""
_FORMATS = ", ".join(family.formats for family in FAMILIES.values() if family.formats)
SUPPORTED = f"energyql reads its model folders, and checkpoints of {_FORMATS}: .pkl, .pt, .pth or .safetensors"


def load_generator(
    path: str | Path, *, lr_multiplier: float | None = None, conv_clamp: float | None = None
) -> Generator:
    """Read a generator from a model folder or a checkpoint of another program. Nothing in the file is executed.

    Args:
        path: the folder or file.
        lr_multiplier: learning-rate multiplier of the mapping network (`lr_mlp`, `mapping_lr`), for a state dict, which
            does not hold it. By default 0.01, if the weights agree with it.
        conv_clamp: limit of activations, infinity for none, for a state dict with the official names. By default 256,
            if no activation of some pictures exceeds it.

    Returns:
        The generator in float32 on the CPU, in evaluation mode, without gradients to its weights.

    Raises:
        ModelError: the file is missing, damaged, unsafe, of a kind that is not supported, or lacks a setting.
        ArgumentError: the path is an address, or a setting is given for a model folder, or is not above 0.

    Warns:
        CheckpointWarning: something is assumed that the file does not hold.
    """
    refuse_address(path)
    given, path = GivenSettings(lr_multiplier, conv_clamp), as_path(path)
    for name, value in dataclasses.asdict(given).items():
        if value is not None and (path.is_dir() or not value > 0):
            reason = "a model folder has its own" if path.is_dir() else f"it must be above 0, not {value!r}"
            raise ArgumentError(
                f"{name} cannot be given: {reason}", hint="leave it out" if path.is_dir() else "give a number above 0"
            )
    if path.is_dir():
        return read_generator(path)
    with reading(path):
        checkpoint = dataclasses.replace(read_checkpoint(path), given=given)
        for family in FAMILIES.values():
            for read in import_module(family.readers).READERS if family.readers else ():
                generator: Generator | None = read(checkpoint)
                if generator is not None:
                    return generator
        raise CheckpointError(_refusal(checkpoint), hint=SUPPORTED)


def read_licence(path: Path) -> str:
    """Return the licence text that a checkpoint of another program carries; "" if it carries none.

    Raises:
        ModelError: the file is missing, damaged or unsafe.
    """
    with reading(path):
        return licence_text(read_checkpoint(path))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the records in a checkpoint file of another program.

    Raises:
        CheckpointError: it is damaged, unsafe, or not a file of `torch.save`, a pickle or a file of safetensors.
    """
    data = file_bytes(path)
    if is_torch_file(data):
        return Checkpoint(read_torch_file(data, {**TRAINING_NAMES, **OFFICIAL_NAMES}), len(data), "PyTorch file")
    if is_safetensors(data):
        content, metadata = read_safetensors(data)
        return Checkpoint(content, len(data), "file of safetensors", metadata)
    if len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return Checkpoint(unpickle_official(data), len(data))
    raise CheckpointError(f"it is {_kind(bytes(data[:16]))}", hint=SUPPORTED)


def _refusal(checkpoint: Checkpoint) -> str:
    """Say what a checkpoint is that no reader recognised."""
    if checkpoint.network is not None and checkpoint.network.class_name:
        return f"its class {shown(checkpoint.network.class_name)} is not supported"
    content = checkpoint.content
    found = f"type {type(content).__name__}"
    if isinstance(content, dict):
        names = ", ".join(shown(key, 30) for key in islice(content, 5)) + (", ..." if len(content) > 5 else "")
        found = f"a dict with the entries {names}" if names else "a dict with no entries"
    return f"it is a {checkpoint.kind} of {found}, not of a generator"


def _kind(head: bytes) -> str:
    for magic, kind in (
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x89PNG", "a picture"),
        (b"\xff\xd8", "a picture"),
        (b"\x1f\x8b", "a compressed file: unpack it first"),
        (b"<", "a web page, perhaps from a failed download"),
        (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself"),
    ):
        if head.startswith(magic[:16]):
            return kind
    return "not a checkpoint"


MAX_LENGTH = 20_000
_ENTRIES = ("license", "licence", "LICENSE")
_SOURCES = ("module_src", "build_module_src")
"""Where official pickles of PyTorch and of TensorFlow hold the program text of a network."""


def licence_text(checkpoint: Checkpoint) -> str:
    """Return the entry "license" of the file, else the notice at the head of the program text in it; "" for neither."""
    for holder in (checkpoint.metadata, checkpoint.content):
        for name in _ENTRIES:
            if isinstance(holder, dict) and isinstance(holder.get(name), str):
                return str(holder[name]).strip()[:MAX_LENGTH]
    for text in _programs(checkpoint.content):
        comment = text[:MAX_LENGTH].lstrip().split("\n")
        end = next((i for i, line in enumerate(comment) if not line.startswith("#")), len(comment))
        notice = "\n".join(line.lstrip("# ").rstrip() for line in comment[:end]).strip()
        if "copyright" in notice.lower() or "licen" in notice.lower():
            return notice
    return ""


def _programs(content: Any) -> Iterator[str]:
    networks = content.values() if isinstance(content, dict) else content if isinstance(content, tuple) else [content]
    for network in networks:
        if isinstance(network, ObjectRecord):
            for part in (network.state, *network.arguments):
                for name in _SOURCES:
                    if isinstance(part, dict) and isinstance(part.get(name), str):
                        yield part[name]


def checkpoint_card(name: str, generator: Any, source: Mapping[str, str], truncation: float) -> str:
    """Return what a model card says of a converted checkpoint, Markdown; `source` is as `save_converted` writes it."""
    rows = {
        "architecture": type(generator).__name__,
        "parameters": f"{sum(parameter.numel() for parameter in generator.parameters()):,}",
        "default truncation": f"{truncation:g}",
        "source file": f"`{source['file']}`",
        "SHA-256 of the source": f"`{source['sha256']}`",
        "converted by": f"energyql {source['energyql']}",
    }
    settings = {name: str(value) for name, value in dataclasses.asdict(generator.config).items()}
    if source["licence"] == UNKNOWN:
        licence = "Unknown: the source file carries no licence. Ask its publisher before you share it or what it draws."
    else:
        licence = "The source file carries this text:\n\n" + "".join(
            f"    {line}\n" for line in source["licence"].splitlines()
        )
    return f"""# {name}

A generator of pictures. The weights are those of the source file, in full precision and under other names; other
networks in it are left out. Attributes that queries may name, if there are any, are in `vocabulary.json`.

{_table(rows)}
## Licence

{licence.rstrip()}

## Settings

{_table(settings)}"""


def _table(rows: dict[str, str]) -> str:
    return "| | |\n|---|---|\n" + "".join(f"| {name} | {value} |\n" for name, value in rows.items())
