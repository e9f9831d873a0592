"""What the steps of a training share: the learning rate of fits, and files of results to continue from."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from energyql.files import replacing, tensor_bytes

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises."""


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


def digest(settings: object, *tensors: Tensor) -> str:
    """Return the SHA-256 of the settings and data that the result of a step depends on, which identifies it."""
    found = hashlib.sha256(repr(settings).encode())
    for tensor in tensors:
        found.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class StepFile:
    """The file of a result, whole or in part, that is read again only if it is of the same step and not damaged.

    Attributes:
        path: of the file; without one nothing is written.
        identity: `digest` of all that the result depends on.
    """

    path: Path | None
    identity: str

    def read(self) -> bytes | None:
        """Return what `write` wrote; `None` if there is nothing, or it is of another step, or damaged."""
        if self.path is None:
            return None
        try:
            seal, _, content = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        return content if seal == self._seal(content) else None

    def write(self, content: bytes) -> None:
        """Write a result, in place of an earlier one.

        Raises:
            ArgumentError: it cannot be written, for example because the disk is full.
        """
        if self.path is not None:
            with replacing(self.path) as written:
                written.write_bytes(self._seal(content) + b"\n" + content)

    def read_json(self) -> Any:
        """Return the value that `write_json` wrote; `None` as for `read`."""
        content = self.read()
        return None if content is None else json.loads(content)

    def write_json(self, value: Any) -> None:
        """Write a value of JSON; see `write`."""
        self.write(json.dumps(value, ensure_ascii=False).encode())

    def read_tensors(self) -> dict[str, Tensor] | None:
        """Return the tensors that `write_tensors` wrote; `None` as for `read`."""
        content = self.read()
        return None if content is None else load(content)

    def write_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors by name; see `write`."""
        self.write(tensor_bytes(tensors))

    def _seal(self, content: bytes) -> bytes:
        return hashlib.sha256(self.identity.encode() + content).hexdigest().encode()
