"""Files of safetensors as records: a header in JSON, then the bytes of the tensors."""

from __future__ import annotations

import json
import math
from itertools import accumulate
from typing import Any

import torch

from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import Storage, TensorRecord, is_shape

MAX_HEADER = 1 << 24
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def is_safetensors(data: memoryview) -> bool:
    """Whether `data` starts as a file of safetensors does."""
    return len(data) > 8 and data[8] == ord("{") and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_safetensors(data: memoryview) -> tuple[dict[str, TensorRecord], dict[str, Any]]:
    """Return a record of every tensor, and the text in the header.

    Raises:
        CheckpointError: it is damaged, or holds numbers of another kind.
    """
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER:
        raise CheckpointError(f"its header of {size} bytes is longer than {MAX_HEADER}")
    header = json.loads(bytes(data[8 : 8 + size]))
    numbers = data[8 + size :]
    metadata = header.pop("__metadata__", None)
    found: dict[str, TensorRecord] = {}
    for name, entry in header.items():
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise CheckpointError(f"{shown(name)} holds {shown(entry['dtype'])}, which no supported checkpoint needs")
        shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
        if not is_shape(shape) or not is_shape((begin, end)) or end > len(numbers):
            raise CheckpointError(f"{shown(name)} has an impossible shape or place")
        count = math.prod(shape)
        if end - begin != count * dtype.itemsize:
            raise CheckpointError(f"{shown(name)} of shape {shape} has {end - begin} bytes")
        strides = tuple(accumulate(reversed(shape[1:]), int.__mul__, initial=1))[::-1][: len(shape)]
        found[name] = TensorRecord(Storage(dtype, count, numbers[begin:end]), 0, shape, strides)
    return found, metadata if isinstance(metadata, dict) else {}
