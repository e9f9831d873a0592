"""Linear layers with a leaky ReLU, prepared for being evaluated often."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.pullback import leaky_relu_back_


class Linear:
    """x (batch, in) -> x Wᵀ (batch, out), and the way back of a gradient.

    The parameters must not change: products may use copies of them. A row of an answer depends on its own row alone.

    Attributes:
        weight: W, (out, in).
    """

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.detach()

    @cached_property
    def _forward(self) -> _Packed | None:
        return _Packed.of(self.weight)

    @cached_property
    def _backward(self) -> _Packed | None:
        return _Packed.of(self.weight.t())

    def __call__(self, x: Tensor) -> Tensor:
        """The value; autograd can differentiate it."""
        return F.linear(x, self.weight) if self._forward is None or _in_graph(x) else self._forward(x)

    def back(self, grad: Tensor) -> Tensor:
        """From the gradient with respect to the value to that with respect to x."""
        return grad @ self.weight if self._backward is None else self._backward(grad)


class Dense(Linear):
    """x (batch, in) -> leaky_relu(x Wᵀ + b) (batch, out), and the way back of a gradient; see `Linear`.

    Attributes:
        weight: W, (out, in).
        bias: b, (out,).
        slope: of the leaky ReLU, above 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor, slope: float) -> None:
        super().__init__(weight)
        self.bias, self.slope = bias.detach(), slope

    def computed_in(self, dtype: torch.dtype) -> Dense:
        """The same layer with inputs, parameters and outputs in `dtype`."""
        return Dense(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """The value; autograd can differentiate it."""
        if self._forward is None or _in_graph(x):
            return F.leaky_relu_(F.linear(x, self.weight, self.bias), self.slope)
        return self._forward.then_leaky_relu(x, self.bias, self.slope)

    def back_through(self, grad: Tensor, result: Tensor) -> Tensor:
        """From the gradient with respect to the `result` to that with respect to x. It overwrites `grad`."""
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack:
    """The same layer of several networks: x (networks, batch, in) -> (networks, batch, out).

    Attributes:
        weight: (networks, out, in).
        bias: (networks, 1, out).
        slope: of the leaky ReLU, above 0.
    """

    def __init__(self, weight: Tensor, bias: Tensor, slope: float) -> None:
        self.weight, self.bias, self.slope = weight.detach(), bias.detach(), slope

    @cached_property
    def _forward(self) -> list[_Packed] | None:
        return _all_packed(self.weight)

    @cached_property
    def _backward(self) -> list[_Packed] | None:
        return _all_packed(self.weight.transpose(1, 2))

    def computed_in(self, dtype: torch.dtype) -> DenseStack:
        """See `Dense`."""
        return DenseStack(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Dense`."""
        if self._forward is None or _in_graph(x):
            return F.leaky_relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)), self.slope)
        layers = zip(self._forward, x, self.bias, strict=True)
        return torch.stack([product.then_leaky_relu(one, bias[0], self.slope) for product, one, bias in layers])

    def back_through(self, grad: Tensor, result: Tensor) -> Tensor:
        """See `Dense`."""
        grad = leaky_relu_back_(grad, result, self.slope)
        if self._backward is None:
            return grad @ self.weight
        return torch.stack([product(one) for product, one in zip(self._backward, grad, strict=True)])


def _in_graph(x: Tensor) -> bool:
    """Whether autograd follows what is made of x: it knows no way through packed products."""
    return torch.is_grad_enabled() and x.requires_grad


class _Packed:
    """A product with a matrix that oneDNN has laid out for itself.

    So does PyTorch's compiler with parameters that do not change. Bias and activation come in the same pass. On a
    processor of AMD's a product of float32 then takes less than half the time of the usual one.
    """

    @staticmethod
    def of(weight: Tensor) -> _Packed | None:
        """Of x (batch, in) with Wᵀ, for W (out, in); `None` where processor, type or build of PyTorch have none."""
        if weight.device.type != "cpu" or weight.dtype not in (torch.float32, torch.bfloat16) or not weight.numel():
            return None
        try:
            return _Packed(weight)
        except (AttributeError, RuntimeError):
            return None

    def __init__(self, weight: Tensor) -> None:
        operators: Any = torch.ops.mkldnn
        self._run = operators._linear_pointwise.default
        self._weight = operators._reorder_linear_weight(weight.contiguous())

    def __call__(self, x: Tensor) -> Tensor:
        product: Tensor = self._run(x, self._weight, None, "none", [], "")
        return product

    def then_leaky_relu(self, x: Tensor, bias: Tensor, slope: float) -> Tensor:
        result: Tensor = self._run(x, self._weight, bias, "leaky_relu", [slope], "")
        return result


def _all_packed(weights: Tensor) -> list[_Packed] | None:
    found = [product for product in map(_Packed.of, weights) if product is not None]
    return found if len(found) == len(weights) else None
