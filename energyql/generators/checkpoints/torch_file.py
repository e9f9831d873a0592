"""Files of `torch.save`, zip and legacy, read without torch's own loader.

`torch.load(weights_only=True)` refuses training checkpoints because of the harmless `argparse.Namespace` in them, and
reads every tensor of the file. Here all plain data are allowed, and tensors stay in the file until they are needed.
"""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

from energyql.files import as_path
from energyql.generators.checkpoints.arrays import NUMPY_NAMES, ArrayRecord, DtypeRecord
from energyql.generators.checkpoints.reading import CheckpointError, file_bytes, reading, shown
from energyql.generators.checkpoints.unpickle import (
    TORCH_NAMES,
    Budget,
    Names,
    ObjectRecord,
    Storage,
    Stub,
    TensorRecord,
    record_of,
    storage_dtype,
    unpickle,
)

ZIP_MAGIC = b"PK\x03\x04"
"""First bytes of a zip file."""
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""Value of the first pickle in a legacy file of torch."""
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
"""First bytes of a legacy file: that pickle."""
_LEGACY_PROTOCOL = 1001
"""Value of the second pickle."""
MAX_DIRECTORY = 1 << 21
"""Most bytes that are read of the directory of a zip file, which needs about a hundred for each tensor."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
"""Header of an entry of a zip file: magic, length of the name, length of the extra field."""
_ENTRY_COST = 10
"""Number of pickle operations that take as long as an entry of the directory."""
MAX_DEPTH = 32
"""Most containers inside one another in the value of `read_weights`; so one that contains itself is an error."""
TRAINING_NAMES: Names = {
    **TORCH_NAMES, **NUMPY_NAMES, ("argparse", "Namespace"): record_of("argparse.Namespace"),
}  # fmt: skip
"""The names that a training checkpoint may contain: tensors, arrays, sets, and the options of the training."""


def is_torch_file(data: memoryview) -> bool:
    """Return whether `data` starts as a file of `torch.save` does, which every zip file does as well."""
    head = bytes(data[: len(LEGACY_START)])
    return head.startswith(ZIP_MAGIC) or head == LEGACY_START


def read_torch_file(data: memoryview, names: Names, budget: Budget | None = None) -> Any:
    """Return the value in a file of `torch.save`, with a TensorRecord in place of every tensor.

    Args:
        data: the bytes of the file.
        names: the names that its pickle may contain.
        budget: limits on the work, if the file is a part of another one.

    Raises:
        CheckpointError: it is damaged or holds something that is not allowed.
    """
    budget = budget or Budget(len(data))
    if bytes(data[:4]) == ZIP_MAGIC:
        return _read_zip(data, names, budget)
    return _read_legacy(data, names, budget)


def read_weights(path: str | Path) -> Any:
    """Read any file of `torch.save` (.pt, .pth, .tar, ...). Nothing in the file is executed.

    Networks that were pickled as whole objects are refused, because they are code.

    Returns:
        The saved value, as a rule a dict of state dicts. It holds tensors on the CPU in their own dtype, NumPy arrays,
        numbers, text, and containers of these. Options of the training (`argparse.Namespace`) are a dict.

    Raises:
        ModelError: the file is missing, damaged or unsafe.
    """
    path = as_path(path)
    with reading(path):
        data = file_bytes(path)
        if not is_torch_file(data):
            raise CheckpointError("it is not a file of torch.save")
        return _values(read_torch_file(data, TRAINING_NAMES), Budget(len(data)))


