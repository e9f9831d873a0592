"""Linear layers with constant weights, packed for repeated evaluation, and batches of few sizes.

docs/decisions/packed-products.md gives reasons and times.
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
"""Numbers of rows of batches, ascending."""
VECTORS = 32
"""Numbers of float32 in the two vectors that PyTorch computes together, on the widest processors. Functions such as
sigmoid may round the rest at the end of a tensor in another way. So the number of rows must be a multiple of this if a
sample is not to depend on its place in the batch."""
WHOLE_VECTORS = tuple(size for size in BATCH_SIZES if size % VECTORS == 0)
"""Numbers of rows that are a multiple of `VECTORS`, ascending."""
BLOCK = 64
"""Number of rows of a batch that decides on the bits of a row where these depend on the number of rows."""
_X86 = ("x86_64", "amd64")


class _Packable:
    """The base of layers that pack their weights at the first call; copies and pickles omit the packed weights."""

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
        """Return x Wᵀ; autograd can differentiate it.

        Raises:
            ArgumentError: the rows of x have another length.
        """
        self._check(x)
        return F.linear(x, self.weight) if self._forward is None or in_graph(x) else self._forward(x)

    def back(self, grad: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """Return the gradient with respect to x from `grad`, that with respect to x Wᵀ."""
        return grad @ self.weight if self._backward is None else self._backward(grad)

    def _check(self, x: Tensor) -> None:
        if x.shape[-1] != self.weight.shape[1]:
            raise ArgumentError(f"latents have {self.weight.shape[1]} numbers here, not {x.shape[-1]}")


class Dense(Linear):
    """The layer leaky_relu(x Wᵀ + b) and its `Back`. Its parameters must not change; see `Linear`.

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
        """Return leaky_relu(x Wᵀ + b); autograd can differentiate it.

        Raises:
            ArgumentError: the rows of x have another length.
        """
        self._check(x)
        if self._forward is None or in_graph(x):
            return F.leaky_relu_(F.linear(x, self.weight, self.bias), self.slope)
        return self._forward(x)

    def back_through(
        self, grad: Float[Tensor, "batch out"], result: Float[Tensor, "batch out"]
    ) -> Float[Tensor, "batch in"]:
        """Return the gradient with respect to x from `grad`, that with respect to `result`; `grad` is overwritten."""
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack(_Packable):
    """The layer `Dense` of several networks of equal sizes, computed together.

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
        """Return the same layer with inputs, parameters and outputs in `dtype`."""
        return DenseStack(self.weight.to(dtype), self.bias.to(dtype), self.slope)

    def __call__(self, x: Float[Tensor, "networks batch in"]) -> Float[Tensor, "networks batch out"]:
        """Return the output of each network for its own rows of x; autograd can differentiate it."""
        if self._forward is None or in_graph(x):
            return F.leaky_relu_(torch.baddbmm(self.bias, x, self.weight.transpose(1, 2)), self.slope)
        return torch.stack([product(one) for product, one in zip(self._forward, x, strict=True)])

    def back_through(
        self, grad: Float[Tensor, "networks batch out"], result: Float[Tensor, "networks batch out"]
    ) -> Float[Tensor, "networks batch in"]:
        """Return the gradient with respect to x from `grad`, that with respect to `result`; `grad` is overwritten."""
        grad = leaky_relu_back_(grad, result, self.slope)
        if self._backward is None:
            return grad @ self.weight
        return torch.stack([product(one) for product, one in zip(self._backward, grad, strict=True)])


def in_graph(x: Tensor) -> bool:
    """Return whether autograd, in reverse or forward mode, follows x: packed products have no derivative."""
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


class _Packed:
    """The product x Wᵀ + b with W in the memory layout of oneDNN, followed by a leaky ReLU, in one pass.

    The operators are private ones of PyTorch's compiler, for constant weights. On AMD processors a float32 product
    takes less than half the time of the usual one.

    Args:
        weight: W, (out, in).
        bias: b, (out,); `None` for 0.
        slope: slope of the leaky ReLU below 0; `None` for no leaky ReLU.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> None:
        self._weight = weight.dtype, *weight.shape
        operators: Any = torch.ops.mkldnn
        self._run = operators._linear_pointwise.default
        weight = operators._reorder_linear_weight(weight.contiguous())
        self._parameters = weight, bias, *(("none", []) if slope is None else ("leaky_relu", [slope])), ""

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None = None, slope: float | None = None) -> _Packed | None:
        """Return the packed product; `None` if device, dtype or build of PyTorch have none, or only a slower one."""
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
        """Return the product for all rows, computed as one batch."""
        result: Tensor = self._run(x, *self._parameters)
        return result


