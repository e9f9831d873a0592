"""A query on small networks that read a few directions of z: an energy of few numbers, which costs next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
import torch.nn.functional as F
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
    """The energy of a query by other heads, as a function of v, the part of z that they depend on.

    Equal ones are of the same rule and the same heads.

    Attributes:
        rule: the query.
        bank: heads on z, linear or of one hidden layer, that change along few directions; see `SurrogateHeads`.
    """

    rule: EnergyRule
    bank: AttributeBank

    @cached_property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal rows that span the directions of z along which the heads change."""
        heads = [self.bank.heads[name] for name in self.rule.attributes]
        weights = torch.cat([weight for head in heads for weight in (head.skip_weight, head.hidden_weight)])
        rows = F.normalize(weights.cpu().double())  # of numbers in any unit
        _, sizes, directions = torch.linalg.svd(rows, full_matrices=False)
        basis: Tensor = directions[sizes >= _FLAT * sizes[:1]].to(weights)
        return basis

    @cached_property
    def _of_v(self) -> AttributeBank:
        """The heads as functions of v."""
        heads = {}
        for name in self.rule.attributes:
            head = self.bank.heads[name]
            hidden, skip = (weight @ self.basis.t() for weight in (head.hidden_weight, head.skip_weight))
            heads[name] = replace(head, hidden_weight=hidden, skip_weight=skip)
        return AttributeBank(Vocabulary([self.bank.vocabulary[name] for name in heads]), heads, space="z")

    @torch.no_grad()
    def __call__(self, v: Float[Tensor, "batch r"]) -> Float[Tensor, " batch"]:
        """Return the energies of v = `basis` z, in nats."""
        return -self.rule.log_value(self._of_v.predict(v, self.rule.attributes))

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return z with its part along the basis replaced by v. A row of the result depends on its own row alone."""
        basis, width = self.basis, v.shape[1]

        def replaced(both: Tensor) -> tuple[Tensor]:
            # Copies, because products of rows that are not aligned round differently on some processors.
            v, z = both[:, :width].contiguous(), both[:, width:].contiguous()
            return (torch.addmm(z, v - z @ basis.t(), basis),)

        both = torch.cat([v, z], 1)
        return in_batches(replaced, both, few_sizes(len(both)))[0]
