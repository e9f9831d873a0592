"""Samplers: from start latents to latents of low energy. A sampler gets an energy, never a query."""

from energyql.numerics.random import FIRST_RUN, RandomStreams, normals, prior_latents, uniforms
from energyql.sampling.base import MOST_STRENGTH, Progress, Sampler, SampleResult, Status, summarize
from energyql.sampling.batch import Batch, BatchSampler
from energyql.sampling.descent import DescentSampler
from energyql.sampling.energy import Energy, EnergyLike, GradientEnergy, as_energy
from energyql.sampling.langevin import LangevinSampler, PredictorCorrector
from energyql.sampling.ode import ODESolver, VPSchedule, vp_flow
from energyql.sampling.registry import SAMPLERS, Chain, make_sampler
from energyql.sampling.runge_kutta import adaptive_methods
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
