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
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def trim() -> None:
    """Return freed memory from the C library to the operating system.

    Pictures of many sizes, of which some are kept, leave holes in the heap that the C library does not return
    otherwise: after a thousand small drawings the heap is a third larger than all results. Only glibc has the function
    `malloc_trim`; other C libraries return memory by themselves.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def held_bytes(*values: object) -> int:
    """Return the memory, in bytes, of `values` and of all objects that `values` refer to; each object is counted once.

    Objects of `SHARED` types (models, networks, functions) are left out, because they live as long as the studio.
    """
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
    """Return a number by which an object is counted only once; tensors that share memory have the same number."""
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
