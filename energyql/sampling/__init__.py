"""Samplers: from start latents to latents of low energy. A sampler gets an energy, never a query."""

from energyql.numerics.random import FIRST_RUN, RandomStreams, normals, prior_latents, uniforms
from energyql.sampling.base import (
    MOST_STRENGTH,
    SAMPLERS,
    Batch,
    BatchSampler,
    Energy,
    EnergyFunction,
    EnergyLike,
    GradientEnergy,
    Progress,
    Sampler,
    SampleResult,
    Status,
    as_energy,
    summarize,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.langevin import LangevinSampler, PredictorCorrector
from energyql.sampling.ode import ODESolver, VPSchedule, adaptive_methods, vp_flow
from energyql.sampling.registry import Chain, make_sampler
from energyql.sampling.slice import SliceSampler

__all__ = [
    "FIRST_RUN",
    "MOST_STRENGTH",
    "SAMPLERS",
    "Batch",
    "BatchSampler",
    "Chain",
    "DescentSampler",
    "Energy",
    "EnergyFunction",
    "EnergyLike",
    "GradientEnergy",
    "LangevinSampler",
    "ODESolver",
    "PredictorCorrector",
    "Progress",
    "RandomStreams",
    "SampleResult",
    "Sampler",
    "SliceSampler",
    "Status",
    "VPSchedule",
    "adaptive_methods",
    "as_energy",
    "make_sampler",
    "normals",
    "prior_latents",
    "summarize",
    "uniforms",
    "vp_flow",
]
