"""The state of an interrupted training, so that going on gives the same heads as never having stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from energyql.files import write_tensors

KEY = "run"


def digest(settings: object, *tensors: Tensor) -> Tensor:
    """What tells one training from another: SHA-256 of its settings and data, (32,) uint8."""
    found = hashlib.sha256(repr(settings).encode())
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(found.digest()), dtype=torch.uint8)


def write_state(path: Path, run: Tensor, state: Mapping[str, Tensor]) -> None:
    """Write the state of the training with that digest, whole or not at all."""
    write_tensors(path, {KEY: run, **state})


def read_state(path: Path | None, run: Tensor) -> dict[str, Tensor] | None:
    """The state that was written for the training with that digest, `None` if there is none."""
    if path is None or not path.is_file():
        return None
    try:
        state = load_file(path)
    except (OSError, SafetensorError):  # of another program: start again
        return None
    found = state.pop(KEY, None)
    return state if found is not None and torch.equal(found, run) else None
