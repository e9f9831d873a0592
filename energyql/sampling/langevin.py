"""Samplers that take noisy gradient steps: Langevin dynamics, and a predictor-corrector for the VP-SDE."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.shapes import Float
from energyql.sampling.base import (
    StepEnergy,
    StepInfo,
    StepNoise,
    StepSampler,
    check_counts,
    check_positive,
    check_strength,
    finite_rows,
    require,
)
from energyql.sampling.ode import VPSchedule


@dataclass(frozen=True, slots=True)
class LangevinSampler(StepSampler):
    """A `Sampler` that iterates `z ← z - h (λ ∇E(z) + z) + noise ε`, where ε is a draw from N(0, I).

    With the default noise, sqrt(2h), the distribution of z tends to the posterior `N(z; 0, I) exp(-λ E(z))`, up to an
    error of order h. The settings of Nie et al. 2021 (`published`) have so little noise, a temperature of 0.005, that
    samples in effect descend `λE(z) + |z|²/2`.

    Args:
        step: size h of a step, above 0.
        noise: standard deviation of the noise of one step, at least 0; `None` for sqrt(2h).
        strength: λ > 0, which multiplies the energy.
    """

    name = "langevin"
    fails_only = True
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
        """Sampler with the settings of Nie et al. 2021 (arXiv 2110.10873): h = 0.01, noise 0.01 and 100 steps."""
        return cls(step=1e-2, steps=100, noise=1e-2, strength=strength)

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Take one `langevin_step`."""
        return langevin_step(state, energy, noise, step=self.step, noise_size=self.noise, strength=self.strength)


def langevin_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, step: float,
    noise_size: float | None = None, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Take one step of Langevin dynamics: return `z - h (λ ∇E(z) + z) + noise ε`, and which samples end.

    Samples for which energy, gradient or new latent is not finite do not move, and end with `Status.NON_FINITE`. The
    energy is called once, with a gradient.

    Args:
        step: size h of the step, above 0.
        noise_size: standard deviation of the noise, at least 0; `None` for sqrt(2h).
        strength: λ > 0, which multiplies the energy.
    """
    size = math.sqrt(2 * step) if noise_size is None else noise_size
    score, value = posterior_score(z, energy, strength)
    change = step * score
    if size:
        change = change + size * noise.normals()
    z, finite = _move(z, change, value)
    return z, StepInfo.where_finite(finite)


def posterior_score(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, strength: float
) -> tuple[Float[Tensor, "rows z_dim"], Float[Tensor, " rows"]]:
    """Gradient of the log-density of the posterior, `-(λ ∇E(z) + z)`, and the energies E(z), in nats."""
    value, gradient = energy.gradient(z)
    return -((gradient if strength == 1 else strength * gradient) + z), value


def _move(z: Tensor, change: Tensor, value: Tensor, moving: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Add `change` to z where energy `value` and sum are finite, and `moving` is true; also return where."""
    there = z + change
    finite = finite_rows(value, there)
    if moving is not None:
        finite = finite & moving
    return torch.where(finite[:, None], there, z), finite


@dataclass(frozen=True, slots=True)
class PredictorCorrector(StepSampler):
    """A `Sampler` that solves the VP-SDE (see `VPSchedule`) backward in time, from noise to low energy.

    By algorithms 3 and 5 of Song et al. 2021 (arXiv 2011.13456), each predictor step is followed by `corrections`
    Langevin steps, with a size at which their ratio of signal to noise is `snr` for each sample (in the paper, for the
    mean of the batch).

    As in Nie et al. 2021 (arXiv 2110.10873), the score (gradient of the log-density) at every time is that of the clean
    latent, `-(λ ∇E(z) + z)`; but here it is evaluated again before each correction. With this score, samples do not
    tend to the posterior `N(z; 0, I) exp(-λ E(z))`: corrections alone would, predictor steps alone tend to `N(z; 0, I)
    exp(-2 λ E(z))`.

    Args:
        steps: number of predictor steps, a whole number above `schedule.beta_max`, and at least 2.
        strength: λ > 0, which multiplies the energy.
    """

    name = "predictor-corrector"
    fails_only = True
    _: KW_ONLY
    steps: int = 100
    corrections: int = 1
    snr: float = 0.16
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_positive(self, "snr")
        check_counts(self, steps=2, corrections=0)
        most = self.schedule.beta_max
        require(self.steps > most, f"steps must be above beta_max, {most:g}", self.steps)

    @classmethod
    def published(cls, *, strength: float = 1.0) -> PredictorCorrector:
        """Sampler with the settings of Nie et al. 2021 (arXiv 2110.10873); 3,000 gradients for each sample."""
        return cls(steps=1000, corrections=2, snr=0.16, strength=strength)

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Take one `predictor_corrector_step`; `number` determines the time t, and so the noise rate."""
        beta = self.schedule.beta(1 - number / (self.steps - 1)) / self.steps
        corrector = Corrector(self.corrections, self.snr)
        return predictor_corrector_step(state, energy, noise, beta=beta, corrector=corrector, strength=self.strength)


class Corrector(NamedTuple):
    """Langevin steps after a predictor step: their number, and the ratio of signal to noise that fixes their size."""

    steps: int = 1
    snr: float = 0.16


def predictor_corrector_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, beta: float,
    corrector: Corrector, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Take a predictor step of the VP-SDE backward in time, and then corrections by Langevin steps.

    Samples for which energy, gradient or new latent is not finite stop before that move, and end with
    `Status.NON_FINITE`. Each move calls the energy once, with a gradient.

    Args:
        noise: random numbers: `noise.normals()` for the predictor step, `noise.normals("0")` and so on for corrections.
        beta: noise rate β(t) times the length of the predictor step in time, above 0 and below 1.
    """
    score, value = posterior_score(z, energy, strength)
    drift = (1 - math.sqrt(1 - beta)) * z + beta * score
    z, moving = _move(z, drift + math.sqrt(beta) * noise.normals(), value)
    for correction in range(corrector.steps):
        score, value = posterior_score(z, energy, strength)
        fresh = noise.normals(str(correction))
        ratio = corrector.snr * fresh.norm(dim=1) / score.norm(dim=1).clamp(min=1e-12)
        size = (2 * (1 - beta) * ratio.square())[:, None]
        z, moving = _move(z, size * score + (2 * size).sqrt() * fresh, value, moving)
    return z, StepInfo.where_finite(moving)
