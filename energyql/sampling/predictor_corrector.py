"""The reverse VP-SDE by predictor and corrector steps."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, SampleResult, check_latents, check_strength
from energyql.sampling.energy import EnergyLike
from energyql.sampling.noise import FIRST_RUN, Noise
from energyql.sampling.schedule import VPSchedule
from energyql.sampling.walk import Walk


@dataclass(frozen=True, slots=True)
class PredictorCorrector:
    """Runs the VP-SDE backward, from noise to low energy. A `Sampler`.

    Song et al. 2021 (arXiv 2011.13456), algorithms 3 and 5: each of `steps` predictor steps of the discretised SDE is
    followed by `corrections` Langevin steps, of the size that gives them the wanted ratio of signal to noise, here
    taken over one sample instead of the mean over the batch. As in Nie et al. 2021 (arXiv 2110.10873) the score at
    every time is that of the clean latent, `-(λ ∇E(z) + z)`. They use the predictor's score for the corrections too;
    here it is evaluated where the sample is. Their settings are `PredictorCorrector.published()`.

    With the clean score the predictor does not tend to the posterior: its law is stationary at
    `N(z; 0, I) exp(-2 λ E(z))`, the corrections' at `N(z; 0, I) exp(-λ E(z))`.

    Args:
        steps: N, at least 2.
        corrections: Langevin steps after each, at least 0.
        snr: the ratio, above 0.
        schedule: β(t).
        strength: λ > 0.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    steps: int = 100
    corrections: int = 1
    snr: float = 0.16
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 0 < self.snr < math.inf:
            raise ArgumentError(f"snr must be finite and above 0; got {self.snr!r}")
        if not (isinstance(self.steps, int) and self.steps > self.schedule.beta_max):
            raise ArgumentError(
                f"steps must be a whole number above beta_max, {self.schedule.beta_max:g}; got {self.steps!r}"
            )
        if not (isinstance(self.corrections, int) and self.corrections >= 0):
            raise ArgumentError(f"corrections must be a whole number of at least 0; got {self.corrections!r}")

    @classmethod
    def published(cls, *, strength: float = 1.0) -> PredictorCorrector:
        """The settings of Nie et al. 2021: 3,000 gradients a sample."""
        return cls(steps=1000, corrections=2, snr=0.16, strength=strength)

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Runs backward from every row of `z0`, draws from N(0, I); see `Sampler.sample`."""
        check_latents(z0)
        noise = noise.part("predictor-corrector")
        walk = Walk(energy, z0, self.strength, noise.start)
        for number in range(self.steps):
            t = 1 - number / (self.steps - 1)
            beta = self.schedule.beta(t) / self.steps
            score = walk.score()
            drift = (1 - math.sqrt(1 - beta)) * walk.z + beta * score
            walk.move(drift + math.sqrt(beta) * noise.normals(z0, str(number), walk.rows))
            for correction in range(self.corrections):
                score = walk.score()
                fresh = noise.normals(z0, f"{number}/{correction}", walk.rows)
                ratio = self.snr * fresh.norm(dim=1) / score.norm(dim=1).clamp(min=1e-12)
                size = (2 * (1 - beta) * ratio.square())[:, None]
                walk.move(size * score + (2 * size).sqrt() * fresh)
            walk.report(progress, (number + 1) / self.steps)
        return walk.result()
