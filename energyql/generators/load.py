"""Load a generator from any supported file. The content decides on the format, not the name."""

from __future__ import annotations

from importlib import import_module
from itertools import islice
from pathlib import Path

from energyql.generators.base import Generator
from energyql.generators.checkpoints.network_pickle import Checkpoint, unpickle_official
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.torch_file import TRAINING_NAMES, is_torch_file, read_torch_file
from energyql.generators.families import FAMILIES, read_generator

SUPPORTED = "energyql reads its own model folders; " + "; ".join(
    family.formats for family in FAMILIES.values() if family.formats
)


def load_generator(path: str | Path) -> Generator:
    """Read a generator from a model folder or a checkpoint of another program. Nothing in the file is executed.

    Returns:
        The generator in float32 on the CPU, in evaluation mode, without gradients to its weights.

    Raises:
        ModelError: the file is missing, damaged, unsafe, or of a kind that is not supported.
    """
    path = Path(path)
    if path.is_dir():
        return read_generator(path)
    with reading(path):
        checkpoint = read_checkpoint(path)
        for family in FAMILIES.values():
            for read in import_module(family.readers).READERS if family.readers else ():
                generator: Generator | None = read(checkpoint)
                if generator is not None:
                    return generator
        raise CheckpointError(_refusal(checkpoint), hint=SUPPORTED)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read the records in a checkpoint file of another program.

    Raises:
        CheckpointError: it is damaged, unsafe, or neither a file of `torch.save` nor a pickle.
    """
    data = file_bytes(path)
    if is_torch_file(data):
        return Checkpoint(read_torch_file(data, TRAINING_NAMES), len(data), is_torch_file=True)
    if len(data) > 1 and data[0] == 0x80 and 2 <= data[1] <= 5:
        return Checkpoint(unpickle_official(data), len(data))
    raise CheckpointError(f"it is {_kind(bytes(data[:16]))}", hint=SUPPORTED)


def _refusal(checkpoint: Checkpoint) -> str:
    """Say what a checkpoint is that no reader recognised."""
    if checkpoint.network is not None:
        return f"its class {shown(checkpoint.network.class_name)} is not supported"
    content = checkpoint.content
    found = f"type {type(content).__name__}"
    if isinstance(content, dict):
        names = ", ".join(shown(key, 30) for key in islice(content, 5)) + (", ..." if len(content) > 5 else "")
        found = f"a dict with the entries {names}" if names else "a dict with no entries"
    return f"it is a {'PyTorch file' if checkpoint.is_torch_file else 'pickle'} of {found}, not of a generator"


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
    if len(head) > 8 and head[8:9] == b"{":
        return "a safetensors file: give its model folder"
    return "not a checkpoint"
