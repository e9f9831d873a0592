"""What StyleGAN2 and StyleGAN3 share: fully connected layers, their nonlinearity, and the mapping network.

Parameters are at unit scale, as in the widely used checkpoints.
"""

from __future__ import annotations

import math
from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.errors import ArgumentError
from energyql.numerics.pullback import normalized

ACTIVATION_SLOPE = 0.2
ACTIVATION_GAIN = math.sqrt(2)  # keeps unit variance through a leaky ReLU of slope 0.2


class MappingConfig(Protocol):
    """The part of a configuration that a mapping network is built from; see `StyleGAN2Config`."""

    @property
    def z_dim(self) -> int: ...
    @property
    def w_dim(self) -> int: ...
    @property
    def c_dim(self) -> int: ...
    @property
    def mapping_layers(self) -> int: ...
    @property
    def mapping_lr_multiplier(self) -> float: ...


def activation(x: Tensor, clamp: float | None = None) -> Tensor:
    """Leaky ReLU that keeps the variance, then clamped to +- `clamp`."""
    x = F.leaky_relu(x, ACTIVATION_SLOPE) * ACTIVATION_GAIN
    return x if clamp is None else x.clamp(-clamp, clamp)


class FullyConnected(nn.Module):
    """Linear layer with an equalised learning rate: parameters at unit scale, scaled when used."""

    def __init__(
        self, inputs: int, outputs: int, *, activate: bool = False, lr_multiplier: float = 1.0, bias: float = 0.0
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias / lr_multiplier))
        self.activate = activate
        self.weight_gain = lr_multiplier / math.sqrt(inputs)
        self.bias_gain = lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.weight * self.weight_gain, self.bias * self.bias_gain)
        return activation(x) if self.activate else x


class MappingNetwork(nn.Module):
    """z (and a class label) -> w."""

    w_avg: Tensor

    def __init__(self, config: MappingConfig) -> None:
        super().__init__()
        self.config = config
        inputs = config.z_dim
        if config.c_dim:
            self.embed = FullyConnected(config.c_dim, config.w_dim)
            inputs += config.w_dim
        for i in range(config.mapping_layers):
            layer = FullyConnected(inputs, config.w_dim, activate=True, lr_multiplier=config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", layer)
            inputs = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    @property
    def layers(self) -> list[FullyConnected]:
        """The layers, in order."""
        return [cast(FullyConnected, self.get_submodule(f"fc{i}")) for i in range(self.config.mapping_layers)]

    def forward(self, z: Tensor, truncation: float = 1.0, label: Tensor | None = None) -> Tensor:
        """z (batch, z_dim), label (batch, c_dim) one-hot or `None` -> w (batch, w_dim).

        Truncation psi pulls w toward its mean: `w_avg + psi (w - w_avg)`.

        Raises:
            ArgumentError: a conditional generator has no label, an unconditional one has, or its shape is wrong.
        """
        x = normalized(z)
        classes = self.embedded(label if label is None else label.to(z.dtype), len(z))
        if classes is not None:
            x = torch.cat([x, classes], 1)
        for layer in self.layers:
            x = layer(x)
        return x if truncation == 1.0 else torch.lerp(self.w_avg, x, truncation)

    def embedded(self, label: Tensor | None, count: int) -> Tensor | None:
        """What the layers see of `count` labels, (count, w_dim); `None` for a generator without classes.

        Raises:
            ArgumentError: as `forward`.
        """
        classes = self.config.c_dim
        if not classes:
            if label is not None:
                raise ArgumentError("this generator has no classes, so it takes no label")
            return None
        if label is None:
            raise ArgumentError(f"this generator is conditional on {classes} classes: give a label")
        if label.shape != (count, classes):
            raise ArgumentError(f"label must have shape {(count, classes)}, not {tuple(label.shape)}")
        embedding: Tensor = self.embed(label)
        return normalized(embedding)
