"""Generators and licences from files of any supported format, which is recognised by content and not by file name."""

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
"""Licence of a checkpoint that holds no licence."""
_FORMATS = ", ".join(family.formats for family in FAMILIES.values() if family.formats)
SUPPORTED = f"energyql reads its model folders, and checkpoints of {_FORMATS}: .pkl, .pt, .pth or .safetensors"


def load_generator(
    path: str | Path, *, lr_multiplier: float | None = None, conv_clamp: float | None = None
) -> Generator:
    """Return the generator in a model folder or in a checkpoint of another program. Nothing in the file is executed.

    Args:
        path: the folder or file.
        lr_multiplier: learning-rate multiplier of the mapping network (`lr_mlp`, `mapping_lr`), for a state dict, which
            does not hold this setting. By default 0.01, if the weights agree with that.
        conv_clamp: limit of activations, infinity for none, for a state dict with the official names. By default 256,
            if no activation of some pictures exceeds it.

    Returns:
        The generator in float32 on the CPU, in evaluation mode, without gradients to its weights.

    Raises:
        ModelError: the file is missing, damaged, unsafe, of a kind that is not supported, or lacks a setting.
        ArgumentError: the path is an address, or a setting is given for a model folder, or is not above 0.

    Warns:
        CheckpointWarning: a value is assumed that the file does not hold.
    """
    refuse_address(path)
    settings, path = GivenSettings(lr_multiplier, conv_clamp), as_path(path)
    for name, value in dataclasses.asdict(settings).items():
        if value is not None and (path.is_dir() or not value > 0):
            reason = "a model folder has its own" if path.is_dir() else f"it must be above 0, not {value!r}"
            raise ArgumentError(
                f"{name} cannot be given: {reason}", hint="leave it out" if path.is_dir() else "give a number above 0"
            )
    if path.is_dir():
        return read_generator(path)
    with reading(path):
        checkpoint = dataclasses.replace(read_checkpoint(path), given=settings)
        for family in FAMILIES.values():
            for read in import_module(family.readers).READERS if family.readers else ():
                generator: Generator | None = read(checkpoint)
                if generator is not None:
                    return generator
        raise CheckpointError(_refusal(checkpoint), hint=SUPPORTED)


def read_licence(path: Path) -> str:
    """Return the licence text in a checkpoint of another program; "" if there is none.

    Raises:
        ModelError: the file is missing, damaged or unsafe.
    """
    with reading(path):
        return licence_text(read_checkpoint(path))


def read_checkpoint(path: Path) -> Checkpoint:
    """Return the content of a checkpoint file of another program.

    Raises:
        CheckpointError: the file is damaged, unsafe, or none of these: a file of `torch.save`, a pickle, a file of
            safetensors.
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
    """Return the message for a checkpoint that no reader recognises: what the file holds instead of a generator."""
    if checkpoint.network is not None and checkpoint.network.class_name:
        return f"its class {shown(checkpoint.network.class_name)} is not supported"
    content = checkpoint.content
    description = f"type {type(content).__name__}"
    if isinstance(content, dict):
        names = ", ".join(shown(key, 30) for key in islice(content, 5)) + (", ..." if len(content) > 5 else "")
        description = f"a dict with the entries {names}" if names else "a dict with no entries"
    return f"it is a {checkpoint.kind} of {description}, not of a generator"


def _kind(head: bytes) -> str:
    """Return the kind of a file by its first 16 bytes, for a message."""
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
"""Most characters of a licence."""
_ENTRIES = ("license", "licence", "LICENSE")
_SOURCES = ("module_src", "build_module_src")
"""Keys under which official pickles of PyTorch and of TensorFlow hold the program text of a network."""


def licence_text(checkpoint: Checkpoint) -> str:
    """Return the licence text in a checkpoint, cut to `MAX_LENGTH`; "" if there is none.

    It is the entry "license" of the file, or the comment at the head of a program text in the file.
    """
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
    """Yield the program texts that the networks in a pickle hold."""
    networks = content.values() if isinstance(content, dict) else content if isinstance(content, tuple) else [content]
    for network in networks:
        if isinstance(network, ObjectRecord):
            for part in (network.state, *network.arguments):
                for name in _SOURCES:
                    if isinstance(part, dict) and isinstance(part.get(name), str):
                        yield part[name]


def checkpoint_card(name: str, generator: Any, source: Mapping[str, str], truncation: float) -> str:
    """Return a model card for a converted checkpoint, in Markdown.

    Args:
        name: heading of the card.
        generator: the generator in the checkpoint, with a `config`.
        source: `file`, `sha256`, `energyql` and `licence`, as `save_converted` records them.
        truncation: default psi of the model.
    """
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
