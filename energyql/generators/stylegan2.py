"""The generator StyleGAN2 in plain PyTorch: no compiler, no custom operators, any device.

The paper is Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (arXiv 1912.04958). All
three architectures of its figure 7 are supported: "skip", "resnet" and "orig".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError
from energyql.generators.base import Family, Noise, check_noise_input, has_noise
from energyql.generators.convolution import (
    DRAWN_TOGETHER,
    Maps,
    Modulation,
    add_to_each_,
    convolve,
    drawn_alone,
    padded_rows,
    square_filter,
    upsample,
)
from energyql.generators.mapping import (
    ACTIVATION_GAIN,
    ACTIVATION_SLOPE,
    FullyConnected,
    StyleGAN,
    StyleGANConfig,
    check_settings,
    clamped,
    over_white,
    random_weights,
    style_rows,
)
from energyql.numerics.pool import LARGE, LARGEST_PIECE, in_pool, one_thread, piece_count

Architecture = Literal["skip", "resnet", "orig"]


@dataclass(frozen=True)
class StyleGAN2Config(StyleGANConfig):
    """Settings of a StyleGAN2, besides those of `StyleGANConfig`.

    A block is the group of layers of one side of feature maps, its resolution: 4, 8, 16 and so on.

    Args:
        channel_base: a block of resolution r has min(channel_base / r, channel_max) channels.
        architecture: with "skip", every block draws a picture, and the pictures are added up. With "resnet" and "orig",
            only the last block draws a picture. "resnet" has residual connections around the blocks, "orig" has none.
        filter_taps: side of the low-pass filter for up-sampling, even and at least 4; other filters of a checkpoint are
            padded with zeros.
    """

    architecture: Architecture = "skip"
    filter_taps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_settings(self, filter_taps=range(4, 65, 2), architecture=get_args(Architecture))

    @property
    def block_resolutions(self) -> list[int]:
        """Sides of the feature maps of the blocks: 4, 8, 16 and so on, up to `resolution`."""
        return [2**i for i in range(2, self.resolution.bit_length())]

    @property
    def num_ws(self) -> int:
        """Number of rows of W+: one for each convolution, and one for the RGB layer of the last block.

        The RGB layer of any other block takes the row of the next convolution.
        """
        return 2 * len(self.block_resolutions)

    @property
    def noise_size(self) -> int:
        """How many random numbers one picture takes as noise: one for each pixel of the output of each convolution."""
        return noise_numbers(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        """Number of channels of the block whose feature maps have the side `resolution`."""
        return min(self.channel_base // resolution, self.channel_max)


def noise_numbers(sides: Iterable[int]) -> int:
    """Size of the noise of blocks of these sides, 4 among them: two maps for each block, one for the first."""
    return 2 * sum(side**2 for side in sides) - 4**2


class ModulatedConv(nn.Module):
    """A `Modulation` whose styles are a linear function of w plus a bias; `kernel` is odd, `up` doubles the side."""

    def __init__(
        self, inputs: int, outputs: int, w_dim: int, *, kernel: int = 3, demodulate: bool = True, up: bool = False
    ) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, inputs, bias=1.0)
        self.weight = nn.Parameter(random_weights(outputs, inputs, kernel, kernel))
        self.style_gain = 1.0 if demodulate else 1 / math.sqrt(inputs * kernel**2)
        self.modulation = Modulation(padding=kernel // 2, up=up, demodulate=demodulate)

    def forward(self, x: Maps, w: Tensor, bias: Tensor, taps: Tensor, gain: float = 1.0) -> Maps:
        """Return the convolution of x, multiplied by `gain`, plus the bias, which `gain` does not multiply.

        The styles follow from w (batch, w_dim). The low-pass filter `taps`, (taps, taps) of sum 1, is used if the layer
        doubles the side. Without demodulation `gain` must be 1.
        """
        styles = self.affine(padded_rows(w.to(self.weight.dtype))) * self.style_gain
        lowpass = 4 * taps.flip(0, 1) if self.modulation.up else None  # flipped: `Modulation` correlates
        return self.modulation(x, self.weight, styles, bias, gain, lowpass)


class SynthesisLayer(nn.Module):
    """A modulated convolution, then noise, a bias and a leaky ReLU; `side` is that of the output."""

    noise_const: Tensor

    def __init__(self, inputs: int, outputs: int, side: int, config: StyleGAN2Config, *, up: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, outputs, config.w_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", random_weights(side, side))
        self.clamp = config.conv_clamp

    def forward(self, x: Maps, w: Tensor, taps: Tensor, noise: Noise) -> Maps:
        """Map x to feature maps (batch, outputs, side, side); `noise` is "const", "none" or (batch, side, side)."""
        # A leaky ReLU commutes with a positive factor, so its input is multiplied by its gain.
        x = self.conv(x, w, self.bias * ACTIVATION_GAIN, taps, ACTIVATION_GAIN)
        if isinstance(noise, Tensor) or noise == "const":
            noise_map = noise[:, None] if isinstance(noise, Tensor) else self.noise_const
            x = add_to_each_(x, noise_map * (self.noise_strength * ACTIVATION_GAIN))
        return clamped(F.leaky_relu_(x, ACTIVATION_SLOPE), self.clamp)


class ToRGB(nn.Module):
    """A modulated convolution with a kernel of one pixel, without demodulation, from feature maps to the picture."""

    def __init__(self, inputs: int, config: StyleGAN2Config) -> None:
        super().__init__()
        self.conv = ModulatedConv(inputs, config.image_channels, config.w_dim, kernel=1, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(config.image_channels))
        self.clamp = config.conv_clamp

    def forward(self, x: Maps, w: Tensor, taps: Tensor) -> Maps:
        """Return the picture of one block, (batch, image_channels, side, side)."""
        return clamped(self.conv(x, w, self.bias, taps), self.clamp)


class Residual(nn.Module):
    """The residual connection of a block: a 1x1 convolution without a bias, then up-sampling."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(random_weights(outputs, inputs, 1, 1))

    def forward(self, x: Maps, taps: Tensor) -> Maps:
        """Map x (batch, inputs, side, side) to (batch, outputs, 2 side, 2 side), with the low-pass filter `taps`."""
        weight = (self.weight / math.sqrt(self.weight.shape[1])).to(x.dtype)
        return upsample(convolve(x, weight), taps)


