"""Names of the samplers and of the semantics (ways to compute an energy from a query), and the code of each.

Code is named by `module:object` and imported when it is used. Nothing here imports torch, so listing names is quick.
"""

from __future__ import annotations

from typing import NamedTuple


class NamedSemantics(NamedTuple):
    """A semantics: a way to compute the energy of a latent from a query.

    Attributes:
        code: `module:object` of a function from a bound query, a vocabulary and `CompileOptions` to an `EnergyRule`.
        has_floor: whether energies have a lower bound, which some samplers need, among them the default one.
    """

    code: str
    has_floor: bool = True


SEMANTICS = {
    "exact": NamedSemantics("energyql.energy.rule:exact_rule"),
    "product": NamedSemantics("energyql.energy.product:product_rule"),
    "lace": NamedSemantics("energyql.energy.lace:lace_rule"),
    "jem": NamedSemantics("energyql.energy.rule:joint_rule", has_floor=False),
}
"""Every semantics by name."""

SAMPLER_CODE = {
    "slice+descent": "energyql.sampling.registry:slice_then_descent",
    "slice+ode": "energyql.sampling.registry:slice_then_ode",
    "slice": "energyql.sampling.slice:SliceSampler",
    "population": "energyql.sampling.population:PopulationSampler",
    "ode": "energyql.sampling.registry:flow_to_tolerance",
    "descent": "energyql.sampling.descent:DescentSampler",
    "langevin": "energyql.sampling.langevin:LangevinSampler",
    "predictor-corrector": "energyql.sampling.langevin:PredictorCorrector",
    "published-ode": "energyql.sampling.ode:ODESolver.published",
    "published-langevin": "energyql.sampling.langevin:LangevinSampler.published",
    "published-predictor-corrector": "energyql.sampling.langevin:PredictorCorrector.published",
}
"""Name of each sampler -> `module:object` of a function from the sampler's settings, as keyword arguments, to the
sampler. Every sampler has the setting `strength`, the factor of the energy. `energyql.sampling.SAMPLERS` has the
functions themselves."""
