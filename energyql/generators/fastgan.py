"""The generator of FastGAN, and its variants in projected GAN: convolutions, noise, and skip-layer excitation.

Liu, Zhu, Song and Elgammal, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021 (arXiv 2101.04775); Sauer, Chitta, Müller and Geiger, "Projected GANs Converge Faster", NeurIPS 2021
(arXiv 2111.01007). Normalisations are constant after training, so the weights and biases here include them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError, ModelError
from energyql.generators.base import Family
from energyql.generators.convolution import padded_rows
from energyql.generators.mapping import UnmappedGenerator, random_weights
from energyql.numerics.pullback import normalized
from energyql.numerics.shapes import Float

Noise = Literal["const", "none"] | Tensor
"""The noise that is stored with the weights, no noise, or (batch, noise_size) numbers, in the order of the layers."""
MOST_SIDE = 1024
"""Largest side of a picture."""
_EXCITED_BY = 16
"""Side of an excited stage, divided by that of the stage that computes its factors; see `Excitation`."""
EXCITED = (64, 128, 256, 512)
"""Sides of the stages that are excited: multiplied by factors that another stage computes."""


@dataclass(frozen=True)
class FastGANConfig:
    """Architecture of a FastGAN. Stages have sides of 4, 8, 16 ...; the picture has the side of the last one.

    Args:
        z_dim: size of the latent.
        widths: channels of each stage.
        layers: convolutions of each stage after the first, 1 or 2; stages with 2 add noise.
        c_dim: number of class labels, 0 for an unconditional model.
        embed_features: size of the embedding of a label.
        image_channels: 1 for grey, 3 for RGB.
        normalize_z: whether the input of the network is the direction of z, as in projected GAN, rather than z.
        tanh: whether a hyperbolic tangent ends the network, as in FastGAN's at 1024x1024.

    Raises:
        ModelError: a setting is out of its range, or the stages do not fit together.
    """

    z_dim: int
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    c_dim: int = 0
    embed_features: int = 0
    image_channels: int = 3
    normalize_z: bool = False
    tanh: bool = False

    def __post_init__(self) -> None:
        ranges = {"z_dim": (1, 1 << 16), "c_dim": (0, 1 << 16), "embed_features": (0, 1 << 16)}
        for name, (least, most) in ranges.items():
            if type(getattr(self, name)) is not int or not least <= getattr(self, name) <= most:
                raise ModelError(f"{name} must be a whole number from {least} to {most}, not {getattr(self, name)!r}")
        for name, most in (("widths", 1 << 16), ("layers", 2)):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple) or not all(type(n) is int and 1 <= n <= most for n in numbers):
                raise ModelError(f"{name} must be a list of whole numbers from 1 to {most}, not {numbers!r}")
        if not 2 <= len(self.widths) <= int(math.log2(MOST_SIDE)) - 1 or len(self.layers) != len(self.widths) - 1:
            raise ModelError("widths must have one number for each of 2 to 9 stages, and layers one less")
        if self.image_channels not in (1, 3) or isinstance(self.image_channels, bool):
            raise ModelError(f"image_channels must be 1 (grey) or 3 (RGB), not {self.image_channels!r}")
        if not isinstance(self.normalize_z, bool) or not isinstance(self.tanh, bool):
            raise ModelError("normalize_z and tanh must be true or false")
        if (self.c_dim == 0) != (self.embed_features == 0):
            raise ModelError("c_dim and embed_features must both be 0, or neither")

    @property
    def w_dim(self) -> int:
        """Size of w, which is z followed by the embedding of the label."""
        return self.z_dim + self.embed_features

    @property
    def resolution(self) -> int:
        """Side of the pictures."""
        return 4 << len(self.layers)

    @property
    def noise_size(self) -> int:
        """Count of noise numbers of a picture: one for each pixel of each convolution of the stages with two."""
        return sum(2 * (8 << stage) ** 2 for stage, count in enumerate(self.layers) if count == 2)


class Convolution(nn.Module):
    """A convolution, noise, a scale and a shift for the class, and a gated linear unit, which halves the channels."""

    noise_const: Tensor

    def __init__(self, before: int, width: int, side: int, config: FastGANConfig, *, noisy: bool) -> None:
        super().__init__()
        self.side = side
        self.weight = nn.Parameter(random_weights(2 * width, before, 3, 3, scale=1 / math.sqrt(9 * before)))
        self.bias = nn.Parameter(torch.zeros(2 * width))
        if noisy:
            self.noise_strength = nn.Parameter(torch.zeros(2 * width))
            self.register_buffer("noise_const", random_weights(side, side))
        if config.c_dim:
            size = config.embed_features
            self.by_class = nn.Parameter(random_weights(4 * width, size, scale=1 / math.sqrt(size)))
            self.of_all = nn.Parameter(torch.zeros(4 * width))

    def forward(
        self, x: Float[Tensor, "batch before half half"], noise: Iterator[Tensor | None], embedded: Tensor
    ) -> Float[Tensor, "batch width side side"]:
        """Map features, of the side of this layer or of half of it, to features.

        Args:
            x: features.
            noise: iterator over maps of noise (side, side) or (batch, side, side), or `None` for no noise. A layer with
                noise takes the next map, or the stored one at the end of the iterator.
            embedded: embeddings of the labels, (batch, embed_features).
        """
        if x.shape[-1] != self.side:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), padding=1)
        if hasattr(self, "noise_strength") and (noise_map := next(noise, self.noise_const)) is not None:
            x = x + (noise_map.unsqueeze(-3) * self.noise_strength[:, None, None]).to(x.dtype)
        if hasattr(self, "by_class"):
            # A product of a fixed number of rows has the same rounding errors for every size of batch.
            factors = F.linear(padded_rows(embedded), self.by_class, self.of_all)[: len(x)].to(x.dtype)
            gain, shift = factors[:, :, None, None].chunk(2, 1)
            x = torch.addcmul(x + shift, x, gain)
        return F.glu(x, 1)


class Excitation(nn.Module):
    """Factors of the channels of a stage, from the features of a much smaller one."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.gather = nn.Parameter(random_weights(width, before, 4, 4, scale=1 / math.sqrt(16 * before)))
        self.mix = nn.Parameter(random_weights(width, width, 1, 1, scale=1 / math.sqrt(width)))

    def forward(self, small: Float[Tensor, "batch before side side"]) -> Float[Tensor, "batch width 1 1"]:
        """Return the factors, between 0 and 1, from the features of the smaller stage."""
        x = F.conv2d(F.adaptive_avg_pool2d(small, 4), self.gather.to(small.dtype))
        return F.conv2d(F.silu(x), self.mix.to(x.dtype)).sigmoid()


