"""What energyql asks of a generator. Wrapping any torch module takes about ten lines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Generator(Protocol):
    """Anything that maps Gaussian latents to pictures.

    A module without an intermediate latent returns z from `encode` and ignores `truncation`.
    """

    z_dim: int

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """z ~ N(0, I), shape (batch, z_dim) -> the latent that attribute heads read, shape (batch, w_dim)."""
        ...

    def synthesize(self, w: Tensor) -> Tensor:
        """What `encode` returned -> pictures in [-1, 1], shape (batch, channels, height, width)."""
        ...
