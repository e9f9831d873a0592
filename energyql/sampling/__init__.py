"""From start latents to latents of low energy. Sees an energy as a callable and never a query."""

from energyql.sampling.base import Progress, Sampler, SampleResult, Status
from energyql.sampling.flow import Energy, Flow, GradientEnergy, energy_and_gradient, vp_flow
from energyql.sampling.ode import ODESolver, adaptive_methods
from energyql.sampling.schedule import VPSchedule
from energyql.sampling.seeds import normals, prior_latents, uniforms

SAMPLERS: dict[str, type[Sampler]] = {"ode": ODESolver}
"""Every sampler by its name; all of them can be made without arguments."""

__all__ = [
    "SAMPLERS",
    "Energy",
    "Flow",
    "GradientEnergy",
    "ODESolver",
    "Progress",
    "SampleResult",
    "Sampler",
    "Status",
    "VPSchedule",
    "adaptive_methods",
    "energy_and_gradient",
    "normals",
    "prior_latents",
    "uniforms",
    "vp_flow",
]
