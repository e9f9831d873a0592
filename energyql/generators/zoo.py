"""Any supported checkpoint -> a generator. The format is told by the content, never by the name."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from torch import nn

from energyql.errors import ModelError
from energyql.generators.base import Generator
from energyql.generators.checkpoints import folder
from energyql.generators.checkpoints.network_pickle import (
    NetworkRecord,
    file_bytes,
    network_record,
    unpickle_official,
)
from energyql.generators.checkpoints.refusal import Refused, reading, shown
from energyql.generators.checkpoints.rosinality import NAMES, build_rosinality, is_rosinality
from energyql.generators.checkpoints.stylegan2_ada import build_stylegan2, is_stylegan2
from energyql.generators.checkpoints.stylegan3 import build_stylegan3, is_stylegan3
from energyql.generators.checkpoints.tensorflow import build_tensorflow, is_tensorflow
from energyql.generators.checkpoints.torch_file import is_torch_file, read_torch_file

SUPPORTED = (
    "energyql reads its own model folders, official pickles of StyleGAN2, StyleGAN2-ADA (of the TensorFlow era too) "
    "and StyleGAN3 (.pkl), and rosinality's StyleGAN2 checkpoints (.pt)"
)
FAMILIES: tuple[tuple[Callable[[NetworkRecord], bool], Callable[[NetworkRecord], Generator]], ...] = (
    (is_stylegan2, build_stylegan2),
    (is_stylegan3, build_stylegan3),
)
"""Networks of the official pickles: how to know one, how to build it."""


def load_generator(path: str | Path) -> Generator:
    """Read a generator from a model folder or someone else's checkpoint. Nothing in the file is run.

    Args:
        path: a model folder, or a checkpoint file of any supported format.

    Returns:
        The generator in float32 on the CPU, in evaluation mode, without gradients to its weights.

    Raises:
        ModelError: the file is missing, damaged, unsafe, or of a kind that is not supported.
    """
    path = Path(path)
    if path.is_dir():
        return folder.read_generator(path)
    with reading(path):
        data = file_bytes(path)
        if is_torch_file(data):
            return _from_torch_file(data, path)
        if len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5:
            return _from_pickle(data, path)
        raise Refused(f"it is {_kind(bytes(data[:16]))}", SUPPORTED)


def describe(generator: Generator) -> dict[str, int | str]:
    """Kind, resolution, latent sizes and number of parameters of a generator.

    Returns:
        kind, resolution, z_dim, w_dim, c_dim, parameters; what the generator does not tell is left out.
    """
    config = getattr(generator, "config", None)
    described: dict[str, int | str] = {"kind": type(generator).__name__}
    for name in ("resolution", "z_dim", "w_dim", "c_dim"):
        value = getattr(config, name, getattr(generator, name, None))
        if isinstance(value, int):
            described[name] = value
    if isinstance(generator, nn.Module):
        described["parameters"] = sum(parameter.numel() for parameter in generator.parameters())
    return described


def _from_torch_file(data: memoryview, path: Path) -> Generator:
    content = read_torch_file(data, NAMES)
    if is_rosinality(content):
        return build_rosinality(content, path, len(data))
    found = f" with {_keys(content)}" if isinstance(content, dict) else ""
    raise Refused(f"it is a PyTorch file{found}, but not a StyleGAN2 checkpoint", SUPPORTED)


def _from_pickle(data: memoryview, path: Path) -> Generator:
    content = unpickle_official(data)
    if is_tensorflow(content):
        return build_tensorflow(content, path, len(data))
    if not isinstance(content, dict) or "G_ema" not in content:
        found = f"a dict with {_keys(content)}" if isinstance(content, dict) else f"type {type(content).__name__}"
        raise Refused(f"it is a pickle of {found}, not of a generator", SUPPORTED)
    record = network_record(content, len(data), path)
    for recognises, build in FAMILIES:
        if recognises(record):
            return build(record)
    raise ModelError(f"its class {shown(record.class_name)} is not one that can be drawn with", hint=SUPPORTED)


def _keys(content: dict[Any, Any]) -> str:
    names = [shown(key, 30) for key in islice(content, 5)]
    return ("the entries " + ", ".join(names) + (", ..." if len(content) > 5 else "")) if names else "no entries"


def _kind(head: bytes) -> str:
    for magic, kind in (
        (b"\x89HDF", "an HDF5 file"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x89PNG", "a picture"),
        (b"\xff\xd8", "a picture"),
        (b"\x1f\x8b", "a compressed file: unpack it first"),
        (b"<", "a web page, perhaps of a failed download"),
        (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself"),
    ):
        if head.startswith(magic[:16]):
            return kind
    if len(head) > 8 and head[8:9] == b"{":
        return "a safetensors file: give the model folder that it is in"
    return "not a checkpoint"
