"""The loop of a training that continues after an interruption, with the same result."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from energyql.training.steps import StepFile, optimizer_state, restore_optimizer

SAVED_EVERY = 60.0
"""Seconds between two writes of the state."""
Step = Callable[[float, torch.Generator], None]
Optimizers = Mapping[str, torch.optim.Optimizer]


def train(
    modules: Mapping[str, nn.Module],
    optimizers: Optimizers,
    step: Step,
    *,
    steps: int,
    identity: str,
    path: Path,
    seed: int,
    progress: Callable[[float], None],
) -> None:
    """Call `step` with the fraction done and a source of random numbers, until all steps are done.

    The state is written to `path`; the same call after an interruption continues from it, with the same result.

    Args:
        modules: what a step changes, by name.
        optimizers: by other names.
        step: one step.
        steps: their number.
        identity: of the settings and the data; the state of another training is ignored.
        path: of the state.
        seed: of the random numbers of the steps.
        progress: called with the fraction done.
    """
    random = torch.Generator().manual_seed(seed)
    first = 0
    file = StepFile(path, identity)
    if (state := file.read_tensors()) is not None:
        for name, module in modules.items():
            module.load_state_dict(_part(state, name))
        for name, optimizer in optimizers.items():
            restore_optimizer(optimizer, _part(state, name))
            _lay_out(optimizer)
        random.set_state(state["random"])
        first = int(state["step"])
    written = time.monotonic()
    for number in range(first, steps):
        step(number / steps, random)
        done = number + 1
        if time.monotonic() - written >= SAVED_EVERY or done == steps:
            state = {f"{name}/{key}": value for name, one in modules.items() for key, value in one.state_dict().items()}
            for name, optimizer in optimizers.items():
                state |= {f"{name}/{key}": value for key, value in optimizer_state(optimizer).items()}
            file.write_tensors({**state, "random": random.get_state(), "step": torch.tensor(done)})
            written = time.monotonic()
        progress(done / steps)
    progress(1.0)


def _lay_out(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory format of their parameter, without which sums differ in the last bit."""
    for parameter, moments in optimizer.state.items():
        for name, tensor in moments.items():
            if tensor.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(tensor)


def _part(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return the tensors of one module or optimizer by their own names."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in state.items() if key.startswith(f"{name}/")}


def scaled(steps: int, scale: float) -> int:
    """Return the length of a training that is `scale` times as long, at least 2."""
    return max(2, int(steps * scale))
