"""StyleGAN2 in plain PyTorch: no compiler, no custom operators, any device.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (arXiv 1912.04958), with the three
architectures of its figure 7. Parameters are stored at unit scale, as in the widely used checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import Family
from energyql.generators.convolution import DRAWN_TOGETHER, Modulation, add_to_each_, drawn_alone, padded_rows, upsample
from energyql.generators.mapping import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    FullyConnected,
    StyleGAN,
    StyleGANConfig,
    clamped,
    over_white,
    random_weights,
    style_rows,
)
from energyql.numerics.shapes import Float

Architecture = Literal["skip", "resnet", "orig"]
Noise = Literal["const", "none"] | Tensor
"""The noise that is stored with the weights, no noise, or (batch, noise_size) numbers, in the order of the layers."""


@dataclass(frozen=True)
class StyleGAN2Config(StyleGANConfig):
    """Architecture of a StyleGAN2.

    Args:
        channel_base: a block of resolution r has min(channel_base / r, channel_max) channels.
        channel_max: see `channel_base`.
        architecture: "skip" adds up the pictures of all blocks; "resnet" and "orig" draw one from the last block, with
            and without residual connections between the blocks.
        filter_taps: side of the filter for up-sampling, even; shorter and odd ones are padded with zeros.

    The other settings are those of `StyleGANConfig`.

    Raises:
        ModelError: a setting is out of its range.
    """

    architecture: Architecture = "skip"
    filter_taps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_integers(filter_taps=(4, 64))
        if self.filter_taps % 2:
            raise ModelError(f"filter_taps must be even, not {self.filter_taps}")
        if self.architecture not in get_args(Architecture):
            names = ", ".join(get_args(Architecture))
            raise ModelError(f"architecture must be one of {names}, not {self.architecture!r}")

    @property
    def block_resolutions(self) -> list[int]:
        """The sides of the feature maps, 4 to `resolution`."""
        return [2**i for i in range(2, self.resolution.bit_length())]

    @property
    def num_ws(self) -> int:
        """Number of W+ rows: one for each convolution and one for the last RGB layer."""
        return 2 * len(self.block_resolutions)

    @property
    def noise_size(self) -> int:
        """Count of noise numbers of a picture: one for each pixel of each convolution."""
        return noise_numbers(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        """Return the number of channels of a block of this resolution."""
        return min(self.channel_base // resolution, self.channel_max)


def noise_numbers(sides: Iterable[int]) -> int:
    """Return the count of noise numbers in blocks of these sides, one of which is 4.

    A block has two maps of noise, that of side 4 has one.
    """
    return 2 * sum(side**2 for side in sides) - 4**2


class ModulatedConv(nn.Module):
    """A convolution whose input channels are scaled by styles, which are an affine function of w.

    Args:
        inputs: channels of the input.
        outputs: channels of the output.
        w_dim: size of w.
        kernel: side of the kernel, odd.
        demodulate: whether the output is scaled to unit variance; see `Modulation`.
        up: whether the side is doubled, by a transposed convolution and a low-pass filter.
    """

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, *, kernel: int = 3, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(random_weights(outputs, inputs, kernel, kernel))
        self.style_gain = 1.0 if demodulate else 1 / math.sqrt(inputs * kernel**2)
        self.modulation = Modulation(padding=kernel // 2, up=up, demodulate=demodulate)

    def forward(
        self,
        x: Float[Tensor, "batch inputs side side"],
        w: Float[Tensor, "batch w_dim"],
        bias: Float[Tensor, " outputs"],
        resample_filter: Tensor,
        gain: float = 1.0,
    ) -> Float[Tensor, "batch outputs new_side new_side"]:
        """Return the convolution, multiplied by `gain`, plus the bias.

        `resample_filter`, (taps, taps) of sum 1, is the low-pass filter of up-sampling.
        """
        styles = self.affine(padded_rows(w.to(self.weight.dtype))) * self.style_gain
        lowpass = 4 * resample_filter.flip(0, 1) if self.modulation.up else None  # flipped: `Modulation` correlates
        return self.modulation(x, self.weight, styles, bias, gain=gain, lowpass=lowpass)


class SynthesisLayer(nn.Module):
    """A modulated convolution, noise, a bias and a leaky ReLU."""

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, resolution: int, config: StyleGAN2Config, *, up: bool = False
    ) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, config.w_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", random_weights(resolution, resolution))
        self.clamp = config.conv_clamp

    def forward(
        self, x: Float[Tensor, "batch inputs side side"], w: Tensor, resample_filter: Tensor, noise: Noise
    ) -> Tensor:
        """Map x (batch, inputs, side, side) to (batch, outputs, resolution, resolution).

        A tensor of noise is (batch, resolution, resolution).
        """
        # A leaky ReLU commutes with a positive factor, so its input is multiplied by its gain.
        x = self.conv(x, w, self.bias * ACTIVATION_GAIN, resample_filter, ACTIVATION_GAIN)
        if isinstance(noise, Tensor) or noise == "const":
            noise_map = noise[:, None] if isinstance(noise, Tensor) else self.noise_const
            x = add_to_each_(x, noise_map * (self.noise_strength * ACTIVATION_GAIN))
        x = F.leaky_relu_(x, ACTIVATION_SLOPE)
        return clamped(x, self.clamp)


class ToRGB(nn.Module):
    """A modulated 1x1 convolution to the channels of the picture, without demodulation."""

    def __init__(self, inputs: int, config: StyleGAN2Config) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, config.image_channels, config.w_dim, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.clamp = config.conv_clamp

    def forward(self, x: Float[Tensor, "batch inputs side side"], w: Tensor, resample_filter: Tensor) -> Tensor:
        """Map x (batch, inputs, side, side) to (batch, image_channels, side, side)."""
        x = self.conv(x, w, self.bias, resample_filter)
        return clamped(x, self.clamp)


class Residual(nn.Module):
    """The connection around the convolutions of a block: up-sampling, and a 1x1 convolution without a bias."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(random_weights(outputs, inputs, 1, 1))

    def forward(self, x: Float[Tensor, "batch inputs side side"], resample_filter: Tensor) -> Tensor:
        """Map x to (batch, outputs, 2 side, 2 side)."""
        weight = (self.weight / math.sqrt(self.weight.shape[1])).to(x.dtype)
        return upsample(F.conv2d(x, weight), resample_filter)


