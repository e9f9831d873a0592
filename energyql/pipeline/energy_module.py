"""The energy of a compiled query as a torch module, to be exported or compiled."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from torch import nn

from energyql.attributes.pictures import heads_of
from energyql.energy.export import Called, EnergyModule, mapping_module
from energyql.energy.query_energy import Encode
from energyql.energy.rule import EnergyRule
from energyql.generators.base import condition_vector, head_reader
from energyql.generators.mapping import FrozenMapping, encoder
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import Model
from energyql.pipeline.provenance import Provenance


def energy_module(model: Model, rule: EnergyRule, reads: Encode, facts: Provenance) -> EnergyModule:
    """Return the energy of a compiled query as a torch module from z, `(batch, z_dim)`, to nats, `(batch,)`.

    Raises:
        ArgumentError: the model's attributes are read off pictures, not off latents.
    """
    bank = heads_of(model.bank, "an exported energy")
    names = ("query", "canonical", "semantics", "model", "truncation", "condition")
    values: Mapping[str, Any] = facts
    metadata = {name: str(values[name]) for name in names if values[name] is not None}
    metadata |= {
        "attributes": ", ".join(rule.attributes), "space": bank.space,
        "z_dim": str(model.generator.z_dim), "unit": "nats", "energyql": facts["versions"]["energyql"],
        "fingerprints": json.dumps(facts["fingerprints"]),
    }  # fmt: skip
    return EnergyModule.of(rule, _encoder(model, reads, facts), bank, metadata).to(bank.device)


def _encoder(model: Model, reads: Encode, facts: Provenance) -> nn.Module:
    """A torch module from z to the input of the heads."""
    if isinstance(reads, Identity):
        return nn.Identity()
    if isinstance(reads, FrozenMapping):
        return mapping_module(reads)
    generator = model.generator
    owner = copy.deepcopy(generator).requires_grad_(False) if isinstance(generator, nn.Module) else None
    generator = generator if owner is None else owner
    encode = encoder(generator, facts["truncation"], condition_vector(facts["condition"], generator))
    return Called(head_reader(generator, model.bank.space, encode), owner)
