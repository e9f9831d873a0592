"""Energies that are computed from the pictures that a generator draws from latents, not from the latents alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.energy.circuit import EnergyRule
from energyql.energy.query_energy import Encode, Predict, QueryEnergy, check_predictions, least_energy
from energyql.errors import ArgumentError, either
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import by_autograd, pullback_of
from energyql.numerics.shapes import Float

Draw = Callable[[Tensor, Tensor], Tensor]
"""Function from latents w (batch, ...), and the indices of the samples in their run (batch,), which decide random
noise, to pictures (batch, channels, height, width) in [-1, 1]."""
NO_GRADIENT = "this energy has no gradient, because code without one draws the pictures, or reads them"
WITHOUT_GRADIENT = (
    "draw with the default sampler, or "
    + either('sampler="slice"', "--sampler slice")
    + ", which need none; or let torch modules do both"
)
REALISM_PILOT = 32
"""Number of pictures from which the largest logit of a discriminator is estimated."""
PIXELS_AT_ONCE, WITH_GRADIENT_AT_ONCE = 1 << 20, 1 << 18
"""Most pixels that are drawn together: 16 pictures of 256 x 256 pixels, and with gradients, on a GPU, 4."""


class PictureEnergy:
    """An energy of z that is computed from the picture of z, in nats, lower is better.

    An evaluation calls the generator, and takes about twice as long with the gradient. Pictures are drawn in batches
    that fit into memory. On a CPU, `of_pictures` and gradients are computed for one picture at a time, because networks
    round differently in batches of other sizes, and the bits of a sample must not depend on its batch.

    Args:
        encode: function from z `(batch, z_dim)` to w `(batch, ...)`.
        draw: function from w, and the indices of the samples in their run, to pictures.
        of_pictures: function from pictures to their energies, (batch,), in nats.
        of_latents: an energy of z that is added; `None` to add nothing.
        gradient: whether autograd can differentiate `draw` and `of_pictures`.
        least: the least energy that a latent can reach, in nats; -infinity if there is no lower bound.
    """

    costly, surrogate = True, None

    def __init__(
        self,
        encode: Encode,
        draw: Draw,
        of_pictures: Callable[[Tensor], Tensor],
        of_latents: QueryEnergy | None = None,
        *,
        gradient: bool = True,
        least: float = 0.0,
    ) -> None:
        self.encode, self.draw, self.of_pictures, self.of_latents = encode, draw, of_pictures, of_latents
        self.has_gradient, self.least = gradient, least
        self.sampler_cache: MutableMapping[Hashable, Any] = {}
        self._pullback = pullback_of(encode)
        self._pixels: int | None = None

    @torch.no_grad()
    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Draw the picture of each latent, and return the energies, `(batch,)`, in nats, detached.

        Args:
            rows: for each latent the index of its sample in the run, (batch,), for the noise in its picture; 0 by
                default.
        """
        w, rows = self._encoded(z, rows)
        parts = [self._read(self.draw(w[part], rows[part])) for part in self._parts(w, rows, PIXELS_AT_ONCE)]
        energies = torch.cat(parts) if parts else z.new_zeros(0)
        return energies if self.of_latents is None else energies + self.of_latents(z)

    @torch.no_grad()
    def gradient(self, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energy, `(batch,)`, in nats, and its gradient with respect to z, `(batch, z_dim)`, both detached.

        Raises:
            ArgumentError: this energy was made with `gradient=False`, or autograd finds no path from the energy to z.
        """
        if not self.has_gradient:
            raise ArgumentError(NO_GRADIENT, hint=WITHOUT_GRADIENT)
        w, rows = self._encoded(z, rows)
        parts, slopes = [], []
        for part in self._parts(w, rows, WITH_GRADIENT_AT_ONCE if w.device.type != "cpu" else 1):
            pictures, back = by_autograd(partial(self._draw, rows[part]), w[part])
            energies, back_to_pictures = by_autograd(self._read, pictures)
            parts.append(energies)
            slopes.append(back(back_to_pictures(torch.ones_like(energies))).flatten(1))
        if not parts:
            return z.new_zeros(0), torch.zeros_like(z)
        width = z.shape[1]

        def back_to_z(both: Tensor) -> tuple[Tensor]:
            w, back = self._pullback(both[:, :width].contiguous())
            return (back(both[:, width:].reshape(w.shape)),)

        energies = torch.cat(parts)
        (gradient,) = in_batches(back_to_z, torch.cat([z, torch.cat(slopes)], 1), few_sizes(len(z)))
        if self.of_latents is not None:
            further, slope = self.of_latents.gradient(z)
            energies, gradient = energies + further, gradient + slope
        return energies, gradient

    def _encoded(self, z: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        rows = torch.zeros(len(z), dtype=torch.int64, device=z.device) if rows is None else rows
        return (in_batches(lambda part: (self.encode(part),), z, few_sizes(len(z)))[0] if len(z) else z), rows

    def _parts(self, w: Tensor, rows: Tensor, pixels: int) -> list[slice]:
        """Slices of the batch whose pictures have at most `pixels` pixels in all, or are one picture."""
        if self._pixels is None and len(w):
            self._pixels = math.prod(self.draw(w[:1], rows[:1]).shape[-2:])  # one picture shows how many fit
        size = max(1, pixels // (self._pixels or 1))
        return [slice(start, start + size) for start in range(0, len(w), size)]

    def _draw(self, rows: Tensor, w: Tensor) -> Tensor:
        return self.draw(w, rows)

    def _read(self, pictures: Tensor) -> Tensor:
        if pictures.device.type != "cpu":
            return self.of_pictures(pictures)
        return torch.cat([self.of_pictures(picture) for picture in pictures.split(1)])


def energy_of_pictures(rule: EnergyRule, predict: Predict, pictures: Tensor) -> Float[Tensor, " batch"]:
    """Return the energy of a query for each picture, (batch,), in nats, from predictions that are checked."""
    if not rule.attributes:  # always true
        return pictures.new_zeros(len(pictures))
    predictions = predict(pictures, rule.attributes)
    check_predictions(predictions, rule.attributes, pictures)
    for name in rule.attributes:
        check_followed(predictions[name].tensors(len(pictures))[0][1], pictures, f"the reader of {name!r}")
    return 0.0 - rule.log_value(predictions)


def check_followed(values: Tensor, pictures: Tensor, what: str) -> None:
    """Raise an `ArgumentError` if autograd follows `pictures`, but not `values`, computed from them by `what`.

    Otherwise the values would count as constant, and the gradient would be wrong.
    """
    if torch.is_grad_enabled() and pictures.requires_grad and not values.requires_grad:
        raise ArgumentError(
            f"autograd finds no way through {what}",
            hint=f"remove detach, no_grad and inference_mode from it, and thresholds; or {WITHOUT_GRADIENT}",
        )


def reader_energy(rule: EnergyRule, bank: Bank, encode: Encode, draw: Draw) -> PictureEnergy:
    """Energy of a query whose attributes the bank predicts from pictures."""
    read = partial(energy_of_pictures, rule, bank.predict)
    return PictureEnergy(encode, draw, read, gradient=bank.gradient, least=least_energy(rule, bank.std))


@torch.no_grad()
def with_realism(
    energy: QueryEnergy | PictureEnergy, discriminator: Callable[[Tensor], Tensor], weight: float, encode: Encode,
    draw: Draw, pilot: Float[Tensor, "n z_dim"],
) -> PictureEnergy:  # fmt: skip
    """Add to an energy a term that is smaller for pictures that look real: weight * (m - logit), in nats.

    The logit is log(D / (1 - D)), where D is the probability by a discriminator that the picture is real. With the
    Gaussian prior and weight 1 this is the energy of Che et al. 2020 (arXiv 2003.06060). The constant m is the largest
    logit of the pictures of `pilot`, so that the term is at least 0 for nearly all pictures, which rejection sampling
    needs. Samplers treat pictures with a larger logit as if their logit were m.

    Args:
        discriminator: function from pictures to their logits, (batch,) or (batch, 1).
        pilot: latents from the prior; they must be the same in every run, so that m is the same.

    Raises:
        ArgumentError: the discriminator returns another shape, or the largest logit is not finite.
    """

    def logits(pictures: Tensor) -> Tensor:
        values = discriminator(pictures)
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if shape not in ((len(pictures),), (len(pictures), 1)):
            expected = "it must return a tensor with one logit per picture, log(D / (1 - D))"
            raise ArgumentError(f"the discriminator returned {shape} for {len(pictures)} pictures", hint=expected)
        check_followed(values, pictures, "the discriminator")
        return values.reshape(-1).to(pictures)

    most = -PictureEnergy(encode, draw, lambda pictures: -logits(pictures))(pilot).min()
    if not most.isfinite():
        raise ArgumentError(f"the discriminator returned {most.item()} for pictures of the prior")
    of_latents, own = (energy, None) if isinstance(energy, QueryEnergy) else (energy.of_latents, energy.of_pictures)

    def of_pictures(pictures: Tensor) -> Tensor:
        realism = weight * (most - logits(pictures))
        return realism if own is None else own(pictures) + realism

    gradient = isinstance(energy, QueryEnergy) or energy.has_gradient
    return PictureEnergy(encode, draw, of_pictures, of_latents, gradient=gradient, least=min(0.0, energy.least))
