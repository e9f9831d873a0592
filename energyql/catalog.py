"""Names of the samplers and of the semantics (ways to compute an energy from a query).

Nothing here imports torch, so that help is printed at once. `energyql.energy.rule.COMPILERS` and
`energyql.sampling.registry` have the code of each name.
"""

from __future__ import annotations

from typing import NamedTuple


class NamedSemantics(NamedTuple):
    """A semantics: a way to compute the energy of a latent from a query.

    Attributes:
        has_floor: whether energies have a lower bound, which some samplers need, among them the default one.
    """

    has_floor: bool = True


SEMANTICS = {
    "exact": NamedSemantics(),
    "product": NamedSemantics(),
    "lace": NamedSemantics(),
    "jem": NamedSemantics(has_floor=False),
}
"""Every semantics by name."""

SAMPLER_NAMES = (
    "slice+descent",
    "slice+ode",
    "slice",
    "population",
    "ode",
    "descent",
    "langevin",
    "predictor-corrector",
    "published-ode",
    "published-langevin",
    "published-predictor-corrector",
)
"""The name of every sampler."""
