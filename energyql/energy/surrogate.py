"""A query on linear read-outs of z: an energy of few numbers, which costs next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.energy.rule import EnergyRule
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.shapes import Float
from energyql.vocabulary import Vocabulary

_FLAT = 1e-4
"""Share of the largest singular value below which a direction of z is taken to tell nothing."""


@dataclass(frozen=True)
class Surrogate:
    """The energy of a query by linear read-outs, as a function of v, the part of z that they depend on.

    Equal ones are of the same rule and the same read-outs.

    Attributes:
        rule: the query.
        readouts: linear heads on z; see `fit_readouts`.
    """

    rule: EnergyRule
    readouts: AttributeBank

    @cached_property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal rows that span the directions of z along which the read-outs change."""
        weights = torch.cat([self.readouts.heads[name].skip_weight for name in self.rule.attributes])
        _, sizes, directions = torch.linalg.svd(weights.cpu().double(), full_matrices=False)
        rows: Tensor = directions[sizes >= _FLAT * sizes[:1]].to(weights)
        return rows

    @cached_property
    def _bank(self) -> AttributeBank:
        """The read-outs as functions of v."""
        heads = {}
        for name in self.rule.attributes:
            head = self.readouts.heads[name]
            hidden, skip = head.hidden_weight.new_zeros(0, len(self.basis)), head.skip_weight @ self.basis.t()
            heads[name] = replace(head, hidden_weight=hidden, skip_weight=skip)
        return AttributeBank(Vocabulary([self.readouts.vocabulary[name] for name in heads]), heads, space="z")

    @torch.no_grad()
    def __call__(self, v: Float[Tensor, "batch r"]) -> Float[Tensor, " batch"]:
        """Return the energies of v = `basis` z, in nats."""
        return -self.rule.log_value(self._bank.predict(v, self.rule.attributes))

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return z with its part along the basis replaced by v. A row of the result depends on its own row alone."""
        basis, width = self.basis, v.shape[1]

        def replaced(both: Tensor) -> tuple[Tensor]:
            # Copies, because products of rows that are not aligned round differently on some processors.
            v, z = both[:, :width].contiguous(), both[:, width:].contiguous()
            return (torch.addmm(z, v - z @ basis.t(), basis),)

        both = torch.cat([v, z], 1)
        return in_batches(replaced, both, few_sizes(len(both)))[0]
