"""An interpreter of pickles that executes nothing in the file, and records that stand for objects in a pickle.

Python's own unpickler imports and calls any class or function that a file names. Here `pickletools` splits a pickle
into operations, and names are looked up in a table of functions of this package, which build records. Nothing else is
imported or called, and no attributes are set.

The number of operations and the memory are limited. Only strings, small integers and `None` may be keys, so that no
hash is slow to compute, and no file can be made whose keys all have one hash.
"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pickletools import genops
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, shown

MAX_OPERATIONS = 300_000
"""Largest number of pickle operations for one file; the largest official pickles have a fifth of it."""
MAX_MEMORY = 1 << 29
"""Largest number of bytes of the objects of one file, without the numbers in tensors and arrays."""
MAX_KEY = 2**53
"""Integers may be keys of dicts or members of sets if their absolute value is below this number."""
MAX_DIMENSIONS = 8
"""Largest number of axes of a tensor or array."""
MAX_NUMBER = 2**48
"""Lengths of axes, strides and offsets of tensors and arrays must be below this number."""

Make = Callable[..., Any]
"""A function of this package that is called in place of a class or function that a file names."""
Names = Mapping[tuple[str, str], Make]
"""The names that a file may contain: (module, name) of a class or function -> what is called in its place.

The value of (module, "*") is a function from the full name of any class of a package to what is called in its place.
All other names are errors.
"""
BUILTINS = ("builtins", "__builtin__")
"""Names of the module of Python's built-in functions, in Python 3 and Python 2."""
ANY = "*"
"""The name in an entry of `Names` that is for all classes of a package."""


class Record:
    """Base class of records, which stand for objects in a pickle. One of this class stands for what no reader needs."""

    def set_state(self, state: Any) -> None:
        """Take the state of the object, by which a pickle sets its attributes. Here it is ignored."""


@dataclass(frozen=True, eq=False)
class Stub:
    """Stands for a class or function that a pickle names, which is never imported; `build` is called in its place."""

    name: str
    build: Make


@dataclass
class Quota:
    """Counts of the work and memory for reading one file, with the files and pickles inside it.

    Each method adds to a count, and raises a `CheckpointError` if the count exceeds its limit.

    Attributes:
        file_size: number of bytes of the file. The larger the file, the more memory is allowed.
        most: largest allowed number of operations; `spent` is their number so far.
        copied: bytes of the file that were copied so far.
        tensors: bytes of copies of tensors and arrays so far.
        held: bytes of other objects so far.
    """

    file_size: int
    most: int = MAX_OPERATIONS
    spent: int = 0
    copied: int = 0
    tensors: int = 0
    held: int = 0

    def spend(self, operations: int = 1) -> None:
        """Count operations, at most `most`; the copy of a container counts as many as it has items."""
        self.spent += operations
        if self.spent > self.most:
            raise CheckpointError(f"it takes more than {self.most} operations to read, far more than known checkpoints")

    def hold(self, size: int) -> None:
        """Count bytes of objects other than tensors and arrays: one byte of a file can make an object of two hundred.

        The limit is 128 MiB plus 16 times the size of the file, and at most 512 MiB.
        """
        self.held += size
        if self.held > min(MAX_MEMORY, MAX_MEMORY // 4 + 16 * self.file_size):
            raise CheckpointError("its objects take far more memory than those of known checkpoints")

    def copy(self, size: int) -> None:
        """Count bytes of the file that are copied, at most twice its size."""
        self.copied += size
        if self.copied > 2 * self.file_size:
            raise CheckpointError("it copies its own content again and again")

    def take(self, size: int) -> None:
        """Count bytes of copies of tensors and arrays, which may share bytes of the file: at most twice its size."""
        self.tensors += size
        if self.tensors > 2 * self.file_size:
            raise CheckpointError("its tensors are larger than the file")


def checked_key(key: Any) -> Any:
    """Return a key of a dict or set; raise a `CheckpointError` unless it is a string, a small integer or `None`."""
    if key is None or isinstance(key, str) or (isinstance(key, int) and -MAX_KEY < key < MAX_KEY):
        return key
    raise CheckpointError(f"it uses a {type(key).__name__} as a key")


def is_shape(numbers: Any) -> bool:
    """Whether a value may be a shape, strides or offsets: a tuple of at most 8 integers from 0 to 2**48 - 1."""
    if not isinstance(numbers, tuple) or len(numbers) > MAX_DIMENSIONS:
        return False
    return all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers)


