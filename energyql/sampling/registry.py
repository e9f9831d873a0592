"""Samplers by name, and chains of samplers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.sampling.base import (
    SAMPLERS,
    Batch,
    BatchSampler,
    EnergyLike,
    Progress,
    Sampler,
    SampleResult,
    as_energy,
    check_floor,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.ode import ODESolver
from energyql.sampling.slice import SliceSampler

FLOW_TOLERANCE = 0.01
"""Energy tolerance, in nats, of the flows in this module: a probability of 0.99."""
HANDOVER = 1.0
"""λE, in nats, at which descent ends and slice moves begin: a probability of 0.37."""


@dataclass(frozen=True)
class Chain:
    """Run samplers one after the other, each from the latents that the one before returned. A `Sampler`.

    A sample that a sampler could not finish goes on from its latent; the status of the last sampler is reported. A
    sampler that ends where the energy is low enough does not evaluate samples whose energy is low enough already.
    Evaluations are summed; of two diagnostics with the same name the later one is returned.

    Args:
        samplers: at least one, in their order.

    Raises:
        ArgumentError: there are none, or one does not derive from `BatchSampler`.
    """

    samplers: tuple[BatchSampler, ...]

    def __post_init__(self) -> None:
        if not self.samplers:
            raise ArgumentError("a chain needs at least one sampler")
        for sampler in self.samplers:
            if not isinstance(sampler, BatchSampler):
                raise ArgumentError(f"a chain takes samplers that derive from BatchSampler, not {sampler!r}")

    @property
    def name(self) -> str:
        """The names of the samplers, joined by +."""
        return "+".join(sampler.name or type(sampler).__qualname__ for sampler in self.samplers)

    @property
    def descends(self) -> bool:
        """Whether the last sampler descends; see `BatchSampler`."""
        return self.samplers[-1].descends

    @property
    def needs_gradient(self) -> bool:
        """Whether one of the samplers follows the gradient; see `BatchSampler`."""
        return any(sampler.needs_gradient for sampler in self.samplers)

    @property
    def needs_floor(self) -> bool:
        """Whether one of the samplers needs a lower bound of the energy; see `BatchSampler`."""
        return any(sampler.needs_floor for sampler in self.samplers)

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Run all samplers; see `Sampler.sample`. Each takes an equal share of the progress."""
        if self.needs_floor:
            check_floor(as_energy(energy).least)
        results, count = list[SampleResult](), len(self.samplers)
        z: Tensor = z0
        energies: Tensor | None = None
        for number, sampler in enumerate(self.samplers):

            def share(done: float, moving: int, number: int = number) -> None:
                if progress is not None:
                    progress((number + done) / count, moving if number == count - 1 else len(z0))

            batch = Batch.start(energy, z, noise.part(str(number)), share)
            if energies is not None:
                batch.energies, batch.follows = energies, True
            sampler.run(batch)
            results.append(batch.result())
            z, energies = batch.z, batch.energies
        evaluations = torch.stack([result.evaluations for result in results]).sum(0)
        gradients = torch.stack([result.gradients for result in results]).sum(0)
        diagnostics = {name: numbers for result in results for name, numbers in result.diagnostics.items()}
        return SampleResult(z, results[-1].status, evaluations, gradients, diagnostics)


def slice_then_ode(*, strength: float = 1.0) -> Sampler:
    """Draw from the posterior, then follow the flow with the samples that do not satisfy the query with certainty."""
    return Chain((SliceSampler(strength=strength), ODESolver(strength=strength, enough=FLOW_TOLERANCE)))


def slice_then_descent(*, strength: float = 1.0) -> Sampler:
    """Draw near the posterior, then descend with the samples that do not satisfy the query with certainty."""
    near = DescentSampler(strength=strength, enough=HANDOVER)
    draws = SliceSampler(strength=strength, descent=near, bracket=math.pi / 2)
    return Chain((draws, DescentSampler(strength=strength)))


SAMPLERS |= {
    "slice+descent": slice_then_descent,
    "slice+ode": slice_then_ode,
    "slice": SliceSampler,
    "ode": partial(ODESolver, enough=FLOW_TOLERANCE),
    "descent": DescentSampler,
    "langevin": resolve_name("energyql.sampling.langevin:LangevinSampler"),
    "predictor-corrector": resolve_name("energyql.sampling.langevin:PredictorCorrector"),
    "published-ode": partial(ODESolver, "dopri5", rtol=1e-3, atol=1e-3, overshoot=True),
    "published-langevin": resolve_name("energyql.sampling.langevin:LangevinSampler.published"),
    "published-predictor-corrector": resolve_name("energyql.sampling.langevin:PredictorCorrector.published"),
}


def make_sampler(name: str, strength: float = 1.0) -> Sampler:
    """Return the sampler called `name`.

    Raises:
        ArgumentError: there is no such sampler, or the strength is not above 0.
    """
    if name not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {name!r}", hint=f"samplers: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](strength=strength)
