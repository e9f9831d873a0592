"""Records: the values that a pickle is read into. They hold data and execute nothing."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError

MAX_OPERATIONS = 300_000
"""Most pickle operations in one file, some tenths of a second; the largest official pickles take a fifth of it."""
MAX_MEMORY = 1 << 29
"""Most bytes of the objects of one file, without the numbers of its tensors and arrays."""
MAX_KEY = 2**53
MAX_DIMENSIONS = 8
MAX_NUMBER = 2**48
"""Largest side, stride or offset of an array."""

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) in the file -> the function of this package that is called instead.

With the name `ANY`, it makes that function for any class of the package, from its full name.
"""
ANY = "*"


class Record:
    """A value that a pickle may set the state of."""

    def set_state(self, state: Any) -> None:
        """Set the state, by default an error."""
        raise CheckpointError(f"it gives a state to a {type(self).__name__}, which has none")


@dataclass(frozen=True, eq=False)
class Stub:
    """A name in the file, with the function that replaces it."""

    name: str
    build: Callable[..., Any]


@dataclass
class Budget:
    """Limits on the work and memory for a file, shared by the pickles that are nested in it."""

    file_size: int
    most: int = MAX_OPERATIONS
    spent: int = 0
    copied: int = 0
    tensors: int = 0
    held: int = 0

    def spend(self, operations: int = 1) -> None:
        """Count operations, one for each item of a container that is copied."""
        self.spent += operations
        if self.spent > self.most:
            raise CheckpointError(f"it takes more than {self.most} operations to read, far more than known checkpoints")

    def hold(self, size: int) -> None:
        """Count bytes of the objects that are made of the file: one byte of it can become a set of two hundred."""
        self.held += size
        if self.held > min(MAX_MEMORY, MAX_MEMORY // 4 + 16 * self.file_size):
            raise CheckpointError("its objects take far more memory than those of known checkpoints")

    def copy(self, size: int) -> None:
        """Count bytes that are copied while the file is parsed, so that nothing is copied without end."""
        self.copied += size
        if self.copied > 2 * self.file_size:
            raise CheckpointError("it copies its own content again and again")

    def take(self, size: int) -> None:
        """Count bytes of tensors; those that share their data must not multiply it without end."""
        self.tensors += size
        if self.tensors > 2 * self.file_size:
            raise CheckpointError("its tensors are larger than the file")


def checked_key(key: Any) -> Any:
    """Return the key of a dict or member of a set if its hash is fast to compute."""
    if key is None or isinstance(key, str) or (isinstance(key, int) and -MAX_KEY < key < MAX_KEY):
        return key
    raise CheckpointError(f"it uses a {type(key).__name__} as a key")


def is_shape(numbers: Any) -> bool:
    """Whether a value of the file is a tuple of possible sides, strides or offsets."""
    return (
        isinstance(numbers, tuple)
        and len(numbers) <= MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers)
    )


@dataclass(eq=False)
class ObjectRecord(Record):
    """An object of a known class: the name of the class, the arguments of its constructor, and its state."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        """Set the attributes, a dict."""
        if not isinstance(state, dict):
            raise CheckpointError(f"the state of a {self.name} is a {type(state).__name__}, not a dict")
        self.state = state


def record_of(name: str) -> Callable[..., ObjectRecord]:
    """Return the replacement for a class: it makes records."""
    return lambda *arguments: ObjectRecord(name, arguments)


def uncallable(name: str) -> Callable[..., Any]:
    """Return the replacement for a name that may be mentioned but not called."""

    def refuse(*_: Any) -> Any:
        raise CheckpointError(f"it calls {name}")

    return refuse


@dataclass(eq=False)
class Storage:
    """A row of numbers, as bytes of the file. In a legacy file they follow the pickle, so they are set later."""

    dtype: torch.dtype
    count: int
    data: memoryview | None = None


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A tensor that is not copied out of the file yet."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """Return a contiguous copy."""
        if self.storage.data is None:
            raise CheckpointError("the numbers of a tensor are missing")
        if not self.nbytes:
            return torch.empty(self.size, dtype=self.storage.dtype)
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.size, self.stride, strict=True))
        item = self.storage.dtype.itemsize
        numbers = torch.frombuffer(
            bytearray(self.storage.data[self.offset * item : (last + 1) * item]), dtype=self.storage.dtype
        )
        return numbers.as_strided(self.size, self.stride).contiguous()


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    """Replace `torch._utils._rebuild_tensor_v2`: a view of a storage, checked to lie inside it."""
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise CheckpointError("a tensor has no storage or no shape")
    if len(size) != len(stride) or not all(map(is_shape, (size, stride, (offset,)))):
        raise CheckpointError("a tensor has an impossible shape")
    if math.prod(size):
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if last >= storage.count or math.prod(size) > storage.count:
            raise CheckpointError(f"a tensor of {math.prod(size)} numbers does not fit its storage of {storage.count}")
    return TensorRecord(storage, offset, size, stride)


def _from_items(name: str, make: Callable[[Any], Any]) -> Callable[..., Any]:
    """Return the replacement for a container that is made from a list or tuple."""

    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise CheckpointError(f"a {name} is damaged")
        return make(items)

    return build


ordered_dict = _from_items("dict", lambda items: OrderedDict((checked_key(key), value) for key, value in items))
_set = _from_items("set", lambda items: {checked_key(item) for item in items})


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
TORCH_NAMES: Names = {
    ("collections", "OrderedDict"): ordered_dict,
    ("builtins", "set"): _set,
    ("__builtin__", "set"): _set,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): _from_items("shape", tuple),
    ("torch", "device"): record_of("torch.device"),
    **{("torch", name): uncallable(f"torch.{name}") for name in STORAGE_TYPES},
    ("torch.storage", "UntypedStorage"): uncallable("torch.UntypedStorage"),
    **{
        ("torch", name): uncallable(f"torch.{name}")
        for name in ("float16", "bfloat16", "float32", "float64", "contiguous_format")
    },
}
"""Names in a pickle of tensors and plain containers. Storage types are compared by name and never called."""


def storage_dtype(kind: Any) -> torch.dtype:
    """Return the dtype of a storage type in the file."""
    name = kind.name.rpartition(".")[2] if isinstance(kind, Stub) else ""
    if name not in STORAGE_TYPES:
        raise CheckpointError("a tensor is of a kind that no supported checkpoint needs")
    return STORAGE_TYPES[name]
