"""The generator of R3GAN: residual blocks of plain convolutions, without normalisation, styles or noise.

It is configuration E of Huang, Gokaslan, Kuleshov and Tompkin, "The GAN is dead; long live the GAN! A Modern Baseline
GAN", NeurIPS 2024 (arXiv 2501.05441).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ModelError
from energyql.generators.base import Family
from energyql.generators.convolution import Maps, convolve, one_by_one, padded_rows, square_filter, upsample
from energyql.generators.mapping import (
    SIZES,
    UnmappedConfig,
    UnmappedGenerator,
    check_lists,
    check_settings,
    random_weights,
)

_SLOPE = 0.2
"""Slope of the leaky ReLUs for negative inputs."""
_GAIN = math.sqrt(2 / (1 + _SLOPE**2))
"""Factor of the initial weights of a layer whose input comes from a leaky ReLU, so that variances stay equal."""
MOST_STAGES = 9


@dataclass(frozen=True)
class R3GANConfig(UnmappedConfig):
    """Settings of an R3GAN besides those of `UnmappedConfig`; it is a `ModelError` if they do not fit together.

    Args:
        groups: number of groups of the grouped convolutions, for each stage.
        blocks: number of residual blocks, for each stage.
        expansion: channels inside a block, divided by the channels of its output.
        kernel: side of the kernels of the grouped convolutions, odd.
        filter_taps: side of the low-pass filter for up-sampling, even.
    """

    groups: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int = 2
    kernel: int = 3
    filter_taps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lists(self, groups=SIZES, blocks=SIZES)
        check_settings(self, expansion=range(1, 65), kernel=range(1, 16, 2), filter_taps=range(2, 65, 2))
        if not len(self.widths) == len(self.groups) == len(self.blocks) or not 1 <= len(self.widths) <= MOST_STAGES:
            raise ModelError(f"widths, groups and blocks must have one number for each of 1 to {MOST_STAGES} stages")
        if any(self.expansion * width % groups for width, groups in zip(self.widths, self.groups, strict=True)):
            raise ModelError("groups must divide the channels inside a block, expansion times width")


class ResidualBlock(nn.Module):
    """The input plus a chain of three convolutions, 1x1, grouped and 1x1; a leaky ReLU follows the first two."""

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

    def forward(self, x: Maps) -> Maps:
        """Return x plus the output of the three convolutions for x."""
        y = F.leaky_relu(convolve(x, self.expand.to(x.dtype), self.bias1.to(x.dtype)), _SLOPE)
        mix, padding = self.mix.to(x.dtype), self.mix.shape[-1] // 2
        y = F.leaky_relu(F.conv2d(y, mix, self.bias2.to(x.dtype), padding=padding, groups=self.groups), _SLOPE)
        return x + convolve(y, self.reduce.to(x.dtype))


class Stage(nn.Module):
    """The layers of one side of feature maps: one that makes maps of this side, then residual blocks.

    The first layer of stage 0 makes maps of side 4 from w. That of other stages doubles the side, and changes the
    number of channels if necessary.
    """

    resample_filter: Tensor

    def __init__(self, number: int, config: R3GANConfig) -> None:
        super().__init__()
        width, before = config.widths[number], config.widths[number - 1] if number else config.w_dim
        scale = 1 / math.sqrt(before)
        if number == 0:
            self.basis = nn.Parameter(random_weights(width, 4, 4))
            self.linear = nn.Parameter(random_weights(width, before, scale=scale))
        else:
            if width != before:
                self.widen = nn.Parameter(random_weights(width, before, 1, 1, scale=scale))
            side = [float(math.comb(config.filter_taps - 1, i)) for i in range(config.filter_taps)]
            self.register_buffer("resample_filter", square_filter(side))
        blocks = [ResidualBlock(width, config.groups[number], config) for _ in range(config.blocks[number])]
        self.blocks = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Maps:
        """Return the feature maps of this stage from x: w in the first stage, or the output of the stage before."""
        if hasattr(self, "basis"):
            # A product of a fixed number of rows has the same rounding errors for every size of batch.
            factors = F.linear(padded_rows(x), self.linear.to(x.dtype))[: len(x)]
            x = self.basis.to(x.dtype) * factors[:, :, None, None]
        else:
            x = convolve(x, self.widen.to(x.dtype)) if hasattr(self, "widen") else x
            x = upsample(x, self.resample_filter)
        for block in self.blocks:
            x = block(x)
        return x


class R3GAN(UnmappedGenerator):
    """The R3GAN generator. It has no mapping network: w is z, followed by the embedding of the condition if any."""

    config: R3GANConfig

    def __init__(self, config: R3GANConfig) -> None:
        super().__init__(config)
        if config.c_dim:
            scale = 1 / math.sqrt(config.c_dim)
            self.embed = nn.Parameter(random_weights(config.embed_features, config.c_dim, scale=scale))
        self.stages = nn.ModuleList(Stage(number, config) for number in range(len(config.widths)))
        last = config.widths[-1]
        self.colours = nn.Parameter(random_weights(config.image_channels, last, 1, 1, scale=1 / math.sqrt(last)))

    def synthesize(self, w: Tensor, dtype: torch.dtype | None = None) -> Maps:
        """Map w (batch, w_dim) to pictures in about [-1, 1], (batch, image_channels, side, side).

        `dtype` is the precision of the feature maps; by default the dtype of the parameters.
        """
        w = self.checked(w)
        return one_by_one(self, lambda w: self._draw(w, dtype or w.dtype), w)

    def _draw(self, w: Tensor, dtype: torch.dtype) -> Tensor:
        x = w.to(dtype)
        for stage in self.stages:
            x = stage(x)
        return convolve(x, self.colours.to(dtype)).to(w.dtype)


FAMILY = Family("r3gan", R3GAN, R3GANConfig, "energyql.generators.checkpoints.r3gan", "R3GAN", truncation=1.0)