class SynthesisBlock(nn.Module):
    """The layers of one resolution. The first block starts from a learned constant."""

    def __init__(self, resolution: int, config: StyleGAN2Config) -> None:
        super().__init__()
        channels = config.channels(resolution)
        self.first = resolution == 4
        if self.first:
            self.const = nn.Parameter(random_weights(channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(config.channels(resolution // 2), channels, resolution, config, up=True)
            if config.architecture == "resnet":
                self.skip = Residual(config.channels(resolution // 2), channels)
        self.conv1 = SynthesisLayer(channels, channels, resolution, config)
        if config.architecture == "skip" or resolution == config.resolution:
            self.torgb = ToRGB(channels, config)

    def forward(
        self,
        x: Tensor | None,
        image: Tensor | None,
        ws: Tensor,
        resample_filter: Tensor,
        noise: Sequence[Noise],
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features of this block, and the sum of the pictures up to it, `None` if there is none.

        Args:
            x: features of the block before; `None` in the first block.
            image: picture up to the block before; `None` if there is none.
            ws: (batch, 2 or 3, w_dim), a row of W+ for each layer, that of the RGB layer last.
            resample_filter: low-pass filter of up-sampling, (taps, taps).
            noise: noise of each convolution.
            dtype: precision of the feature maps.
        """
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1).to(dtype).contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, ws[:, -2], resample_filter, noise[-1])
        else:
            residual = self.skip(x, resample_filter) if hasattr(self, "skip") else None
            x = self.conv0(x, ws[:, -3], resample_filter, noise[0])
            x = self.conv1(x, ws[:, -2], resample_filter, noise[-1])
            if residual is not None:
                x = (x + residual) * math.sqrt(0.5)
        if not hasattr(self, "torgb"):
            return x, None
        rgb = self.torgb(x, ws[:, -1], resample_filter).to(ws.dtype)
        return x, rgb if image is None else upsample(image, resample_filter) + rgb


class SynthesisNetwork(nn.Module):
    """The network that maps w or W+ to the picture."""

    resample_filter: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            self.add_module(f"b{resolution}", SynthesisBlock(resolution, config))
        zeros = (0.0,) * (config.filter_taps // 2 - 2)
        binomial = (*zeros, 1.0, 3.0, 3.0, 1.0, *zeros)
        self.register_buffer("resample_filter", torch.tensor([[a * b / 64 for b in binomial] for a in binomial]))

    @property
    def affines(self) -> list[FullyConnected]:
        """The layer from w to styles for each row of W+: those of all convolutions, then that of the last RGB layer."""
        blocks = [self.get_submodule(f"b{side}") for side in self.config.block_resolutions]
        layers = [layer for block in blocks for layer in block.children() if isinstance(layer, SynthesisLayer)]
        last = cast(ToRGB, blocks[-1].get_submodule("torgb"))
        return [*(layer.conv.affine for layer in layers), last.conv.affine]

    def forward(self, ws: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None) -> Tensor:
        """Map ws (batch, w_dim) or (batch, num_ws, w_dim) to (batch, image_channels, resolution, resolution).

        The noise is the one stored with the weights ("const"), left out ("none"), or (batch, `config.noise_size`)
        standard normal numbers. Feature maps are in `dtype`, by default that of ws; the picture is in the dtype of ws.

        Raises:
            ArgumentError: ws has another shape, or `noise` is none of the three.
        """
        ws = style_rows(ws, self.config.num_ws, self.config.w_dim)
        size = len(ws), self.config.noise_size
        kind = tuple(noise.shape) if isinstance(noise, Tensor) else noise
        if kind not in ("const", "none", size):
            raise ArgumentError(f'noise is "const", "none" or a tensor {size}, not {kind!r}')
        dtype = dtype or ws.dtype
        sides = self.config.block_resolutions
        if not len(ws) or not drawn_alone(ws, *self.parameters()):
            return _finished(self._blocks(sides, None, None, ws, noise, dtype)[1])
        # Large maps are computed for one sample at a time, so that they stay in the caches. A picture has the same bits
        # in every batch: products of styles have a fixed number of rows, and packed convolutions do not mix samples.
        small = [side for side in sides if 9 * self.config.channels(side) > side * side]
        large = sides[len(small) :]
        images = []
        for together, own in zip(ws.split(DRAWN_TOGETHER), _split(noise, ws, DRAWN_TOGETHER), strict=True):
            x, image = self._blocks(small, None, None, together, own, dtype)
            if not large:
                images.append(_finished(image))
                continue
            before = [None] * len(x) if image is None else image.split(1)
            rows = zip(x.split(1), before, together.split(1), _split(own, together, 1), strict=True)
            images += [_finished(self._blocks(large, *row, dtype)[1]) for row in rows]
        return torch.cat(images)

    def _blocks(
        self, sides: list[int], x: Tensor | None, image: Tensor | None, ws: Tensor, noise: Noise, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor | None]:
        """Return features and picture after the blocks of these sides.

        `x` and `image` are features and picture after the block before them, `None` before the first block.
        """
        for side in sides:
            last = 2 * side.bit_length() - 5  # the row of W+ of the RGB layer; 1 for a side of 4
            rows = ws[:, max(last - 2, 0) : last + 1]
            own = self._noise_of_block(noise, side)
            x, image = self.get_submodule(f"b{side}")(x, image, rows, self.resample_filter, own, dtype)
        assert x is not None
        return x, image

    def _noise_of_block(self, noise: Noise, side: int) -> Sequence[Noise]:
        """Return the noise of each convolution of the block of this side; the block of side 4 uses the last entry."""
        if not isinstance(noise, Tensor):
            return [noise, noise]
        end = noise_numbers(own for own in self.config.block_resolutions if own <= side)
        maps: Sequence[Tensor] = noise[:, max(end - 2 * side**2, 0) : end].unflatten(1, (-1, side, side)).unbind(1)
        return maps


def _split(noise: Noise, ws: Tensor, size: int) -> Sequence[Noise]:
    """Return the noise of each part of `ws.split(size)`."""
    return noise.split(size) if isinstance(noise, Tensor) else [noise] * len(ws.split(size))


def _finished(image: Tensor | None) -> Tensor:
    """Return `image`, the picture after the last block, which is never `None`."""
    assert image is not None
    return image


class StyleGAN2(StyleGAN):
    """The StyleGAN2 generator: mapping and synthesis networks."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    @property
    def noise_size(self) -> int:
        """Count of noise numbers of a picture; 0 if all noise has strength 0. See `NoisyGenerator`."""
        strengths = (value for name, value in self.named_parameters() if name.endswith("noise_strength"))
        return self.synthesis.config.noise_size if any(map(bool, strengths)) else 0

    def synthesize(self, w: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None) -> Tensor:
        """Map w (batch, w_dim) or W+ (batch, num_ws, w_dim) to pictures, about [-1, 1], (batch, channels, side, side).

        Pictures with a fourth channel, the opacity, are drawn over white; `synthesis` returns all four channels.

        Args:
            w: the output of `encode`, or W+ with a row for each layer.
            noise: "const", the noise stored with the weights; "none"; or (batch, `noise_size`) standard normal numbers.
            dtype: precision of the feature maps, by default that of w.

        Raises:
            ArgumentError: w has another shape, or `noise` is none of the three.
        """
        return over_white(self.synthesis(w, noise, dtype))


FAMILY = Family(
    "stylegan2",
    StyleGAN2,
    StyleGAN2Config,
    "energyql.generators.checkpoints.stylegan2",
    "StyleGAN2 (official, rosinality's, or in pSp or e4e)",
)
