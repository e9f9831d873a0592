"""Linear layers with a leaky ReLU and constant weights, packed for repeated evaluation, and batches of few sizes.

Why and how fast: docs/decisions/packed-products.md.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cached_property
from itertools import repeat
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from energyql.errors import ArgumentError
from energyql.numerics.pullback import leaky_relu_back_
from energyql.numerics.shapes import Float

BATCH_SIZES = (*range(16, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""Rows of a batch, ascending."""
VECTORS = 32
"""Numbers of float32 in the two vectors that PyTorch computes together, on the widest processors. Functions such as
sigmoid may round what is left over at the end of a tensor in another way, so rows must be a multiple of this for a
sample not to depend on its place in the batch."""
WHOLE_VECTORS = tuple(size for size in BATCH_SIZES if size % VECTORS == 0)
BLOCK = 64
"""Where the bits of a row of a product depend on the number of rows, they are those in a batch of so many."""
_X86 = ("x86_64", "amd64")


class _Packable:
    """Base of layers that pack their weights at the first call. Copies and pickles leave the packed weights out."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_forward", "_backward")}


class Linear(_Packable):
    """The product x Wᵀ and its `Back`.

    The weights must not change, because packed products copy them. A row of the result depends on its own row alone.

    Attributes:
        weight: W, (out, in).
    """

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        self.weight = weight.detach()

    @cached_property
    def _forward(self) -> _Packed | None:
        return _Packed.of(self.weight)

    @cached_property
    def _backward(self) -> _Packed | None:
        return _Packed.of(self.weight.t())

    def __call__(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """Return the value; autograd can differentiate it.

        Raises:
            ArgumentError: the rows of x have another length.
        """
        self._check(x)
        return F.linear(x, self.weight) if self._forward is None or in_graph(x) else self._forward(x)

    def back(self, grad: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """Turn the gradient with respect to the value into that with respect to x."""
        return grad @ self.weight if self._backward is None else self._backward(grad)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.weight.shape[1]:
            raise ArgumentError(f"latents have {self.weight.shape[1]} numbers here, not {x.shape[-1]}")


class Dense(Linear):
    """The layer leaky_relu(x Wᵀ + b) and its `Back`; see `Linear`.

    Attributes:
        weight: W, (out, in).
        bias: b, (out,).
        slope: of the leaky ReLU, above 0.
    """

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"], slope: float) -> None:
        super().__init__(weight)
        self.bias, self.slope = bias.detach(), slope

    @cached_property
    def _forward(self) -> _Packed | None:
        return _Packed.of(self.weight, self.bias, self.slope)

    def computed_in(self, dtype: torch.dtype) -> Dense:
        """Return the same layer with inputs, parameters and outputs in `dtype`."""
        return Dense(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """See `Linear`."""
        self._check(x)
        if self._forward is None or in_graph(x):
            return F.leaky_relu_(F.linear(x, self.weight, self.bias), self.slope)
        return self._forward(x)

    def back_through(
        self, grad: Float[Tensor, "batch out"], result: Float[Tensor, "batch out"]
    ) -> Float[Tensor, "batch in"]:
        """Turn the gradient with respect to the `result` into that with respect to x. It overwrites `grad`."""
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack(_Packable):
    """The same layer of several networks; see `Dense`.

    Attributes:
        weight: (networks, out, in).
        bias: (networks, 1, out).
        slope: of the leaky ReLU, above 0.
    """

    def __init__(
        self, weight: Float[Tensor, "networks out in"], bias: Float[Tensor, "networks 1 out"], slope: float
    ) -> None:
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

    def __call__(self, x: Float[Tensor, "networks batch in"]) -> Float[Tensor, "networks batch out"]:
        """See `Dense`."""
        if self._forward is None or in_graph(x):
            return F.leaky_relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)), self.slope)
        return torch.stack([product(one) for product, one in zip(self._forward, x, strict=True)])

    def back_through(
        self, grad: Float[Tensor, "networks batch out"], result: Float[Tensor, "networks batch out"]
    ) -> Float[Tensor, "networks batch in"]:
        """See `Dense`."""
        grad = leaky_relu_back_(grad, result, self.slope)
        if self._backward is None:
            return grad @ self.weight
        return torch.stack([product(one) for product, one in zip(self._backward, grad, strict=True)])


def in_graph(x: Tensor) -> bool:
    """Whether autograd records operations on x: packed products have no derivative."""
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


class _Packed:
    """The product x Wᵀ + b with W in the memory layout of oneDNN, followed by a leaky ReLU, in one pass.

    These operators are private to PyTorch's compiler, which uses them for constant weights. On AMD processors a float32
    product takes less than half the time of the usual one.

    Args:
        weight: W, (out, in).
        bias: b, (out,).
        slope: of the leaky ReLU; without it there is none.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> None:
        self._weight = weight.dtype, *weight.shape
        operators: Any = torch.ops.mkldnn
        self._run = operators._linear_pointwise.default
        weight = operators._reorder_linear_weight(weight.contiguous())
        self._parameters = weight, bias, *(("none", []) if slope is None else ("leaky_relu", [slope])), ""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> _Packed | None:
        """Pack a weight; `None` where device, dtype or build have no packed product, or where it would be slower."""
        if not can_pack(weight):
            return None
        try:
            return cls(weight, bias, slope)
        except (AttributeError, RuntimeError):
            return None

    def __call__(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        sizes = sizes_alike(*self._weight, torch.get_num_threads())
        if sizes and len(x) not in (0, *sizes):
            parts = few_sizes(len(x), sizes)
            filled = F.pad(x, (0, 0, 0, sum(parts) - len(x)))
            return torch.cat([self.run(rows) for rows in filled.split(parts)])[: len(x)]
        if len(x) == 1:  # oneDNN multiplies a single long row in another order
            return self(x.expand(2, -1))[:1]
        return self.run(x)

    def run(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """Multiply all rows in one batch."""
        result: Tensor = self._run(x, *self._parameters)
        return result


@cache
def sizes_alike(dtype: torch.dtype, outputs: int, inputs: int, threads: int) -> tuple[int, ...]:
    """Return multiples of `BLOCK` in which packed products with such a weight give a row the same bits as in a `BLOCK`.

    Empty where batches of all sizes do. With AMX, the matrix registers of Intel's processors, oneDNN sums a row of
    bfloat16 in another order in batches of some sizes, which depend on the weight and on the number of threads.
    """
    if dtype != torch.bfloat16:
        return ()
    # Every sum would be 0 without rounding, so what is left of it shows its order.
    generator, (half, odd) = torch.Generator().manual_seed(0), divmod(inputs, 2)
    weight, x = (torch.randn(n, half, generator=generator).to(dtype) for n in (outputs, BATCH_SIZES[-1]))
    product = _Packed.of(F.pad(torch.cat([weight, weight], 1), (0, odd)))
    x = F.pad(torch.cat([x, -x], 1), (0, odd))
    if product is None:
        return ()
    expected = torch.cat([product.run(rows) for rows in x.split(BLOCK)])
    tried = (3, 7, *BATCH_SIZES[:3], *range(BLOCK, len(x) + 1, BLOCK))
    alike = tuple(size for size in tried if torch.equal(product.run(x[:size]), expected[:size]))
    if alike == tried and ((outputs, inputs) == (512, 512) or not sizes_alike(dtype, 512, 512, threads)):
        return ()  # few and short sums may agree by chance: what large products show counts
    return tuple(size for size in alike if size >= BLOCK)


def can_pack(weight: Tensor) -> bool:
    """Whether device, dtype and processor have packed products in which the bits of a row depend on that row alone."""
    packable = weight.dtype in (torch.float32, torch.bfloat16) and weight.numel() > 0
    return packable and weight.device.type == "cpu" and platform.machine().lower() in _X86


def _all_packed(parameters: Iterable[tuple[Any, ...]]) -> list[_Packed] | None:
    found = [_Packed.of(*one) for one in parameters]
    return None if None in found else cast("list[_Packed]", found)


def sizes_for(dtype: torch.dtype) -> tuple[int, ...]:
    """Return the sizes of batches, ascending, in which packed products in `dtype` are neither split nor filled up."""
    return sizes_alike(dtype, 512, 512, torch.get_num_threads()) or BATCH_SIZES


def few_sizes(count: int, sizes: Sequence[int] = WHOLE_VECTORS) -> list[int]:
    """Split `count` rows into batches of the largest of `sizes`, ascending, and the smallest that holds the rest.

    oneDNN compiles a product for each new number of rows, in a third of a millisecond, which is longer than most
    products take, and samplers have batches of every size. Products of small matrices also round differently with the
    number of rows, and a sample must not depend on its batch.
    """
    whole, rest = divmod(count, sizes[-1])
    enough = [size for size in sizes if size >= rest]
    return [sizes[-1]] * whole + enough[: bool(rest)]


def in_batches(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Float[Tensor, "batch dim"], sizes: list[int]
) -> tuple[Float[Tensor, "batch ..."], ...]:
    """Evaluate a row-wise function of x in batches of these sizes; the last row of x fills up the last batch."""
    if sizes == [len(x)] or not sizes:
        return function(x)
    filled = torch.cat([x, x[-1:].expand(sum(sizes) - len(x), -1)])
    results = zip(*(function(part) for part in filled.split(sizes)), strict=True)
    return tuple(torch.cat(parts)[: len(x)] for parts in results)
