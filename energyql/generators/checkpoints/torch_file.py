"""Reading of files of `torch.save` without torch's own loader, in the zip format and in the older, "legacy" format.

`torch.load(weights_only=True)` refuses training checkpoints because of the harmless `argparse.Namespace` in them, and
reads every tensor of the file. Here all plain data are allowed, and tensors stay in the file until they are needed.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from energyql.files import as_path
from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord, DtypeRecord
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.unpickle import (
    STORAGE_TYPES,
    TORCH_NAMES,
    Names,
    ObjectRecord,
    Quota,
    Storage,
    Stub,
    TensorRecord,
    checked_key,
    is_shape,
    record_of,
    unpickle,
)

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a zip file."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""The integer in the first pickle of a legacy file of torch."""
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
"""First bytes of a legacy file: its first pickle."""
_LEGACY_PROTOCOL = 1001
"""The integer in the second pickle of a legacy file."""
MAX_DIRECTORY = 1 << 21
"""Largest number of bytes that are read of the directory of a zip file."""
_ENTRY_COST = 10
"""Number of pickle operations that take as long as reading an entry of the directory of a zip file."""
MAX_DEPTH = 32
"""Largest number of containers inside one another in a value for `plain`; a container inside itself exceeds it."""
TRAINING_NAMES: Names = {**TORCH_NAMES, **NUMPY_NAMES, ("argparse", "Namespace"): record_of("argparse.Namespace")}
"""Names that a training checkpoint may contain: tensors, arrays, containers and its options, an
`argparse.Namespace`."""


def is_torch_file(data: memoryview) -> bool:
    """Whether the bytes `data` start as a file of `torch.save` does. The result is true for any zip file too."""
    head = bytes(data[: len(LEGACY_START)])
    return head.startswith(ZIP_MAGIC) or head == LEGACY_START


def read_torch_file(data: memoryview, names: Names, quota: Quota | None = None) -> Any:
    """Return the value in a file of `torch.save`, with a `TensorRecord` in place of every tensor.

    `quota` counts work and memory; give that of the outer file for a file inside another.

    Raises:
        CheckpointError: the file is damaged, names anything that is not in `names`, or exceeds the quota.
    """
    read = _read_zip if bytes(data[:4]) == ZIP_MAGIC else _read_legacy
    return read(data, names, quota or Quota(len(data)))


def read_weights(path: str | Path) -> Any:
    """Return the value in a file of `torch.save` (.pt, .pth, .tar, ...). Nothing in the file is executed.

    Files with networks that were saved as objects, rather than as state dicts, are refused: such objects need code.

    Returns:
        The saved value, as a rule a dict of state dicts. It consists of tensors on the CPU in the dtype of the file,
        NumPy arrays, numbers, text, bytes, and containers of these. Options of the training, saved as
        `argparse.Namespace`, are a dict.

    Raises:
        ModelError: the file is missing, damaged or unsafe.
    """
    path = as_path(path)
    with reading(path):
        data = file_bytes(path)
        if not is_torch_file(data):
            raise CheckpointError("it is not a file of torch.save")
        return plain(read_torch_file(data, TRAINING_NAMES), Quota(len(data)))


