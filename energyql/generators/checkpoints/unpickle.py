"""An interpreter of pickles that executes nothing of the file, and the records of the values in a pickle.

Python's own unpickler imports and calls the names in a file. This one looks names up in a table of functions of this
package, which build records; it imports nothing, calls nothing else and sets no attributes. Time and memory are
limited: sizes are compared with the rest of the file before anything is read, the number of operations is limited, and
only strings and small integers may be keys, so that no hash is slow to compute or collides on purpose.
"""

from __future__ import annotations

import math
import struct
import sys
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, shown

MAX_OPERATIONS = 300_000
"""Most pickle operations in one file, some tenths of a second; the largest official pickles take a fifth of it."""
MAX_MEMORY = 1 << 29
"""Most bytes of the objects of one file, without the numbers of its tensors and arrays."""
MAX_KEY = 2**53
"""Integers from this one on are no keys."""
MAX_DIMENSIONS = 8
"""Most axes of an array."""
MAX_NUMBER = 2**48
"""Largest side, stride or offset of an array."""

Names = Mapping[tuple[str, str], Callable[..., Any]]
"""(module, name) in the file -> the function of this package that is called instead.

With `ANY` as name, the function makes such a function from the full name of any class of the package.
"""
ANY = "*"
"""Stands for every name of a package in `Names`."""


class Record:
    """A value whose state a pickle may set."""

    def set_state(self, state: Any) -> None:
        """Set the state that the pickle gives the value; here and in most subclasses a CheckpointError is raised."""
        raise CheckpointError(f"it gives a state to a {type(self).__name__}, which has none")


@dataclass(frozen=True, eq=False)
class Stub:
    """A name in the file, with the function that is called in its place."""

    name: str
    build: Callable[..., Any]


