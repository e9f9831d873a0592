"""Noise that a generator adds besides w, as a StyleGAN2 does: fine detail that no latent decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.generators.base import Generator, device_of
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float

STORED, RANDOM, NONE = "const", "random", "none"
"""The noise that is stored with the weights; other noise for each picture; no noise."""


class NoisyGenerator(Generator, Protocol):
    """A generator whose pictures depend on noise as well; `noise_size` is above 0."""

    noise_size: int

    def synthesize(
        self, w: Tensor, noise: Literal["const", "none"] | Float[Tensor, "batch noise_size"] = "const"
    ) -> Tensor:
        """As for `Generator`; noise is that of the weights, none, or given, standard normal."""
        ...


def noise_size(generator: Generator) -> int:
    """Return how many numbers of noise a picture has; 0 for a generator without noise."""
    size = getattr(generator, "noise_size", 0)
    return size if isinstance(size, int) else 0


def check_noise(noise: str, generator: Generator) -> None:
    """Check that a generator can be drawn with a kind of noise.

    Raises:
        ArgumentError: it has no noise, so that only "const" makes sense.
    """
    if noise != STORED and not noise_size(generator):
        raise ArgumentError(
            f"this {type(generator).__name__} adds no noise, so it cannot be drawn with noise {noise!r}",
            hint="leave out the noise; a StyleGAN2 or a FastGAN has some, as a rule",
        )


def noise_options(generator: Any, noise: str, seed: int, index: Sequence[int]) -> dict[str, Any]:
    """Return the arguments of `generator.synthesize` that draw pictures with a kind of noise.

    Args:
        generator: that `check_noise` accepts.
        noise: "const", "random" or "none".
        seed: of the run.
        index: numbers of the pictures in their run. Random noise of a picture depends on seed and number alone.
    """
    if noise != RANDOM:
        return {} if noise == STORED else {"noise": noise}
    rows = [normals(seed, number, 1, generator.noise_size, stream="noise") for number in index]
    return {"noise": torch.cat(rows).to(device_of(generator))}
