"""Finding the state dict of a generator in the content of a checkpoint, and reading files of safetensors.

A state dict is a dict of tensors by name. It may be inside at most two other dicts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.files import read_tensors
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import Quota, Storage, TensorRecord

MAX_DEPTH = 2
"""Largest number of dicts around a state dict: two in `{"ema": {"state_dict": ...}}`."""
MAX_HEADER = 1 << 24
"""Largest number of bytes of the header, the JSON before the tensors, in a file of safetensors."""
_EMA = re.compile(r"(?<![a-z])ema(?![a-z])", re.IGNORECASE)
"""Matches the word "ema", which stands for averaged weights, in the keys or the prefix of a state dict."""


@dataclass(frozen=True)
class StateDict:
    """The state dict of one generator in a checkpoint, perhaps with a prefix before the names, such as "decoder.".

    Attributes:
        place: the keys that lead to the dict, then the prefix without its dot, such as "state_dict decoder"; may be "".
        entries: name without the prefix -> value, as a rule the record of a tensor.
        around: the dict that holds the tensors in the file, then the dicts around it, the outermost last.
    """

    place: str
    entries: dict[str, Any]
    around: tuple[Mapping[Any, Any], ...]

    def tensors(self, quota: Quota) -> dict[str, Tensor]:
        """Copies of all tensors by name; the quota counts their bytes. An entry that is no tensor is an error."""
        tensors = {}
        for name, value in self.entries.items():
            if not isinstance(value, TensorRecord):
                raise CheckpointError(f"{shown(name)} is not a tensor")
            tensors[name] = value.tensor(quota)
        return tensors

    def beside(self, name: str) -> Any:
        """Value of the key `name` in the innermost dict of `around` that has the key; `None` without one."""
        return next((part[name] for part in self.around if name in part), None)


def find_state_dict(content: Any, marker: str) -> StateDict | None:
    """Return the state dict of a generator that has a tensor called `marker`; `None` if no state dict has one.

    A prefix such as "module." may stand before the name in the file. Of several such state dicts, just one must have
    the word "ema", for weights averaged over the training, in its prefix or keys.
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
    entries = {key.removeprefix(prefix): value for key, value in around[0].items() if str(key).startswith(prefix)}
    return StateDict(likely[0], entries, around)


def _dicts(content: Any) -> Iterator[tuple[tuple[str, ...], tuple[Mapping[Any, Any], ...]]]:
    """Yield the keys that lead to each dict of a file, at most two deep; and the dict with those around it."""
    waiting: list[Any] = [((), (content,))] if isinstance(content, dict) else []
    seen: set[int] = set()
    for keys, around in waiting:
        if id(around[0]) in seen:
            continue
        seen.add(id(around[0]))
        yield keys, around
        inner = [(key, value) for key, value in around[0].items() if isinstance(key, str) and isinstance(value, dict)]
        if len(keys) < MAX_DEPTH:
            waiting += [((*keys, key), (value, *around)) for key, value in inner]


def is_safetensors(data: memoryview) -> bool:
    """Whether `data` starts as a file of safetensors does."""
    return len(data) > 8 and data[8] == ord("{") and _header_size(data) <= len(data) - 8


def _header_size(data: memoryview) -> int:
    """Number of bytes of the JSON that follows the first 8 bytes of a file of safetensors."""
    return int.from_bytes(data[:8], "little")


def read_safetensors(path: Path, data: memoryview) -> tuple[dict[str, TensorRecord], dict[str, Any]]:
    """Records of the tensors in a file of safetensors, and the texts in its header, such as a licence, both by name.

    A header longer than `MAX_HEADER` is an error, because parsing it would take gigabytes.
    """
    if (size := _header_size(data)) > MAX_HEADER:
        raise CheckpointError(f"its header of {size} bytes is longer than {MAX_HEADER}")
    records = {}
    for name, tensor in read_tensors(path).items():
        numbers = tensor.reshape(-1).view(torch.uint8).numpy().data
        records[name] = TensorRecord(Storage(tensor.dtype, tensor.numel(), numbers), 0, tensor.shape, tensor.stride())
    return records, json.loads(bytes(data[8 : 8 + size])).get("__metadata__") or {}
