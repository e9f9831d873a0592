"""From start latents to latents of low energy. Sees an energy as a callable and never a query."""

from energyql.numerics.random import normals, prior_latents, uniforms
from energyql.sampling.base import MOST_STRENGTH, Progress, Sampler, SampleResult, Status
from energyql.sampling.chain import Chain
from energyql.sampling.descent import DescentSampler
from energyql.sampling.flow import Energy, Flow, GradientEnergy, energy_and_gradient, vp_flow
from energyql.sampling.langevin import LangevinSampler
from energyql.sampling.named import DEFAULT_SAMPLER, SAMPLERS, make_sampler
from energyql.sampling.noise import Noise
from energyql.sampling.ode import ODESolver, adaptive_methods
from energyql.sampling.predictor_corrector import PredictorCorrector
from energyql.sampling.schedule import VPSchedule
from energyql.sampling.slice import SliceSampler
from energyql.sampling.summary import summarize

__all__ = [
    "DEFAULT_SAMPLER",
    "MOST_STRENGTH",
    "SAMPLERS",
    "Chain",
    "DescentSampler",
    "Energy",
    "Flow",
    "GradientEnergy",
    "LangevinSampler",
    "Noise",
    "ODESolver",
    "PredictorCorrector",
    "Progress",
    "SampleResult",
    "Sampler",
    "SliceSampler",
    "Status",
    "VPSchedule",
    "adaptive_methods",
    "energy_and_gradient",
    "make_sampler",
    "normals",
    "prior_latents",
    "summarize",
    "uniforms",
    "vp_flow",
]
