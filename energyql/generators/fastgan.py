"""The generator of FastGAN, and the variants of this generator in projected GAN.

Liu, Zhu, Song and Elgammal, "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021 (arXiv 2101.04775); Sauer, Chitta, Müller and Geiger, "Projected GANs Converge Faster", NeurIPS 2021 (arXiv
2111.01007). Normalisations are constant after training, so the weights and biases here include them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ModelError
from energyql.generators.base import Family, Noise, check_noise_input, has_noise
from energyql.generators.convolution import Maps, convolve, one_by_one, padded_rows
from energyql.generators.mapping import UnmappedConfig, UnmappedGenerator, check_lists, check_settings, random_weights
from energyql.numerics.pullback import normalized
from energyql.numerics.shapes import Float

MOST_SIDE = 1024
"""Largest side of a picture."""
_EXCITED_BY = 16
"""Side of a large stage, divided by the side of the smaller stage that computes factors for its channels."""
EXCITED = (64, 128, 256, 512)
"""Sides of the large stages whose channels are multiplied by factors from small stages ("skip-layer excitation")."""


@dataclass(frozen=True)
class FastGANConfig(UnmappedConfig):
    """Settings of a FastGAN besides those of `UnmappedConfig`; it is a `ModelError` if they do not fit together.

    Args:
        layers: number of convolutions, 1 or 2, of each stage after the first; stages with 2 add noise.
        normalize_z: whether z is scaled to a mean square of 1 before the first layer, as in projected GAN.
        tanh: whether the last layer is a hyperbolic tangent, as in FastGAN for 1024x1024 pixels.
    """

    layers: tuple[int, ...]
    normalize_z: bool = False
    tanh: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_lists(self, layers=(1, 2))
        check_settings(self, normalize_z=(False, True), tanh=(False, True))
        if not 2 <= len(self.widths) <= int(math.log2(MOST_SIDE)) - 1 or len(self.layers) != len(self.widths) - 1:
            raise ModelError("widths must have one number for each of 2 to 9 stages, and layers one less")

    @property
    def noise_size(self) -> int:
        """How many random numbers one picture takes as noise: a map for each convolution of stages with two."""
        return sum(2 * (8 << stage) ** 2 for stage, count in enumerate(self.layers) if count == 2)


class Convolution(nn.Module):
    """A convolution, perhaps noise, a scale and a shift that depend on the class, and a gated linear unit.

    The unit halves the number of channels, to `width`; `before` and `side` are the channels of the input and the side
    of the output.
    """

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

    def forward(self, x: Maps, noise: Iterator[Tensor | None], embedded: Tensor) -> Maps:
        """Return the output of the layer, (batch, width, side, side).

        Args:
            x: feature maps; their side is `side` or half of it.
            noise: iterator that all layers share; one that adds noise takes the next map, (side, side) or (batch, side,
                side), or `None` for no noise. After the last item a layer adds its stored noise.
            embedded: embeddings of the conditions, (batch, embed_features).
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
    """Layers that compute factors for the `width` channels of a large stage from a much smaller stage."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.gather = nn.Parameter(random_weights(width, before, 4, 4, scale=1 / math.sqrt(16 * before)))
        self.mix = nn.Parameter(random_weights(width, width, 1, 1, scale=1 / math.sqrt(width)))

    def forward(self, small: Maps) -> Maps:
        """Return factors between 0 and 1, (batch, width, 1, 1), from `small`, the feature maps of the smaller stage."""
        x = F.conv2d(F.adaptive_avg_pool2d(small, 4), self.gather.to(small.dtype))
        return convolve(F.silu(x), self.mix.to(x.dtype)).sigmoid()


class FastGAN(UnmappedGenerator):
    """The FastGAN generator. It has no mapping network: w is z, followed by the embedding of the condition if any."""

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
            inputs = [before, width][:count]
            layers = [Convolution(size, width, side, config, noisy=count == 2) for size in inputs]
            self.add_module(f"b{side}", nn.ModuleList(layers))
            if side in EXCITED:
                self.add_module(f"excite{side}", Excitation(config.widths[stage - 3], width))
        last, colours = config.widths[-1], config.image_channels
        self.colours = nn.Parameter(random_weights(colours, last, 3, 3, scale=1 / math.sqrt(9 * last)))
        self.colours_bias = nn.Parameter(torch.zeros(colours))

    @property
    def noise_size(self) -> int:
        """How many random numbers one picture takes as noise; 0 if the strength of noise is 0 in all layers."""
        return self.config.noise_size if has_noise(self) else 0

    def seen(self, z: Float[Tensor, "batch z_dim"]) -> Float[Tensor, "batch z_dim"]:
        """Part of w that depends on z, before truncation: z, scaled to a mean square of 1 with `normalize_z`."""
        return normalized(z) if self.config.normalize_z else z

    def synthesize(self, w: Tensor, noise: Noise = "const", dtype: torch.dtype | None = None) -> Maps:
        """Map w (batch, w_dim) to pictures in about [-1, 1], (batch, image_channels, side, side).

        Args:
            noise: "const" (stored with the weights), "none", or standard normal numbers (batch, `config.noise_size`).
            dtype: precision of the feature maps; by default the dtype of the parameters.
        """
        w = self.checked(w)
        check_noise_input(noise, (len(w), self.config.noise_size))
        rows = (w, noise) if isinstance(noise, Tensor) else (w,)
        return one_by_one(self, lambda w, own=noise: self._draw(w, own, dtype or w.dtype), *rows)

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
        """Noise of the layers that add some: maps for a tensor, `None` for "none", no items for "const"."""
        if isinstance(noise, Tensor):
            sides = [8 << stage for stage, count in enumerate(self.config.layers) if count == 2 for _ in range(2)]
            for side, own in zip(sides, noise.split([side**2 for side in sides], 1), strict=True):
                yield own.unflatten(1, (side, side))
        elif noise == "none":
            yield from [None] * (2 * len(self.config.layers))


READERS = "energyql.generators.checkpoints.fastgan"
FAMILY = Family("fastgan", FastGAN, FastGANConfig, READERS, "FastGAN, projected GAN", truncation=1.0)
