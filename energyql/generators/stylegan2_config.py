"""What a StyleGAN2 is built of."""

from __future__ import annotations

import dataclasses
import math

from energyql.errors import ModelError


@dataclasses.dataclass(frozen=True)
class StyleGAN2Config:
    """Architecture of a StyleGAN2.

    Args:
        resolution: side of the square pictures, a power of two from 8 to 1024.
        z_dim, w_dim: sizes of the two latents.
        c_dim: number of class labels, 0 for an unconditional model.
        mapping_layers: depth of the mapping network.
        mapping_lr_multiplier: learning-rate multiplier the mapping weights are stored with.
        channel_base, channel_max: a block of resolution r has min(channel_base / r, channel_max) channels.
        image_channels: 3 for RGB.
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
    channel_base: int = 32768
    channel_max: int = 512
    image_channels: int = 3
    conv_clamp: float | None = None

    def __post_init__(self) -> None:
        if self.resolution not in (8, 16, 32, 64, 128, 256, 512, 1024):
            raise ModelError(f"resolution must be a power of two from 8 to 1024, not {self.resolution!r}")
        for name, least, most in (
            ("z_dim", 1, 1 << 16),
            ("w_dim", 1, 1 << 16),
            ("c_dim", 0, 1 << 16),
            ("mapping_layers", 1, 64),
            ("channel_base", self.resolution, 1 << 27),
            ("channel_max", 1, 1 << 16),
            ("image_channels", 1, 64),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {value!r}")
        for name in ("mapping_lr_multiplier", *(["conv_clamp"] if self.conv_clamp is not None else [])):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < math.inf:
                raise ModelError(f"{name} must be a positive number, not {value!r}")

    @property
    def block_resolutions(self) -> list[int]:
        return [2**i for i in range(2, self.resolution.bit_length())]

    @property
    def num_ws(self) -> int:
        """Number of W+ rows: one a convolution and one for the last RGB layer."""
        return 2 * len(self.block_resolutions)

    def channels(self, resolution: int) -> int:
        return min(self.channel_base // resolution, self.channel_max)
