"""Samplers, which move start latents to latents of low energy. They take an energy, never a query."""

from energyql.numerics.random import FIRST_RUN, RandomStreams, normals, prior_latents, uniforms
from energyql.sampling.base import (
    MOST_STRENGTH,
    MOVING,
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
    StepInfo,
    StepNoise,
    StepSampler,
    as_energy,
    summarize,
)
from energyql.sampling.descent import DescentInfo, DescentSampler, DescentState, descent_init, descent_step
from energyql.sampling.langevin import (
    Corrector,
    LangevinSampler,
    PredictorCorrector,
    langevin_step,
    predictor_corrector_step,
)
from energyql.sampling.ode import (
    FlowInfo,
    FlowState,
    ODESolver,
    VPSchedule,
    adaptive_methods,
    flow_init,
    flow_step,
    vp_flow,
)
from energyql.sampling.population import PopulationInfo, PopulationSampler, PopulationState, population_stage
from energyql.sampling.registry import Chain, make_sampler
from energyql.sampling.rejection import Proposed, RejectionInfo, rejection_round
from energyql.sampling.slice import (
    AnnealingInfo,
    AnnealingState,
    SliceInfo,
    SliceSampler,
    SliceState,
    annealing_stage,
    slice_step,
)
from energyql.sampling.smc import Particles, anneal_particles

__all__ = [
    "FIRST_RUN", "MOST_STRENGTH", "MOVING", "SAMPLERS", "AnnealingInfo", "AnnealingState", "Batch", "BatchSampler",
    "Chain", "Corrector", "DescentInfo", "DescentSampler", "DescentState",
    "Energy", "EnergyFunction", "EnergyLike", "FlowInfo", "FlowState", "GradientEnergy", "LangevinSampler",
    "ODESolver", "Particles", "PopulationInfo", "PopulationSampler", "PopulationState", "PredictorCorrector",
    "Progress", "Proposed", "RandomStreams", "RejectionInfo", "SampleResult", "Sampler", "SliceInfo", "SliceSampler",
    "SliceState", "Status", "StepInfo", "StepNoise", "StepSampler", "VPSchedule", "adaptive_methods",
    "anneal_particles", "annealing_stage", "as_energy", "descent_init", "descent_step",
    "flow_init", "flow_step", "langevin_step", "make_sampler", "normals", "population_stage",
    "predictor_corrector_step", "prior_latents", "rejection_round", "slice_step", "summarize", "uniforms",
    "vp_flow",
]  # fmt: skip
