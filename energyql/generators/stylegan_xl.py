"""StyleGAN-XL: a StyleGAN3 with features of classes, whose resolution grows by heads, groups of further layers.

Sauer, Schwarz and Geiger, "StyleGAN-XL: Scaling StyleGAN to Large Diverse Datasets", SIGGRAPH 2022 (arXiv 2202.00273).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from energyql.errors import ModelError
from energyql.generators.base import Family
from energyql.generators.mapping import FullyConnected, MappingNetwork, random_weights
from energyql.generators.stylegan3 import SignalSpec, StyleGAN3, StyleGAN3Config
from energyql.numerics.shapes import Float

UP_FACTORS = (2, 4, 8, 16)
"""Factors by which a head may raise the resolution."""
LEAST_HEAD = 3
"""Fewest layers of a head."""
MOST_HEAD = 64
"""Most layers of a head."""
_HEAD_STEPS = 2
"""Number of layers at the end of a head that have the same cutoff."""
_HEAD_CLAMP = 256.0
"""Limit of the activations in heads."""


@dataclasses.dataclass(frozen=True)
class StyleGANXLConfig(StyleGAN3Config):
    """Architecture of a StyleGAN-XL: a stem of low resolution, then heads for higher resolutions.

    A head replaces the last layers of the part before it: the critically sampled layers and the RGB layer.

    Args:
        class_features: size of the features of a class; 0 without classes.
        head_layers: number of layers of each head, without the RGB layer; empty for a stem.
        up_factors: factor by which each head raises the resolution, 2, 4, 8 or 16.

    `resolution` is that of the last head; `num_layers` is the depth of the stem. The other settings are those of
    `StyleGAN3Config`; `conv_clamp` is the limit in the stem, and the limit in heads is 256.

    Raises:
        ModelError: a number is out of its range, or the parts do not fit together.
    """

    class_features: int = 0
    head_layers: tuple[int, ...] = ()
    up_factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check_integers(class_features=(0, 1 << 16))
        if (self.c_dim == 0) != (self.class_features == 0):
            raise ModelError("c_dim and class_features must both be 0, or neither")
        for name, allowed in (("head_layers", range(LEAST_HEAD, MOST_HEAD + 1)), ("up_factors", UP_FACTORS)):
            numbers = getattr(self, name)
            if not isinstance(numbers, tuple) or not all(type(n) is int and n in allowed for n in numbers):
                least, most = min(allowed), max(allowed)
                raise ModelError(f"{name} must be a list of whole numbers from {least} to {most}, not {numbers!r}")
        if len(self.head_layers) != len(self.up_factors):
            raise ModelError("head_layers and up_factors must have one number for each head")
        super().__post_init__()
        if self.up_factors and self.num_critical > min(self.head_layers) - 1:
            raise ModelError(f"num_critical must be below the layers of a head, not {self.num_critical}")
        if self.stem_resolution < 8 or self.first_cutoff >= self.stem_resolution / 2:
            raise ModelError(f"the stem has a resolution of {self.stem_resolution}, which is too low")

    @property
    def stem_resolution(self) -> int:
        """Side of the pictures before the first head."""
        return self.resolution // math.prod(self.up_factors)

    @property
    def num_ws(self) -> int:
        """Number of W+ rows: the Fourier features, the layers, the last RGB layer."""
        return len(self.signals()) + 1

    def clamp_of(self, layer: int) -> float | None:
        """Return the limit of the activations of the layer with this index, `None` for no limit."""
        in_stem = not self.head_layers or layer < self.num_layers - self.num_critical
        return self.conv_clamp if in_stem else _HEAD_CLAMP

    def signals(self) -> list[SignalSpec]:
        """Return the output signal of each layer, the RGB layer last."""
        steps, resolution = self.num_layers - self.num_critical, self.stem_resolution
        specs = self._progression(self.first_cutoff, self.first_stopband, resolution, self.num_layers, steps)
        for layers, factor in zip(self.head_layers, self.up_factors, strict=True):
            resolution *= factor
            specs = self.below_head(specs)
            specs += self.head(specs[-1], layers, resolution)
        return specs

    def below_head(self, specs: list[SignalSpec]) -> list[SignalSpec]:
        """Return the signals of the layers that a head does not replace: all but critical ones and the RGB layer."""
        return specs[: -self.num_critical - 1]

    def head(self, last: SignalSpec, layers: int, resolution: int) -> list[SignalSpec]:
        """Return the signals of a head, the RGB layer last.

        Args:
            last: signal of the layer below the head; the first layer of the head has the same.
            layers: number of layers of the head, without the RGB layer.
            resolution: side of the pictures after the head.
        """
        stopband = last.half_width + last.cutoff
        specs = self._progression(last.cutoff, stopband, resolution, layers, layers - _HEAD_STEPS)
        return [last, *specs[1:]]


class ClassMapping(MappingNetwork):
    """A mapping network that embeds the features of a class, and has a mean of w for each class."""

    config: StyleGANXLConfig

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(dataclasses.replace(config, embed_features=config.z_dim))
        if config.c_dim:
            self.class_features = nn.Parameter(random_weights(config.c_dim, config.class_features))
            self.embed = FullyConnected(config.class_features, config.z_dim, activate=True)
            self.register_buffer("w_avg", torch.zeros(config.c_dim, config.w_dim))

    def embedding(self, label: Tensor) -> Float[Tensor, "count z_dim"]:
        """Return the embeddings of labels (count, c_dim) before their normalisation."""
        embeddings: Tensor = self.embed(label @ self.class_features)
        return embeddings

    def mean(self, label: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Return the mean of w for each label, (count, w_dim), or (w_dim,) without a label.

        For a label that is not one-hot it is the sum of the means of the classes, weighted by the label.
        """
        return self.w_avg if label is None else label @ self.w_avg


class StyleGANXL(StyleGAN3):
    """The StyleGAN-XL generator: mapping and synthesis networks."""

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(config)
        self.mapping = ClassMapping(config)


FAMILY = Family(
    "stylegan-xl",
    StyleGANXL,
    StyleGANXLConfig,
    "energyql.generators.checkpoints.stylegan_xl",
    "StyleGAN-XL",
)
