"""Up-sampling, and the modulated convolution of StyleGAN2 and StyleGAN3, in which each sample has its own weights.

Feature maps are in the memory layout "channels last", fastest for the CPU library oneDNN. docs/decisions/drawing.md
gives reasons and measured times.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad

from energyql.numerics.linear import can_pack, in_graph
from energyql.numerics.pool import in_autocast, in_pool
from energyql.numerics.shapes import Float

Convolve = Callable[[Tensor], Tensor]
Maps = Float[Tensor, "_ _ _ _"]
"""Feature maps or pictures, (batch, channels, side, side)."""
DRAWN_TOGETHER = 8
"""Largest batch of samples whose small feature maps a CPU computes together; least number of rows of `padded_rows`."""
_EPSILON = 1e-8
_PROBES = 8
"""How many numbers of a weight are compared with those at the last call, to find out whether it has changed."""


def convolve(x: Maps, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0, up: bool = False) -> Maps:
    """Convolution of x with a weight (outputs, inputs, kernel, kernel), plus a bias for each output channel.

    With `up`, a zero is inserted between neighbouring pixels of x, and `padding` is ignored: the side becomes 2 side +
    kernel - 2.
    """
    if up:
        return F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
    if weight.shape[2:] == (1, 1) and _as_with_one_thread(x, weight, bias):
        return cast(Tensor, torch.ops.aten.thnn_conv2d(x, weight, [1, 1], bias))
    return F.conv2d(x, weight, bias, padding=padding)


def _as_with_one_thread(x: Maps, *others: Tensor | None) -> bool:
    """Whether to use `thnn_conv2d`, PyTorch's choice for one thread, so that any number of threads gives equal bits."""
    # With several threads PyTorch rounds in another way. The operation has no derivatives in forward mode.
    in_transform = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and 0 < len(x) < 16
        and not is_compiling() and not in_autocast() and not in_transform()
        and all(each is None or forward_ad.unpack_dual(each).tangent is None for each in (x, *others))
    )  # fmt: skip


