"""The energy of a query as a torch module, for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from energyql.energy.export import EnergyModule
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.energy_module import energy_module
from energyql.pipeline.model import Model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics


def export_energy(
    query: str | Expr,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    truncation: float | None = None,
    condition: int | str | Sequence[float] | None = None,
    device: str = "auto",
    allow_weak: Sequence[str] = (),
) -> EnergyModule:
    """Return the energy of a query as a torch module, which other programs can sample, compile and save.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: how the query becomes an energy: "exact", "product", "lace" or "jem".
        truncation: psi in [0, 1], by which w is moved toward its mean; by default the truncation of the model.
        condition: class for a generator with classes (a conditional generator), or a number for each class. By default
            the condition under which the heads were fitted, if there was one; if they were fitted to random classes,
            the random class of seed 0.
        device: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        allow_weak: attributes whose heads may be used although their quality on held-out labels is low.

    Returns:
        A module from z `(batch, z_dim)` to the energy `(batch,)`, in nats. The module contains the heads of the query's
        attributes. If these heads read w of a StyleGAN, the module contains the mapping network too, but not the rest
        of the generator. If they need the method `encode` or `features` of another generator, the module contains a
        copy of that generator.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong, or attributes are read off pictures.
    """
    plan = plan_query(
        open_session(model, device), query, semantics=semantics, truncation=truncation, condition=condition,
        verify="off", allow_weak=allow_weak,
    )  # fmt: skip
    return energy_module(plan.model, plan.rule, plan.reads, plan.provenance)
