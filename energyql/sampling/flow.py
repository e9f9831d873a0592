"""From an energy to the vector field that descends it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.sampling.energy import Energy
from energyql.sampling.schedule import VPSchedule

Flow = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`flow(t, z, rows)`: times (batch,), latents (batch, z_dim) and the samples that they belong to (batch,) -> velocities
dz/dt (batch, z_dim) and energies (batch,)."""


def vp_flow(energy: Energy, schedule: VPSchedule, strength: float = 1.0) -> Flow:
    """The flow of Nie et al. 2021 (arXiv 2110.10873): `dz/dt = ½ β(t) λ ∇E(z)`.

    N(0, I) is stationary under the VP-SDE, so the prior's score cancels its drift and only the energy is left (the
    energy of the clean latent, at every t). Followed from t = 1 back to t = 1e-3, the flow *descends* E.

    It is an autonomous flow under a change of clock: with `τ = ½ ∫ β` it reads `dz/dτ = -λ ∇E(z)`, gradient descent
    for a total time of `schedule.flow_time(1, 1e-3)` = 5.025. So a sample whose gradient is exactly zero never moves,
    and nothing pulls samples back to the prior.

    Args:
        energy: see `Energy`.
        schedule: gives β(t).
        strength: λ, multiplies the energy.

    Returns:
        A `Flow` with the energies λ E. Where an energy is not finite, neither is the velocity.
    """

    def flow(t: Tensor, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(z, rows)
        rate = (0.5 * strength) * schedule.beta(t)
        rate = torch.where(torch.isfinite(value), rate, torch.nan)
        return rate.unsqueeze(-1) * gradient, strength * value

    return flow
