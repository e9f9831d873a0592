"""Linear layers whose constant weights are packed, and the division of batches into a few sizes.

Packed weights are in the memory layout of oneDNN, which makes products faster. docs/decisions/packed-products.md gives
reasons and times.
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
"""The numbers of rows, ascending, that batches may have. They are few, because oneDNN compiles a product for each."""
VECTORS = 32
"""Number of float32 values that PyTorch computes together, on processors with the widest vector registers. If the last
values of a tensor do not fill the registers, functions such as sigmoid may round these values in another way. So the
number of rows of a batch is a multiple of 32: the bits of a sample must not depend on its position in the batch."""
WHOLE_VECTORS = tuple(size for size in BATCH_SIZES if size % VECTORS == 0)
"""The numbers in `BATCH_SIZES` that are multiples of `VECTORS`, ascending."""
BLOCK = 64
"""Number of rows of the batch that decides which bits of a bfloat16 product are right; see `sizes_alike`."""
_X86 = ("x86_64", "amd64")


class _Packable:
    """Base class of layers that pack their weights (copy them to the memory layout of oneDNN) at the first call.

    Pickles and copies omit attributes that begin with an underscore, such as the packed weights.
    """

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if not name.startswith("_")}


class Linear(_Packable):
    """The linear function x Wᵀ of rows x. The method `back` computes gradients with respect to x.

    W must not change, because a copy of W in the memory layout of oneDNN is used for fast products. Each row of the
    result depends only on the same row of x, bit for bit.

    Attributes:
        weight: W, (out, in).
        bias: `None`, except in the subclass `Dense`.
        slope: `None`, except in the subclass `Dense`.
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
        """Return x Wᵀ; autograd can differentiate it.

        Raises:
            ArgumentError: rows of x and rows of W have different lengths.
        """
        if x.shape[-1] != self.weight.shape[1]:
            raise ArgumentError(f"latents have {self.weight.shape[1]} numbers here, not {x.shape[-1]}")
        if self._forward is not None and not in_graph(x):
            return self._forward(x)
        result = F.linear(x, self.weight, self.bias)
        return result if self.slope is None else F.leaky_relu_(result, self.slope)

    @property
    def is_packed(self) -> bool:
        """Whether products use a copy of W in the memory layout of oneDNN, and not the usual function of PyTorch."""
        return self._forward is not None

    def back(self, grad: Float[Tensor, "batch out"]) -> Float[Tensor, "batch in"]:
        """Return the gradient with respect to x, from `grad`, the gradient with respect to x Wᵀ."""
        return grad @ self.weight if self._backward is None else self._backward(grad)


class Dense(Linear):
    """The layer leaky_relu(x Wᵀ + b). The method `back_through` computes its gradient.

    W and b must not change, because copies of them in the memory layout of oneDNN are used for fast products.

    Attributes:
        weight: W, (out, in).
        bias: b, (out,).
        slope: slope of the leaky ReLU for negative numbers; it is above 0.
    """

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
        """Return the gradient with respect to the input x of the layer.

        Args:
            grad: the gradient with respect to `result`. It is overwritten.
            result: the output of the layer for x.
        """
        return self.back(leaky_relu_back_(grad, result, self.slope))


class DenseStack(_Packable):
    """Several `Dense` layers of equal sizes, one from each of several networks, that are computed together.

    Attributes:
        weight: weights of the layers, (networks, out, in).
        bias: biases of the layers, (networks, 1, out).
        slope: slope of the leaky ReLU for negative numbers; it is above 0.
    """

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
        """Return the gradient with respect to the input x of the layers.

        Args:
            grad: the gradient with respect to `result`. It may be overwritten.
            result: the output of the layers for x.
        """
        grad = leaky_relu_back_(grad, result, self.slope)  # of all networks at once, which takes less time
        if not self._layers[0].is_packed:
            return grad @ self.weight
        return torch.stack([layer.back(one) for layer, one in zip(self._layers, grad, strict=True)])


def in_graph(x: Tensor) -> bool:
    """Return whether autograd, in reverse or forward mode, records operations on x.

    If so, x cannot be the input of a packed product, because autograd has no derivative of such a product.
    """
    return (torch.is_grad_enabled() and x.requires_grad) or forward_ad.unpack_dual(x).tangent is not None