@cache
def sizes_alike(dtype: torch.dtype, outputs: int, inputs: int, threads: int) -> tuple[int, ...]:
    """Return the numbers of rows for which packed products give a row the same bits.

    These are the bits of batches of `BLOCK` rows in bfloat16, and of the largest batch in float32.

    With AMX, the matrix registers of Intel's processors, oneDNN sums a row of bfloat16 in another order for some
    numbers of rows, which depend on the weight and on the number of threads; without AVX-512 that of PyTorch 2.2 does
    so in float32 for weights of many columns.

    Args:
        dtype: dtype of the product.
        outputs: rows of the weight.
        inputs: columns of the weight.
        threads: number of threads of PyTorch.

    Returns:
        Multiples of `BLOCK`, ascending; empty if the bits do not depend on the number of rows.
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
    """Return whether a weight has packed products, on its device and processor, whose rows do not depend on others."""
    packable = weight.dtype in (torch.float32, torch.bfloat16) and weight.numel() > 0
    return packable and weight.device.type == "cpu" and platform.machine().lower() in _X86


def _all_packed(parameters: Iterable[tuple[Any, ...]]) -> list[_Packed] | None:
    """Return a packed product for each tuple of arguments of `_Packed`; `None` if one has no packed product."""
    products = [_Packed.of(*one) for one in parameters]
    return None if None in products else cast("list[_Packed]", products)


def sizes_for(dtype: torch.dtype) -> tuple[int, ...]:
    """Return the numbers of rows, ascending, for which packed products in `dtype` compute one batch without padding."""
    return sizes_alike(dtype, 512, 512, torch.get_num_threads()) or BATCH_SIZES


def few_sizes(count: int, sizes: Sequence[int] = WHOLE_VECTORS) -> list[int]:
    """Return numbers of rows of batches that hold `count` rows together: the largest of `sizes`, then one for the rest.

    The last batch may have more rows than are left. With few sizes oneDNN compiles few products: it compiles one for
    each new number of rows, in a third of a millisecond, longer than most products take. Also the rounding errors of
    products of small matrices depend on the number of rows, and a sample must not depend on its batch.

    Args:
        count: number of rows.
        sizes: the numbers of rows that a batch may have, ascending.
    """
    whole, rest = divmod(count, sizes[-1])
    enough = [size for size in sizes if size >= rest]
    return [sizes[-1]] * whole + enough[: bool(rest)]


def in_batches(
    function: Callable[[Tensor], tuple[Tensor, ...]], x: Float[Tensor, "batch dim"], sizes: list[int]
) -> tuple[Float[Tensor, "batch ..."], ...]:
    """Return the results of a function of x that treats each row alone, computed in batches.

    Args:
        function: function from rows of x to a tuple of tensors with as many rows.
        x: its input.
        sizes: number of rows of each batch, see `few_sizes`. The last row of x is repeated to fill the last batch.
    """
    if sizes == [len(x)] or not sizes:
        return function(x)
    filled = torch.cat([x, x[-1:].expand(sum(sizes) - len(x), -1)])
    results = zip(*(function(part) for part in filled.split(sizes)), strict=True)
    return tuple(torch.cat(parts)[: len(x)] for parts in results)
