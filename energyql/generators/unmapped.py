"""The common part of generators without a mapping network, R3GAN and FastGAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError
from energyql.generators.base import check_condition
from energyql.generators.convolution import drawn_alone
from energyql.numerics.shapes import Float


class UnmappedGenerator(nn.Module):
    """A generator whose w is z, or what the network sees of it, followed by the embedding of the label.

    A subclass has the parameters `colours`, and `embed` (embed_features, c_dim) if there are classes.

    Attributes:
        config: the settings.
        z_dim, c_dim: sizes of the latent and of a label, from the settings.
    """

    embed: nn.Parameter
    colours: nn.Parameter

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.z_dim, self.c_dim = config.z_dim, config.c_dim

    def encode(
        self, z: Float[Tensor, "batch z_dim"], truncation: float = 1.0, label: Tensor | None = None
    ) -> Float[Tensor, "batch w_dim"]:
        """Return truncation * z, or of what the network sees of z, followed by the embedding of the label.

        The network was trained without truncation, and smaller values give less varied pictures. The label is
        (batch, c_dim).

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        check_condition(label, len(z), self.c_dim)
        w = truncation * self.seen(z)
        return w if label is None else torch.cat([w, F.linear(label.to(z), self.embed.to(z.dtype))], 1)

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return what the network sees of z."""
        return z

    def checked(self, w: Tensor) -> Float[Tensor, "batch w_dim"]:
        """Return w in the precision of the parameters.

        Raises:
            ArgumentError: w has another shape than (batch, w_dim).
        """
        if w.ndim != 2 or w.shape[1] != self.config.w_dim:
            raise ArgumentError(f"w must be (batch, {self.config.w_dim}), not {tuple(w.shape)}")
        return w.to(self.colours.dtype)

    def in_parts(self, draw: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Call `draw` with tensors that have a row for each sample, one sample at a time on a CPU; see `drawn_alone`.

        So a picture has the same bits in every batch.
        """
        if len(rows[0]) < 2 or not drawn_alone(*rows, *self.parameters()):
            return draw(*rows)
        return torch.cat([draw(*one) for one in zip(*(each.split(1) for each in rows), strict=True)])
