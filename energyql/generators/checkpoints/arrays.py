"""Records of the arrays, numbers and functions in pickles of NumPy and of dill; no function is ever run.

Snapshots of StyleGAN-XL need dill, because the discriminator in them holds functions that were defined inside others.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import Names, Record, Stub, is_shape, uncallable

_DTYPE = re.compile(r"[<>=|]?([fiub][1248])")
"""Text of the dtype of plain numbers, such as "<f4"."""
_DILL = "dill._dill"
"""Full name of dill's own module."""


@dataclass(eq=False)
class DtypeRecord(Record):
    """A NumPy dtype of plain numbers.

    Attributes:
        kind: letter and bytes, such as "f4".
        order: byte order: "<", ">" or "|".
    """

    kind: str
    order: str = "<"

    def set_state(self, state: Any) -> None:
        """Set the byte order, the second entry of the tuple `state`.

        Raises:
            CheckpointError: `state` is no such tuple.
        """
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "=", "|"):
            raise CheckpointError("a NumPy dtype is damaged")
        self.order = "<" if state[1] == "=" else state[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype as an object of NumPy."""
        return np.dtype(self.order + self.kind)


@dataclass(eq=False)
class ArrayRecord(Record):
    """A NumPy array whose numbers are still bytes of the file.

    Attributes:
        shape: lengths of the axes.
        dtype: type of the numbers.
        fortran: whether the first axis, not the last, varies fastest in `data`.
        data: the bytes of the numbers.
    """

    shape: tuple[int, ...] = (0,)
    dtype: DtypeRecord = field(default_factory=lambda: DtypeRecord("f4"))
    fortran: bool = False
    data: memoryview = field(default_factory=lambda: memoryview(b""))

    def set_state(self, state: Any) -> None:
        """Set the array from a tuple of version, shape, dtype, order and bytes.

        Raises:
            CheckpointError: `state` is no such tuple, or its parts do not fit together.
        """
        if not isinstance(state, tuple) or len(state) != 5:
            raise CheckpointError("a NumPy array is damaged")
        _, self.shape, self.dtype, fortran, self.data = state
        self.fortran = bool(fortran)
        self.check()

    def check(self) -> ArrayRecord:
        """Return the record itself, if shape, dtype and data fit together.

        Raises:
            CheckpointError: they do not, or the array holds something else than plain numbers.
        """
        if not is_shape(self.shape):
            raise CheckpointError("a NumPy array has an impossible shape")
        if not isinstance(self.dtype, DtypeRecord) or not isinstance(self.data, memoryview):
            raise CheckpointError("a NumPy array holds objects; only plain numbers are read")
        if math.prod(self.shape) * self.dtype.dtype.itemsize != len(self.data):
            raise CheckpointError(f"a NumPy array of shape {self.shape} has {len(self.data)} bytes")
        return self

    def array(self) -> NDArray[Any]:
        """Return the array, a read-only view of the bytes of the file."""
        flat = np.frombuffer(self.data, self.dtype.dtype) if self.data else np.empty(0, self.dtype.dtype)
        return flat.reshape(self.shape, order="F" if self.fortran else "C")


def make_dtype(text: Any, *_: Any) -> DtypeRecord:
    """Return the record for a call of `numpy.dtype` in a pickle.

    Args:
        text: a dtype such as "f4" or "<f4".

    Raises:
        CheckpointError: it is no dtype of plain numbers.
    """
    match = _DTYPE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match[1] in ("f1", "b2", "b4", "b8"):
        raise CheckpointError(f"a NumPy array holds {shown(text)}; only plain numbers are read")
    return DtypeRecord(match[1], text[0] if text[0] in "<>|" else "<")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayRecord:
    """Return the record for a call of `numpy.core.numeric._frombuffer` in a pickle."""
    return ArrayRecord(shape, dtype, order == "F", data).check()


def _scalar(dtype: Any, data: Any) -> Any:
    """Return the number for a call of `numpy.core.multiarray.scalar` in a pickle."""
    return ArrayRecord((), dtype, False, data).check().array().item()


def _latin1(text: Any, encoding: Any) -> memoryview:
    """Return the bytes that a call of `_codecs.encode` makes; pickles of protocol 2 hold bytes as such calls."""
    if not isinstance(text, str) or encoding != "latin1":
        raise CheckpointError(f"it encodes text as {shown(encoding)}")
    return memoryview(text.encode("latin1"))


def _empty(*arguments: Any) -> memoryview:
    """Return the empty bytes that a call of `bytes()` makes; pickles of protocol 2 hold them as such calls."""
    if arguments:
        raise CheckpointError("it calls bytes with arguments")
    return memoryview(b"")


NUMPY_NAMES: Names = {
    ("numpy", "ndarray"): uncallable("numpy.ndarray"),
    ("numpy", "dtype"): make_dtype,
    ("_codecs", "encode"): _latin1,
    ("builtins", "bytes"): _empty,
    ("__builtin__", "bytes"): _empty,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): lambda *_: ArrayRecord() for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
"""Names in a pickle that holds arrays and numbers of NumPy."""


class Ignored(Record):
    """The record of a function, its code, a variable that it uses, or a method; it holds nothing."""

    def set_state(self, state: Any) -> None:
        """Do nothing: the state is not needed."""


def _ignored(*_: Any) -> Ignored:
    return Ignored()


def _array(maker: Any, _: Any, state: Any, attributes: Any = None) -> ArrayRecord:
    """Return the record for a call of dill's `_create_array`, which makes an array in one step.

    Args:
        maker: stub of NumPy's `_reconstruct`.
        state: see `ArrayRecord.set_state`.
        attributes: further attributes of the array, which must be `None`.

    Raises:
        CheckpointError: an argument is something else.
    """
    if not isinstance(maker, Stub) or not maker.name.endswith("._reconstruct") or attributes is not None:
        raise CheckpointError("a NumPy array of dill is damaged, or has attributes of its own")
    array = ArrayRecord()
    array.set_state(state)
    return array


def _getattr(owner: Any, name: Any, *_: Any) -> Stub:
    """Return the stub for the only call of `getattr` in pickles of dill: for dill's function `_setattr`.

    Raises:
        CheckpointError: it is another call.
    """
    if not isinstance(owner, Stub) or owner.name != _DILL or name != "_setattr":
        raise CheckpointError("it names builtins.getattr, which no supported checkpoint needs")
    return Stub(f"{_DILL}._setattr", _ignored)


def _load_type(name: Any) -> Stub:
    """Return the stub for a call of dill's `_load_type`, which names a type of Python, such as that of methods."""
    return Stub(f"a type of dill, {shown(name)}", _ignored)


DILL_NAMES: Names = {
    (_DILL, "_create_array"): _array,
    (_DILL, "_load_type"): _load_type,
    **{(_DILL, name): _ignored for name in ("_create_function", "_create_code", "_create_cell")},
    ("dill", "_dill"): uncallable(_DILL),
    **{(module, "getattr"): _getattr for module in ("builtins", "__builtin__")},
    **{(module, "setattr"): uncallable("builtins.setattr") for module in ("builtins", "__builtin__")},
}
"""Names in a pickle of dill, in addition to those of NumPy."""


def plain(value: Any, budget: list[int] | None = None, depth: int = 0) -> Any:
    """Return a copy of settings in plain types: dicts, lists, numbers, strings and `None`.

    Args:
        value: settings as read from a pickle; arrays, tuples and sets become lists.
        budget: one number, how many parts may still be visited; by default a new budget.
        depth: number of containers around the value.

    Raises:
        CheckpointError: a part has another type, or the parts are too many or nested too deep.
    """
    budget = budget if budget is not None else [10_000]  # a part that is shared counts at every visit
    budget[0] -= 1 + (math.prod(value.shape) if isinstance(value, ArrayRecord) else 0)
    if budget[0] < 0 or depth > 10:
        raise CheckpointError("its settings are nested too deep or without end")
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(key): plain(item, budget, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple | set):
        return [plain(item, budget, depth + 1) for item in value]
    if isinstance(value, ArrayRecord):
        return value.array().tolist()
    raise CheckpointError(f"a setting is a {type(value).__name__}")
