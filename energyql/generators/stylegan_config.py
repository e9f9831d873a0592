"""The settings of every StyleGAN, and those of StyleGAN2."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from energyql.errors import ModelError

Architecture = Literal["skip", "resnet", "orig"]


@dataclass(frozen=True)
class StyleGANConfig:
    """The settings of every StyleGAN.

    Args:
        resolution: side of the square pictures, a power of two from 8 to 1024.
        z_dim, w_dim: sizes of the two latents.
        c_dim: number of class labels, 0 for an unconditional model.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning-rate multiplier that the mapping weights are stored with.
        embed_features, layer_features: widths of the embedding of a label and of the mapping layers before the last;
            `None` for `w_dim`.
        channel_base, channel_max: limits of the number of channels, see the subclasses.
        image_channels: 1 for grey, 3 for RGB, 4 for RGBA.
        conv_clamp: activations are clamped to +- this value; `None` for no clamping.

    Raises:
        ModelError: a number is out of its range.
    """

    resolution: int
    z_dim: int = 512
    w_dim: int = 512
    c_dim: int = 0
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    embed_features: int | None = None
    layer_features: int | None = None
    channel_base: int = 32768
    channel_max: int = 512
    image_channels: int = 3
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        if type(self.resolution) is not int or self.resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ModelError(f"resolution must be a power of two from 8 to 1024, not {self.resolution!r}")
        self._check_integers(
            z_dim=(1, 1 << 16),
            w_dim=(1, 1 << 16),
            c_dim=(0, 1 << 16),
            mapping_layers=(1, 64),
            channel_base=(self.resolution, 1 << 27),  # so that the finest layer has a channel
            channel_max=(1, 1 << 16),
            image_channels=(1, 4),
        )
        for width in ("embed_features", "layer_features"):
            if getattr(self, width) is not None:
                self._check_integers(**{width: (1, 1 << 16)})
        if self.image_channels == 2:
            raise ModelError("image_channels must be 1 (grey), 3 (RGB) or 4 (RGBA), not 2")
        self._check_numbers(mapping_lr_multiplier=(0, math.inf), conv_clamp=(0, math.inf))

    def _check_integers(self, **ranges: tuple[int, int]) -> None:
        for name, (least, most) in ranges.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {value!r}")

    def _check_numbers(self, **ranges: tuple[float, float]) -> None:
        """The limits themselves are not allowed. `conv_clamp` may be `None`."""
        for name, (above, below) in ranges.items():
            value = getattr(self, name)
            if value is None and name == "conv_clamp":
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not above < value < below:
                limits = f"above {above}" if below == math.inf else f"between {above} and {below}"
                raise ModelError(f"{name} must be a number {limits}, not {value!r}")


@dataclass(frozen=True)
class StyleGAN2Config(StyleGANConfig):
    """Architecture of a StyleGAN2.

    Args:
        channel_base, channel_max: a block of resolution r has min(channel_base / r, channel_max) channels.
        architecture: "skip" adds up the pictures of all blocks; "resnet" and "orig" draw one from the last block, with
            and without residual connections between the blocks.
        filter_taps: side of the filter for up-sampling, even; shorter and odd ones are padded with zeros.

    The other settings are those of `StyleGANConfig`.
    """

    architecture: Architecture = "skip"
    filter_taps: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_integers(filter_taps=(4, 64))
        if self.filter_taps % 2:
            raise ModelError(f"filter_taps must be even, not {self.filter_taps}")
        if self.architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise ModelError(f"architecture must be one of {known}, not {self.architecture!r}")

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
        """Numbers of noise in a picture: one for each pixel of each convolution."""
        return noise_numbers(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        """Return the number of feature maps at a resolution."""
        return min(self.channel_base // resolution, self.channel_max)


def noise_numbers(sides: Iterable[int]) -> int:
    """Return the numbers of noise in blocks of these sides, from 4 on: two maps a block, one in the first."""
    return 2 * sum(side**2 for side in sides) - 4**2