def plain(value: Any, quota: Quota, depth: int = 0) -> Any:
    """Return a value of a pickle with plain values in place of records, also inside containers.

    An `argparse.Namespace` becomes a dict, and records of other objects, dtypes, classes and functions become text.
    """
    quota.spend()
    if depth > MAX_DEPTH:
        raise CheckpointError("its containers are nested too deep, or one holds itself")
    match value:
        case TensorRecord():
            return value.tensor(quota)
        case ArrayRecord():
            quota.take(len(value.data))
            return value.array().copy()
        case ObjectRecord(name="argparse.Namespace"):
            return plain(value.state, quota, depth)
        case ObjectRecord():
            return f"{value.name}({', '.join(map(shown, value.arguments))})"
        case Stub():
            return value.name
        case DtypeRecord():
            return str(value.dtype)
        case dict():
            return {key: plain(item, quota, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return type(value)(plain(item, quota, depth + 1) for item in value)
        case None | bool() | int() | float() | str() | set():
            return value
        case memoryview() | bytes() | bytearray():
            quota.take(len(value))
            return bytes(value)
    raise CheckpointError(f"it holds a {type(value).__name__}")


class _View(io.RawIOBase):
    """File object for the bytes `data`, of which at most `room` bytes may be read."""

    def __init__(self, data: memoryview, room: int) -> None:
        self.data, self.position, self.room = data, 0, room

    def seek(self, offset: int, whence: int = 0) -> int:
        self.position = max(0, offset + (0, self.position, len(self.data))[whence])
        return self.position

    def readinto(self, buffer: Any) -> int:
        piece = self.data[self.position : self.position + len(buffer)]
        buffer[: len(piece)] = piece
        self.position += len(piece)
        self.room -= len(piece)
        if self.room < 0:
            raise CheckpointError("it is a zip file with far more entries than any known checkpoint")
        return len(piece)


class _Storages(dict[str, Storage]):
    """Storages of a file by key. The unpickler calls this dict with a reference to a storage, a "persistent id".

    `locate` is the function from a key to the bytes of a new storage, a row of numbers from which tensors are made.
    """

    def __init__(self, locate: Callable[[str], memoryview]) -> None:
        super().__init__()
        self.locate = locate

    def __call__(self, identifier: Any) -> Storage:
        """Return the storage for a reference ("storage", type, key, device, count), perhaps with `None` after it."""
        word, kind, key, _, count, *view = identifier if isinstance(identifier, tuple) else ()
        if word != "storage" or not isinstance(key, str) or not is_shape((count,)) or any(view):
            raise CheckpointError("a reference to tensor data is damaged")
        dtype = STORAGE_TYPES[kind.name.rpartition(".")[2]]  # of a `Stub` such as "torch.FloatStorage"
        storage = self.get(key) or self.setdefault(key, Storage(dtype, count, self.locate(key)))
        if storage.dtype != dtype or storage.count != count:
            raise CheckpointError(f"tensor data {shown(key, 40)} is announced in two ways")
        return storage


def _read_zip(data: memoryview, names: Names, quota: Quota) -> Any:
    """Read a file in the zip format, as `read_torch_file` does."""
    quota.copy(len(data))  # because a file can hold the same file many times
    try:
        with zipfile.ZipFile(_View(data, MAX_DIRECTORY)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, IndexError, EOFError) as error:
        raise CheckpointError(f"it starts as a zip file but is damaged or cut short ({error})") from error
    quota.spend(_ENTRY_COST * len(entries))
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError("it is a zip file, but not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and bytes(_stored(data, entries[order])).strip() != b"little":
        raise CheckpointError("its numbers are in big-endian order", hint="save it again on a little-endian machine")
    storages = _Storages(lambda key: _stored(data, entries[f"{root}data/{key}"]))
    value, _ = unpickle(_stored(data, entries[pickles[0]]), names, persistent=storages, quota=quota)
    for key, storage in storages.items():
        if len(storage.data) < storage.count * storage.dtype.itemsize:
            raise CheckpointError(f"tensor data {shown(key, 40)} is cut short")
    return value


def _stored(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """Bytes of an entry of the zip file `data`, without a copy; compressed entries, which may be huge, are errors."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise CheckpointError("it is a compressed zip file, which torch.save never writes")
    head = entry.header_offset  # there are the lengths of the name and of an extra field, which follow the 30 bytes
    name, extra = (int.from_bytes(data[head + place : head + place + 2], "little") for place in (26, 28))
    begin = head + 30 + name + extra
    if head < 0 or bytes(data[head : head + 4]) != ZIP_MAGIC or begin + entry.file_size > len(data):
        raise CheckpointError("it is a damaged or shortened zip file")
    return data[begin : begin + entry.file_size]


def _read_legacy(data: memoryview, names: Names, quota: Quota) -> Any:
    """Read a file in the older format: five pickles, the value is the fourth, then the numbers of all tensors."""
    storages, position, values = _Storages(lambda key: memoryview(b"")), 0, list[Any]()
    for allowed in ({}, {}, {}, names, {}):
        value, position = unpickle(data, allowed, start=position, persistent=storages, quota=quota)
        values.append(value)
    magic, protocol, system, value, keys = values
    if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise CheckpointError("it is not a file of torch.save")
    if system.get("little_endian") is not True:
        raise CheckpointError("its numbers are in big-endian order", hint="save it again on a little-endian machine")
    if not isinstance(keys, list) or set(map(checked_key, keys)) != set(storages):
        raise CheckpointError("its list of tensors is damaged")
    for key in dict.fromkeys(keys):
        storage = storages[key]
        begin, size = position + 8, storage.count * storage.dtype.itemsize
        position = begin + size
        if int.from_bytes(data[begin - 8 : begin], "little") != storage.count or position > len(data):
            raise CheckpointError(f"it is cut short or damaged: tensor data {shown(key, 40)} has {size} bytes")
        storage.data = data[begin:position]
    return value
