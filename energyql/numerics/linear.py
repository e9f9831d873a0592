"""Linear layers whose constant weights are packed, and the division of batches into a few sizes.

Packed weights are in the memory layout of oneDNN, which makes products faster (docs/decisions/packed-products.md).
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from energyql.errors import ArgumentError
from energyql.numerics.pool import in_pool
from energyql.numerics.pullback import leaky_relu_back_
from energyql.numerics.shapes import Float

BATCH_SIZES = (*range(16, 128, 16), *range(128, 256, 32), *range(256, 513, 64))
"""The numbers of rows that batches may have: few, because oneDNN compiles a product for each."""
VECTORS = 32
"""Number of float32 values that PyTorch computes together at most. The rest of a tensor may be rounded in another way,
so batches have a multiple of 32 rows: the bits of a sample must not depend on its position in the batch."""
WHOLE_VECTORS = tuple(size for size in BATCH_SIZES if size % VECTORS == 0)
"""The numbers in `BATCH_SIZES` that are multiples of `VECTORS`."""
BLOCK = 64
"""Number of rows of the batch that decides which bits of a bfloat16 product are right; see `sizes_alike`."""
_X86 = ("x86_64", "amd64")


class _Packable:
    """Layer that packs its weights at the first call; pickles and copies omit packed weights."""

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


class Linear(_Packable):
    """The linear function x Wᵀ of rows x, for a `weight` W (out, in) that must not change, because it is packed.

    Each row of the result depends only on the same row of x, bit for bit.
    """

    bias: Float[Tensor, " out"] | None = None
    slope: float | None = None

    def __init__(self, weight: Float[Tensor, "out in"]) -> None:
        self.weight = weight.detach()

    @cached_property
    def _forward(self) -> _Packed | None:
        return _Packed.of(self.weight, self.bias, self.slope)

    @cached_property
    def _backward(self) -> _Packed | None:
        return _Packed.of(self.weight.t())

    def __call__(self, x: Float[Tensor, "batch in"]) -> Float[Tensor, "batch out"]:
        """Return x Wᵀ; autograd can differentiate it. Another length of x raises an `ArgumentError`."""
        if x.shape[-1] != self.weight.shape[1]:
            raise ArgumentError(f"latents have {self.weight.shape[1]} numbers here, not {x.shape[-1]}")
        if self._forward is not None and not in_graph(x):
            return self._forward(x)
        result = F.linear(x, self.weight, self.bias)
        return result if self.slope is None else F.leaky_relu_(result, self.slope)

    @property
    def is_packed(self) -> bool:
        """Whether products use a packed copy of W, and not the usual function of PyTorch."""
        return self._forward is not None

    def back(self, grad: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """Return the gradient with respect to x, from `grad`, the gradient with respect to x Wᵀ."""
        return grad @ self.weight if self._backward is None else self._backward(grad)


class Dense(Linear):
    """The layer leaky_relu(x Wᵀ + b), for W and b that must not change; `slope`, above 0, is that of the leaky ReLU."""

    bias: Float[Tensor, " out"]
    slope: float

    def __init__(self, weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"], slope: float) -> None:
        super().__init__(weight)
        self.bias, self.slope = bias.detach(), slope

    def computed_in(self, dtype: torch.dtype) -> Dense:
        """Return the same layer with weight and bias in `dtype`. Inputs must have this dtype, and outputs have it."""
        return Dense(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def back_through(
        self, grad: Float[Tensor, "batch out"], result: Float[Tensor, "batch out"]
    ) -> Float[Tensor, "batch in"]:
        """Return the gradient with respect to x, from that of the output `result`; `grad` is overwritten."""
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack(_Packable):
    """Several `Dense` layers of equal sizes, one from each of several networks, that are computed together."""

    def __init__(
        self, weight: Float[Tensor, "networks out in"], bias: Float[Tensor, "networks 1 out"], slope: float
    ) -> None:
        self.weight, self.bias, self.slope = weight.detach(), bias.detach(), slope

    @cached_property
    def _layers(self) -> list[Dense]:
        return [Dense(weight, bias, self.slope) for weight, bias in zip(self.weight, self.bias[:, 0], strict=True)]

    def computed_in(self, dtype: torch.dtype) -> DenseStack:
        """Return the same layers with parameters in `dtype`. Inputs must have this dtype, and outputs have it."""
        return DenseStack(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Float[Tensor, "networks batch in"]) -> Float[Tensor, "networks batch out"]:
        """Return for each network i the output of its layer for the rows `x[i]`; autograd can differentiate it."""
        if in_graph(x) or not self._layers[0].is_packed:
            return F.leaky_relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)), self.slope)
        return torch.stack([layer(one) for layer, one in zip(self._layers, x, strict=True)])

    def back_through(
        self, grad: Float[Tensor, "networks batch out"], result: Float[Tensor, "networks batch out"]
    ) -> Float[Tensor, "networks batch in"]:
        """Return the gradient with respect to x, from that of the output `result`; `grad` may be overwritten."""
        grad = leaky_relu_back_(grad, result, self.slope)  # of all networks at once, which takes less time
        if not self._layers[0].is_packed:
            return grad @ self.weight
        return torch.stack([layer.back(one) for layer, one in zip(self._layers, grad, strict=True)])


def in_graph(x: Tensor) -> bool:
    """Whether autograd, in reverse or forward mode, records operations on x; packed products have no derivative."""
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


class _Packed:
    """The function x Wᵀ + b, and perhaps a leaky ReLU, with W packed, by private operators of PyTorch's compiler."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> None:
        self._weight = weight.dtype, *weight.shape
        operators: Any = torch.ops.mkldnn
        self._run = operators._linear_pointwise.default
        weight = operators._reorder_linear_weight(weight.contiguous())
        self._parameters = weight, bias, *(("none", []) if slope is None else ("leaky_relu", [slope])), ""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> _Packed | None:
        """Pack a weight, or return `None` if device, dtype or build of PyTorch makes this impossible or slow."""
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
        """Return the result for all rows of x, computed as one batch."""
        result: Tensor = self._run(x, *self._parameters)
        return result


