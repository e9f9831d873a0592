"""Energies of attributes that are read off the picture of a latent, and so depend on the generator."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, MutableMapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import Bank
from energyql.energy.circuit import CircuitRule
from energyql.energy.query_energy import Encode, Predict, QueryEnergy, check_predictions, least_energy
from energyql.energy.rule import EnergyRule
from energyql.errors import ArgumentError
from energyql.kinds import KINDS
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import by_autograd, pullback_of
from energyql.numerics.shapes import Float

Draw = Callable[[Tensor, Tensor], Tensor]
"""Function from w, and the indices of the samples in their run, (batch,), to pictures in [-1, 1]."""
NO_GRADIENT = "this energy has no gradient, because it is a function without one that reads the pictures"
WITHOUT_GRADIENT = 'draw with sampler="slice", or --sampler slice, which needs none; or let a torch module read them'
REALISM_PILOT = 32
"""Number of pictures from which a discriminator's largest logit is estimated."""
PIXELS_AT_ONCE, WITH_GRADIENT_AT_ONCE = 1 << 20, 1 << 18
"""Pixels that are drawn together, without and (on a GPU) with gradients: 16 and 4 pictures of 256 x 256."""


class PictureEnergy:
    """`E(z)` in nats of attributes that are read off the picture of z, lower is better. An `Energy`.

    An evaluation draws the picture: it is one call of the generator, and about as much again with the gradient, which
    autograd takes back through the network that reads the picture and through the generator. Pictures are drawn in
    batches that fit into memory. On a CPU they are read, and followed back, one by one, which takes no longer: networks
    round differently in batches of another size, and a sample must not depend on its batch.

    Args:
        encode: function from z `(batch, z_dim)` to w `(batch, ...)`.
        draw: function from w, and the indices of the samples in their run, to pictures.
        of_pictures: function from pictures to their energies, (batch,).
        of_latents: an energy of z that is added; `None` for none.
        gradient: whether autograd can differentiate `draw` and `of_pictures`.
        least: see `Energy`.
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
        self.kept: MutableMapping[Hashable, Any] = {}
        self._pullback = pullback_of(encode)
        self._pixels: int | None = None

    @torch.no_grad()
    def __call__(self, z: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the energy of each sample, `(batch,)`, in nats, without a graph.

        Args:
            z: `(batch, z_dim)`, floating point.
            rows: indices of the samples in their run, (batch,), for `draw`; all 0 by default.
        """
        w, rows = self._encoded(z, rows)
        parts = [self._read(self.draw(w[part], rows[part])) for part in self._parts(w, rows, PIXELS_AT_ONCE)]
        energies = torch.cat(parts) if parts else z.new_zeros(0)
        return energies if self.of_latents is None else energies + self.of_latents(z)

    @torch.no_grad()
    def gradient(self, z: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the energy and its gradient with respect to z, both detached; arguments as for a call.

        Raises:
            ArgumentError: the argument `gradient` was false, or autograd finds no path from the energy back to z.
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
        """Return the rows of w that are drawn together."""
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
    """Return the energy of a query on pictures, (batch,), in nats, by the predictions of a reader.

    Raises:
        ArgumentError: a prediction has a wrong shape, dtype or device.
    """
    if not rule.attributes:  # always true
        return pictures.new_zeros(len(pictures))
    predictions = predict(pictures, rule.attributes)
    check_predictions(predictions, rule.attributes, pictures)
    for name in rule.attributes:
        check_followed(predictions[name].tensors(len(pictures))[0][1], pictures, f"the reader of {name!r}")
    return 0.0 - rule.log_value(predictions)


def check_followed(values: Tensor, pictures: Tensor, what: str) -> None:
    """Check that autograd, if it is on, finds a path from the output of `what` to the pictures.

    Raises:
        ArgumentError: there is no path; without this check the gradient would be wrong.
    """
    if torch.is_grad_enabled() and pictures.requires_grad and not values.requires_grad:
        raise ArgumentError(
            f"autograd finds no way through {what}",
            hint=f"remove detach, no_grad and inference_mode from it, and thresholds; or {WITHOUT_GRADIENT}",
        )


def reader_energy(rule: EnergyRule, bank: Bank, encode: Encode, draw: Draw) -> PictureEnergy:
    """Return the energy of a query whose attributes are read off pictures; arguments as for `PictureEnergy`."""
    numbers = [name for name in rule.attributes if KINDS[bank.vocabulary[name].kind].numeric]
    least = 0.0
    if not rule.has_floor:
        least = -math.inf
    elif isinstance(rule, CircuitRule) and all(name in bank.std for name in numbers):
        least = least_energy(rule, bank.std)
    read = partial(energy_of_pictures, rule, bank.predict)
    return PictureEnergy(encode, draw, read, gradient=bank.gradient, least=least)


@torch.no_grad()
def with_realism(
    energy: QueryEnergy | PictureEnergy, discriminator: Callable[[Tensor], Tensor], weight: float, encode: Encode,
    draw: Draw, pilot: Float[Tensor, "n z_dim"],
) -> PictureEnergy:  # fmt: skip
    """Return an energy with one more term: E(z) + weight (m - log(D / (1 - D)) of the picture), in nats.

    Under the Gaussian prior that is the energy of Che et al. 2020 (arXiv 2003.06060) at weight 1. The constant m, the
    largest logit of the pictures of a `pilot`, makes it at least 0 for nearly all pictures, as rejection needs it;
    samplers count those that look more real as equally real.

    Args:
        energy: energy of the query.
        discriminator: function from pictures to log(D / (1 - D)), (batch,) or (batch, 1).
        weight: above 0.
        encode: as for `PictureEnergy`.
        draw: as for `PictureEnergy`.
        pilot: draws from the prior, the same in every run.

    Raises:
        ArgumentError: the discriminator returns another shape, or numbers that are not finite; when gradients are
            followed, autograd finds no way through it.
    """

    def logits(pictures: Tensor) -> Tensor:
        found = discriminator(pictures)
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        if shape not in ((len(pictures),), (len(pictures), 1)):
            raise ArgumentError(
                f"the discriminator returned {shape} for {len(pictures)} pictures",
                hint="it must return a tensor with one logit per picture, log(D / (1 - D))",
            )
        check_followed(found, pictures, "the discriminator")
        return found.reshape(-1).to(pictures)

    most = -PictureEnergy(encode, draw, lambda pictures: -logits(pictures))(pilot).min()
    if not most.isfinite():
        raise ArgumentError(
            f"the discriminator returned {most.item()} for pictures of the prior", hint="its logits must be finite"
        )
    of_latents, own = (energy, None) if isinstance(energy, QueryEnergy) else (energy.of_latents, energy.of_pictures)

    def of_pictures(pictures: Tensor) -> Tensor:
        realism = weight * (most - logits(pictures))
        return realism if own is None else own(pictures) + realism

    gradient = isinstance(energy, QueryEnergy) or energy.has_gradient
    return PictureEnergy(encode, draw, of_pictures, of_latents, gradient=gradient, least=min(0.0, energy.least))
