"""What the names in a checkpoint stand for: records that hold data and do nothing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.inert import Inert, Names, Stand, checked_key
from energyql.generators.checkpoints.refusal import Refused

MAX_DIMENSIONS = 8
MAX_NUMBER = 2**48
"""Largest side, stride or offset that is believed."""


def is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number < MAX_NUMBER


@dataclass(eq=False)
class Record(Inert):
    """An object of a class that is known but not run: its name, the arguments it was made with and its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        if not isinstance(state, dict):
            raise Refused(f"the state of a {self.name} is a {type(state).__name__}, not a dict")
        self.state = state


def record(name: str) -> Callable[..., Record]:
    """The stand-in for a class."""
    return lambda *arguments: Record(name, arguments)


@dataclass(eq=False)
class Storage:
    """Numbers in a row, still as bytes of the file. A legacy file has them after the pickle, so they are set later."""

    dtype: torch.dtype
    count: int
    data: memoryview | None = None


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A tensor that has not been copied out of the file yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """A contiguous copy."""
        if self.storage.data is None:
            raise Refused("the numbers of a tensor are missing")
        if not self.nbytes:
            return torch.empty(self.size, dtype=self.storage.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        item = self.storage.dtype.itemsize
        numbers = torch.frombuffer(
            bytearray(self.storage.data[self.offset * item : (last + 1) * item]), dtype=self.storage.dtype
        )
        return numbers.as_strided(self.size, self.stride).contiguous()


def rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    """`torch._utils._rebuild_tensor_v2`: a view of a storage, checked to lie inside it."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise Refused("a tensor has no storage or no shape")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS or not all(map(is_count, numbers)):
        raise Refused("a tensor has an impossible shape")
    if math.prod(size):
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= storage.count or math.prod(size) > storage.count:
            raise Refused(f"a tensor of {math.prod(size)} numbers does not fit its storage of {storage.count}")
    return TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(data: Any, *_: Any) -> Any:
    return data


STORAGE_TYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}


def uncallable(name: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise Refused(f"it makes a {name} out of nothing")

    return refuse


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    if not isinstance(items, list | tuple):
        raise Refused("a dict is damaged")
    return OrderedDict((checked_key(key), value) for key, value in items)


def _size(numbers: Any = ()) -> tuple[Any, ...]:
    if not isinstance(numbers, list | tuple):
        raise Refused("a shape is damaged")
    return tuple(numbers)


TORCH_NAMES: Names = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    ("torch", "device"): record("torch.device"),
    **{("torch", name): uncallable(f"torch.{name}") for name in STORAGE_TYPES},
    ("torch.storage", "UntypedStorage"): uncallable("torch.UntypedStorage"),
    **{("torch", name): uncallable(f"torch.{name}") for name in ("float16", "float32", "float64", "contiguous_format")},
}
"""What a pickle of tensors may name. Storage types are only compared by name, never called."""


def storage_dtype(kind: Any) -> torch.dtype:
    """The dtype that a storage type of the file stands for."""
    name = kind.name.rpartition(".")[2] if isinstance(kind, Stand) else ""
    if name not in STORAGE_TYPES:
        raise Refused("a tensor is of a kind that no supported checkpoint needs")
    return STORAGE_TYPES[name]


def _set(items: Any = ()) -> set[Any]:
    if not isinstance(items, list | tuple):
        raise Refused("a set is damaged")
    return {checked_key(item) for item in items}


SET_NAMES: Names = {("builtins", "set"): _set, ("__builtin__", "set"): _set}
EASY_DICT: Names = {(module, "EasyDict"): _ordered_dict for module in ("dnnlib", "dnnlib.util")}
