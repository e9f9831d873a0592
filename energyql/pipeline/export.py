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
        query: text or expression, such as `"smile AND NOT hat"`.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: how the query becomes an energy: "exact", "product", "lace" or "jem".
        truncation: psi in [0, 1], moves w toward its mean; by default the truncation of the model.
        label: class for a generator with classes (a conditional generator), or a number for each class. By default the
            label under which the heads were fitted, if there was one; if they were fitted to random labels, the random
            class of seed 0.
        device: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        allow_weak: attributes whose heads may be used although their quality on held-out labels is low.

    Returns:
        A module from z `(batch, z_dim)` to the energy `(batch,)`, in nats. The module contains the heads of the query's
        attributes. If these read w of a StyleGAN, it contains the mapping network too, but not the rest of the
        generator. If they need the method `encode` or `features` of another generator, it contains a copy of it.

    Raises:
        EnergyQLError: the query, a name or a setting is wrong, or attributes are read off pictures.
    """
    settings = DrawSettings(
        semantics=semantics, truncation=truncation, label=label, verify="off", allow_weak=allow_weak
    )
    return as_module(pipeline_for(model, device).prepare(query, settings))


def as_module(prepared: PreparedQuery) -> EnergyModule:
    """Return the energy of a compiled query as a torch module.

    Its input is z, `(batch, z_dim)`, and its output the energy in nats, `(batch,)`.

    Raises:
        ArgumentError: the model's attributes are read off pictures, not off latents.
    """
    facts, bank = prepared.provenance, heads_of(prepared.model.bank, "an exported energy")
    names = ("query", "canonical", "semantics", "model", "truncation", "label")
    metadata = {name: str(facts[name]) for name in names if facts[name] is not None}
    metadata |= {
        "attributes": ", ".join(prepared.rule.attributes), "space": bank.space,
        "z_dim": str(prepared.model.generator.z_dim), "unit": "nats", "energyql": facts["versions"]["energyql"],
        "fingerprints": json.dumps(facts["fingerprints"]),
    }  # fmt: skip
    return EnergyModule.of(prepared.rule, _encoder(prepared), bank, metadata).to(bank.device)


def _encoder(prepared: PreparedQuery) -> nn.Module:
    """Return a torch module from z to the latents that are the input of the heads, for a compiled query.

    Truncation and label are those in the settings of the query.
    """
    if isinstance(prepared.reads, Identity):
        return nn.Identity()
    if isinstance(prepared.reads, FrozenMapping):
        return prepared.reads.plain()
    generator, facts = prepared.model.generator, prepared.provenance
    owner = copy.deepcopy(generator).requires_grad_(False) if isinstance(generator, nn.Module) else None
    generator = generator if owner is None else owner
    encode = encoder(generator, facts["truncation"], as_condition(facts["label"], generator))
    return Called(head_reader(generator, prepared.model.bank.space, encode), owner)
