"""Files of `torch.save`, zip and legacy, read without torch's own loader.

`torch.load(weights_only=True)` refuses training checkpoints because of the harmless `argparse.Namespace` in them and
reads every tensor of the file; here nothing is refused that is only data, and tensors stay in the file until needed.
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import Any

from energyql.generators.checkpoints.inert import Budget, Names
from energyql.generators.checkpoints.records import Storage, storage_dtype
from energyql.generators.checkpoints.refusal import Refused, shown
from energyql.generators.checkpoints.unpickle import unpickle

ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
_LEGACY_PROTOCOL = 1001
MAX_DIRECTORY = 1 << 21
"""Most bytes that are read to find what a zip file holds; its directory takes about a hundred for each tensor."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENTRY_COST = 10  # operations of the pickle machine that take as long as an entry of the directory


def is_torch_file(data: memoryview) -> bool:
    """Whether `data` starts as a file of `torch.save` does. Any zip file does."""
    head = bytes(data[: len(LEGACY_START)])
    return head.startswith(ZIP_MAGIC) or head == LEGACY_START


def read_torch_file(data: memoryview, names: Names, budget: Budget | None = None) -> Any:
    """What `torch.save` was given, with a TensorRecord for every tensor.

    Raises:
        Refused: it is damaged or holds something that is not allowed.
    """
    budget = budget or Budget(len(data))
    if bytes(data[:4]) == ZIP_MAGIC:
        return _read_zip(data, names, budget)
    return _read_legacy(data, names, budget)


class _View(io.RawIOBase):
    """A read-only file over bytes, of which only so many are copied out."""

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
            raise Refused("it is a zip file of far more entries than any known checkpoint has")
        return len(piece)


def _read_zip(data: memoryview, names: Names, budget: Budget) -> Any:
    budget.copy(len(data))  # a nested file may be named many times
    try:
        with zipfile.ZipFile(_View(data, MAX_DIRECTORY)) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error, IndexError, EOFError) as error:
        raise Refused(f"it starts as a zip file but is damaged or cut short ({error})") from error
    budget.spend(_ENTRY_COST * len(entries))
    pickles = [name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        raise Refused("it is a zip file but not one of torch.save")
    root = pickles[0].removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in entries and bytes(_stored(data, entries[order])).strip() != b"little":
        raise Refused("its numbers are in big-endian order", "save it again on a little-endian machine")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if key not in storages:
            if f"{root}data/{key}" not in entries:
                raise Refused(f"tensor data {shown(key, 40)} is missing")
            storages[key] = Storage(dtype, count, _stored(data, entries[f"{root}data/{key}"]))
        known = storages[key]
        if known.dtype != dtype or known.count != count or len(known.data or ()) < count * dtype.itemsize:
            raise Refused(f"tensor data {shown(key, 40)} is not of the announced type and size")
        return known

    return unpickle(_stored(data, entries[pickles[0]]), names, persistent=storage, budget=budget)[0]


def _stored(data: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry. torch never compresses; refusing it leaves no room for a zip bomb."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise Refused("it is a compressed zip file, which torch.save never writes")
    header = data[entry.header_offset : entry.header_offset + _LOCAL_HEADER.size]
    if entry.header_offset < 0 or len(header) < _LOCAL_HEADER.size:
        raise Refused("it is a damaged zip file")
    magic, name, extra = _LOCAL_HEADER.unpack(header)
    begin = entry.header_offset + _LOCAL_HEADER.size + name + extra
    if magic != ZIP_MAGIC or begin + entry.file_size > len(data):
        raise Refused("it is a damaged or shortened zip file")
    return data[begin : begin + entry.file_size]


def _read_legacy(data: memoryview, names: Names, budget: Budget) -> Any:
    nothing: Names = {}
    magic, position = unpickle(data, nothing, budget=budget)
    protocol, position = unpickle(data, nothing, start=position, budget=budget)
    system, position = unpickle(data, nothing, start=position, budget=budget)
    if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL or not isinstance(system, dict):
        raise Refused("it is not a file of torch.save")
    if system.get("little_endian") is not True:
        raise Refused("its numbers are in big-endian order", "save it again on a little-endian machine")
    storages: dict[str, Storage] = {}

    def storage(identifier: Any) -> Storage:
        dtype, key, count = _storage_id(identifier)
        if count * dtype.itemsize > len(data):
            raise Refused(f"it is cut short: a tensor takes {count * dtype.itemsize} bytes, the file has {len(data)}")
        known = storages.setdefault(key, Storage(dtype, count))
        if known.dtype != dtype or known.count != count:
            raise Refused(f"tensor data {shown(key, 40)} is announced in two ways")
        return known

    value, position = unpickle(data, names, start=position, persistent=storage, budget=budget)
    keys, position = unpickle(data, nothing, start=position, budget=budget)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(storages):
        raise Refused("its list of tensors is damaged")
    for key in dict.fromkeys(keys):
        known = storages[key]
        size = known.count * known.dtype.itemsize
        count = int.from_bytes(data[position : position + 8], "little")
        position += 8
        if count != known.count or position + size > len(data):
            raise Refused(f"it is cut short or damaged: tensor data {shown(key, 40)} of {size} bytes does not fit")
        known.data = data[position : position + size]
        position += size
    return value


def _storage_id(identifier: Any) -> tuple[Any, str, int]:
    """dtype, key and number of items of ("storage", type, key, location, count[, view])."""
    if not isinstance(identifier, tuple) or len(identifier) not in (5, 6) or identifier[0] != "storage":
        raise Refused("it refers to data outside the file")
    _, kind, key, _, count = identifier[:5]
    if not isinstance(key, str) or type(count) is not int or count < 0 or (len(identifier) == 6 and identifier[5]):
        raise Refused("a reference to tensor data is damaged")
    return storage_dtype(kind), key, count
