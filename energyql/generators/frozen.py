"""A mapping network prepared for being evaluated often: no gains to multiply, no graph, one product a layer."""

from __future__ import annotations

import copy
from functools import partial

import torch
from torch import Tensor

from energyql.generators.layers import ACTIVATION_GAIN, ACTIVATION_SLOPE, MappingNetwork
from energyql.numerics.linear import Dense
from energyql.numerics.pullback import Back, inverse_norm, normalized, normalized_back


class FrozenMapping:
    """z (batch, z_dim) -> w (batch, w_dim), equal to the network's up to rounding; `Differentiable` and `Convertible`.

    Takes the parameters as they are now: make another when they change.

    Args:
        network: the mapping network.
        truncation: psi.
        label: (c_dim,), that of all samples; `None` for a generator without classes.

    Raises:
        ArgumentError: label and generator do not go together.
    """

    def __init__(self, network: MappingNetwork, truncation: float = 1.0, label: Tensor | None = None) -> None:
        self.truncation = truncation
        self._layers: list[Dense] = []
        # It is kept, and a tensor made in inference mode could not serve a gradient.
        with torch.inference_mode(False), torch.no_grad():
            condition = network.embedded(label if label is None else label[None].to(network.w_avg), 1)
            for i, layer in enumerate(network.layers):
                # A leaky ReLU commutes with a positive factor.
                weight: Tensor = layer.weight * (layer.weight_gain * ACTIVATION_GAIN)
                bias: Tensor = layer.bias * (layer.bias_gain * ACTIVATION_GAIN)
                if i == 0:
                    weight, of_condition = weight.tensor_split([network.config.z_dim], 1)
                    if condition is not None:  # all samples have one class, so its part of the product is constant
                        bias = bias + of_condition @ condition[0]
                self._layers.append(Dense(weight.contiguous(), bias, ACTIVATION_SLOPE))
            self._mean = network.w_avg * (1 - truncation)

    def computed_in(self, dtype: torch.dtype) -> FrozenMapping:
        """See `Convertible`."""
        lowered = copy.copy(self)
        lowered._layers = [layer.computed_in(dtype) for layer in self._layers]
        return lowered

    def __call__(self, z: Tensor) -> Tensor:
        """z (batch, z_dim) -> w (batch, w_dim)."""
        x = normalized(z).to(self._dtype)
        for layer in self._layers:
            x = layer(x)
        return self._truncated(x.to(z))

    def pullback(self, z: Tensor) -> tuple[Tensor, Back]:
        """See `Differentiable`."""
        scale = inverse_norm(z)
        scaled = z * scale
        x, results = scaled.to(self._dtype), []
        for layer in self._layers:
            x = layer(x)
            results.append(x)
        return self._truncated(x.to(z)), partial(self._back, scale, scaled, results)

    def _back(self, scale: Tensor, scaled: Tensor, results: list[Tensor], grad: Tensor) -> Tensor:
        """`results` are those of the layers."""
        if self.truncation != 1.0:
            grad = grad.mul_(self.truncation)
        grad = grad.to(self._dtype)
        for layer, result in zip(reversed(self._layers), reversed(results), strict=True):
            grad = layer.back_through(grad, result)
        return normalized_back(grad.to(scaled), scaled, scale)

    @property
    def _dtype(self) -> torch.dtype:
        return self._layers[0].weight.dtype

    def _truncated(self, x: Tensor) -> Tensor:
        return x if self.truncation == 1.0 else torch.add(self._mean, x, alpha=self.truncation)
