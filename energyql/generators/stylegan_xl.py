"""The generator StyleGAN-XL: a StyleGAN3 whose mapping network takes features of the class, and that grows in steps.

First a network of low resolution, the stem, is trained. Then heads are added one after another, groups of layers for a
higher resolution; here they are never classifiers of attributes. Sauer, Schwarz and Geiger, "StyleGAN-XL: Scaling
StyleGAN to Large Diverse Datasets", SIGGRAPH 2022 (arXiv 2202.00273).
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
"""Factors by which a head may raise the resolution."""
LEAST_HEAD = 3
"""Smallest number of layers of a head, without the RGB layer."""
MOST_HEAD = 64
"""Largest number of layers of a head, without the RGB layer."""
_HEAD_STEPS = 2
"""How many of the last layers of a head have the largest cutoff, besides the RGB layer."""
_HEAD_CLAMP = 256.0
"""Limit of the absolute values of activations in heads."""


@dataclasses.dataclass(frozen=True)
class StyleGANXLConfig(StyleGAN3Config):
    """Settings of a StyleGAN-XL besides those of `StyleGAN3Config`; it is a `ModelError` if they do not fit together.

    A head replaces the last layers of the network before it: `num_critical` layers and the RGB layer. `resolution` is
    that of the final pictures; `num_layers` and `conv_clamp` are those of the stem.

    Args:
        class_features: count of the numbers that describe a class; 0 without classes.
        head_layers: number of layers of each head, without the RGB layer; empty for a stem without heads.
        up_factors: for each head the factor by which it raises the resolution, 2, 4, 8 or 16.
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
        """Side in pixels of the pictures that the stem, the network without any head, draws."""
        return self.resolution // math.prod(self.up_factors)

    def clamp_of(self, layer: int) -> float | None:
        """Limit of activations in a layer: `conv_clamp` in the stem, 256 in heads."""
        in_stem = not self.head_layers or layer < self.num_layers - self.num_critical
        return self.conv_clamp if in_stem else _HEAD_CLAMP

    def signals(self) -> list[SignalSpec]:
        """Output signals of all layers in order, the RGB layer last."""
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
    """The mapping network of StyleGAN-XL: it embeds stored features of a class, and has a mean of w for each class."""

    config: StyleGANXLConfig

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(dataclasses.replace(config, embed_features=config.z_dim))
        if config.c_dim:
            self.class_features = nn.Parameter(random_weights(config.c_dim, config.class_features))
            self.embed = FullyConnected(config.class_features, config.z_dim, activate=True)
            self.register_buffer("w_avg", torch.zeros(config.c_dim, config.w_dim))

    def embedding(self, condition: Tensor) -> Float[Tensor, "count z_dim"]:
        """Embeddings of conditions (count, c_dim), by the features of their classes, before they are scaled."""
        return super().embedding(condition @ self.class_features)

    def mean(self, condition: Tensor | None) -> Float[Tensor, "*count w_dim"]:
        """Mean of w for each condition, (count, w_dim): that of its class, or a sum over classes weighted by it."""
        return self.w_avg if condition is None else condition @ self.w_avg


class StyleGANXL(StyleGAN3):
    """The StyleGAN-XL generator: a mapping network from z to w, and a synthesis network from w to pictures."""

    def __init__(self, config: StyleGANXLConfig) -> None:
        super().__init__(config)
        self.mapping = ClassMapping(config)


READERS = "energyql.generators.checkpoints.stylegan_xl"
FAMILY = Family("stylegan-xl", StyleGANXL, StyleGANXLConfig, READERS, "StyleGAN-XL")
