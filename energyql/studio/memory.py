"""Memory of objects in bytes, so that all results of the studio together can have one limit."""

from __future__ import annotations

import ctypes
import gc
import sys
from enum import Enum
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor, nn

from energyql.editing.latents import LatentSpace
from energyql.pipeline.model import Model
from energyql.vocabulary import Vocabulary

SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, Enum, nn.Module, Model, Vocabulary, LatentSpace)
"""Types of objects that live as long as the studio; `held_bytes` leaves them out."""
_GLIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_malloc_trim, _mallopt = (getattr(_GLIBC, name, None) for name in ("malloc_trim", "mallopt"))
_M_ARENA_MAX = -8
"""Parameter of `mallopt` for the largest number of heaps, in <malloc.h>."""


def share_heap() -> None:
    """Let all threads use one heap, where the C library is glibc; call it before there are threads.

    Else glibc keeps what a thread freed in the heap of that thread, where others cannot use it.
    """
    if _mallopt is not None:
        _mallopt(_M_ARENA_MAX, 1)


def trim() -> None:
    """Return freed memory to the operating system, where the C library is glibc; others do it by themselves.

    Pictures of many sizes, of which some are kept, leave holes in the heap that glibc would keep.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def held_bytes(*values: object) -> int:
    """Memory in bytes of `values` and of all objects that they refer to, each counted once, without `SHARED` types."""
    seen: set[int] = set()
    total, left = 0, list[Any](values)
    while left:
        value = left.pop()
        if isinstance(value, SHARED) or _identity(value) in seen:
            continue
        seen.add(_identity(value))
        total += _own_bytes(value)
        left += gc.get_referents(value)
    return total


def _identity(value: Any) -> int:
    """Number by which an object is counted once; tensors that share memory have the same number."""
    shares = isinstance(value, Tensor) and not value.is_mkldnn
    return value.untyped_storage().data_ptr() if shares else id(value)


def _own_bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        packed = value.is_mkldnn  # tensors of oneDNN have no storage
        return value.numel() * value.element_size() if packed else value.untyped_storage().nbytes()
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, Image.Image):
        return 4 * value.width * value.height  # Pillow keeps RGB in four bytes
    return sys.getsizeof(value)
