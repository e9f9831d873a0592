"""Samplers by name."""

from __future__ import annotations

import math
from functools import partial
from typing import Protocol

from energyql.errors import ArgumentError
from energyql.sampling.base import Sampler
from energyql.sampling.chain import Chain
from energyql.sampling.descent import DescentSampler
from energyql.sampling.langevin import LangevinSampler
from energyql.sampling.ode import ODESolver
from energyql.sampling.predictor_corrector import PredictorCorrector
from energyql.sampling.slice import SliceSampler

ENOUGH = 0.01
"""Energy in nats at which the flows named here call a sample done: a probability of 0.99."""


class _Make(Protocol):
    def __call__(self, *, strength: float = 1.0) -> Sampler: ...


def slice_then_ode(*, strength: float = 1.0) -> Sampler:
    """Draws from the posterior, then a short way down the flow for those that are not yet sure to satisfy the query."""
    return Chain((SliceSampler(strength=strength), ODESolver(strength=strength, enough=ENOUGH)))


def slice_then_descent(*, strength: float = 1.0) -> Sampler:
    """Draws near the posterior, then a few steps down for those that are not yet sure to satisfy the query."""
    draws = SliceSampler(strength=strength, then="descend", proposals=256, pilot=128, moves=1, bracket=math.pi / 2)
    return Chain((draws, DescentSampler(strength=strength)))


SAMPLERS: dict[str, _Make] = {
    "slice+descent": slice_then_descent,
    "slice+ode": slice_then_ode,
    "slice": SliceSampler,
    "ode": partial(ODESolver, enough=ENOUGH),
    "descent": DescentSampler,
    "langevin": LangevinSampler,
    "predictor-corrector": PredictorCorrector,
    "published-ode": partial(ODESolver, "dopri5", rtol=1e-3, atol=1e-3, overshoot=True),
    "published-langevin": LangevinSampler.published,
    "published-predictor-corrector": PredictorCorrector.published,
}
"""Every sampler by its name. Those called published have the settings of Nie et al. 2021 (arXiv 2110.10873)."""


def make_sampler(name: str, strength: float = 1.0) -> Sampler:
    """The sampler called `name`.

    Raises:
        ArgumentError: there is none, or the strength is not above 0.
    """
    if name not in SAMPLERS:
        raise ArgumentError(f"there is no sampler {name!r}", hint=f"samplers: {', '.join(SAMPLERS)}")
    return SAMPLERS[name](strength=strength)