@dataclass(eq=False)
class ObjectRecord(Record):
    """Record of an object: full name of its class, arguments of the call of the class, and attributes (`state`)."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        """Set the field `state`; its type is not checked."""
        self.state = state


def record_of(name: str) -> Callable[..., ObjectRecord]:
    """Function for a table of `Names`: it returns an `ObjectRecord` of the class `name` with its arguments."""
    return lambda *arguments: ObjectRecord(name, arguments)


def uncallable(name: str) -> Make:
    """Function for a table of `Names`, for a class or function that may be named but not called: it raises an error."""

    def refuse(*_: Any) -> Any:
        raise CheckpointError(f"it calls {name}")

    return refuse


@dataclass(eq=False)
class Storage:
    """A row of numbers in a file, of which tensors are parts.

    Attributes:
        count: how many numbers there are.
        data: their bytes, a view of the file. In the older format of `torch.save` they follow the pickle, and `data` is
            empty until then.
    """

    dtype: torch.dtype
    count: int
    data: memoryview = field(default_factory=lambda: memoryview(b""))


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """Record of a tensor, whose numbers are not copied until the method `tensor` is called.

    Attributes:
        offset: index of its first number in the storage.
        size: shape of the tensor.
        stride: for each axis the distance in the storage between neighbours along it.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def end(self) -> int:
        """Index in the storage after the last number of the tensor; 0 for a tensor without numbers."""
        steps = zip(self.size, self.stride, strict=True)
        return self.offset + 1 + sum((size - 1) * stride for size, stride in steps) if math.prod(self.size) else 0

    def tensor(self, quota: Quota | None = None) -> Tensor:
        """Contiguous copy of the tensor, on the CPU, in the dtype of the file; the quota counts its bytes."""
        dtype, count = self.storage.dtype, math.prod(self.size)
        if quota is not None:
            quota.take(count * dtype.itemsize)
        if not count:
            return torch.empty(self.size, dtype=dtype)
        numbers = bytearray(self.storage.data[self.offset * dtype.itemsize : self.end * dtype.itemsize])
        return torch.frombuffer(numbers, dtype=dtype).as_strided(self.size, self.stride).contiguous()


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> TensorRecord:
    """Record of a tensor, in place of `torch._utils._rebuild_tensor_v2`."""
    if not isinstance(storage, Storage) or not all(map(is_shape, (size, stride, (offset,)))):
        raise CheckpointError("a tensor has no storage or an impossible shape")
    record = TensorRecord(storage, offset, size, stride)
    if max(record.end, math.prod(size)) > storage.count:
        raise CheckpointError(f"a tensor of {math.prod(size)} numbers does not fit its storage of {storage.count}")
    return record