class SynthesisBlock(nn.Module):
    """The layers whose feature maps have the side `resolution`. The block of side 4 starts from a learned constant."""

    def __init__(self, resolution: int, config: StyleGAN2Config) -> None:
        super().__init__()
        channels = config.channels(resolution)
        if resolution == 4:
            self.const = nn.Parameter(random_weights(channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(config.channels(resolution // 2), channels, resolution, config, up=True)
            if config.architecture == "resnet":
                self.skip = Residual(config.channels(resolution // 2), channels)
        self.conv1 = SynthesisLayer(channels, channels, resolution, config)
        if config.architecture == "skip" or resolution == config.resolution:
            self.torgb = ToRGB(channels, config)

    def forward(
        self, x: Maps | None, image: Maps | None, ws: Tensor, taps: Tensor, noise: Sequence[Noise], dtype: torch.dtype
    ) -> tuple[Maps, Maps | None]:
        """Return the feature maps of this block, and the sum of the pictures of all blocks up to and with this one.

        The sum is `None` for a block that draws no picture.

        Args:
            x: feature maps of the block before; `None` in the first block.
            image: sum of the pictures of the blocks before; `None` if they draw no picture.
            ws: a w for each convolution, then for the RGB layer, (batch, 3, w_dim); in the first block (batch, 2,
                w_dim).
            noise: the noise of each convolution; the first block uses the last entry.
        """
        if x is None:
            x = self.const.expand(len(ws), -1, -1, -1).to(dtype).contiguous(memory_format=torch.channels_last)
            x = self.conv1(x, ws[:, -2], taps, noise[-1])
        else:
            residual = self.skip(x, taps) if hasattr(self, "skip") else None
            x = self.conv0(x, ws[:, -3], taps, noise[0])
            x = self.conv1(x, ws[:, -2], taps, noise[-1])
            x = x if residual is None else (x + residual) * math.sqrt(0.5)
        if not hasattr(self, "torgb"):
            return x, None
        rgb = self.torgb(x, ws[:, -1], taps).to(ws.dtype)
        return x, rgb if image is None else upsample(image, taps) + rgb


class SynthesisNetwork(nn.Module):
    """The network that maps w, or W+ (a w for each layer), to pictures."""

    resample_filter: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.config = config
        for resolution in config.block_resolutions:
            self.add_module(f"b{resolution}", SynthesisBlock(resolution, config))
        zeros = [0.0] * (config.filter_taps // 2 - 2)
        self.register_buffer("resample_filter", square_filter([*zeros, 1.0, 3.0, 3.0, 1.0, *zeros]))

    @property
    def affines(self) -> list[FullyConnected]:
        """The layers from w to styles, one for each row of W+: of the convolutions, then of the last RGB layer."""
        blocks = [self.get_submodule(f"b{side}") for side in self.config.block_resolutions]
        layers = [layer for block in blocks for layer in block.children() if isinstance(layer, SynthesisLayer)]
        last = cast(ToRGB, blocks[-1].get_submodule("torgb"))
        return [*(layer.conv.affine for layer in layers), last.conv.affine]

    def forward(
        self, ws: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None, side: int | None = None
    ) -> Tensor:
        """Map w, or W+, to pictures in the dtype of the latents; see `StyleGAN2.synthesize`.

        With `side`, the result is the sum of the pictures of the blocks up to this side.
        """
        ws = style_rows(ws, self.config.num_ws, self.config.w_dim)
        check_noise_input(noise, (len(ws), self.config.noise_size))
        dtype = dtype or ws.dtype
        sides = [each for each in self.config.block_resolutions if side is None or each <= side]
        if not len(ws) or not drawn_alone(ws, *self.parameters()):
            return cast(Tensor, self._blocks(sides, None, None, ws, noise, dtype)[1])
        # Large maps are computed for one sample at a time, so that they stay in the caches. A picture has the same bits
        # in every batch: products of styles have a fixed number of rows, and packed convolutions do not mix samples.
        small = [side for side in sides if 9 * self.config.channels(side) > side * side]
        large = sides[len(small) :]

        def draw(together: Tensor, own: Noise) -> list[Tensor]:
            x, image = self._blocks(small, None, None, together, own, dtype)
            before = [None] * len(x) if image is None else image.split(1)
            rows = zip(x.split(1), before, together.split(1), _split(own, len(together)), strict=True)
            return [self._blocks(large, *row, dtype)[1] for row in rows]

        size = sum(parameter.numel() for parameter in self.parameters())
        # The maps of several pictures by a large network do not fit into the caches that threads share.
        count = piece_count(len(ws), DRAWN_TOGETHER, 1 if size >= LARGE else LARGEST_PIECE)
        # Several threads draw a single picture of a small network no faster than one.
        with one_thread(size):
            pieces = in_pool(draw, list(zip(ws.tensor_split(count), _split(noise, count), strict=True)))
        return torch.cat([image for images in pieces for image in images])

    def _blocks(self, sides: list[int], x: Any, image: Any, ws: Tensor, noise: Noise, dtype: torch.dtype) -> Any:
        """Feature maps and picture after some of the blocks, from W+ and the noise of all of them."""
        for side in sides:
            last = 2 * side.bit_length() - 5  # the row of W+ of the RGB layer; 1 for a side of 4
            rows = ws[:, max(last - 2, 0) : last + 1]
            own = self._noise_of_block(noise, side)
            x, image = self.get_submodule(f"b{side}")(x, image, rows, self.resample_filter, own, dtype)
        return x, image

    def _noise_of_block(self, noise: Noise, side: int) -> Sequence[Noise]:
        """The noise of each convolution in the block of a side: "const", "none" or maps (batch, side, side)."""
        if not isinstance(noise, Tensor):
            return [noise, noise]
        end = noise_numbers(own for own in self.config.block_resolutions if own <= side)
        maps: Sequence[Tensor] = noise[:, max(end - 2 * side**2, 0) : end].unflatten(1, (-1, side, side)).unbind(1)
        return maps


def _split(noise: Noise, count: int) -> Sequence[Noise]:
    """Split noise for a batch as `tensor_split(count)` does; "const" and "none" are repeated."""
    return noise.tensor_split(count) if isinstance(noise, Tensor) else [noise] * count


class StyleGAN2(StyleGAN):
    """The StyleGAN2 generator: a mapping network from z to w, and a synthesis network from w to pictures."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config)
        self.synthesis = SynthesisNetwork(config)

    @property
    def noise_size(self) -> int:
        """How many random numbers one picture takes as noise; 0 if the strength of noise is 0 in all layers."""
        return self.synthesis.config.noise_size if has_noise(self) else 0

    @property
    def preview_sides(self) -> Sequence[int]:
        """Sides of previews: of all blocks but the last, if every block draws a picture."""
        config = self.synthesis.config
        return config.block_resolutions[:-1] if config.architecture == "skip" else ()

    def preview(self, w: Tensor, side: int, noise: Noise = "const", dtype: torch.dtype | None = None) -> Tensor:
        """Map latents to the pictures that the blocks up to `side` add up to, (batch, channels, side, side).

        Args:
            w, noise, dtype: see `synthesize`.
            side: width and height, in pixels, one of `preview_sides`.

        Raises:
            ArgumentError: `side` is none of `preview_sides`.
        """
        if side not in self.preview_sides:
            sides = ", ".join(map(str, self.preview_sides)) or "none"
            raise ArgumentError(f"there are no previews of {side} pixels; sides: {sides}")
        return over_white(self.synthesis(w, noise, dtype, side))

    def synthesize(self, w: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None) -> Tensor:
        """Map latents to pictures in about [-1, 1], (batch, channels, side, side).

        Pictures with a fourth channel, the opacity, are drawn over white; the network `synthesis` returns all four
        channels.

        Args:
            w: the output of `encode`, (batch, w_dim), or W+ with a w for each layer, (batch, num_ws, w_dim).
            noise: "const" (stored with the weights), "none", or standard normal numbers (batch, `config.noise_size`).
            dtype: precision of the feature maps; by default the dtype of w.

        Raises:
            ArgumentError: w has neither of the two shapes, or `noise` is none of the three.
        """
        return over_white(self.synthesis(w, noise, dtype))


READERS = "energyql.generators.checkpoints.stylegan2"
FORMATS = "StyleGAN2 (official, rosinality's, or in pSp or e4e)"
FAMILY = Family("stylegan2", StyleGAN2, StyleGAN2Config, READERS, FORMATS)
