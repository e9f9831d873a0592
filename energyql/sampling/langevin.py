"""Unadjusted Langevin dynamics, and the reverse VP-SDE by predictor and Langevin steps."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

import torch
from torch import Tensor

from energyql.numerics.shapes import Bool, Float
from energyql.sampling.base import (
    MOVING,
    StepEnergy,
    StepInfo,
    StepNoise,
    StepSampler,
    check_counts,
    check_positive,
    check_strength,
    require,
)
from energyql.sampling.ode import VPSchedule


@dataclass(frozen=True, slots=True)
class LangevinSampler(StepSampler):
    """Iterate `z ← z - h (λ ∇E(z) + z) + noise ε`, whose law tends to `N(z; 0, I) exp(-λ E(z))`. A `Sampler`.

    That holds for `noise` sqrt(2h), the default, up to an error of order h. Nie et al. 2021 (arXiv 2110.10873) take
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

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Take a `langevin_step`; see `StepSampler`."""
        return langevin_step(state, energy, noise, step=self.step, noise_size=self.noise, strength=self.strength)


def langevin_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, step: float,
    noise_size: float | None = None, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Return `z - h (λ ∇E(z) + z) + noise ε`, and for each sample whether it ends there.

    Args:
        z: latents (rows, z_dim).
        energy: energy of these samples, in nats; it is called once, with a gradient.
        noise: random numbers of the step: ε is `noise.normals()`.
        step: h, above 0.
        noise_size: standard deviation of the noise, at least 0; sqrt(2h) if it is `None`.
        strength: λ > 0.

    Returns:
        Latents (rows, z_dim), and `Status.NON_FINITE` for samples that stay because their energy, gradient or end is
        not finite.
    """
    size = math.sqrt(2 * step) if noise_size is None else noise_size
    score, finite = posterior_score(z, energy, strength)
    change = step * score
    if size:
        change = change + size * noise.normals()
    return _moved(z, change, finite)


def posterior_score(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, strength: float
) -> tuple[Float[Tensor, "rows z_dim"], Bool[Tensor, " rows"]]:
    """Return `-(λ ∇E(z) + z)`, the gradient of the posterior's log-density, and whether it and E are finite."""
    value, gradient = energy.gradient(z)
    return -(strength * gradient + z), value.isfinite() & gradient.isfinite().all(1)


def _moved(z: Tensor, change: Tensor, finite: Tensor) -> tuple[Tensor, StepInfo]:
    """Return z + change where that is finite and `finite` is true; other samples end at z."""
    there = z + change
    finite = finite & there.isfinite().all(1)
    return torch.where(finite[:, None], there, z), StepInfo.where_finite(finite)


@dataclass(frozen=True, slots=True)
class PredictorCorrector(StepSampler):
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
        corrections: Langevin steps after each predictor step, at least 0.
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

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Take a `predictor_corrector_step`; see `StepSampler`."""
        beta = self.schedule.beta(1 - number / (self.steps - 1)) / self.steps
        return predictor_corrector_step(
            state, energy, noise, beta=beta, corrections=self.corrections, snr=self.snr, strength=self.strength
        )


def predictor_corrector_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, beta: float, corrections: int = 1,
    snr: float = 0.16, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Take a predictor step of the VP-SDE backward in time, and corrections by Langevin steps.

    Args:
        z: latents (rows, z_dim).
        energy: energy of these samples, in nats; called with a gradient once, and once for each correction.
        noise: random numbers: `noise.normals()` for the predictor, `noise.normals("0")` for the first correction, ...
        beta: noise rate times the length of the step in time, above 0 and below 1.
        corrections: number of Langevin steps.
        snr: ratio of signal to noise, which determines the size of the corrections.
        strength: λ > 0.

    Returns:
        Latents (rows, z_dim), and `Status.NON_FINITE` for samples that stay before a move because their energy,
        gradient or end is not finite.
    """
    score, finite = posterior_score(z, energy, strength)
    drift = (1 - math.sqrt(1 - beta)) * z + beta * score
    z, info = _moved(z, drift + math.sqrt(beta) * noise.normals(), finite)
    for correction in range(corrections):
        score, finite = posterior_score(z, energy, strength)
        fresh = noise.normals(str(correction))
        ratio = snr * fresh.norm(dim=1) / score.norm(dim=1).clamp(min=1e-12)
        size = (2 * (1 - beta) * ratio.square())[:, None]
        z, info = _moved(z, size * score + (2 * size).sqrt() * fresh, finite & (info.status == MOVING))
    return z, info