@cache
def sizes_alike(dtype: torch.dtype, outputs: int, inputs: int, threads: int) -> tuple[int, ...]:
    """Sizes of batches, ascending, with the same bits in each row of a packed product; none if all sizes have them.

    On some processors the order in which oneDNN adds the terms of a product depends on the number of rows: on Intel
    processors with AMX (matrix registers) in bfloat16, also on the weight and the number of threads; without AVX-512 in
    float32 with many columns and PyTorch 2.2. The right bits of a row are those from `BLOCK` (64) rows in bfloat16, and
    those from the largest batch in float32. The sizes are multiples of `BLOCK`.
    """
    if dtype != torch.bfloat16 and inputs <= 512:  # short sums of float32 agree; a search delays each process
        return ()
    # Every sum would be 0 without rounding errors, so its value shows the order of summation.
    generator, (half, odd) = torch.Generator().manual_seed(0), divmod(inputs, 2)
    weight, x = (torch.randn(n, half, generator=generator).to(dtype) for n in (outputs, BATCH_SIZES[-1]))
    product = _Packed.of(F.pad(torch.cat([weight, weight], 1), (0, odd)))
    x = F.pad(torch.cat([x, -x], 1), (0, odd))
    if product is None:
        return ()
    # Long sums of float32 depend on the number of threads as well, unless there are many rows.
    expected = torch.cat([product.run(rows) for rows in x.split(BLOCK if dtype == torch.bfloat16 else len(x))])
    candidates = (3, 7, *BATCH_SIZES[:3], *range(BLOCK, len(x) + 1, BLOCK))
    alike = tuple(size for size in candidates if torch.equal(product.run(x[:size]), expected[:size]))
    if alike == candidates and ((outputs, inputs) == (512, 512) or not sizes_alike(dtype, 512, 512, threads)):
        return ()  # few and short sums may agree by chance, so a large product must agree as well
    return tuple(size for size in alike if size >= BLOCK)


def can_pack(weight: Tensor) -> bool:
    """Whether a weight can be packed: it is float32 or bfloat16, not empty, and on an x86 CPU."""
    packable = weight.dtype in (torch.float32, torch.bfloat16) and weight.numel() > 0
    return packable and weight.device.type == "cpu" and platform.machine().lower() in _X86


def sizes_for(dtype: torch.dtype) -> tuple[int, ...]:
    """Numbers of rows, ascending, that batches should have, so that packed products in `dtype` waste no work."""
    return sizes_alike(dtype, 512, 512, torch.get_num_threads()) or BATCH_SIZES


def few_sizes(count: int, sizes: Sequence[int] = WHOLE_VECTORS) -> list[int]:
    """Divide `count` rows into batches of a few sizes, and return their sizes, which together may be above `count`.

    All batches but the last have the largest of the ascending `sizes`, the last one the smallest that is large enough.
    There are few sizes because oneDNN compiles a product for each, and because rounding errors of small products depend
    on the size.
    """
    whole, rest = divmod(count, sizes[-1])
    enough = [size for size in sizes if size >= rest]
    return [sizes[-1]] * whole + enough[: bool(rest)]


def in_batches(
    function: Callable[[Tensor], tuple[Tensor, ...]],
    x: Float[Tensor, "batch dim"],
    sizes: list[int],
    *,
    pooled: bool = False,
) -> tuple[Float[Tensor, "batch ..."], ...]:
    """Return the same as `function(x)`, computed in batches of the given sizes on the CPU, at once on other devices.

    Args:
        function: function from rows to a tuple of tensors with as many rows; a row of the result depends on the same
            row of x alone.
        sizes: sizes of the batches, from `few_sizes`; the last row of x is repeated to fill them. If empty, x is one
            batch.
        pooled: whether the threads of `in_pool` compute the batches at the same time.
    """
    if sizes == [len(x)] or not sizes or x.device.type != "cpu":
        return function(x)
    filled = torch.cat([x, x[-1:].expand(sum(sizes) - len(x), -1)])
    parts = filled.split(sizes)
    results = zip(*(in_pool(function, [(part,) for part in parts]) if pooled else map(function, parts)), strict=True)
    return tuple(torch.cat(rows)[: len(x)] for rows in results)