def filter_each(x: Maps, kernel: Tensor, bias: Tensor | None = None) -> Maps:
    """Correlate every channel of x with one kernel, (taps, taps) of even length, plus a bias; the side shrinks by 1."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(x, weight, bias, padding=len(kernel) // 2 - 1, groups=channels)


def upsample(x: Maps, kernel: Tensor) -> Maps:
    """Double the side of x, with a low-pass filter (taps, taps) of sum 1 and an even number of taps."""
    weight = (4 * kernel).to(x.dtype).repeat(x.shape[1], 1, 1, 1)
    return F.conv_transpose2d(x, weight, stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1])


def square_filter(taps: Sequence[float]) -> Float[Tensor, "taps taps"]:
    """Outer product of `taps` with itself, scaled to a sum of 1: a filter along both axes of a picture."""
    total = sum(taps) ** 2
    return torch.tensor([[a * b / total for b in taps] for a in taps])


def add_to_each_(x: Maps, map: Float[Tensor, "*batch side side"]) -> Maps:
    """Add one map, (side, side) or (batch, 1, side, side), to every channel of x in place, and return x."""
    if x.dtype != torch.bfloat16 or len(x) > 1 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.add_(map.to(x.dtype))
    # As a product of rank one: in bfloat16 on the CPU, adding with broadcasting is ten times as slow.
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows.addmm_(map.to(x.dtype).reshape(-1, 1), x.new_ones(1, rows.shape[1]))
    return x


def packed_convolution(weight: Tensor, side: int, *, padding: int = 0, up: bool = False) -> Convolve | None:
    """Return a faster `convolve` with a fixed weight, which autograd cannot differentiate; `None` if PyTorch has none.

    The weight is converted ("packed") once to the memory layout of oneDNN, best for maps of the given side. `convolve`
    converts it at every call, which takes longer than the convolution of a small map.
    """
    if not can_pack(weight):
        return None
    operators: Any = torch.ops.mkldnn
    size, ones, zeros = [1, weight.shape[1], side, side], [1, 1], [padding, padding]
    geometry: tuple[Any, ...] = (zeros, ones, ones, 1)
    try:
        pack, run = operators._reorder_convolution_weight, operators._convolution_pointwise.default
        if up:
            geometry, weight = ([0, 0], [0, 0], [2, 2], ones, 1), weight.transpose(0, 1)
            pack, run = operators._reorder_convolution_transpose_weight, operators._convolution_transpose_pointwise
        parameters = pack(weight.contiguous(), *geometry, size), None, *geometry, "none", [], ""
    except (AttributeError, RuntimeError):
        return None
    return lambda x: run(x, *parameters)


@dataclass(frozen=True)
class _Constants:
    """Tensors that a `Modulation` computes from a weight, and may use again until the weight changes.

    Attributes:
        weight: the weight; with demodulation scaled to a mean square of 1 for each output channel.
        squares: sums of its squares over the taps, (inputs, outputs); `None` without demodulation.
        packed: dtype of the maps -> `packed_convolution`, filled when needed; `None` if these constants are not kept.
    """

    weight: Tensor
    squares: Tensor | None
    packed: dict[torch.dtype, Convolve | None] | None


class Modulation:
    """A convolution whose input channels are multiplied by styles: factors that differ from sample to sample.

    See equations 1 to 3 of Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020. As a rule
    styles multiply the input, and one convolution computes the batch. For a single sample, and for all on a CPU without
    autograd, they multiply the weight if it is not larger than the input of a sample. On a CPU, what depends on the
    weight alone is kept until the weight changes, unless autograd records operations on it.

    Padding and up-sampling are those of `convolve`. With `demodulate`, the output has unit variance if the input has.
    """

    def __init__(self, *, padding: int = 0, up: bool = False, demodulate: bool = True) -> None:
        self.padding, self.up, self.demodulate = padding, up, demodulate
        self._cached: tuple[tuple[Any, ...], Tensor, _Constants] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": None}  # packed weights can be neither copied nor saved

    def __call__(
        self, x: Maps, weight: Tensor, styles: Tensor, bias: Tensor, gain: Any = 1.0, lowpass: Tensor | None = None
    ) -> Maps:
        """Return the convolution, multiplied by `gain`, plus the bias.

        Args:
            weight: (outputs, inputs, kernel, kernel).
            styles: factors of the input channels, (rows, inputs). Rows after the last sample are ignored: `padded_rows`
                adds them for equal rounding.
            gain: a number, or a tensor of one; ignored without demodulation, where the caller multiplies the styles by
                it.
            lowpass: filter (taps, taps) between convolution and bias, for up-sampling.
        """
        constants = self._constants(weight)
        bias = bias.to(x.dtype)
        scale = None
        if constants.squares is not None:
            if x.dtype == torch.float16:  # demodulation cancels the scale of styles; at unit scale nothing overflows
                styles = styles * (styles.square().mean(1, keepdim=True) + _EPSILON).rsqrt()
            scale = ((styles.square() @ constants.squares + _EPSILON).rsqrt() * gain)[: len(x)]
        styles = styles[: len(x)]
        alone = len(x) == 1 or (len(x) > 1 and drawn_alone(x, weight))
        if alone and weight.numel() <= x.shape[1:].numel():
            factors = styles[:, None] if scale is None else scale[:, :, None] * styles[:, None]
            weights = (constants.weight * own[:, :, None, None] for own in factors)
            parts = [self._with_scaled(*part, bias, lowpass) for part in zip(x.split(1), weights, strict=True)]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        x = self._convolve(x * styles.to(x.dtype)[:, :, None, None], constants)
        if lowpass is not None:
            x = filter_each(x, lowpass)
        bias = bias[:, None, None]
        return x + bias if scale is None else torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])

    def _with_scaled(self, x: Tensor, weight: Tensor, bias: Tensor, lowpass: Tensor | None) -> Tensor:
        added = bias if lowpass is None else None
        x = convolve(x, weight.to(x.dtype), added, padding=self.padding, up=self.up)
        return x if lowpass is None else filter_each(x, lowpass, bias)

    def _convolve(self, x: Tensor, constants: _Constants) -> Tensor:
        """Convolution with one weight for all samples, on a CPU without autograd by `packed_convolution`."""
        packed = None
        if constants.packed is not None and drawn_alone(x) and not in_autocast():
            if x.dtype not in constants.packed:
                weight = constants.weight.to(x.dtype)
                constants.packed[x.dtype] = packed_convolution(weight, x.shape[-1], padding=self.padding, up=self.up)
            packed = constants.packed[x.dtype]
        if packed is not None:
            return packed(x)
        return convolve(x, constants.weight.to(x.dtype), padding=self.padding, up=self.up)

    def _constants(self, weight: Tensor) -> _Constants:
        # On other devices the comparison would wait for the device, and the constants take no time.
        if weight.device.type != "cpu" or is_compiling() or in_graph(weight):
            return self._compute_constants(weight)
        key, probes = _signature(weight)
        if self._cached is None or key != self._cached[0] or not torch.equal(probes, self._cached[1]):
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode could not serve a gradient
                constants = replace(self._compute_constants(weight.detach()), packed={})
                self._cached = key, probes.clone(), constants
        return self._cached[2]

    def _compute_constants(self, weight: Tensor) -> _Constants:
        if not self.demodulate:
            return _Constants(weight, None, None)
        weight = weight * (weight.square().mean((1, 2, 3), keepdim=True) + _EPSILON).rsqrt()
        weight = weight.contiguous(memory_format=torch.channels_last)
        return _Constants(weight, weight.square().sum((2, 3)).t(), None)


def drawn_alone(*tensors: Tensor) -> bool:
    """Whether to compute samples one by one, so that large maps stay in the caches: on a CPU, without autograd."""
    return tensors[0].device.type == "cpu" and not is_compiling() and not any(map(in_graph, tensors))


def one_by_one(module: torch.nn.Module, draw: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return the pictures `draw(*rows)`, as a rule by a call for each sample, in several threads.

    So a picture has the same bits in every batch. All samples are computed in one call where `drawn_alone` is false for
    rows and parameters of the module.
    """
    if not len(rows[0]) or not drawn_alone(*rows, *module.parameters()):
        return draw(*rows)
    return torch.cat(in_pool(draw, list(zip(*(each.split(1) for each in rows), strict=True))))


def padded_rows(w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "rows w_dim"]:
    """Repeat the last row of w up to 8 rows, so that a matrix product rounds alike for batches of 1 to 8 samples."""
    missing = 0 if is_compiling() else DRAWN_TOGETHER - len(w)
    return torch.cat([w, w[-1:].expand(missing, -1)]) if missing > 0 and len(w) else w


def is_compiling() -> bool:
    """Whether `torch.compile` is tracing the caller; always false for torch before 2.3, which cannot tell."""
    return torch.compiler.is_compiling() if hasattr(torch.compiler, "is_compiling") else False


def _signature(weight: Tensor) -> tuple[tuple[Any, ...], Tensor]:
    """Key and some numbers of a weight, to see later whether it has changed: the key misses writing through `.data`."""
    version = None if weight.is_inference() else weight._version
    count = min(_PROBES, weight.numel())
    probes = weight.detach().as_strided((count,), (weight.numel() // count,))
    return (weight.data_ptr(), version, weight.dtype, weight.shape), probes
