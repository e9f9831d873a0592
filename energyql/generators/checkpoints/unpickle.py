"""An interpreter of pickles that executes nothing of the file.

Python's own unpickler imports and calls the names in a file. This one looks names up in a table of our functions, which
build records; it imports nothing, calls nothing else and sets no attributes. Time and memory are bounded: sizes are
compared with the rest of the file before anything is read, the number of operations is limited, and only strings and
small integers may be keys, so that no hash is slow to compute or collides on purpose.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import ANY, Budget, Names, Record, Stub, checked_key

MAX_NAME = 256
MAX_INTEGER = 16
"""Most bytes of an integer: arithmetic with longer ones is slow."""
_POINTER, _ENTRY, _RECORD = 8, 100, 256
"""Bytes of a place on the stack or in a list, of an entry of a dict or set, and of a record with its fields."""


def unpickle(
    data: memoryview,
    names: Names,
    *,
    start: int = 0,
    persistent: Callable[[Any], Any] | None = None,
    budget: Budget | None = None,
) -> tuple[Any, int]:
    """Read the pickle at position `start` of `data`, which may contain these names.

    A persistent id is an error unless `persistent` returns its value. The pickles of one file share a budget.

    Returns:
        The value, whose byte strings are views of `data`, and the position after the pickle.

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
    """The state of one pickle: stack, memo and position."""

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
        """Return the replacement for a class of a package of which any class may be named, or `None`."""
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
        for argument in arguments:  # those that a function may copy
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
