"""Files of NumPy (`.npy`) with plain numbers, read without evaluating the Python literal in their header."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from energyql.errors import DataError, EnergyQLError
from energyql.files import check_file, naming_source

MAX_HEADER = 10_000
"""Longest header in bytes; NumPy itself reads no longer one."""
MAX_SIDE, MAX_DIMENSIONS = 2**48, 8
_MAGIC = b"\x93NUMPY"
_ENTRY = r"""\s*['"](descr|fortran_order|shape)['"]\s*:\s*(?:['"]([^'"]*)['"]|(True|False)|\(([\dL,\s]*)\))\s*"""
_HEADER = re.compile(rf"\s*\{{{_ENTRY},{_ENTRY},{_ENTRY},?\s*\}}\s*", re.ASCII)
_DTYPE = re.compile(r"[<>=|]?(?:f[248]|[iu][1248])")


def read_npy(path: Path, kind: type[EnergyQLError] = DataError) -> Tensor:
    """Read the numbers of a `.npy` file, floating-point or whole, as float32.

    The format is that of `numpy.lib.format`, versions 1 to 3. Numbers beyond float32 become infinite.

    Args:
        path: the file.
        kind: of the error.

    Raises:
        EnergyQLError: the file is missing, damaged, or holds something else, such as text, dates, complex numbers or
            objects.
    """
    size = check_file(path, kind=kind)
    with naming_source(path, kind), path.open("rb") as file:
        start = file.read(len(_MAGIC) + 2)
        version = tuple(start[len(_MAGIC) :])
        if not start.startswith(_MAGIC) or version not in ((1, 0), (2, 0), (3, 0)):
            raise kind(
                f"cannot read {path}: it is not a .npy file",
                hint="save an array with numpy.save, or tensors as .safetensors",
            )
        length = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
        if length > MAX_HEADER:
            raise kind(
                f"cannot read {path}: its header of {length} bytes is longer than {MAX_HEADER}",
                hint="save it again with numpy.save",
            )
        header = file.read(length).decode("utf-8" if version == (3, 0) else "latin-1", "replace")
        dtype, shape, order = _read_header(header, path, kind)
        rest, count = size - file.tell(), math.prod(shape)
        if rest != count * dtype.itemsize:
            raise kind(
                f"cannot read {path}: shape {shape} of {dtype} takes {count * dtype.itemsize} bytes, and it has {rest}",
                hint="the file is cut short: copy it, or save it, again",
            )
        found = np.fromfile(file, dtype, count)
    if len(found) != count:
        raise kind(f"cannot read {path}: it was cut short while it was read", hint="save it again with numpy.save")
    with np.errstate(over="ignore"):
        return torch.from_numpy(found.reshape(shape, order=order).astype("f4", order="C", copy=False))


def _read_header(
    header: str, path: Path, kind: type[EnergyQLError]
) -> tuple[np.dtype[np.generic], tuple[int, ...], Literal["C", "F"]]:
    """Return dtype, shape and order from the text of a header."""
    found = _HEADER.fullmatch(header)
    if found is None:
        raise kind(
            f"cannot read {path}: its header is not that of plain numbers",
            hint="save an array of float32 with numpy.save",
        )
    groups = [found.groups()[i : i + 4] for i in (0, 4, 8)]
    texts, flags, tuples = ({name: group[i] for name, *group in groups if group[i] is not None} for i in range(3))
    if not _DTYPE.fullmatch(dtype := texts.get("descr", "")):
        raise kind(f"cannot read {path}: it holds {dtype[:20]!a}, not plain numbers", hint="save it as float32")
    sides = [side.strip().removesuffix("L") for side in tuples.get("shape", "?").split(",") if side.strip()]
    known = "fortran_order" in flags and len(sides) <= MAX_DIMENSIONS
    if not known or not all(side.isdecimal() and len(side) < 16 and int(side) < MAX_SIDE for side in sides):
        raise kind(f"cannot read {path}: its shape is impossible", hint="save it again with numpy.save")
    return np.dtype(dtype), tuple(map(int, sides)), "F" if flags["fortran_order"] == "True" else "C"