def _from_items(make: Callable[[Any], Any]) -> Make:
    """Function in place of the class of a container: it checks that the items are a list or tuple, and calls `make`."""

    def build(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise CheckpointError("the items of a container are damaged")
        return make(items)

    return build


ordered_dict = _from_items(lambda items: OrderedDict((checked_key(key), value) for key, value in items))
_set = _from_items(lambda items: {checked_key(item) for item in items})
STORAGE_TYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}  # fmt: skip
"""Name of a class of storages in torch, without its module -> dtype of the numbers in such a storage."""
_CONSTANTS = ("float16", "bfloat16", "float32", "float64", "contiguous_format")
TORCH_NAMES: Names = {
    ("collections", "OrderedDict"): ordered_dict,
    **dict.fromkeys([(module, "set") for module in BUILTINS], _set),
    **{("torch._utils", name): _rebuild_tensor for name in ("_rebuild_tensor", "_rebuild_tensor_v2")},
    ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
    ("torch", "Size"): _from_items(tuple),
    ("torch", "device"): record_of("torch.device"),
    ("torch.storage", "UntypedStorage"): uncallable("torch.UntypedStorage"),
    **{("torch", name): uncallable(f"torch.{name}") for name in (*STORAGE_TYPES, *_CONSTANTS)},
}
"""Names that a pickle of tensors and plain containers may contain; storages and dtypes may be named, but not called."""


MAX_NAME = 256
"""Largest number of bytes of a name that the pickle writes on a line, and of characters of the name of a module."""
MAX_BITS = 128
"""Largest number of bits of an integer. Arithmetic with longer integers is slow."""
_POINTER = 8
"""Bytes that an item takes on the stack or in a list, without the item itself."""
_ENTRY = 100
"""Bytes that are counted for an entry of a dict or set, without its key and value."""
_RECORD = 256
"""Bytes that are counted for a record with its fields."""


def unpickle(
    data: memoryview,
    names: Names,
    *,
    start: int = 0,
    persistent: Make | None = None,
    quota: Quota | None = None,
) -> tuple[Any, int]:
    """Read a pickle without executing anything in it; return its value, and the position after it in the file.

    In place of an object, the value has what the function in `names` returns, as a rule a record. Byte strings are
    views of `data`. All pickles of one file share a quota.

    Args:
        start: position of the first byte of the pickle in `data`.
        persistent: function from a persistent id, a reference to data outside the pickle, to a value; without it an id
            is an error.

    Raises:
        CheckpointError: the pickle is damaged, contains an operation or a name that is not allowed, or exceeds a limit.
    """
    source, machine = _Source(data, start), _Machine(names, persistent, quota or Quota(len(data)))
    try:
        for operation, argument, position in genops(source):  # type: ignore[arg-type]
            machine.quota.spend()
            if operation.name not in _OPERATIONS:
                raise CheckpointError(f"pickle operation {operation.name} at byte {position} is not allowed")
            _OPERATIONS[operation.name](machine, argument)
        return machine.stack.pop(), source.tell()
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"it is damaged or cut short near byte {source.tell()} ({problem})") from error


class _Source:
    """File object for `pickletools`, which reads views without a copy; only a read of one byte returns `bytes`."""

    def __init__(self, data: memoryview, position: int) -> None:
        self._data, self._position = data, position

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes | memoryview:
        piece = self._data[self._position : self._position + size]
        self._position += len(piece)
        return bytes(piece) if size == 1 else piece

    def readline(self) -> bytes:
        line, end, _ = bytes(self._data[self._position : self._position + MAX_NAME]).partition(b"\n")
        self._position += len(line + end)
        return line.replace(b"\\", b"?") + end  # no name has a backslash; `pickletools` would read an escape


