"""Records of arrays, numbers and functions in pickles that use NumPy or dill. No function in a pickle is ever run.

dill is a library that can pickle functions too. Checkpoints of StyleGAN-XL use it, because the discriminator in them
holds functions that were defined inside other functions.
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
"""Full name of the module of dill whose functions a pickle of dill calls."""


@dataclass(eq=False)
class DtypeRecord(Record):
    """A record that stands for a NumPy dtype of plain numbers (integers, floats or booleans) in a pickle.

    Attributes:
        kind: a letter for the type, and the number of bytes, such as "f4".
        order: byte order: "<" little-endian, ">" big-endian, "=" the order of this machine, or "|" for single bytes.
    """

    kind: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Set the byte order from `state`, the state of a dtype in the pickle: a tuple whose second entry is the order.

        Raises:
            CheckpointError: the second entry is no byte order.
            LookupError, TypeError: `state` is too short, or no tuple.
        """
        if state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("a NumPy dtype is damaged")
        self.order = state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as an object of NumPy."""
        return np.dtype(self.order + self.kind)


@dataclass(eq=False)
class ArrayRecord(Record):
    """A record that stands for a NumPy array in a pickle. The numbers are not copied: they are bytes of the file.

    Attributes:
        shape: lengths of the axes.
        dtype: type of the numbers.
        fortran: whether neighbours in `data` are neighbours along the first axis; otherwise along the last axis.
        data: the bytes of the numbers.
    """

    shape: tuple[int, ...] = (0,)
    dtype: DtypeRecord = field(default_factory=lambda: DtypeRecord("f4"))
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def set_state(self, state: Any) -> None:
        """Set all attributes from `state`, the state of an array in the pickle.

        `state` is a tuple: version (ignored), shape, dtype, whether the order is Fortran's, and bytes.

        Raises:
            CheckpointError: the entries of the tuple do not fit together.
            ValueError, TypeError: `state` has more or fewer than five entries, or is no tuple.
        """
        _, self.shape, self.dtype, self.fortran, self.data = state
        self.check()

    def check(self) -> ArrayRecord:
        """Return this record unchanged, if shape, dtype and data fit together.

        Raises:
            CheckpointError: the three do not fit together, or the array holds anything but plain numbers.
        """
        if not isinstance(self.dtype, DtypeRecord) or not isinstance(self.data, memoryview):
            raise CheckpointError("a NumPy array holds objects; only plain numbers are read")
        if not is_shape(self.shape) or math.prod(self.shape) * self.dtype.dtype.itemsize != len(self.data):
            raise CheckpointError(f"a NumPy array has {len(self.data)} bytes, which do not fit its shape")
        return self

    def array(self) -> NDArray[Any]:
        """Return the array as an array of NumPy, which is a read-only view of the bytes of the file."""
        flat = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def make_dtype(text: Any, *_: Any) -> DtypeRecord:
    """Return the record of a dtype; this function is called when a pickle calls `numpy.dtype`.

    Args:
        text: name of the dtype, such as "f4" or "<f4". Further arguments of the call are ignored.

    Raises:
        CheckpointError: `text` is no dtype of plain numbers.
    """
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise CheckpointError(f"a NumPy array holds {shown(text)}; only plain numbers are read")
    return DtypeRecord(match[1], text[0] if text[0] in "<>|" else "<")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    """Return the record of an array; called when a pickle calls `numpy.core.numeric._frombuffer`.

    Args:
        data: the bytes of the numbers.
        dtype: record of the dtype.
        shape: lengths of the axes.
        order: "F" if neighbours in `data` are neighbours along the first axis, otherwise "C".

    Raises:
        CheckpointError: the arguments do not fit together.
    """
    return ArrayRecord(shape, dtype, order == "F", data).check()


def _scalar(dtype: Any, data: Any) -> Any:
    """Return a number of Python; called when a pickle calls `numpy.core.multiarray.scalar`.

    `dtype` is the record of a dtype, and `data` are the bytes of the number.

    Raises:
        CheckpointError: the bytes do not fit the dtype.
    """
    return ArrayRecord((), dtype, False, data).check().array().item()


def _latin1(text: Any, encoding: Any) -> memoryview:
    """Return the bytes of a text; called when a pickle calls `_codecs.encode`.

    In protocol 2, a pickle stores bytes as a text and a call of this function.

    Args:
        text: characters 0 to 255, one for each byte.
        encoding: name of the encoding, which must be "latin1".

    Raises:
        CheckpointError: the encoding is another one.
    """
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
"""Names that a pickle of NumPy arrays and numbers may contain: (module, name) of a class or function -> the function of
this package that is called instead."""


def _ignored(*_: Any) -> Record:
    """Return a record without content for a function, or a part of one, in a pickle: no function is ever run."""
    return Record()


def _array(_maker: Any, _arguments: Any, state: Any, _attributes: Any = None) -> ArrayRecord:
    """Return the record of an array; called when a pickle calls `_create_array` of dill.

    `state` is a tuple: version (ignored), shape, dtype, whether the order is Fortran's, and bytes. The other arguments
    are ignored.

    Raises:
        CheckpointError: the entries of the tuple do not fit together.
    """
    return ArrayRecord(*state[1:]).check()


def _getattr(owner: Any, name: Any, *_: Any) -> Stub:
    """Return a stub for the function that a pickle looks up by `getattr`; a call of the stub does nothing.

    Pickles of dill call `getattr` to look up `_setattr` in a module of dill. Nothing else may be looked up.

    Args:
        owner: stub of the module.
        name: name of the function, which must be "_setattr".

    Raises:
        CheckpointError: the pickle looks up anything else.
    """
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
"""Further names that a pickle of dill may contain: (module, name) of a class or function -> the function of this
package that is called instead."""