@dataclass
class Budget:
    """Counts of the work and memory for a file and the pickles inside it; a CheckpointError is raised at a limit.

    Attributes:
        file_size: bytes of the file.
        most: most operations.
        spent: operations so far.
        copied: bytes that were copied so far.
        tensors: bytes of tensors so far.
        held: bytes of objects so far.
    """

    file_size: int
    most: int = MAX_OPERATIONS
    spent: int = 0
    copied: int = 0
    tensors: int = 0
    held: int = 0

    def spend(self, operations: int = 1) -> None:
        """Count operations of the pickle; each item of a container that is copied is one."""
        self.spent += operations
        if self.spent > self.most:
            raise CheckpointError(f"it takes more than {self.most} operations to read, far more than known checkpoints")

    def hold(self, size: int) -> None:
        """Count bytes of the objects made from the file: one byte of the file can make a set of two hundred bytes."""
        self.held += size
        if self.held > min(MAX_MEMORY, MAX_MEMORY // 4 + 16 * self.file_size):
            raise CheckpointError("its objects take far more memory than those of known checkpoints")

    def copy(self, size: int) -> None:
        """Count bytes that are copied while the file is read."""
        self.copied += size
        if self.copied > 2 * self.file_size:
            raise CheckpointError("it copies its own content again and again")

    def take(self, size: int) -> None:
        """Count bytes of the copy of a tensor: many tensors may share the same bytes of the file."""
        self.tensors += size
        if self.tensors > 2 * self.file_size:
            raise CheckpointError("its tensors are larger than the file")


def checked_key(key: Any) -> Any:
    """Return a key of a dict, or a member of a set, if its hash is fast to compute.

    Raises:
        CheckpointError: it is no string, small integer or `None`.
    """
    if key is None or isinstance(key, str) or (isinstance(key, int) and -MAX_KEY < key < MAX_KEY):
        return key
    raise CheckpointError(f"it uses a {type(key).__name__} as a key")


def is_shape(numbers: Any) -> bool:
    """Return whether a value of the file is a tuple of possible lengths, strides or offsets."""
    return (
        isinstance(numbers, tuple)
        and len(numbers) <= MAX_DIMENSIONS
        and all(type(number) is int and 0 <= number < MAX_NUMBER for number in numbers)
    )


@dataclass(eq=False)
class ObjectRecord(Record):
    """An object in the file: the full name of its class, the arguments of its constructor, and its attributes."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def set_state(self, state: Any) -> None:
        """Set the attributes; raise a CheckpointError if `state` is no dict."""
        if not isinstance(state, dict):
            raise CheckpointError(f"the state of a {self.name} is a {type(state).__name__}, not a dict")
        self.state = state


def record_of(name: str) -> Callable[..., ObjectRecord]:
    """Return a function in place of the class `name`: from the arguments of the constructor to an `ObjectRecord`."""
    return lambda *arguments: ObjectRecord(name, arguments)


def uncallable(name: str) -> Callable[..., Any]:
    """Return a function in place of a name that a file may contain but not call: it raises a CheckpointError."""

    def refuse(*_: Any) -> Any:
        raise CheckpointError(f"it calls {name}")

    return refuse


@dataclass(eq=False)
class Storage:
    """A row of `count` numbers, as bytes of the file.

    In a legacy file the numbers come after the pickle, so `data` is `None` at first.
    """

    dtype: torch.dtype
    count: int
    data: memoryview | None = None


@dataclass(frozen=True, eq=False)
class TensorRecord:
    """A tensor whose numbers are still in the file.

    Attributes:
        storage: row of numbers that holds those of the tensor.
        offset: index of the first number in the row.
        size: shape.
        stride: for each axis the distance of neighbours in the row.
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Number of bytes of the result of `tensor`."""
        return math.prod(self.size) * self.storage.dtype.itemsize

    def tensor(self) -> Tensor:
        """Return a contiguous copy of the tensor, on the CPU, in its own dtype."""
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
    """Return the record for a call of `torch._utils._rebuild_tensor_v2`, which makes a view of a storage.

    Raises:
        CheckpointError: an argument is of a wrong type, or the view does not lie inside the storage.
    """
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
    """Return a function in place of a container's class, called `name` in messages: it calls `make` with the items."""

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
"""Name of a class of torch -> dtype of its numbers."""
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
"""Names in a pickle of tensors and plain containers. Types of storages are only compared by name."""


def storage_dtype(kind: Any) -> torch.dtype:
    """Return the dtype of a storage from its type, which is a `Stub`.

    Raises:
        CheckpointError: it is of an unknown type.
    """
    name = kind.name.rpartition(".")[2] if isinstance(kind, Stub) else ""
    if name not in STORAGE_TYPES:
        raise CheckpointError("a tensor is of a kind that no supported checkpoint needs")
    return STORAGE_TYPES[name]


MAX_NAME = 256
"""Most bytes of a name on a line of its own."""
MAX_INTEGER = 16
"""Most bytes of an integer: arithmetic with longer ones is slow."""
_POINTER = 8
"""Bytes of a place on the stack or in a list."""
_ENTRY = 100
"""Bytes of an entry of a dict or set."""
_RECORD = 256
"""Bytes of a record with its fields."""


def unpickle(
    data: memoryview,
    names: Names,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> tuple[Any, int]:
    """Return the value of a pickle, and the position after the pickle.

    Args:
        data: the bytes of a file.
        names: the names that the pickle may contain.
        start: position of the pickle in `data`.
        persistent: function from a persistent id to its value; by default such an id is an error.
        budget: limits, which the pickles of one file share; by default new ones.

    Returns:
        The value, whose byte strings are views of `data`, and the position.

    Raises:
        CheckpointError: it is damaged or holds something that is not allowed.
    """
    machine = _Machine(data, names, start, persistent, budget or Budget(len(data)))
    try:
        return machine.run(), machine.position
    except (IndexError, KeyError, UnicodeDecodeError, struct.error) as error:
        raise CheckpointError(f"it is damaged near byte {machine.position} ({type(error).__name__})") from error


@dataclass(eq=False, slots=True)
class _Machine:
    """The interpreter of one pickle, with its stack, its memo and its position in the file."""

    data: memoryview
    names: Names
    position: int
    persistent: Callable[[Any], Any] | None
    budget: Budget
    stack: list[Any] = field(default_factory=list)
    outer: list[list[Any]] = field(default_factory=list)  # the stacks below each mark
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self) -> Any:
        while True:
            self.budget.spend()
            operation = self.take(1)[0]
            if operation == 0x2E:  # STOP
                return self.stack.pop()
            try:
                step = _OPERATIONS[operation]
            except KeyError:
                raise CheckpointError(
                    f"pickle operation 0x{operation:02x} at byte {self.position - 1} is not allowed",
                    hint="it is damaged, or not a checkpoint",
                ) from None
            step(self)

    # reading

    def take(self, size: int) -> memoryview:
        begin, self.position = self.position, self.position + size
        if size < 0 or self.position > len(self.data):
            self.position = begin
            raise CheckpointError(f"it is cut short: {size} bytes are announced at byte {begin} of {len(self.data)}")
        return self.data[begin : self.position]

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def long(self, size: int) -> int:
        if not 0 <= size <= MAX_INTEGER:
            raise CheckpointError(f"it holds a number of {size} bytes at byte {self.position}")
        return self.number(size, signed=True)

    def text(self, size: int) -> str:
        return str(self.take(size), "utf-8", "surrogatepass")

    def line(self) -> str:
        window = bytes(self.data[self.position : self.position + MAX_NAME])
        end = window.find(b"\n")
        if end < 0:
            raise self.damaged(": a name has no end")
        self.position += end + 1
        return window[:end].decode("utf-8")

    # the stack

    def push(self, value: Any) -> None:
        self.budget.hold(sys.getsizeof(value) + _POINTER)
        self.stack.append(value)

    def get(self, index: int) -> None:
        self.budget.hold(_POINTER)
        self.stack.append(self.memo[index])

    def damaged(self, detail: str = "") -> CheckpointError:
        return CheckpointError(f"it is damaged near byte {self.position}" + detail)

    def mark(self) -> None:
        self.budget.hold(sys.getsizeof(self.stack))
        self.outer.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer.pop()
        return items

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def push_tuple(self, size: int) -> None:
        if len(self.stack) < size:
            raise self.damaged()
        items = tuple(self.stack[-size:])
        del self.stack[-size:]
        self.push(items)

    def put(self, index: int) -> None:
        self.budget.hold(_ENTRY)
        self.memo[index] = self.stack[-1]

    # containers

    def append(self, items: list[Any]) -> None:
        self.last(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise self.damaged(": a key without a value")
        target = self.last(dict)
        self.budget.hold(_ENTRY * len(items) // 2)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def add_items(self, items: list[Any]) -> None:
        self.budget.hold(_ENTRY * len(items))
        self.last(set).update(checked_key(item) for item in items)

    def last(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise self.damaged(f": {type(self.stack[-1]).__name__} is not a {kind.__name__}")
        return self.stack[-1]

    # names

    def named(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise self.damaged(": a name is not a string")
        full = f"{module}.{name}"
        build = self.names.get((module, name)) or self.of_package(module, name)
        if build is None:
            raise CheckpointError(
                f"it names {shown(full)}, which no supported checkpoint needs",
                hint="nothing was run. If you trust the file, load it with the program that wrote it and save the "
                "plain state dict; otherwise delete it",
            )
        self.push(Stub(full, build))

    def of_package(self, module: str, name: str) -> Callable[..., Any] | None:
        """Return the function in place of a class of a package in `names` with `ANY`; `None` if there is none."""
        package = module if all(map(str.isidentifier, (*module.split("."), name))) else ""
        while package:
            if (make := self.names.get((package, ANY))) is not None:
                replacement: Callable[..., Any] = make(f"{module}.{name}")
                return replacement
            package = package.rpartition(".")[0]
        return None

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.named(module, name)

    def instance(self) -> None:
        self.named(self.line(), self.line())
        raise CheckpointError("it uses the pickle operation INST, which no supported checkpoint needs")

    def call(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Stub) or not isinstance(arguments, tuple):
            raise CheckpointError(f"at byte {self.position} it calls a {type(function).__name__}, not a function")
        for argument in arguments:  # a function may copy these
            if isinstance(argument, str):
                self.budget.copy(len(argument))
            elif isinstance(argument, dict | list | tuple | set | frozenset):
                self.budget.spend(len(argument))
        try:
            value = function.build(*arguments)
        except (TypeError, ValueError, LookupError, OverflowError) as error:
            raise CheckpointError(f"{function.name} has impossible arguments ({error})") from error
        self.budget.hold(_RECORD)
        self.push(value)

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

    def frame(self) -> None:
        size = self.number(8)
        if size > len(self.data) - self.position:
            raise CheckpointError(f"it is cut short: a frame of {size} bytes is announced at byte {self.position}")


_OPERATIONS: dict[int, Callable[[_Machine], Any]] = {
    ord("("): _Machine.mark,
    ord("0"): _Machine.pop,
    ord("1"): _Machine.pop_mark,
    ord("N"): lambda m: m.push(None),
    0x88: lambda m: m.push(True),
    0x89: lambda m: m.push(False),
    ord("K"): lambda m: m.push(m.number(1)),
    ord("M"): lambda m: m.push(m.number(2)),
    ord("J"): lambda m: m.push(m.number(4, signed=True)),
    0x8A: lambda m: m.push(m.long(m.number(1))),  # LONG1
    0x8B: lambda m: m.push(m.long(m.number(4, signed=True))),  # LONG4
    ord("G"): lambda m: m.push(struct.unpack(">d", m.take(8))[0]),
    0x8C: lambda m: m.push(m.text(m.number(1))),
    ord("X"): lambda m: m.push(m.text(m.number(4))),
    0x8D: lambda m: m.push(m.text(m.number(8))),
    ord("C"): lambda m: m.push(m.take(m.number(1))),
    ord("B"): lambda m: m.push(m.take(m.number(4))),
    0x8E: lambda m: m.push(m.take(m.number(8))),
    0x96: lambda m: m.push(m.take(m.number(8))),  # BYTEARRAY8
    ord(")"): lambda m: m.push(()),
    ord("]"): lambda m: m.push([]),
    ord("}"): lambda m: m.push({}),
    0x8F: lambda m: m.push(set()),
    ord("t"): lambda m: m.push(tuple(m.pop_mark())),
    0x85: lambda m: m.push_tuple(1),
    0x86: lambda m: m.push_tuple(2),
    0x87: lambda m: m.push_tuple(3),
    ord("l"): lambda m: m.push(m.pop_mark()),
    ord("a"): lambda m: m.append([m.stack.pop()]),
    ord("e"): lambda m: m.append(m.pop_mark()),
    ord("s"): lambda m: m.set_items([m.stack.pop(-2), m.stack.pop()]),
    ord("u"): lambda m: m.set_items(m.pop_mark()),
    0x90: lambda m: m.add_items(m.pop_mark()),
    0x91: lambda m: m.push(frozenset(checked_key(item) for item in m.pop_mark())),
    ord("q"): lambda m: m.put(m.number(1)),
    ord("r"): lambda m: m.put(m.number(4)),
    0x94: lambda m: m.put(len(m.memo)),  # MEMOIZE
    ord("h"): lambda m: m.get(m.number(1)),
    ord("j"): lambda m: m.get(m.number(4)),
    ord("c"): lambda m: m.named(m.line(), m.line()),
    0x93: _Machine.stack_global,
    ord("R"): _Machine.call,
    0x81: _Machine.call,  # NEWOBJ
    ord("b"): _Machine.build,
    ord("i"): _Machine.instance,
    ord("Q"): _Machine.persistent_id,
    0x80: lambda m: m.take(1),  # PROTO
    0x95: _Machine.frame,
}
