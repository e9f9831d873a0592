"""What the names in a checkpoint stand for: records that hold data and do nothing."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from energyql.generators.checkpoints.refusal import Refused
from energyql.generators.checkpoints.unpickle import Inert, Names, Stand, checked_key

MAX_DIMENSIONS = 8
_DTYPE = re.compile(r"[<>=|]?([fiub][1248])")


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


# torch


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
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS or not all(type(n) is int and n >= 0 for n in numbers):
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


def _uncallable(name: str) -> Callable[..., Any]:
    def refuse(*_: Any) -> Any:
        raise Refused(f"it makes a {name} out of nothing")

    return refuse


def _ordered_dict(items: Any = ()) -> OrderedDict[Any, Any]:
    return OrderedDict((checked_key(key), value) for key, value in items)


TORCH_NAMES: Names = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): lambda numbers=(): tuple(numbers),
    ("torch", "device"): record("torch.device"),
    **{("torch", name): _uncallable(f"torch.{name}") for name in STORAGE_TYPES},
    ("torch.storage", "UntypedStorage"): _uncallable("torch.UntypedStorage"),
    **{
        ("torch", name): _uncallable(f"torch.{name}") for name in ("float16", "float32", "float64", "contiguous_format")
    },
}
"""What a pickle of tensors may name. Storage types are only compared by name, never called."""


def storage_dtype(kind: Any) -> torch.dtype:
    """The dtype that a storage type of the file stands for."""
    name = kind.name.rpartition(".")[2] if isinstance(kind, Stand) else ""
    if name not in STORAGE_TYPES:
        raise Refused("a tensor is of a kind that no supported checkpoint needs")
    return STORAGE_TYPES[name]


# numpy


@dataclass(eq=False)
class DtypeRecord(Inert):
    """A NumPy dtype of plain numbers."""

    kind: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise Refused("a NumPy dtype is damaged")
        self.order = "<" if state[1] == "=" else state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.order + self.kind)


def _dtype(text: Any, *_: Any) -> DtypeRecord:
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] in ("f1", "b2", "b4", "b8"):
        raise Refused(f"a NumPy array holds {str(text)[:20]!a}; only plain numbers are read")
    return DtypeRecord(match[1], text[0] if text[0] in "<>|" else "<")


@dataclass(eq=False)
class ArrayRecord(Inert):
    """A NumPy array, still as bytes of the file."""

    shape: tuple[int, ...] = (0,)
    dtype: DtypeRecord = field(default_factory=lambda: DtypeRecord("f4"))
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def set_state(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("a NumPy array is damaged")
        _, self.shape, self.dtype, fortran, self.data = state
        self.fortran = bool(fortran)
        self.check()

    def check(self) -> None:
        """Raises Refused unless shape, dtype and data agree."""
        shape_ok = isinstance(self.shape, tuple) and len(self.shape) <= MAX_DIMENSIONS
        if not shape_ok or not all(type(n) is int and n >= 0 for n in self.shape):
            raise Refused("a NumPy array has an impossible shape")
        if not isinstance(self.dtype, DtypeRecord) or not isinstance(self.data, memoryview):
            raise Refused("a NumPy array holds objects; only plain numbers are read")
        if math.prod(self.shape) * self.dtype.dtype.itemsize != len(self.data):
            raise Refused(f"a NumPy array of shape {self.shape} has {len(self.data)} bytes")

    def array(self) -> NDArray[Any]:
        """A read-only view of the file."""
        flat = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    array = ArrayRecord(shape, dtype, order == "F", data)
    array.check()
    return array


def _scalar(dtype: Any, data: Any) -> Any:
    array = ArrayRecord((), dtype, False, data)
    array.check()
    return array.array().item()


def _latin1(text: Any, encoding: Any) -> memoryview:
    """`_codecs.encode`, by which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused(f"it encodes text as {str(encoding)[:20]!a}")
    return memoryview(text.encode("latin1"))


def _numpy_names(core: str) -> Names:
    return {
        (f"{core}.multiarray", "_reconstruct"): lambda *_: ArrayRecord(),
        (f"{core}.multiarray", "scalar"): _scalar,
        (f"{core}.numeric", "_frombuffer"): _from_buffer,
    }


NUMPY_NAMES: Names = {
    ("numpy", "ndarray"): _uncallable("numpy.ndarray"),
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    **_numpy_names("numpy.core"),
    **_numpy_names("numpy._core"),
}


def _set(items: Any = ()) -> set[Any]:
    return {checked_key(item) for item in items}


SET_NAMES: Names = {("builtins", "set"): _set, ("__builtin__", "set"): _set}
EASY_DICT: Names = {(module, "EasyDict"): _ordered_dict for module in ("dnnlib", "dnnlib.util")}


def plain(value: Any, budget: list[int] | None = None, depth: int = 0) -> Any:
    """A copy in Python's own types: dicts, lists, numbers, strings, `None`. Raises Refused for anything else."""
    budget = budget if budget is not None else [10_000]  # shared parts are visited again and again
    budget[0] -= 1
    if budget[0] < 0 or depth > 10:
        raise Refused("its settings are nested too deep or without end")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item, budget, depth + 1) for item in value]
    if isinstance(value, ArrayRecord) and len(value.data) <= 4096:
        return value.array().tolist()
    raise Refused(f"a setting is a {type(value).__name__}")
