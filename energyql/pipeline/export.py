"""The energy of a query as a torch module, for other programs."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from energyql.attributes.pictures import heads_of
from energyql.energy.export import Called, EnergyModule
from energyql.generators.base import as_condition, head_reader
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.numerics.pullback import Identity
from energyql.pipeline.draw import PreparedQuery, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_SEMANTICS, DrawSettings, Semantics


def export_energy(
    query: str | Expr,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    truncation: float | None = None,
    label: int | Sequence[float] | None = None,
    device: str = "auto",
    allow_weak: Sequence[str] = (),
) -> EnergyModule:
    """Return the energy of a query as a torch module, which other programs can sample, compile and save.

    Args:
        query: text or expression, as for `energyql.generate`.
        model: as for `energyql.generate`.
        semantics: as for `energyql.generate`.
        truncation: as for `energyql.generate`.
        label: as for `energyql.generate`.
        device: as for `energyql.generate`.
        allow_weak: as for `energyql.generate`.

    Returns:
        A module from z `(batch, z_dim)` to the energy `(batch,)`, in nats. It contains the heads of the query's
        attributes and, if they read w, the mapping network, but not the rest of a StyleGAN. If the heads need `encode`
        or `features` of any other generator, it contains a copy of this generator.

    Raises:
        EnergyQLError: as for `energyql.generate`.
    """
    settings = DrawSettings(semantics=semantics, truncation=truncation, label=label, allow_weak=allow_weak)
    return as_module(pipeline_for(model, device).prepare(query, settings))


def as_module(prepared: PreparedQuery) -> EnergyModule:
    """Return the energy of a prepared query as a torch module."""
    facts, bank = prepared.provenance, heads_of(prepared.model.bank, "an exported energy")
    names = ("query", "canonical", "semantics", "model", "truncation", "label")
    metadata = {name: str(facts[name]) for name in names if facts[name] is not None}
    metadata |= {
        "attributes": ", ".join(prepared.rule.attributes),
        "space": bank.space,
        "z_dim": str(prepared.model.generator.z_dim),
        "unit": "nats",
        "energyql": facts["versions"]["energyql"],
        "fingerprints": json.dumps(facts["fingerprints"]),
    }
    return EnergyModule.of(prepared.rule, _encoder(prepared), bank, metadata)


def _encoder(prepared: PreparedQuery) -> nn.Module:
    """Return a torch module that maps z to the latents that the heads read."""
    if isinstance(prepared.reads, Identity):
        return nn.Identity()
    if isinstance(prepared.reads, FrozenMapping):
        return prepared.reads.plain()
    generator, facts = prepared.model.generator, prepared.provenance
    owner = copy.deepcopy(generator).requires_grad_(False) if isinstance(generator, nn.Module) else None
    generator = generator if owner is None else owner
    encode = encoder(generator, facts["truncation"], as_condition(facts["label"], generator))
    return Called(head_reader(generator, prepared.model.bank.space, encode), owner)