@dataclass(eq=False, slots=True)
class _Machine:
    """The state of the interpreter of one pickle, with methods for operations of the pickle.

    Attributes:
        stack: values that later operations use, the last one first.
        outer: stacks that are set aside, one for each start of a container ("mark") that is not finished.
        memo: number -> value, for values to which the pickle refers more than once.
    """

    names: Names
    persistent: Make | None
    quota: Quota
    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)  # the stacks below each mark
    memo: dict[int, Any] = field(default_factory=dict)

    def push(self, value: Any) -> None:
        self.quota.hold(sys.getsizeof(value) + _POINTER)
        self.stack.append(value)

    def integer(self, value: int) -> None:
        if value.bit_length() > MAX_BITS:
            raise CheckpointError(f"it holds a number of {value.bit_length()} bits")
        self.push(value)

    def get(self, index: int) -> None:
        self.quota.hold(_POINTER)
        self.stack.append(self.memo[index])

    def put(self, index: int) -> None:
        self.quota.hold(_ENTRY)
        self.memo[index] = self.stack[-1]

    def mark(self) -> None:
        self.quota.hold(sys.getsizeof(self.stack))
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.outer.pop()
        return items

    def push_tuple(self, size: int) -> None:
        self.push(tuple([self.stack.pop() for _ in range(size)][::-1]))

    def last(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"{type(self.stack[-1]).__name__} is not a {kind.__name__}")
        return self.stack[-1]

    def append(self, items: list[Any]) -> None:
        self.last(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.last(dict)
        self.quota.hold(_ENTRY * len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def add_items(self, items: list[Any]) -> None:
        self.quota.hold(_ENTRY * len(items))
        self.last(set).update(map(checked_key, items))

    def named(self, module: Any, name: Any) -> None:
        """Push a `Stub` for a class or function on the stack, if its name is allowed."""
        if not isinstance(module, str) or not isinstance(name, str) or max(len(module), len(name)) > MAX_NAME:
            raise TypeError("a name is no string, or too long")
        full, parts = f"{module}.{name}", module.split(".")
        build = self.names.get((module, name))
        packages = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
        makers = [self.names[package, ANY] for package in packages if (package, ANY) in self.names]
        if build is None and makers and all(map(str.isidentifier, (*parts, name))):
            build = makers[0](full)
        if build is None:
            hint = "nothing was run. If you trust the file, save its plain state dict with the program that wrote it"
            raise CheckpointError(f"it names {shown(full)}, which no supported checkpoint needs", hint=hint)
        self.push(Stub(full, build))

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Stub) or not isinstance(arguments, tuple):
            raise CheckpointError(f"it calls a {type(function).__name__}, not a function")
        for argument in arguments:  # a function may copy these
            if isinstance(argument, str):
                self.quota.copy(len(argument))
            elif isinstance(argument, dict | list | tuple | set | frozenset):
                self.quota.spend(len(argument))
        self.quota.hold(_RECORD)
        self.push(function.build(*arguments))

    def build(self) -> None:
        state, value = self.stack.pop(), self.stack[-1]
        if isinstance(value, Record):
            value.set_state(state)
        elif not (isinstance(value, dict) and isinstance(state, dict)):  # attributes of a dict, such as a state dict's
            raise CheckpointError(f"it gives a state to a {type(value).__name__}")

    def persistent_id(self) -> None:
        if self.persistent is None:
            raise CheckpointError("it refers to data outside the file (a persistent id)")
        self.push(self.persistent(self.stack.pop()))


def _push_empty(kind: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    """Operation that pushes a new, empty container of the class `kind`."""
    return lambda m, _: m.push(kind())


_OPERATIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    **dict.fromkeys(("PROTO", "FRAME", "STOP"), lambda m, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _Machine.integer),
    **dict.fromkeys(("NONE", "BINFLOAT", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), _Machine.push),
    **dict.fromkeys(("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda m, b: m.push(memoryview(b))),
    "NEWTRUE": lambda m, _: m.push(True),
    "NEWFALSE": lambda m, _: m.push(False),
    **{f"EMPTY_{kind.__name__.upper()}": _push_empty(kind) for kind in (tuple, list, dict, set)},
    "MARK": lambda m, _: m.mark(),
    "POP": lambda m, _: m.stack.pop() if m.stack else m.pop_mark(),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "TUPLE": lambda m, _: m.push(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "LIST": lambda m, _: m.push(m.pop_mark()),
    "FROZENSET": lambda m, _: m.push(frozenset(map(checked_key, m.pop_mark()))),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "MEMOIZE": lambda m, _: m.put(len(m.memo)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.put),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.get),
    "GLOBAL": lambda m, names: m.named(*names.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.named(m.stack.pop(-2), m.stack.pop()),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), lambda m, _: m.call()),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent_id(),
}
