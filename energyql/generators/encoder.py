"""From z to w for one truncation and one label, as fast as the generator allows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from energyql.generators.base import Generator
from energyql.generators.classes import encode_under
from energyql.generators.frozen import FrozenMapping
from energyql.generators.layers import MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2
from energyql.generators.stylegan3 import StyleGAN3

_PLAIN_MAPPING = (StyleGAN2.encode, StyleGAN3.encode)


def encoder(
    generator: Generator, truncation: float = 1.0, condition: Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """The function from z (batch, z_dim) to w (batch, w_dim).

    That of a StyleGAN is a `FrozenMapping`, which is `Differentiable`, and stays as it is when the generator's
    parameters change. Any other generator's calls its `encode`.

    Args:
        generator: whose; subclasses with an `encode` of their own keep that.
        truncation: psi.
        condition: label of all samples, (c_dim,); `None` for a generator without classes.

    Raises:
        ArgumentError: label and generator do not go together.
    """
    mapping = getattr(generator, "mapping", None)
    if type(mapping) is MappingNetwork and getattr(generator.encode, "__func__", None) in _PLAIN_MAPPING:
        return FrozenMapping(mapping, truncation, condition)
    return partial(encode_under, generator, truncation=truncation, condition=condition)
