"""State dicts of generators, in files of safetensors and anywhere inside of other checkpoints."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import Budget, Storage, TensorRecord, is_shape

MAX_DEPTH = 2
"""Most dicts around a state dict, such as `{"ema": {"state_dict": ...}}`."""
MAX_HEADER = 1 << 24
"""Most bytes of JSON before the tensors in a file of safetensors."""
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
_EMA = re.compile(r"(?<![a-z])ema(?![a-z])", re.IGNORECASE)
"""A word in the place of an averaged generator."""


@dataclass(frozen=True)
class StateDict:
    """The state dict of one generator in a checkpoint.

    Attributes:
        place: the keys and the prefix that lead to it, such as "state_dict decoder"; "" for the content itself.
        entries: its entries, without the prefix in their names.
        around: its own dict, then the dicts around that, the innermost first.
    """

    place: str
    entries: dict[str, Any]
    around: tuple[Mapping[Any, Any], ...]

    def tensors(self, budget: Budget) -> dict[str, Tensor]:
        """Return a copy of each tensor out of the file, by name, and count its bytes in `budget`.

        Raises:
            CheckpointError: an entry is no tensor, or the tensors are larger than the file.
        """
        tensors = {}
        for name, value in self.entries.items():
            if not isinstance(value, TensorRecord):
                raise CheckpointError(f"{shown(name)} is not a tensor")
            budget.take(value.nbytes)
            tensors[name] = value.tensor()
        return tensors

    def beside(self, name: str) -> Any:
        """Return the entry of this name in the nearest dict of `around` that has one; `None` if there is none."""
        return next((part[name] for part in self.around if name in part), None)


def find_state_dict(content: Any, marker: str) -> StateDict | None:
    """Return the state dict in a checkpoint that has a tensor called `marker`; `None` if there is none.

    The names of its tensors may have a prefix, such as "module.". A state dict of an averaged generator, with "ema" in
    a key or in the prefix, is preferred to others.

    Raises:
        CheckpointError: several generators are equally likely.
    """
    places: dict[str, tuple[str, tuple[Mapping[Any, Any], ...]]] = {}
    for keys, around in _dicts(content):
        for key, value in around[0].items():
            if isinstance(key, str) and isinstance(value, TensorRecord) and f".{key}".endswith(f".{marker}"):
                prefix = key.removesuffix(marker)
                places[" ".join((*keys, prefix.rstrip("."))).strip()] = prefix, around
    likely = [place for place in places if _EMA.search(place)] or list(places)
    if not likely:
        return None
    if len(likely) > 1:
        names = ", ".join(shown(place, 40) or "the file itself" for place in likely[:5])
        raise CheckpointError(f"it holds several generators ({names})", hint="save the state dict of one of them alone")
    prefix, around = places[likely[0]]
    entries = {
        key.removeprefix(prefix): value
        for key, value in around[0].items()
        if not prefix or (isinstance(key, str) and key.startswith(prefix))
    }
    return StateDict(likely[0], entries, around)


def _dicts(content: Any) -> Iterator[tuple[tuple[str, ...], tuple[Mapping[Any, Any], ...]]]:
    """Yield for each dict in the content, once, the keys that lead to it, and a tuple of it and the dicts around it."""
    waiting: list[tuple[tuple[str, ...], tuple[Mapping[Any, Any], ...]]] = []
    if isinstance(content, dict):
        waiting.append(((), (content,)))
    seen: set[int] = set()
    for keys, around in waiting:
        if id(around[0]) in seen:
            continue
        seen.add(id(around[0]))
        yield keys, around
        if len(keys) < MAX_DEPTH:
            waiting += [
                ((*keys, key), (value, *around))
                for key, value in around[0].items()
                if isinstance(key, str) and isinstance(value, dict)
            ]


def is_safetensors(data: memoryview) -> bool:
    """Return whether `data` starts as a file of safetensors does."""
    return len(data) > 8 and data[8] == ord("{") and int.from_bytes(data[:8], "little") <= len(data) - 8


def read_safetensors(data: memoryview) -> tuple[dict[str, TensorRecord], dict[str, Any]]:
    """Return the tensors by name, as records, and the texts in the header, also by name.

    Raises:
        CheckpointError: the file is damaged, or holds numbers of a type that no checkpoint needs.
    """
    size = int.from_bytes(data[:8], "little")
    if size > MAX_HEADER:
        raise CheckpointError(f"its header of {size} bytes is longer than {MAX_HEADER}")
    header = json.loads(bytes(data[8 : 8 + size]))
    numbers = data[8 + size :]
    metadata = header.pop("__metadata__", None)
    records: dict[str, TensorRecord] = {}
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
        records[name] = TensorRecord(Storage(dtype, count, numbers[begin:end]), 0, shape, strides)
    return records, metadata if isinstance(metadata, dict) else {}