def _values(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Return a value of a pickle with each record replaced by the value that it stands for.

    Args:
        value: a record, or a container or plain value, at `depth` containers inside the content of the file.
        budget: limits on the work.
        depth: number of containers around the value.

    Raises:
        CheckpointError: the value has an unsupported type, or is nested too deep.
    """
    budget.spend()
    if depth > MAX_DEPTH:
        raise CheckpointError("its containers are nested too deep, or one holds itself")
    match value:
        case TensorRecord():
            budget.take(value.nbytes)
            return value.tensor()
        case ArrayRecord():
            budget.take(len(value.data))
            return value.array().copy()
        case ObjectRecord(name="argparse.Namespace"):
            return _values(value.state, budget, depth)
        case ObjectRecord():
            return f"{value.name}({', '.join(map(shown, value.arguments))})"
        case Stub():
            return value.name
        case DtypeRecord():
            return str(value.dtype)
        case dict():
            return {key: _values(item, budget, depth + 1) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_values(item, budget, depth + 1) for item in value)
        case None | bool() | int() | float() | str() | set():
            return value
        case memoryview() | bytes() | bytearray():
            budget.take(len(value))
            return bytes(value)
    raise CheckpointError(f"it holds a {type(value).__name__}")


class _View(io.RawIOBase):
    """A read-only file over `data` that raises a CheckpointError once more than `room` bytes are read."""

    def __init__(self, data: memoryview, room: int) -> None:
        self.data = data
        self.position = 0
        self.room = room

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

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


def _read_zip(data: memoryview, names: Names, budget: Budget) -> Any:
    """Return the value in a zip file of torch; see `read_torch_file`."""
    budget.copy(len(data))  # because a file can hold the same file many times
    try:
        with zipfile.ZipFile(_View(data, MAX_DIRECTORY)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, IndexError, EOFError) as error:
        raise CheckpointError(f"it starts as a zip file but is damaged or cut short ({error})") from error
    budget.spend(_ENTRY_COST * len(entries))
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise CheckpointError("it is a zip file, but not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and bytes(_stored(data, entries[order])).strip() != b"little":
        raise CheckpointError("its numbers are in big-endian order", hint="save it again on a little-endian machine")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if key not in storages:
            if f"{root}data/{key}" not in entries:
                raise CheckpointError(f"tensor data {shown(key, 40)} is missing")
            storages[key] = Storage(dtype, count, _stored(data, entries[f"{root}data/{key}"]))
        row = storages[key]
        if row.dtype != dtype or row.count != count or len(row.data or ()) < count * dtype.itemsize:
            raise CheckpointError(f"tensor data {shown(key, 40)} is not of the announced type and size")
        return row

    return unpickle(_stored(data, entries[pickles[0]]), names, persistent=storage, budget=budget)[0]


def _stored(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """Return the bytes of an entry of a zip file.

    Raises:
        CheckpointError: the entry is damaged, or compressed: torch never compresses, and small compressed files can
            become huge.
    """
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise CheckpointError("it is a compressed zip file, which torch.save never writes")
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    if entry.header_offset < 0 or len(header) < _LOCAL_HEADER.size:
        raise CheckpointError("it is a damaged zip file")
    magic, name, extra = _LOCAL_HEADER.unpack(header)
    begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if magic != ZIP_MAGIC or begin + entry.file_size > len(data):
        raise CheckpointError("it is a damaged or shortened zip file")
    return data[begin : begin + entry.file_size]


def _read_legacy(data: memoryview, names: Names, budget: Budget) -> Any:
    """Return the value in a legacy file of torch, a row of pickles and then numbers; see `read_torch_file`."""
    nothing: Names = {}
    magic, position = unpickle(data, nothing, budget=budget)
    protocol, position = unpickle(data, nothing, start=position, budget=budget)
    system, position = unpickle(data, nothing, start=position, budget=budget)
    if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise CheckpointError("it is not a file of torch.save")
    if system.get("little_endian") is not True:
        raise CheckpointError("its numbers are in big-endian order", hint="save it again on a little-endian machine")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if count * dtype.itemsize > len(data):
            raise CheckpointError(
                f"it is cut short: a tensor takes {count * dtype.itemsize} bytes, the file has {len(data)}"
            )
        row = storages.setdefault(key, Storage(dtype, count))
        if row.dtype != dtype or row.count != count:
            raise CheckpointError(f"tensor data {shown(key, 40)} is announced in two ways")
        return row

    value, position = unpickle(data, names, start=position, persistent=storage, budget=budget)
    keys, position = unpickle(data, nothing, start=position, budget=budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise CheckpointError("its list of tensors is damaged")
    for key in dict.fromkeys(keys):
        row = storages[key]
        size = row.count * row.dtype.itemsize
        count = int.from_bytes(data[position : position + 8], "little")
        position += 8
        if count != row.count or position + size > len(data):
            raise CheckpointError(
                f"it is cut short or damaged: tensor data {shown(key, 40)} of {size} bytes does not fit"
            )
        row.data = data[position : position + size]
        position += size
    return value


def _storage_id(identifier: Any) -> tuple[Any, str, int]:
    """Return dtype, key and count of numbers from a persistent id.

    Args:
        identifier: ("storage", type, key, location, count[, view]), as torch writes it for the numbers of a tensor.

    Raises:
        CheckpointError: it has another form.
    """
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise CheckpointError("it refers to data outside the file")
    _, kind, key, _, count = identifier[:5]
    if not isinstance(key, str) or type(count) is not int or count < 0 or (len(identifier) == 6 and identifier[5]):
        raise CheckpointError("a reference to tensor data is damaged")
    return storage_dtype(kind), key, count
