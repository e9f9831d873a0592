"""The energy of a query as a torch module, for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from energyql.energy.export import EnergyModule
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.energy_module import energy_module
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import EnergyOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack


def export_energy(
    query: str | Expr,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    device: str = "auto",
    **options: Unpack[EnergyOptions],
) -> EnergyModule:
    """Return the energy of a query as a torch module, which other programs can sample, compile and save.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        device: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        options: `semantics`, `truncation`, `condition` and `allow_weak`, as for `energyql.generate`. If the heads were
            fitted to random classes, the default condition is the random class of seed 0.

    Returns:
        A module from z `(batch, z_dim)` to the energy `(batch,)`, in nats. The module contains the heads of the query's
        attributes. If these heads read w of a StyleGAN, the module contains the mapping network too, but not the rest
        of the generator. If they need the method `encode` or `features` of another generator, the module contains a
        copy of that generator.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong, or attributes are read off pictures.
    """
    plan = plan_query(open_session(model, device), query, verify="off", **options)
    return energy_module(plan.model, plan.rule, plan.reads, plan.provenance)
