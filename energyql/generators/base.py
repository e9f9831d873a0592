"""What energyql asks of a generator. Wrapping any torch module takes about ten lines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Generator(Protocol):
    """Anything that maps Gaussian latents to pictures.

    A module without an intermediate latent returns `truncation * z` from `encode`: w is then z, whose mean is 0.
    """

    z_dim: int

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        """z ~ N(0, I), shape (batch, z_dim) -> w, the latent that attribute heads read, shape (batch, w_dim).

        Truncation psi pulls w toward its mean: `mean + psi (w - mean)`.
        """
        ...

    def synthesize(self, w: Tensor) -> Tensor:
        """What `encode` returned -> pictures in [-1, 1], shape (batch, channels, height, width)."""
        ...


class ConditionalGenerator(Generator, Protocol):
    """A generator that is told a class as well, where `c_dim` is above 0."""

    c_dim: int

    def encode(self, z: Tensor, truncation: float = 1.0, label: Tensor | None = None) -> Tensor:
        """As for `Generator`; label, shape (batch, c_dim), is one-hot, or whatever the generator is conditional on."""
        ...
