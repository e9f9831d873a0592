"""The generator StyleGAN-XL: a StyleGAN3 whose mapping network takes features of the class, and that grows in steps.

First a network of low resolution, the stem, is trained. Then groups of layers, the heads, are added one after another,
each for a higher resolution. Heads in this module are never the classifiers of attributes.

Sauer, Schwarz and Geiger, "StyleGAN-XL: Scaling StyleGAN to Large Diverse Datasets", SIGGRAPH 2022 (arXiv 2202.00273).
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor, nn

from energyql.errors import ModelError
from energyql.generators.base import Family
from energyql.generators.mapping import (
    COUNTS,
    FullyConnected,
    MappingNetwork,
    check_lists,
    check_settings,
    random_weights,
)
from energyql.generators.stylegan3 import SignalSpec, StyleGAN3, StyleGAN3Config
from energyql.numerics.shapes import Float

UP_FACTORS = (2, 4, 8, 16)
"""Factors by which a head (a group of layers that is added to a network) may raise the resolution."""
LEAST_HEAD = 3
"""Smallest number of layers of a head (a group of layers for a higher resolution), without the RGB layer."""
MOST_HEAD = 64
"""Largest number of layers of a head (a group of layers for a higher resolution), without the RGB layer."""
_HEAD_STEPS = 2
"""How many of the last layers of a head, a group of layers for a higher resolution, have the largest cutoff. The RGB
layer is not counted."""
_HEAD_CLAMP = 256.0
"""Limit of the absolute values of activations in heads, the groups of layers for higher resolutions."""


@dataclasses.dataclass(frozen=True)
class StyleGANXLConfig(StyleGAN3Config):
    """Settings of a StyleGAN-XL: a stem of low resolution, then heads, groups of layers for higher resolutions.

    A head replaces the last layers of the network before it: `num_critical` layers and the RGB layer.

    Args:
        class_features: count of the numbers that describe a class; 0 without classes.
        head_layers: number of layers of each head, without the RGB layer; empty for a stem without heads.
        up_factors: for each head the factor by which it raises the resolution, 2, 4, 8 or 16.

    The other settings are those of `StyleGAN3Config`. `resolution` is the side of the final pictures. `num_layers` and
    `conv_clamp` are the number of layers and the limit of activations of the stem. The limit in heads is always 256.

    Raises:
        ModelError: a number is out of its range, or stem and heads do not fit together.
    """

    class_features: int = 0
    head_layers: tuple[int, ...] = ()
    up_factors: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_settings(self, class_features=COUNTS)
        if (self.c_dim == 0) != (self.class_features == 0):
            raise ModelError("c_dim and class_features must both be 0, or neither")
        check_lists(self, head_layers=range(LEAST_HEAD, MOST_HEAD + 1), up_factors=UP_FACTORS)
        if len(self.head_layers) != len(self.up_factors):
            raise ModelError("head_layers and up_factors must have one number for each head")
        super().__post_init__()
        if self.up_factors and self.num_critical > min(self.head_layers) - 1:
            raise ModelError(f"num_critical must be below the layers of a head, not {self.num_critical}")
        if self.stem_resolution < 8 or self.first_cutoff >= self.stem_resolution / 2:
            raise ModelError(f"the stem has a resolution of {self.stem_resolution}, which is too low")

    @property
    def stem_resolution(self) -> int:
        """Side in pixels of the pictures that the stem, which is the network without any head, draws."""
        return self.resolution // math.prod(self.up_factors)

    def clamp_of(self, layer: int) -> float | None:
        """Return the limit of the absolute values of activations in a layer; `None` for no limit.

        `layer` is the number of the layer; the first one has the number 0.
        """
        in_stem = not self.head_layers or layer < self.num_layers - self.num_critical
        return self.conv_clamp if in_stem else _HEAD_CLAMP

    def signals(self) -> list[SignalSpec]:
        """Return the output signals (size, cutoff and so on) of all layers in order, the RGB layer last."""
        steps, resolution = self.num_layers - self.num_critical, self.stem_resolution
        specs = self._progression(self.first_cutoff, self.first_stopband, resolution, self.num_layers, steps)
        for layers, factor in zip(self.head_layers, self.up_factors, strict=True):
            resolution *= factor
            below = specs[: -self.num_critical - 1]
            last = below[-1]  # the first layer of the head has the same output signal
            stopband = last.half_width + last.cutoff
            head = self._progression(last.cutoff, stopband, resolution, layers, layers - _HEAD_STEPS)
            specs = [*below, last, *head[1:]]
        return specs


class ClassMapping(MappingNetwork):
    """The mapping network of StyleGAN-XL: it embeds features of the class in place of the one-hot condition.

    The features of a class are numbers stored with the weights. There is a mean of w for each class.
    """

    config: StyleGANXLConfig

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(dataclasses.replace(config, embed_features=config.z_dim))
        if config.c_dim:
            self.class_features = nn.Parameter(random_weights(config.c_dim, config.class_features))
            self.embed = FullyConnected(config.class_features, config.z_dim, activate=True)
            self.register_buffer("w_avg", torch.zeros(config.c_dim, config.w_dim))

    def embedding(self, condition: Tensor) -> Float[Tensor, "count z_dim"]:
        """Return the embeddings of conditions (count, c_dim), before each row is scaled to a mean square of 1."""
        return super().embedding(condition @ self.class_features)

    def mean(self, condition: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Return the mean of w for each of the conditions (count, c_dim), (count, w_dim): the mean of its class.

        For a condition that is not one-hot it is the sum of the means of all classes, weighted by the condition.
        Without classes `condition` is `None`, and the result is (w_dim,).
        """
        return self.w_avg if condition is None else condition @ self.w_avg


class StyleGANXL(StyleGAN3):
    """The StyleGAN-XL generator: a mapping network from z to w, and a synthesis network from w to pictures."""

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(config)
        self.mapping = ClassMapping(config)


READERS = "energyql.generators.checkpoints.stylegan_xl"
FAMILY = Family("stylegan-xl", StyleGANXL, StyleGANXLConfig, READERS, "StyleGAN-XL")
