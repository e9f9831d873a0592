"""Linear layers with a leaky ReLU, prepared for being evaluated often."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from energyql.errors import ArgumentError
from energyql.numerics.pullback import leaky_relu_back_


class _Prepared:
    """What keeps packed products once it has been called; copies and pickles go without, and make their own."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_forward", "_backward")}


class Linear(_Prepared):
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
        """The value; autograd can differentiate it.

        Raises:
            ArgumentError: rows of x have another length.
        """
        self._check(x)
        return F.linear(x, self.weight) if self._forward is None or _in_graph(x) else self._forward(x)

    def back(self, grad: Tensor) -> Tensor:
        """From the gradient with respect to the value to that with respect to x."""
        return grad @ self.weight if self._backward is None else self._backward(grad)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.weight.shape[1]:
            raise ArgumentError(f"latents have {self.weight.shape[1]} numbers here, not {x.shape[-1]}")


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

    @cached_property
    def _forward(self) -> _Packed | None:
        return _Packed.of(self.weight, self.bias, self.slope)

    def computed_in(self, dtype: torch.dtype) -> Dense:
        """The same layer with inputs, parameters and outputs in `dtype`."""
        return Dense(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Linear`."""
        self._check(x)
        if self._forward is None or _in_graph(x):
            return F.leaky_relu_(F.linear(x, self.weight, self.bias), self.slope)
        return self._forward(x)

    def back_through(self, grad: Tensor, result: Tensor) -> Tensor:
        """From the gradient with respect to the `result` to that with respect to x. It overwrites `grad`."""
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack(_Prepared):
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
        return _all_packed(zip(self.weight, self.bias[:, 0], repeat(self.slope)))

    @cached_property
    def _backward(self) -> list[_Packed] | None:
        return _all_packed(zip(self.weight.transpose(1, 2)))

    def computed_in(self, dtype: torch.dtype) -> DenseStack:
        """See `Dense`."""
        return DenseStack(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Tensor) -> Tensor:
        """See `Dense`."""
        if self._forward is None or _in_graph(x):
            return F.leaky_relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)), self.slope)
        return torch.stack([product(one) for product, one in zip(self._forward, x, strict=True)])

    def back_through(self, grad: Tensor, result: Tensor) -> Tensor:
        """See `Dense`."""
        grad = leaky_relu_back_(grad, result, self.slope)
        if self._backward is None:
            return grad @ self.weight
        return torch.stack([product(one) for product, one in zip(self._backward, grad, strict=True)])


def _in_graph(x: Tensor) -> bool:
    """Whether autograd follows what is made of x: it knows no way through packed products."""
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


class _Packed:
    """A product with a matrix that oneDNN has laid out for itself, and what follows it in the same pass.

    They are the operators that PyTorch's compiler uses for parameters that do not change. On a processor of AMD's a
    product of float32 then takes less than half the time of the usual one.

    Args:
        weight: W, (out, in); x (batch, in) becomes x Wᵀ.
        bias: (out,), added.
        slope: of a leaky ReLU that comes last.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> None:
        operators: Any = torch.ops.mkldnn
        self._run = operators._linear_pointwise.default
        weight = operators._reorder_linear_weight(weight.contiguous())
        self._parameters = weight, bias, *(("none", []) if slope is None else ("leaky_relu", [slope])), ""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> _Packed | None:
        """`None` where processor, type or build of PyTorch have no such product, or it is slower than the usual one."""
        known = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16) and weight.numel()
        if not known or not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
            return None
        try:
            return cls(weight, bias, slope)
        except (AttributeError, RuntimeError):
            return None

    def __call__(self, x: Tensor) -> Tensor:
        if len(x) == 1:  # a row alone is multiplied in another order where it is long
            return self(x.expand(2, -1))[:1]
        result: Tensor = self._run(x, *self._parameters)
        return result


def _all_packed(parameters: Iterable[tuple[Any, ...]]) -> list[_Packed] | None:
    found = [_Packed.of(*one) for one in parameters]
    return None if None in found else cast("list[_Packed]", found)
