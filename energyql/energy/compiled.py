"""The energy of a query compiled by `torch.compile`, for samplers."""

from __future__ import annotations

from collections.abc import Hashable, MutableMapping
from typing import Any

import torch
from torch import Tensor

from energyql.energy.export import EnergyModule
from energyql.energy.query_energy import QueryEnergy
from energyql.numerics.compiled import compiled
from energyql.numerics.shapes import Float


class CompiledEnergy:
    """An `Energy` for samplers, the same as a `QueryEnergy` up to rounding, compiled by `torch.compile`."""

    def __init__(self, energy: QueryEnergy, module: EnergyModule) -> None:
        self.least, self.surrogate = energy.least, energy.surrogate
        self.sampler_cache: MutableMapping[Hashable, Any] | None = None if energy.sampler_cache is None else {}
        self._compiled = compiled(module.requires_grad_(False), "the energy")

    @torch.inference_mode(False)
    @torch.enable_grad()  # also here, because torch would compile another program without gradients
    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Tensor | None = None) -> Float[Tensor, " batch"]:
        """Return the energy of each latent z, (batch,), in nats, detached; `rows` is ignored."""
        return self._compiled(z.detach().clone().requires_grad_()).detach()

    @torch.inference_mode(False)
    @torch.enable_grad()
    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energy of each latent, in nats, and its gradient, both detached; `rows` is ignored."""
        z = z.detach().clone().requires_grad_()
        energy = self._compiled(z)
        return energy.detach(), torch.autograd.grad(energy.sum(), z)[0]
