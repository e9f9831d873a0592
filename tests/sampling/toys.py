"""Energies whose flow is known, and wrappers that watch or spoil one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.functional import softplus


def start(n: int, z_dim: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Standard normal start latents from a generator of their own."""
    return torch.randn(n, z_dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def flat(z: Tensor) -> Tensor:
    """E = 0: nothing moves."""
    return 0 * z.sum(dim=-1)


@dataclass(frozen=True)
class Quadratic:
    """E = ½ κ |z|²: after a flow time τ, z is exp(-κ τ) z0."""

    curvature: float = 1.0

    def __call__(self, z: Tensor) -> Tensor:
        return 0.5 * self.curvature * z.square().sum(dim=-1)


@dataclass(frozen=True)
class QuadraticByHand(Quadratic):
    """The same, with its own gradient."""

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        return self(z), self.curvature * z


@dataclass(frozen=True)
class Mixed:
    """E = ½ κ |z|² over all coordinates but the last, whose sign picks κ: positive is mild, negative is stiff.

    The last coordinate has no gradient, so a sample keeps its kind.
    """

    mild: float = 0.5
    stiff: float = 20.0

    def __call__(self, z: Tensor) -> Tensor:
        curvature = torch.where(z[:, -1] > 0, self.mild, self.stiff).to(z.dtype)
        return 0.5 * curvature * z[:, :-1].square().sum(dim=-1)


@dataclass(frozen=True)
class Wall:
    """Three steep half-spaces, like saturated classifier heads: E = Σ softplus(-15 a·z)."""

    normals: Tensor = field(default_factory=lambda: start(3, 64, seed=9, dtype=torch.float64) / 8)

    def __call__(self, z: Tensor) -> Tensor:
        # Not a matrix product: its rounding would depend on the batch size.
        return softplus(-15 * (z.unsqueeze(1) * self.normals.to(z)).sum(dim=-1)).sum(dim=-1)


@dataclass(frozen=True)
class OwnTarget:
    """E = |z - target|², where each sample of the run has a target of its own."""

    targets: Tensor = field(default_factory=lambda: start(20, 64, seed=8))

    def __call__(self, z: Tensor, rows: Tensor) -> Tensor:
        return (z - self.targets.to(z)[rows]).square().sum(dim=-1)


@dataclass(frozen=True)
class Poisoned:
    """Spoils an energy with `poison` for samples whose first coordinate has gone below `edge`."""

    inner: Quadratic
    edge: float
    poison: float = float("nan")

    def __call__(self, z: Tensor) -> Tensor:
        return torch.where(z[:, 0] < self.edge, self.poison, 1.0) * self.inner(z)


@dataclass
class Counting:
    """Counts how many rows an energy was asked for, call by call."""

    inner: Quadratic | Mixed | Wall
    rows: list[int] = field(default_factory=list)

    def __call__(self, z: Tensor) -> Tensor:
        self.rows.append(len(z))
        return self.inner(z)
