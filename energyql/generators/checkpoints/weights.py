"""`read_weights`: what any file of `torch.save` holds, for networks that energyql does not know."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from energyql.generators.checkpoints.arrays import ArrayRecord, DtypeRecord
from energyql.generators.checkpoints.inert import Budget, Stand
from energyql.generators.checkpoints.network_pickle import file_bytes
from energyql.generators.checkpoints.records import Record, TensorRecord
from energyql.generators.checkpoints.refusal import Refused, reading, shown
from energyql.generators.checkpoints.rosinality import NAMES
from energyql.generators.checkpoints.torch_file import is_torch_file, read_torch_file

MAX_DEPTH = 32
"""Containers within one another, which also ends one that holds itself."""


def read_weights(path: str | Path) -> Any:
    """Read a file of `torch.save` (.pt, .pth, .tar, ...). Nothing in the file is run.

    Args:
        path: the file; whole networks that were pickled as objects are refused, for they are code.

    Returns:
        What was saved, as a rule a dict of state dicts. It holds tensors on the CPU in their own dtype, NumPy arrays,
        numbers, text, and containers of these. Options of the training (`argparse.Namespace`) are a dict.

    Raises:
        ModelError: the file is missing, damaged or unsafe.
    """
    path = Path(path)
    with reading(path):
        data = file_bytes(path)
        if not is_torch_file(data):
            raise Refused("it is not a file of torch.save")
        return _Contents(len(data)).plain(read_torch_file(data, NAMES))


class _Contents:
    """Turns records into what they stand for, as long as that is no more than a file of this size can hold."""

    def __init__(self, file_size: int) -> None:
        self.budget = Budget(file_size)
        self.room = 2 * file_size

    def plain(self, value: Any, depth: int = 0) -> Any:
        self.budget.spend()
        if depth > MAX_DEPTH:
            raise Refused("its containers are nested too deep, or one holds itself")
        match value:
            case TensorRecord():
                self._take(value.nbytes)
                return value.tensor()
            case ArrayRecord():
                self._take(len(value.data))
                return value.array().copy()
            case Record(name="argparse.Namespace"):
                return self.plain(value.state, depth)
            case Record():
                return f"{value.name}({', '.join(map(shown, value.arguments))})"
            case Stand():
                return value.name
            case DtypeRecord():
                return str(value.dtype)
            case dict():
                return {key: self.plain(item, depth + 1) for key, item in value.items()}
            case list() | tuple():
                return type(value)(self.plain(item, depth + 1) for item in value)
            case None | bool() | int() | float() | str() | set():
                return value
            case memoryview() | bytes() | bytearray():
                self._take(len(value))
                return bytes(value)
        raise Refused(f"it holds a {type(value).__name__}")

    def _take(self, size: int) -> None:
        self.room -= size
        if self.room < 0:
            raise Refused("its tensors are larger than the file")
