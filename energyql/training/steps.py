"""What the trainings of heads and judges share: the learning rate over the steps, and states to continue from."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.files import read_tensors

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""
RUN = "run"
"""Name of the digest in the file of a state."""


def learning_rate(done: float) -> float:
    """Return the learning rate as a share of the highest, at a fraction of the training."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the moments of an optimizer by names that start with "optimizer/"."""
    moments = optimizer.state_dict()["state"]
    return {f"optimizer/{i}/{name}": tensor for i, found in moments.items() for name, tensor in found.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Load the moments of `optimizer_state`; other tensors of the state are ignored."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if key.startswith("optimizer/"):
            _, i, name = key.split("/")
            moments.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def digest(settings: object, *tensors: Tensor) -> Tensor:
    """Return the SHA-256 of the settings and data of a training, (32,) uint8, which identifies it."""
    found = hashlib.sha256(repr(settings).encode())
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return torch.tensor(list(found.digest()), dtype=torch.uint8)


def read_state(path: Path | None, run: Tensor) -> dict[str, Tensor] | None:
    """Return the state that the training with this digest has written, `None` if there is none."""
    if path is None or not path.is_file():
        return None
    try:
        state = read_tensors(path)
    except ModelError:  # not written by this program: start again
        return None
    found = state.pop(RUN, None)
    return state if found is not None and torch.equal(found, run) else None
