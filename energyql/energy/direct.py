"""The energy of a query and its gradient, from the heads' latents on, without autograd."""

from __future__ import annotations

import torch
from torch import Tensor

from energyql.attributes.heads import FusedHeads, RawOutputs
from energyql.energy.level_fold import LevelFold
from energyql.energy.parts import Parts
from energyql.logic.circuit import Circuit
from energyql.logic.levels import multiply_out


class DirectEnergy:
    """The function from latents to energies, of heads and a circuit.

    What a query does first to the outputs of its heads is linear, and their last layer does it in passing.

    Attributes:
        heads: from latents (batch, latent_dim) to what `parts` reads, transposed.
        parts: from there to the energies of the circuit's leaves, on a row of all samples at a time.
        fold: from there to the energy of the circuit.
    """

    def __init__(self, heads: FusedHeads, parts: Parts, fold: LevelFold) -> None:
        self.heads, self.parts, self.fold = heads, parts, fold

    @classmethod
    def of(cls, circuit: Circuit, raw: RawOutputs) -> DirectEnergy | None:
        """Prepare the energy; `None` where the circuit cannot be multiplied out, or is too large for it to pay."""
        heads = raw.function
        std = {name: number.item() for name, number in raw.std.items()}
        parts = Parts(circuit.leaves, raw.specs, std, heads.bias)
        levels = multiply_out(circuit, parts.of_leaf, parts.count)
        if levels is None or not LevelFold.fits(levels, parts.count):
            return None
        return cls(heads.then(parts.matrix, parts.offset), parts, LevelFold(levels, parts.count, heads.bias))

    def computed_in(self, dtype: torch.dtype) -> DirectEnergy:
        """See `Convertible`."""
        return DirectEnergy(self.heads.computed_in(dtype), self.parts, self.fold)

    def __call__(self, latent: Tensor) -> Tensor:
        """The energies, (batch,), in nats; autograd can differentiate them."""
        return self.fold(self.parts(self.heads(latent).t().contiguous()))

    def with_gradient(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """The energies and their gradients with respect to the latents, without a graph."""
        rows, back_to_latent = self.heads.pullback(latent)
        energies, back_to_rows = self.parts.pullback(rows.t().contiguous())
        energy, slopes = self.fold.with_slopes(energies)
        return energy, back_to_latent(back_to_rows(slopes).t())
