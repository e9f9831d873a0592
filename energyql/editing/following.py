"""The VP flow of an energy whose samples have something of their own: where each of them started."""

from __future__ import annotations

import torch
from torch import Tensor

from energyql.sampling import ODESolver, Progress, SampleResult
from energyql.sampling.descent import Objective

_UNIT = 2.0**-100
"""What a row's number is multiplied by: exact, and too small to matter to any norm."""


def follow(objective: Objective, z0: Tensor, solver: ODESolver, progress: Progress | None = None) -> SampleResult:
    """Follows the flow of an objective from every row of z0; see `ODESolver`.

    A solver's batch loses the samples that end, so each sample carries its number with it, as one more coordinate that
    nothing moves.

    Args:
        objective: see `Objective`.
        z0: (n, z_dim).
        solver: how.
        progress: see `Progress`.
    """
    numbers = torch.arange(len(z0), dtype=z0.dtype, device=z0.device)[:, None] * _UNIT
    ended = solver.sample(_Numbered(objective), torch.cat([z0, numbers], 1), progress=progress)
    return SampleResult(ended.z[:, :-1], ended.status, ended.evaluations, ended.gradients, ended.diagnostics)


class _Numbered:
    """The objective as an energy of z and number."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def __call__(self, z: Tensor) -> Tensor:
        return self.gradient(z)[0]

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        rows = (z[:, -1] / _UNIT).round().long()
        value, gradient = self.objective(z[:, :-1], rows)
        return value, torch.cat([gradient, torch.zeros_like(z[:, -1:])], 1)
