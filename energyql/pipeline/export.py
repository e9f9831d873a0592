"""The energy of a query as a torch module, for other programs."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from energyql.attributes.pictures import heads_of
from energyql.energy.compiled import CompiledEnergy
from energyql.energy.export import Called, EnergyModule, mapping_module
from energyql.energy.query_energy import QueryEnergy
from energyql.generators.base import condition_vector, head_reader
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.numerics.pullback import Identity
from energyql.pipeline.draw import PreparedQuery, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.settings import DEFAULT_SEMANTICS, Semantics
from energyql.renamed import takes_label


@takes_label
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
    prepared = pipeline_for(model, device).prepare(
        query, semantics=semantics, truncation=truncation, condition=condition, verify="off", allow_weak=allow_weak
    )
    return as_module(prepared)


def as_module(prepared: PreparedQuery) -> EnergyModule:
    """Return the energy of a compiled query as a torch module.

    The input of the module is z, `(batch, z_dim)`, and its output is the energy in nats, `(batch,)`.

    Raises:
        ArgumentError: the model's attributes are read off pictures, not off latents.
    """
    facts, bank = prepared.provenance, heads_of(prepared.model.bank, "an exported energy")
    names = ("query", "canonical", "semantics", "model", "truncation", "condition")
    metadata = {name: str(facts[name]) for name in names if facts[name] is not None}
    metadata |= {
        "attributes": ", ".join(prepared.rule.attributes), "space": bank.space,
        "z_dim": str(prepared.model.generator.z_dim), "unit": "nats", "energyql": facts["versions"]["energyql"],
        "fingerprints": json.dumps(facts["fingerprints"]),
    }  # fmt: skip
    return EnergyModule.of(prepared.rule, _encoder(prepared), bank, metadata).to(bank.device)


def compiled_energy(prepared: PreparedQuery, energy: QueryEnergy) -> CompiledEnergy:
    """Return the energy of a prepared query, compiled by `torch.compile`; `energy` is the energy to compile."""
    return CompiledEnergy(energy, as_module(prepared))


def _encoder(prepared: PreparedQuery) -> nn.Module:
    """Return a torch module from z to the latents that are the input of the heads, for a compiled query.

    Truncation and condition are those in the settings of the query.
    """
    if isinstance(prepared.reads, Identity):
        return nn.Identity()
    if isinstance(prepared.reads, FrozenMapping):
        return mapping_module(prepared.reads)
    generator, facts = prepared.model.generator, prepared.provenance
    owner = copy.deepcopy(generator).requires_grad_(False) if isinstance(generator, nn.Module) else None
    generator = generator if owner is None else owner
    encode = encoder(generator, facts["truncation"], condition_vector(facts["condition"], generator))
    return Called(head_reader(generator, prepared.model.bank.space, encode), owner)
