"""Unadjusted Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, SampleResult, check_latents, check_strength
from energyql.sampling.energy import EnergyLike
from energyql.sampling.noise import FIRST_RUN, Noise
from energyql.sampling.walk import Walk


@dataclass(frozen=True, slots=True)
class LangevinSampler:
    """Walks `z ← z - h (λ ∇E(z) + z) + noise ε`, whose law tends to `N(z; 0, I) exp(-λ E(z))`. A `Sampler`.

    It does so for `noise` sqrt(2h), the default, up to an error of order h. Nie et al. 2021 (arXiv 2110.10873) take
    h = 0.01, noise 0.01 and 100 steps, `LangevinSampler.published()`: noise that belongs to a temperature of 0.005, so
    in effect a descent of the posterior's energy with a pull toward the origin.

    Args:
        step: h, above 0.
        steps: at least 1.
        noise: standard deviation of the noise of one step, at least 0.
        strength: λ > 0.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    step: float = 0.02
    steps: int = 200
    noise: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 0 < self.step < math.inf:
            raise ArgumentError(f"step must be finite and above 0; got {self.step!r}")
        if self.noise is not None and not 0 <= self.noise < math.inf:
            raise ArgumentError(f"noise must be finite and at least 0; got {self.noise!r}")
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise ArgumentError(f"steps must be a whole number of at least 1; got {self.steps!r}")

    @classmethod
    def published(cls, *, strength: float = 1.0) -> LangevinSampler:
        """The settings of Nie et al. 2021."""
        return cls(step=1e-2, steps=100, noise=1e-2, strength=strength)

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Walks from every row of `z0`; see `Sampler.sample`."""
        check_latents(z0)
        noise = noise.part("langevin")
        size = math.sqrt(2 * self.step) if self.noise is None else self.noise
        walk = Walk(energy, z0, self.strength, noise.start)
        for number in range(self.steps):
            score = walk.score()
            step = self.step * score
            if size:
                step = step + size * noise.normals(z0, str(number), walk.rows)
            walk.move(step)
            walk.report(progress, (number + 1) / self.steps)
        return walk.result()
