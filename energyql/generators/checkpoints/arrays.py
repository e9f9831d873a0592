"""NumPy arrays and numbers of a pickle, read as bytes and never as objects."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energyql.generators.checkpoints.inert import Inert, Names
from energyql.generators.checkpoints.records import MAX_DIMENSIONS, is_count, uncallable
from energyql.generators.checkpoints.refusal import Refused, shown

_DTYPE = re.compile(r"[<>=|]?([fiub][1248])")


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
        raise Refused(f"a NumPy array holds {shown(text)}; only plain numbers are read")
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
        if not shape_ok or not all(map(is_count, self.shape)):
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
        raise Refused(f"it encodes text as {shown(encoding)}")
    return memoryview(text.encode("latin1"))


def _empty(*arguments: Any) -> memoryview:
    """`bytes()`, by which protocol 2 writes no bytes."""
    if arguments:
        raise Refused("it makes bytes of something")
    return memoryview(b"")


def _numpy_names(core: str) -> Names:
    return {
        (f"{core}.multiarray", "_reconstruct"): lambda *_: ArrayRecord(),
        (f"{core}.multiarray", "scalar"): _scalar,
        (f"{core}.numeric", "_frombuffer"): _from_buffer,
    }


NUMPY_NAMES: Names = {
    ("numpy", "ndarray"): uncallable("numpy.ndarray"),
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _empty,
    ("__builtin__", "bytes"): _empty,
    **_numpy_names("numpy.core"),
    **_numpy_names("numpy._core"),
}


def plain(value: Any, budget: list[int] | None = None, depth: int = 0) -> Any:
    """A copy in Python's own types: dicts, lists, numbers, strings, `None`. Raises Refused for anything else."""
    budget = budget if budget is not None else [10_000]  # shared parts are visited again and again
    budget[0] -= 1 + (math.prod(value.shape) if isinstance(value, ArrayRecord) else 0)
    if budget[0] < 0 or depth > 10:
        raise Refused("its settings are nested too deep or without end")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item, budget, depth + 1) for item in value]
    if isinstance(value, ArrayRecord):
        return value.array().tolist()
    raise Refused(f"a setting is a {type(value).__name__}")
