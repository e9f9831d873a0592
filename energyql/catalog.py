"""The names of the samplers and of the semantics (ways to compute an energy from a query), and where their code is.

A text `module:object` says where the code is. The module is imported when the name is used. This module does not import
torch, so that the command line can list the names quickly.
"""

from __future__ import annotations

from typing import NamedTuple


class NamedSemantics(NamedTuple):
    """A semantics: a way to compute the energy of a latent from a query.

    Attributes:
        code: `module:object` of a function that compiles a query. The function takes a query whose attributes are
            checked, the vocabulary, and `CompileOptions`. It returns an `EnergyRule`, which computes energies.
        has_floor: whether energies have a lower bound. If not, samplers that need the bound raise an error, among them
            the default sampler.
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
"""Name of each sampler -> `module:object` of a function that takes the settings of the sampler as keyword arguments and
returns the sampler. One setting is `strength`, the factor by which the sampler multiplies the energy.
`energyql.sampling.SAMPLERS` has the functions themselves."""