class _Packed:
    """The function x Wᵀ + b, followed by a leaky ReLU, with W in the memory layout of oneDNN.

    It uses private operators of PyTorch's compiler, which are made for constant weights. On AMD processors a float32
    product takes less than half the time of an ordinary product.

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
        """Return an object that computes leaky_relu(x Wᵀ + b) fast, because it stores W in the layout of oneDNN.

        `None` is returned if this is impossible or slow with the device, the dtype or the build of PyTorch. `weight` is
        W, `bias` is b (`None` for 0), and `slope` is the slope of the leaky ReLU below 0 (`None` for no leaky ReLU).
        """
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
    """Return sizes of batches for which the bits of each row of a product are the same.

    The products are packed products, whose weight is in the memory layout of oneDNN. On some processors the bits of a
    row of the product depend on the number of rows in the batch. On these processors, batches have only the sizes that
    this function returns, so that the bits of a sample do not depend on its batch. The right bits of a row are those
    from a batch of `BLOCK` (64) rows in bfloat16, and those from the largest batch in float32.

    The cause is the order in which oneDNN adds the terms of a product. On Intel processors with AMX (matrix registers)
    the order in bfloat16 depends on the number of rows, the weight and the number of threads. Without AVX-512, the
    order in float32 depends on the number of rows if the weight has many columns, with PyTorch 2.2.

    Args:
        dtype: dtype of the product.
        outputs: number of rows of the weight.
        inputs: number of columns of the weight.
        threads: number of threads of PyTorch.

    Returns:
        The sizes, ascending: multiples of `BLOCK`. If the bits do not depend on the number of rows, there are none.
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
    """Return whether a weight can be packed, which means stored in the memory layout of oneDNN.

    A weight can be packed if it is float32 or bfloat16, not empty, and on an x86 CPU.
    """
    packable = weight.dtype in (torch.float32, torch.bfloat16) and weight.numel() > 0
    return packable and weight.device.type == "cpu" and platform.machine().lower() in _X86


def sizes_for(dtype: torch.dtype) -> tuple[int, ...]:
    """Return the numbers of rows, ascending, that batches should have, so that packed products waste no work.

    Packed products are products with a weight in the memory layout of oneDNN. A batch with another number of rows may
    be filled up with further rows, which is wasted work. `dtype` is the dtype of the product.
    """
    return sizes_alike(dtype, 512, 512, torch.get_num_threads()) or BATCH_SIZES


def few_sizes(count: int, sizes: Sequence[int] = WHOLE_VECTORS) -> list[int]:
    """Return the numbers of rows of the batches into which `count` rows are divided.

    All batches but the last have the largest of `sizes`. The last one has the smallest of `sizes` that is large enough
    for the rest. So the batches together may have more than `count` rows. For 0 rows there are no batches.

    There are few sizes because oneDNN compiles a product for each new number of rows. Compiling takes a third of a
    millisecond, which is longer than most products take. Also, the rounding errors of products of small matrices depend
    on the number of rows, and the bits of a sample must not depend on its batch.

    Args:
        count: number of rows in all.
        sizes: the numbers of rows that a batch may have, ascending.
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
    """Return the same as `function(x)`, computed in several batches.

    Args:
        function: function from rows of x to a tuple of tensors with as many rows; a row of the result depends on the
            same row of x alone.
        x: the input of the function.
        sizes: number of rows of each batch, from `few_sizes`. If the sum of `sizes` is above the number of rows
            of x, the last row of x is repeated; results for repetitions are dropped. If `sizes` is empty, x is
            one batch. On other devices than the CPU, x is one batch too.
        pooled: whether `in_pool` computes the batches, with several threads. Threads must be able to call `function` at
            the same time.
    """
    if sizes == [len(x)] or not sizes or x.device.type != "cpu":
        return function(x)
    filled = torch.cat([x, x[-1:].expand(sum(sizes) - len(x), -1)])
    parts = filled.split(sizes)
    results = zip(*(in_pool(function, [(part,) for part in parts]) if pooled else map(function, parts)), strict=True)
    return tuple(torch.cat(rows)[: len(x)] for rows in results)
