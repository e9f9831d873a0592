"""What samplers that take a set number of steps along the posterior's score share."""

from __future__ import annotations

import torch
from torch import Tensor

from energyql.sampling.base import Progress, SampleResult, Status
from energyql.sampling.energy import EnergyLike, as_energy


class Walk:
    """The latents of a batch on their way. A sample whose score or step is not finite stops where it was.

    Args:
        energy: see `Energy`.
        z0: where the samples start, (n, z_dim).
        strength: λ.
        first: index in the run of the first sample.

    Attributes:
        rows: indices of the samples that still move.
    """

    def __init__(self, energy: EnergyLike, z0: Tensor, strength: float, first: int) -> None:
        self._energy, self._strength = as_energy(energy, first=first), strength
        self._z = z0.detach().clone()
        self.rows = torch.arange(len(z0), device=z0.device)
        self._status = torch.full_like(self.rows, Status.OK)
        self._gradients = torch.zeros_like(self.rows)

    @property
    def z(self) -> Tensor:
        """Latents of the samples that still move."""
        return self._z[self.rows]

    def score(self) -> Tensor:
        """`-(λ ∇E(z) + z)`, the gradient of the posterior's log-density, of the samples that still move."""
        if not len(self.rows):
            return self.z
        value, gradient = self._energy.gradient(self.z, self.rows)
        self._gradients[self.rows] += 1
        finite = value.isfinite() & gradient.isfinite().all(1)
        self._drop(finite)
        return -(self._strength * gradient[finite] + self.z)

    def move(self, step: Tensor) -> None:
        """Add `step` to the latents of the samples that still move."""
        moved = self.z + step
        finite = moved.isfinite().all(1)
        self._drop(finite)
        self._z[self.rows] = moved[finite]

    def _drop(self, finite: Tensor) -> None:
        self._status[self.rows[~finite]] = Status.NON_FINITE
        self.rows = self.rows[finite]

    def report(self, progress: Progress | None, fraction: float) -> None:
        """Tell how far along the steps are."""
        if progress is not None:
            progress(fraction if len(self.rows) else 1.0, len(self.rows) if fraction < 1 else 0)

    def result(self) -> SampleResult:
        """Where all samples ended."""
        gradients = self._gradients.cpu()
        return SampleResult(self._z, self._status.cpu(), gradients, gradients)
