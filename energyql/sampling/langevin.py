"""Unadjusted Langevin dynamics, and the reverse VP-SDE by predictor and Langevin steps."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

from torch import Tensor

from energyql.numerics.shapes import Float
from energyql.sampling.base import Batch, BatchSampler, check_counts, check_positive, check_strength, require
from energyql.sampling.ode import VPSchedule


@dataclass(frozen=True, slots=True)
class LangevinSampler(BatchSampler):
    """Iterate `z ← z - h (λ ∇E(z) + z) + noise ε`, whose law tends to `N(z; 0, I) exp(-λ E(z))`. A `Sampler`.

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

    name = "langevin"
    _: KW_ONLY
    step: float = 0.02
    steps: int = 200
    noise: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_positive(self, "step")
        check_counts(self, steps=1)
        if self.noise is not None:
            require(0 <= self.noise < math.inf, "noise must be finite and at least 0", self.noise)

    @classmethod
    def published(cls, *, strength: float = 1.0) -> LangevinSampler:
        """Return the settings of Nie et al. 2021."""
        return cls(step=1e-2, steps=100, noise=1e-2, strength=strength)

    def run(self, batch: Batch) -> None:
        """Take all steps; see `BatchSampler`."""
        noise = batch.noise.part("langevin")
        size = math.sqrt(2 * self.step) if self.noise is None else self.noise
        for number in range(self.steps):
            step = self.step * posterior_score(batch, self.strength)
            if size:
                step = step + size * noise.normals(batch.z, str(number), batch.rows)
            batch.move(step)
            batch.report((number + 1) / self.steps)


def posterior_score(batch: Batch, strength: float) -> Float[Tensor, "rows z_dim"]:
    """Return `-(λ ∇E(z) + z)`, the gradient of the posterior's log-density, of the samples that move.

    Samples whose energy or gradient is not finite end before that.
    """
    if not len(batch.rows):
        return batch.z[batch.rows]
    value, gradient = batch.energy.gradient(batch.z[batch.rows], batch.rows)
    batch.gradients[batch.rows] += 1
    finite = value.isfinite() & gradient.isfinite().all(1)
    batch.drop(finite)
    return -(strength * gradient[finite] + batch.z[batch.rows])


@dataclass(frozen=True, slots=True)
class PredictorCorrector(BatchSampler):
    """Solve the VP-SDE backward in time, from noise to low energy. A `Sampler`.

    Song et al. 2021 (arXiv 2011.13456), algorithms 3 and 5: each of `steps` predictor steps of the discretised SDE is
    followed by `corrections` Langevin steps, of the size that gives them the ratio `snr` of signal to noise, here
    taken over one sample instead of the mean over the batch. As in Nie et al. 2021 (arXiv 2110.10873) the score at
    every time is that of the clean latent, `-(λ ∇E(z) + z)`. They use the predictor's score for the corrections too;
    here it is evaluated where the sample is. Their settings are `PredictorCorrector.published()`.

    With the clean score the predictor does not tend to the posterior: its law is stationary at
    `N(z; 0, I) exp(-2 λ E(z))`, the corrections' at `N(z; 0, I) exp(-λ E(z))`.

    Args:
        steps: N, at least 2.
        corrections: Langevin steps after each, at least 0.
        snr: ratio of signal to noise, above 0.
        schedule: β(t).
        strength: λ > 0.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    name = "predictor-corrector"
    _: KW_ONLY
    steps: int = 100
    corrections: int = 1
    snr: float = 0.16
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_positive(self, "snr")
        check_counts(self, corrections=0)
        enough = isinstance(self.steps, int) and self.steps > self.schedule.beta_max
        require(enough, f"steps must be a whole number above beta_max, {self.schedule.beta_max:g}", self.steps)

    @classmethod
    def published(cls, *, strength: float = 1.0) -> PredictorCorrector:
        """Return the settings of Nie et al. 2021: 3,000 gradients a sample."""
        return cls(steps=1000, corrections=2, snr=0.16, strength=strength)

    def run(self, batch: Batch) -> None:
        """Take all steps, from draws from N(0, I); see `BatchSampler`."""
        noise = batch.noise.part("predictor-corrector")
        for number in range(self.steps):
            t = 1 - number / (self.steps - 1)
            beta = self.schedule.beta(t) / self.steps
            score = posterior_score(batch, self.strength)
            drift = (1 - math.sqrt(1 - beta)) * batch.z[batch.rows] + beta * score
            batch.move(drift + math.sqrt(beta) * noise.normals(batch.z, str(number), batch.rows))
            for correction in range(self.corrections):
                score = posterior_score(batch, self.strength)
                fresh = noise.normals(batch.z, f"{number}/{correction}", batch.rows)
                ratio = self.snr * fresh.norm(dim=1) / score.norm(dim=1).clamp(min=1e-12)
                size = (2 * (1 - beta) * ratio.square())[:, None]
                batch.move(size * score + (2 * size).sqrt() * fresh)
            batch.report((number + 1) / self.steps)
