"""A prepared query as a torch module, which computes its energy."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

from torch import nn

from energyql.attributes.pictures import heads_of
from energyql.energy.compiled import CompiledEnergy
from energyql.energy.export import Called, EnergyModule, mapping_module
from energyql.energy.query_energy import QueryEnergy
from energyql.generators.base import condition_vector, head_reader
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.numerics.pullback import Identity

if TYPE_CHECKING:
    from energyql.pipeline.draw import PreparedQuery


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
