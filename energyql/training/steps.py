"""Tools for all steps of a training: the optimizer, and files from which an interrupted training continues."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from energyql.files import replacing, tensor_bytes
from energyql.numerics.pool import to_cpu

WARM_UP = 0.1
"""Share of the steps of a fit, the first ones, in which the learning rate rises."""


def learning_rate(done: float) -> float:
    """Learning rate as a share of its highest, by the fraction done: a warm-up from 0.04 to 1, then a cosine to 0."""
    if done < WARM_UP:
        return 0.04 + 0.96 * done / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP)))


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Moments of an optimizer by name, such as "optimizer/0/exp_avg" for its first parameter tensor."""
    moments = optimizer.state_dict()["state"]
    return {f"optimizer/{i}/{name}": tensor for i, parts in moments.items() for name, tensor in parts.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Tensor]) -> None:
    """Load the moments of `optimizer_state` into an optimizer; other tensors in `state` are ignored."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        if key.startswith("optimizer/"):
            _, i, name = key.split("/")
            moments.setdefault(int(i), {})[name] = tensor
    optimizer.load_state_dict(optimizer.state_dict() | {"state": moments})


def digest(settings: object, *tensors: Tensor) -> str:
    """SHA-256 of the settings (by their `repr`) and tensors on which the result of a training step depends."""
    identity = hashlib.sha256(repr(settings).encode())
    for tensor in tensors:
        identity.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        identity.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return identity.hexdigest()


def part_of(progress: Callable[[float], None], done: int, count: int) -> Callable[[float], None]:
    """Progress function for one of `count` parts of a job, of which `done` are finished."""
    return lambda fraction: progress((done + fraction) / count)


@dataclass(frozen=True)
class Course:
    """How a fit runs: from which random numbers, on which device, continued from which file, and who hears of it.

    Attributes:
        seed: seed of all random numbers of the fit; no global random state is changed.
        checkpoint: file for the state of the fit, from which a fit with equal data and settings continues; a folder for
            the fit of several networks.
        progress: function that is called with the fraction done.
    """

    seed: int = 0
    device: torch.device | str = "cpu"
    checkpoint: Path | None = None
    progress: Callable[[float], None] = field(default=lambda _: None, repr=False)

    def part(self, k: int, count: int) -> Course:
        """The course of fit k of `count`: the k-th next seed, and the file `k` in the folder."""
        checkpoint = None if self.checkpoint is None else self.checkpoint / str(k)
        return Course((self.seed + k) % 2**63, self.device, checkpoint, part_of(self.progress, k, count))


@dataclass(frozen=True)
class StepFile:
    """A file with the result of a step of a training, such as labels, or with the state of an unfinished step.

    It is read only if it is undamaged and was written under an equal `identity`, a text such as a `digest`; without a
    `path`, nothing is read or written. Writing may raise an `ArgumentError`, such as for a full disk.
    """

    path: Path | None
    identity: str

    def read(self) -> bytes | None:
        """Content of the file; `None` if it is missing, damaged, or of another identity."""
        if self.path is None:
            return None
        try:
            seal, _, content = self.path.read_bytes().partition(b"\n")
        except OSError:
            return None
        return content if seal == self._seal(content) else None

    def write(self, content: bytes) -> None:
        """Replace the content of the file."""
        if self.path is not None:
            with replacing(self.path) as file:
                file.write_bytes(self._seal(content) + b"\n" + content)

    def read_json(self) -> Any:
        """Value that `write_json` wrote; `None` as for `read`."""
        content = self.read()
        return None if content is None else json.loads(content)

    def write_json(self, value: Any) -> None:
        """Write a value as JSON."""
        self.write(json.dumps(value, ensure_ascii=False).encode())

    def read_tensors(self) -> dict[str, Tensor] | None:
        """Tensors that `write_tensors` wrote, by name; `None` as for `read`."""
        content = self.read()
        return None if content is None else load(content)

    def write_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors by name."""
        self.write(tensor_bytes(tensors))

    def _seal(self, content: bytes) -> bytes:
        return hashlib.sha256(self.identity.encode() + content).hexdigest().encode()


class Optimization:
    """The fit of a network by AdamW, with the schedule of `learning_rate`, which can continue from a file.

    Args:
        network: its parameters change in place.
        random: source of the random numbers of the fit, whose state is written too.
        steps: number of steps of the whole fit.
        lr: highest learning rate.

    Attributes:
        step: number of steps done.
    """

    def __init__(
        self, network: torch.nn.Module, random: torch.Generator, file: StepFile, *, steps: int, lr: float,
        weight_decay: float,
    ) -> None:  # fmt: skip
        self.network, self.random, self.file, self.steps, self.lr = network, random, file, steps, lr
        self.optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=weight_decay)
        self.step = 0

    def resume(self) -> None:
        """Load the state of network, optimizer and random numbers from the file, if it can be read."""
        if state := self.file.read_tensors():
            self.network.load_state_dict({name: state[f"now/{name}"] for name in self.network.state_dict()})
            restore_optimizer(self.optimizer, state)
            self.random.set_state(state["random"])
            self.step = int(state["step"])

    def descend(self, loss: Tensor) -> None:
        """Do a step of AdamW to lower `loss`."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * learning_rate(self.step / self.steps)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1

    def write(self) -> None:
        """Write the state of network, optimizer and random numbers to the file."""
        if self.file.path is not None:
            state = {f"now/{name}": tensor for name, tensor in self.network.state_dict().items()}
            state |= optimizer_state(self.optimizer)
            state |= {"random": self.random.get_state(), "step": torch.tensor(self.step)}
            self.file.write_tensors(dict(zip(state, to_cpu([*state.values()]), strict=True)))


@torch.enable_grad()
def minimise(loss: Callable[[], Tensor], numbers: Sequence[Tensor], steps: int) -> None:
    """Lower `loss()` by at most `steps` steps of L-BFGS, which change the tensors `numbers` in place."""
    optimizer = torch.optim.LBFGS(numbers, max_iter=steps, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value.item()

    optimizer.step(closure)
