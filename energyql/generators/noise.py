"""The drawing of pictures, with the noise that a generator adds besides w: fine detail that no latent decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.generators.base import Generator, check_pictures, device_of, synthesizer
from energyql.numerics.random import normals
from energyql.numerics.shapes import Float

STORED, RANDOM, NONE = "const", "random", "none"
"""The noise that is stored with the weights; other noise for each picture; no noise."""


PIXEL_BATCH = 1 << 20
"""Pixels drawn together, unless a call says otherwise: 64 pictures of 128 x 128, one of 1024 x 1024."""


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


def drawing(generator: Any, dtype: torch.dtype, noise: str, seed: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function from w, and the numbers of the pictures in their run, (batch,), to pictures.

    The arguments are those of `synthesizer` and `noise_options`.
    """
    synthesize = synthesizer(generator, dtype)
    return lambda w, rows: synthesize(w, **noise_options(generator, noise, seed, rows.tolist()))


def draw_batches(
    synthesize: Callable[..., Tensor],
    encode: Callable[[Tensor], Tensor],
    z: Tensor,
    batch_size: int | None = None,
    w: Tensor | None = None,
    options: Callable[[slice], dict[str, Any]] = lambda rows: {},
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield w and the images of z (n, z_dim), batch by batch, in order; w is `encode(z)` unless it is given.

    A batch has `batch_size` pictures, by default as many as `PIXEL_BATCH` allows. `options` returns further arguments
    of `synthesize` for the rows of a batch.
    """
    size = batch_size or 1  # the first picture shows how many fit
    start = 0
    while start < len(z):
        with torch.inference_mode():  # inside the loop: it must not reach the code that takes the batches
            rows = slice(start, min(start + size, len(z)))
            drawn = encode(z[rows]) if w is None else w[rows]
            images = check_pictures(synthesize(drawn, **options(rows)))
        yield drawn, images
        start += size
        size = batch_size or max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))
