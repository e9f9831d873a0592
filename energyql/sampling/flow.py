"""From an energy to the vector field that descends it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.schedule import VPSchedule

Flow = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`flow(t, z)`: times (batch,) and latents (batch, z_dim) -> velocities dz/dt (batch, z_dim) and energies (batch,)."""


class Energy(Protocol):
    """What a sampler asks of an energy: latents (batch, z_dim) -> energies in nats (batch,), lower is better.

    Row i of the answer may depend on row i of `z` only: samples are solved in batches whose members come and go.
    """

    def __call__(self, z: Tensor, /) -> Tensor:
        """Energies (batch,) of the latents `z` (batch, z_dim)."""
        ...


@runtime_checkable
class GradientEnergy(Energy, Protocol):
    """An energy that knows its gradient, for instance because one encoding serves both."""

    def gradient(self, z: Tensor, /) -> tuple[Tensor, Tensor]:
        """Energies (batch,) and their gradients with respect to `z` (batch, z_dim), both detached."""
        ...


def checked_energy(energy: Energy, z: Tensor) -> Tensor:
    """The energies (batch,) in nats of the latents `z`, without their gradient.

    Raises:
        ArgumentError: the energy answers with another shape.
    """
    value = energy(z)
    _check_shape("energy(z)", value, z.shape[:1])
    return value.detach()


def energy_and_gradient(energy: Energy, z: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluates an energy and its gradient, by the energy's own `gradient` where it has one, else by autograd.

    Args:
        energy: see `Energy`. Works under `no_grad` and `inference_mode` too.
        z: latents (batch, z_dim).

    Returns:
        Energies (batch,) in nats and gradients (batch, z_dim) in the dtype of `z`, both detached.

    Raises:
        ArgumentError: the shapes are wrong, or autograd finds no path from the energy back to `z`.
    """
    if isinstance(energy, GradientEnergy):
        value, gradient = energy.gradient(z)
        _check_shape("energy.gradient(z)[0]", value, z.shape[:1])
        _check_shape("energy.gradient(z)[1]", gradient, z.shape)
    else:
        # A tensor made in inference mode can never require a gradient, so the copy is made outside it.
        with torch.inference_mode(False), torch.enable_grad():
            leaf = z.detach().clone().requires_grad_(True)
            value = energy(leaf)
            _check_shape("energy(z)", value, z.shape[:1])
            gradient = _autograd(value, leaf)
    return value.detach(), gradient.detach().to(z.dtype)


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
        A function of times (batch,) and latents (batch, z_dim), to velocities and to energies, λ E. Where an energy is
        not finite, neither is the velocity: a point without an energy has no direction.
    """

    def flow(t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = energy_and_gradient(energy, z)
        rate = (0.5 * strength) * schedule.beta(t)
        rate = torch.where(torch.isfinite(value), rate, torch.nan)
        return rate.unsqueeze(-1) * gradient, strength * value

    return flow


def _autograd(value: Tensor, leaf: Tensor) -> Tensor:
    gradient = None
    if value.requires_grad:
        (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    if gradient is None:
        raise ArgumentError(
            "energy(z) does not depend on z as far as autograd can see",
            hint="remove a no_grad, detach or item between z and the energy, or give the energy a method gradient(z) "
            "-> (energy, gradient); an energy that is meant to be flat can be written 0 * z.sum(-1)",
        )
    return gradient


def _check_shape(what: str, tensor: Tensor, expected: torch.Size) -> None:
    if tensor.shape != expected:
        raise ArgumentError(
            f"{what} must have shape {tuple(expected)}, one row for each latent; got {tuple(tensor.shape)}"
        )
