"""Records of arrays, numbers and functions in pickles that use NumPy or dill. No function in a pickle is ever run.

dill can pickle functions too. Checkpoints of StyleGAN-XL use it, because their discriminators hold inner functions.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import BUILTINS, Names, Record, Stub, is_shape, uncallable

_DTYPE = re.compile(r"[<>=|]?([iu][1248]|f[248]|b1)")
"""Matches the name of a dtype of plain numbers in NumPy, such as "<f4"."""
_CORES = ("core", "_core")
"""Names of NumPy's inner package before and since version 2."""
_DILL = "dill._dill"
"""Module of dill whose functions a pickle of dill calls."""


@dataclass(eq=False)
class DtypeRecord(Record):
    """Record of a NumPy dtype of plain numbers (integers, floats or booleans).

    Attributes:
        kind: a letter for the type, and the number of bytes, such as "f4".
        order: byte order: "<" little-endian, ">" big-endian, "=" that of this machine, or "|" for single bytes.
    """

    kind: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Set the byte order, the second entry of the state."""
        if state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("a NumPy dtype is damaged")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as an object of NumPy."""
        return np.dtype(self.order + self.kind)


@dataclass(eq=False)
class ArrayRecord(Record):
    """Record of a NumPy array, whose numbers are not copied: `data` are bytes of the file.

    `fortran` says whether neighbours in `data` are neighbours along the first axis; otherwise along the last axis.
    """

    shape: tuple[int, ...] = (0,)
    dtype: DtypeRecord = field(default_factory=lambda: DtypeRecord("f4"))
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def set_state(self, state: Any) -> None:
        """Set all attributes from a tuple: version (ignored), shape, dtype, whether in Fortran's order, and bytes."""
        _, self.shape, self.dtype, self.fortran, self.data = state
        self.check()

    def check(self) -> ArrayRecord:
        """Return this record unchanged, if shape, dtype and data fit together."""
        if not isinstance(self.dtype, DtypeRecord) or not isinstance(self.data, memoryview):
            raise CheckpointError("a NumPy array holds objects; only plain numbers are read")
        if not is_shape(self.shape) or math.prod(self.shape) * self.dtype.dtype.itemsize != len(self.data):
            raise CheckpointError(f"a NumPy array has {len(self.data)} bytes, which do not fit its shape")
        return self

    def array(self) -> NDArray[Any]:
        """The array as a read-only view of the bytes of the file."""
        flat = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def make_dtype(text: Any, *_: Any) -> DtypeRecord:
    """Record of the dtype called `text`, such as "f4" or "<f4", in place of `numpy.dtype`."""
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise CheckpointError(f"a NumPy array holds {shown(text)}; only plain numbers are read")
    return DtypeRecord(match[1], text[0] if text[0] in "<>|" else "<")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    """Record of an array, in place of `numpy.core.numeric._frombuffer`."""
    return ArrayRecord(shape, dtype, order == "F", data).check()


def _scalar(dtype: Any, data: Any) -> Any:
    """Number of Python, in place of `numpy.core.multiarray.scalar`."""
    return ArrayRecord((), dtype, False, data).check().array().item()


def _latin1(text: Any, encoding: Any) -> memoryview:
    """Bytes of a text, in place of `_codecs.encode`: so a pickle of protocol 2 stores bytes."""
    if encoding != "latin1":
        raise CheckpointError(f"it encodes text as {shown(encoding)}")
    return memoryview(text.encode("latin1"))


NUMPY_NAMES: Names = {
    ("numpy", "ndarray"): uncallable("numpy.ndarray"),
    ("numpy", "dtype"): make_dtype,
    ("_codecs", "encode"): _latin1,
    **{(module, "bytes"): lambda: memoryview(b"") for module in BUILTINS},  # bytes that are empty, in protocol 2
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: ArrayRecord() for core in _CORES},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in _CORES},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in _CORES},
}
"""Names that a pickle of NumPy arrays and numbers may contain."""


def _ignored(*_: Any) -> Record:
    """Placeholder for what a pickle would rebuild a function from: nothing of it runs."""
    return Record()


def _array(_maker: Any, _arguments: Any, state: Any, _attributes: Any = None) -> ArrayRecord:
    """Record of an array, in place of `_create_array` of dill; `state` is that of `ArrayRecord.set_state`."""
    return ArrayRecord(*state[1:]).check()


def _getattr(owner: Any, name: Any, *_: Any) -> Stub:
    """Placeholder for `_setattr` of dill, the one function that a pickle may look up by `getattr`; it does nothing."""
    if not isinstance(owner, Stub) or owner.name != _DILL or name != "_setattr":
        raise CheckpointError("it names builtins.getattr, which no supported checkpoint needs")
    return Stub(f"{_DILL}._setattr", _ignored)


DILL_NAMES: Names = {
    (_DILL, "_create_array"): _array,
    (_DILL, "_load_type"): lambda name: Stub(f"a type of dill, {shown(name)}", _ignored),
    **{(_DILL, name): _ignored for name in ("_create_function", "_create_code", "_create_cell")},
    ("dill", "_dill"): uncallable(_DILL),
    **{(module, "getattr"): _getattr for module in BUILTINS},
    **{(module, "setattr"): uncallable("builtins.setattr") for module in BUILTINS},
}
"""Further names that a pickle of dill may contain."""
