"""The generator of R3GAN: residual blocks of plain convolutions, without normalisation, styles or noise.

Huang, Gokaslan, Kuleshov and Tompkin, "The GAN is dead; long live the GAN! A Modern Baseline GAN", NeurIPS 2024
(arXiv 2501.05441), configuration E.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ModelError
from energyql.generators.base import Family
from energyql.generators.convolution import padded_rows, upsample
from energyql.generators.mapping import UnmappedGenerator, random_weights
from energyql.numerics.shapes import Float

_SLOPE = 0.2
"""Slope of the leaky ReLUs below 0."""
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))
"""Factor of initial weights after a leaky ReLU, which keeps the variance."""
MOST_STAGES = 9


@dataclass(frozen=True)
class R3GANConfig:
    """Architecture of an R3GAN. Stages have sides of 4, 8, 16 ...; the picture has the side of the last one.

    Args:
        z_dim: size of the latent.
        widths: channels of each stage.
        groups: groups of the grouped convolutions of each stage.
        blocks: residual blocks of each stage.
        expansion: channels inside a block, as a multiple of its width.
        kernel: side of the grouped convolutions, odd.
        filter_taps: side of the filter for up-sampling, even.
        c_dim: number of class labels, 0 for an unconditional model.
        embed_features: size of the embedding of a label.
        image_channels: 1 for grey, 3 for RGB.

    Raises:
        ModelError: a number is out of its range, or the stages do not fit together.
    """

    z_dim: int
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int = 2
    kernel: int = 3
    filter_taps: int = 4
    c_dim: int = 0
    embed_features: int = 0
    image_channels: int = 3

    def __post_init__(self) -> None:
        ranges = {
            "z_dim": (1, 1 << 16), "expansion": (1, 64), "kernel": (1, 15), "filter_taps": (2, 64),
            "c_dim": (0, 1 << 16), "embed_features": (0, 1 << 16), "image_channels": (1, 3),
        }  # fmt: skip
        for name, (least, most) in ranges.items():
            if type(getattr(self, name)) is not int or not least <= getattr(self, name) <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {getattr(self, name)!r}")
        stages = (self.widths, self.groups, self.blocks)
        numbers = [number for stage in stages for number in (stage if isinstance(stage, tuple) else (None,))]
        if not all(type(number) is int and 1 <= number <= 1 << 16 for number in numbers):
            raise ModelError("widths, groups and blocks must be lists of whole numbers from 1 to 65536")
        if not len(self.widths) == len(self.groups) == len(self.blocks) or not 1 <= len(self.widths) <= MOST_STAGES:
            raise ModelError(f"widths, groups and blocks must have one number for each of 1 to {MOST_STAGES} stages")
        if any(self.expansion * width % groups for width, groups in zip(self.widths, self.groups, strict=True)):
            raise ModelError("groups must divide the channels inside a block, expansion times width")
        if self.kernel % 2 == 0 or self.filter_taps % 2 or self.image_channels == 2:
            raise ModelError("kernel must be odd, filter_taps even, and image_channels 1 or 3")
        if (self.c_dim == 0) != (self.embed_features == 0):
            raise ModelError("c_dim and embed_features must both be 0, or neither")

    @property
    def w_dim(self) -> int:
        """Size of w, which is z followed by the embedding of the label."""
        return self.z_dim + self.embed_features

    @property
    def resolution(self) -> int:
        """Side of the pictures."""
        return 4 << (len(self.widths) - 1)


class ResidualBlock(nn.Module):
    """Two 1x1 convolutions around a grouped one, with a bias and a leaky ReLU before and after the grouped one."""

    def __init__(self, width: int, groups: int, config: R3GANConfig) -> None:
        super().__init__()
        inner, self.groups = config.expansion * width, groups
        scale = _GAIN * sum(config.blocks) ** -0.25  # the sum over all blocks keeps the variance
        self.expand = nn.Parameter(random_weights(inner, width, 1, 1, scale=scale / math.sqrt(width)))
        fan_in = inner // groups * config.kernel**2
        shape = inner, inner // groups, config.kernel, config.kernel
        self.mix = nn.Parameter(random_weights(*shape, scale=scale / math.sqrt(fan_in)))
        self.reduce = nn.Parameter(torch.zeros(width, inner, 1, 1))
        self.bias1 = nn.Parameter(torch.zeros(inner))
        self.bias2 = nn.Parameter(torch.zeros(inner))

    def forward(self, x: Float[Tensor, "batch width side side"]) -> Float[Tensor, "batch width side side"]:
        """Return x plus the output of the three convolutions."""
        y = F.leaky_relu(F.conv2d(x, self.expand.to(x.dtype), self.bias1.to(x.dtype)), _SLOPE)
        mix, padding = self.mix.to(x.dtype), self.mix.shape[-1] // 2
        y = F.leaky_relu(F.conv2d(y, mix, self.bias2.to(x.dtype), padding=padding, groups=self.groups), _SLOPE)
        return x + F.conv2d(y, self.reduce.to(x.dtype))


class Stage(nn.Module):
    """The blocks of one side, after the change of side and width; the first stage makes features of w.

    Args:
        number: index of the stage, from 0.
        config: the settings of the generator.
    """

    resample_filter: Tensor

    def __init__(self, number: int, config: R3GANConfig) -> None:
        super().__init__()
        width, before = config.widths[number], config.widths[number - 1] if number else config.w_dim
        if number == 0:
            self.basis = nn.Parameter(random_weights(width, 4, 4))
            self.linear = nn.Parameter(random_weights(width, before, scale=1 / math.sqrt(before)))
        elif width != before:
            self.widen = nn.Parameter(random_weights(width, before, 1, 1, scale=1 / math.sqrt(before)))
        if number:
            side = [float(math.comb(config.filter_taps - 1, i)) for i in range(config.filter_taps)]
            total = sum(side) ** 2
            self.register_buffer("resample_filter", torch.tensor([[a * b / total for b in side] for a in side]))
        self.blocks = nn.ModuleList(
            ResidualBlock(width, config.groups[number], config) for _ in range(config.blocks[number])
        )

    def forward(self, x: Tensor) -> Float[Tensor, "batch width side side"]:
        """Map w (batch, w_dim) in the first stage, or the features of the stage before, to features."""
        if hasattr(self, "basis"):
            # A product of a fixed number of rows has the same rounding errors for every size of batch.
            factors = F.linear(padded_rows(x), self.linear.to(x.dtype))[: len(x)]
            x = self.basis.to(x.dtype) * factors[:, :, None, None]
        else:
            x = F.conv2d(x, self.widen.to(x.dtype)) if hasattr(self, "widen") else x
            x = upsample(x, self.resample_filter)
        for block in self.blocks:
            x = block(x)
        return x


class R3GAN(UnmappedGenerator):
    """The R3GAN generator. It has no mapping network: w is z, followed by the embedding of the label."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__(config)
        if config.c_dim:
            scale = 1 / math.sqrt(config.c_dim)
            self.embed = nn.Parameter(random_weights(config.embed_features, config.c_dim, scale=scale))
        self.stages = nn.ModuleList(Stage(number, config) for number in range(len(config.widths)))
        last = config.widths[-1]
        self.colours = nn.Parameter(random_weights(config.image_channels, last, 1, 1, scale=1 / math.sqrt(last)))

    def synthesize(self, w: Tensor, dtype: torch.dtype | None = None) -> Float[Tensor, "batch channels side side"]:
        """Map w (batch, w_dim) to pictures, about [-1, 1], (batch, image_channels, side, side).

        Args:
            w: the output of `encode`.
            dtype: precision of the feature maps, by default that of the parameters.

        Raises:
            ArgumentError: w has another shape.
        """
        w = self.checked(w)
        return self.in_parts(lambda w: self._draw(w, dtype or w.dtype), w)

    def _draw(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        x = w.to(dtype)
        for stage in self.stages:
            x = stage(x)
        return F.conv2d(x, self.colours.to(dtype)).to(w.dtype)


FAMILY = Family(
    "r3gan",
    R3GAN,
    R3GANConfig,
    "energyql.generators.checkpoints.r3gan",
    "R3GAN",
    truncation=1.0,
)
