"""From start latents to latents of low energy. Sees an energy as a callable and never a query."""

from energyql.numerics.random import normals, prior_latents, uniforms
from energyql.sampling.base import MOST_STRENGTH, Progress, Sampler, SampleResult, Status
from energyql.sampling.chain import Chain
from energyql.sampling.descent import DescentSampler
from energyql.sampling.energy import Energy, EnergyLike, GradientEnergy, as_energy
from energyql.sampling.flow import Flow, vp_flow
from energyql.sampling.langevin import LangevinSampler
from energyql.sampling.named import SAMPLERS, make_sampler
from energyql.sampling.noise import Noise
from energyql.sampling.ode import ODESolver, adaptive_methods
from energyql.sampling.predictor_corrector import PredictorCorrector
from energyql.sampling.schedule import VPSchedule
from energyql.sampling.slice import SliceSampler
from energyql.sampling.summary import summarize

__all__ = [
    "MOST_STRENGTH",
    "SAMPLERS",
    "Chain",
    "DescentSampler",
    "Energy",
    "EnergyLike",
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
    "as_energy",
    "make_sampler",
    "normals",
    "prior_latents",
    "summarize",
    "uniforms",
    "vp_flow",
]