class FastGAN(UnmappedGenerator):
    """The FastGAN generator. w is z, or the direction of z, followed by the embedding of the label.

    It has no mapping network.
    """

    config: FastGANConfig

    def __init__(self, config: FastGANConfig) -> None:
        super().__init__(config)
        first, size = config.widths[0], config.z_dim
        self.start = nn.Parameter(random_weights(2 * first, 4, 4, size, scale=1 / math.sqrt(size)))
        self.start_bias = nn.Parameter(torch.zeros(2 * first))
        if config.c_dim:
            self.embed = nn.Parameter(random_weights(config.embed_features, config.c_dim))
        for stage, count in enumerate(config.layers):
            before, width, side = config.widths[stage], config.widths[stage + 1], 8 << stage
            convolutions = [
                Convolution(width if i else before, width, side, config, noisy=count == 2) for i in range(count)
            ]
            self.add_module(f"b{side}", nn.ModuleList(convolutions))
            if side in EXCITED:
                self.add_module(f"excite{side}", Excitation(config.widths[stage - 3], width))
        last = config.widths[-1]
        shape = config.image_channels, last, 3, 3
        self.colours = nn.Parameter(random_weights(*shape, scale=1 / math.sqrt(9 * last)))
        self.colours_bias = nn.Parameter(torch.zeros(config.image_channels))

    @property
    def noise_size(self) -> int:
        """Count of noise numbers of a picture; 0 if all noise has strength 0. See `NoisyGenerator`."""
        strengths = (value for name, value in self.named_parameters() if name.endswith("noise_strength"))
        return self.config.noise_size if any(bool(value.any()) for value in strengths) else 0

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Return the part of w that z decides: z, or with `normalize_z` its direction, with a mean square of 1."""
        return normalized(z) if self.config.normalize_z else z

    def synthesize(
        self, w: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None
    ) -> Float[Tensor, "batch channels side side"]:
        """Map w (batch, w_dim) to pictures, about [-1, 1], (batch, image_channels, side, side).

        Args:
            w: the output of `encode`.
            noise: "const", the noise stored with the weights; "none"; or (batch, `config.noise_size`) standard normal
                numbers.
            dtype: precision of the feature maps, by default that of the parameters.

        Raises:
            ArgumentError: w has another shape, or `noise` is none of the three.
        """
        w = self.checked(w)
        size = len(w), self.config.noise_size
        kind = tuple(noise.shape) if isinstance(noise, Tensor) else noise
        if kind not in ("const", "none", size):
            raise ArgumentError(f'noise is "const", "none" or a tensor {size}, not {kind!r}')
        dtype = dtype or w.dtype
        if isinstance(noise, Tensor):
            return self.in_parts(lambda w, noise: self._draw(w, noise, dtype), w, noise)
        return self.in_parts(lambda w: self._draw(w, noise, dtype), w)

    def _draw(self, w: Tensor, noise: Noise, dtype: torch.dtype) -> Tensor:
        z, embedded = w.tensor_split([self.z_dim], 1)
        x = F.linear(padded_rows(z), self.start.flatten(0, 2))[: len(z)].unflatten(1, self.start.shape[:3])
        maps = self._maps(noise)
        stages = {4: F.glu(x + self.start_bias[:, None, None], 1).to(dtype)}
        for stage in range(len(self.config.layers)):
            side = 8 << stage
            x = stages[side // 2]
            for convolution in self.get_submodule(f"b{side}").children():
                x = convolution(x, maps, embedded)
            if side in EXCITED:
                x = x * self.get_submodule(f"excite{side}")(stages[side // _EXCITED_BY])
            stages[side] = x
        image = F.conv2d(x, self.colours.to(dtype), self.colours_bias.to(dtype), padding=1).to(w.dtype)
        return image.tanh() if self.config.tanh else image

    def _maps(self, noise: Noise) -> Iterator[Tensor | None]:
        """Yield the noise of each layer with noise: a map, or `None` for no noise. Yield nothing for "const"."""
        if isinstance(noise, Tensor):
            sides = [8 << stage for stage, count in enumerate(self.config.layers) if count == 2 for _ in range(2)]
            for side, own in zip(sides, noise.split([side**2 for side in sides], 1), strict=True):
                yield own.unflatten(1, (side, side))
        elif noise == "none":
            yield from [None] * (2 * len(self.config.layers))


FAMILY = Family(
    "fastgan",
    FastGAN,
    FastGANConfig,
    "energyql.generators.checkpoints.fastgan",
    "FastGAN, projected GAN",
    truncation=1.0,
)
