"""Samples on their way to the posterior: where each stands, and what it cost so far."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from energyql.sampling.base import Progress, SampleResult, Status
from energyql.sampling.energy import Energy
from energyql.sampling.noise import Noise

MOST_AHEAD = 16
"""Points of a sample that are evaluated together, and uniform numbers that are drawn together."""
ROWS_AHEAD = 256
"""Where fewer samples are left, each is evaluated at the next points that it would try too: a batch of this size takes
the least time for a row. No result depends on it."""


class Draws:
    """One row for each sample of a batch.

    Attributes:
        z: where it stands, (n, z_dim).
        e: the energy there, (n,), in nats.
        rows: indices of those that have no exact draw, ascending.
        exact, proposals, mass, stages, log_weight, status, evaluations, gradients: (n,), as `SliceSampler` tells them.
    """

    def __init__(self, energy: Energy, z0: Tensor, noise: Noise, progress: Progress | None) -> None:
        self.energy, self.noise = energy, noise
        self.z = z0.clone()
        self.e = torch.full_like(z0[:, 0], math.inf)
        self.rows = torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(self.rows)
        self.status = torch.full_like(counts, Status.OK)
        self.evaluations, self.gradients, self.proposals, self.stages, self.exact = (counts.clone() for _ in range(5))
        self.log_weight, self.mass = torch.zeros_like(self.e), torch.zeros_like(self.e)
        self._progress, self._reported = progress, 0.0

    def evaluate(self, z: Tensor, rows: Tensor) -> Tensor:
        """Return the energies (rows, points) of z (rows, points, z_dim); NaN and -inf become +inf: never accepted."""
        samples = rows[:, None].expand(z.shape[:2]).flatten()
        e = torch.nan_to_num(self.energy(z.flatten(0, 1), samples), nan=math.inf, neginf=math.inf)
        return e.view(z.shape[:2])

    def count(self, rows: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        """For each row whether a point passed, and which was the first; evaluations count up to it.

        Args:
            rows: indices of samples.
            passed: (rows, points).
        """
        found, first = passed.any(1), passed.to(torch.uint8).argmax(1)
        self.evaluations[rows] += torch.where(found, first + 1, passed.shape[1])
        return found, first

    def report(self, fraction: float) -> None:
        """Tell how much of their way those have behind them that have no exact draw."""
        if self._progress is not None:
            done = 1 - len(self.rows) / len(self.z)
            self._reported = max(self._reported, done + (1 - done) * fraction)
            self._progress(self._reported, len(self.rows))

    def result(self, *told: str) -> SampleResult:
        """The end of the run, with the diagnostics called `told`."""
        counts = (self.status.cpu(), self.evaluations.cpu(), self.gradients.cpu())
        return SampleResult(self.z, *counts, {name: getattr(self, name).cpu() for name in told})


def points_ahead(rows: int) -> int:
    """How many points of each of so many samples to evaluate together."""
    return max(1, min(MOST_AHEAD, ROWS_AHEAD // rows))
