"""Samplers that take noisy gradient steps: Langevin dynamics, and a predictor-corrector.

The predictor-corrector method solves the VP-SDE, the stochastic equation of a diffusion model, backward in time. Its
noise rate is a `VPSchedule`.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field

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
    error of order h. Nie et al. 2021 (arXiv 2110.10873) use h = 0.01, noise 0.01 and 100 steps; the class method
    `published` returns this sampler. So little noise corresponds to a temperature of 0.005: the samples in effect
    descend `λE(z) + |z|²/2`.

    Args:
        step: size h of a step, above 0.
        steps: number of steps, at least 1.
        noise: standard deviation of the noise of one step, at least 0; `None` for sqrt(2h).
        strength: λ > 0, which multiplies the energy.

    Raises:
        ArgumentError: an argument is outside its range.
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
        """Return a sampler with the settings of Nie et al. 2021 (arXiv 2110.10873).

        `strength` is the factor λ > 0 by which the energy is multiplied.
        """
        return cls(step=1e-2, steps=100, noise=1e-2, strength=strength)

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Return the latents after a `langevin_step`, and which samples end.

        Args:
            state: latents of the samples that still move.
            energy: energy of these samples, in nats.
            noise: random numbers of these samples for this step.
            number: number of the step, from 0 on; it has no effect.
        """
        return langevin_step(state, energy, noise, step=self.step, noise_size=self.noise, strength=self.strength)


def langevin_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, step: float,
    noise_size: float | None = None, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Take one step of Langevin dynamics: return `z - h (λ ∇E(z) + z) + noise ε`, and which samples end.

    Args:
        z: latents of the samples, (rows, z_dim).
        energy: energy of these samples, in nats; it is called once, with a gradient.
        noise: random numbers of the step, from which the draw ε from N(0, I) comes.
        step: size h of the step, above 0.
        noise_size: standard deviation of the noise, at least 0; `None` for sqrt(2h).
        strength: λ > 0, which multiplies the energy.

    Returns:
        New latents (rows, z_dim), and which samples end: those that did not move because energy, gradient or new latent
        is not finite, with `Status.NON_FINITE`.
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
    """Return the gradient of the log-density of the posterior at z, `-(λ ∇E(z) + z)`, and the energies E(z), (rows,).

    Args:
        z: latents of the samples.
        energy: energy E of these samples, in nats.
        strength: λ > 0, which multiplies the energy.
    """
    value, gradient = energy.gradient(z)
    return -((gradient if strength == 1 else strength * gradient) + z), value


def _move(z: Tensor, change: Tensor, value: Tensor, moving: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Move samples by `change`; a sample whose energy or new latent is not finite stays at z and ends.

    Args:
        z: latents, (rows, z_dim).
        change: change of the latents, (rows, z_dim); it is not finite if the gradient of the energy was not.
        value: energies at z, (rows,).
        moving: for each sample, false if the sample has ended in an earlier part of the step, so that it stays at z;
            `None` if no sample has ended.

    Returns:
        The latents after the move, and for each sample whether it goes on.
    """
    there = z + change
    finite = finite_rows(value, there)
    if moving is not None:
        finite = finite & moving
    return torch.where(finite[:, None], there, z), finite


@dataclass(frozen=True, slots=True)
class PredictorCorrector(StepSampler):
    """A `Sampler` that solves the VP-SDE (see `VPSchedule`) backward in time, from noise to low energy.

    By algorithms 3 and 5 of Song et al. 2021 (arXiv 2011.13456), each of `steps` predictor steps of the discretised SDE
    is followed by `corrections` Langevin steps. The size of a Langevin step is chosen so that its ratio of signal to
    noise is `snr`. Here this holds for each sample; Song et al. take the mean over the batch.

    As in Nie et al. 2021 (arXiv 2110.10873), the score (gradient of the log-density) at every time is the score of the
    clean latent, `-(λ ∇E(z) + z)`. Nie et al. use the score of the predictor step for the corrections too. Here the
    score is evaluated again before each correction. The class method `published` returns a sampler with the settings
    of Nie et al.

    With this score, samples do not tend to the posterior `N(z; 0, I) exp(-λ E(z))`. Corrections alone would, but
    predictor steps alone tend to `N(z; 0, I) exp(-2 λ E(z))`.

    Args:
        steps: number N of predictor steps, a whole number above `schedule.beta_max`, and at least 2.
        corrections: number of Langevin steps after each predictor step, at least 0.
        snr: ratio of signal to noise of the Langevin steps, above 0.
        schedule: noise rate β(t) of the diffusion.
        strength: λ > 0, which multiplies the energy.

    Raises:
        ArgumentError: an argument is outside its range.
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
        """Return a sampler with the settings of Nie et al. 2021 (arXiv 2110.10873).

        For each sample it evaluates the gradient of the energy 3,000 times. `strength` is the factor λ > 0 by which the
        energy is multiplied.
        """
        return cls(steps=1000, corrections=2, snr=0.16, strength=strength)

    def advance(self, state: Tensor, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Tensor, StepInfo]:
        """Return the latents after a `predictor_corrector_step`, and which samples end.

        Args:
            state: latents of the samples that still move.
            energy: energy of these samples, in nats.
            noise: random numbers of these samples for this step.
            number: number of the step, from 0 on, which determines the time t and so the noise rate.
        """
        beta = self.schedule.beta(1 - number / (self.steps - 1)) / self.steps
        return predictor_corrector_step(
            state, energy, noise, beta=beta, corrections=self.corrections, snr=self.snr, strength=self.strength
        )


def predictor_corrector_step(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, noise: StepNoise, *, beta: float, corrections: int = 1,
    snr: float = 0.16, strength: float = 1.0,
) -> tuple[Float[Tensor, "rows z_dim"], StepInfo]:  # fmt: skip
    """Return latents after a predictor step of the VP-SDE backward in time, and then corrections by Langevin steps.

    Args:
        z: latents of the samples, (rows, z_dim).
        energy: energy of these samples, in nats; it is called with a gradient, once for the predictor step and once for
            each correction.
        noise: random numbers of the step. The predictor step uses `noise.normals()`, the first correction
            `noise.normals("0")`, the second `noise.normals("1")`, and so on.
        beta: noise rate β(t) times the length of the predictor step in time, above 0 and below 1.
        corrections: number of Langevin steps.
        snr: ratio of signal to noise of the Langevin steps, which determines their size.
        strength: λ > 0, which multiplies the energy.

    Returns:
        New latents (rows, z_dim), and which samples end: those that stopped before a move because energy, gradient or
        new latent is not finite, with `Status.NON_FINITE`.
    """
    score, value = posterior_score(z, energy, strength)
    drift = (1 - math.sqrt(1 - beta)) * z + beta * score
    z, moving = _move(z, drift + math.sqrt(beta) * noise.normals(), value)
    for correction in range(corrections):
        score, value = posterior_score(z, energy, strength)
        fresh = noise.normals(str(correction))
        ratio = snr * fresh.norm(dim=1) / score.norm(dim=1).clamp(min=1e-12)
        size = (2 * (1 - beta) * ratio.square())[:, None]
        z, moving = _move(z, size * score + (2 * size).sqrt() * fresh, value, moving)
    return z, StepInfo.where_finite(moving)
