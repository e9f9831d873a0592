"""Up-sampling, and the modulated convolution of StyleGAN2 and StyleGAN3.

In a modulated convolution every input channel is multiplied by a factor that depends on the sample, its style. Feature
maps are in the memory layout "channels last", for which the CPU library oneDNN is fastest. docs/decisions/drawing.md
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
"""Largest number of samples whose small feature maps are computed in one batch on the CPU. It is also the smallest
number of rows of a result of `padded_rows`."""
_EPSILON = 1e-8
_PROBES = 8
"""How many numbers of a weight are compared with the numbers at the last call, to find out whether the weight has
changed."""


def convolve(x: Maps, weight: Tensor, bias: Tensor | None = None, *, padding: int = 0, up: bool = False) -> Maps:
    """Return the convolution of feature maps x with a weight, plus a bias.

    Args:
        x: feature maps with `inputs` channels.
        weight: (outputs, inputs, kernel, kernel).
        bias: a number for each output channel, (outputs,); `None` for no bias.
        padding: number of zeros around x on each side; ignored with `up`.
        up: whether the convolution is a transposed one, for up-sampling: a zero is inserted between neighbouring pixels
            of x. The side of the result is then 2 side + kernel - 2.
    """
    if up:
        return F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
    if weight.shape[2:] == (1, 1) and _as_with_one_thread(x, weight, bias):
        return cast(Tensor, torch.ops.aten.thnn_conv2d(x, weight, [1, 1], bias))
    return F.conv2d(x, weight, bias, padding=padding)


def _as_with_one_thread(x: Maps, *others: Tensor | None) -> bool:
    """Return whether `convolve` should call `thnn_conv2d`, the operation that PyTorch uses with one thread.

    With one thread, PyTorch computes some convolutions with a kernel of one pixel by this operation, and with several
    threads by another one, which rounds differently. The bits of pictures must not depend on the number of threads, so
    `thnn_conv2d` is called directly. It has no derivatives in forward mode; the result is false if a tensor needs them.

    Args:
        x: feature maps.
        others: weight and bias of the convolution.
    """
    in_transform = getattr(torch._C, "_are_functorch_transforms_active", lambda: False)
    return (
        x.device.type == "cpu" and x.dtype == torch.float32 and 0 < len(x) < 16
        and not is_compiling() and not in_autocast() and not in_transform()
        and all(each is None or forward_ad.unpack_dual(each).tangent is None for each in (x, *others))
    )  # fmt: skip


def filter_each(x: Maps, kernel: Tensor, bias: Tensor | None = None) -> Maps:
    """Return feature maps x with every channel correlated with the same kernel, plus a bias.

    The side of the result is the side of x minus 1.

    Args:
        x: feature maps.
        kernel: (taps, taps), with an even number of taps.
        bias: a number for each channel, (channels,); `None` for no bias.
    """
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(x, weight, bias, padding=len(kernel) // 2 - 1, groups=channels)


def upsample(x: Maps, kernel: Tensor) -> Maps:
    """Return feature maps x at twice their side.

    Args:
        x: feature maps.
        kernel: low-pass filter of every channel, (taps, taps), of sum 1, with an even number of taps.
    """
    weight = (4 * kernel).to(x.dtype).repeat(x.shape[1], 1, 1, 1)
    return F.conv_transpose2d(x, weight, stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1])


def square_filter(taps: Sequence[float]) -> Float[Tensor, "taps taps"]:
    """Return the outer product of `taps` with itself, scaled to a sum of 1: a filter along both axes of a picture."""
    total = sum(taps) ** 2
    return torch.tensor([[a * b / total for b in taps] for a in taps])


def add_to_each_(x: Maps, map: Float[Tensor, "*batch side side"]) -> Maps:
    """Add one map to every channel of x in place, and return x.

    The map is (side, side) for all samples, or (batch, 1, side, side) with a map for each sample.
    """
    if x.dtype != torch.bfloat16 or len(x) > 1 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.add_(map.to(x.dtype))
    # As a product of rank one: in bfloat16 on the CPU, adding with broadcasting is ten times as slow.
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows.addmm_(map.to(x.dtype).reshape(-1, 1), x.new_ones(1, rows.shape[1]))
    return x


def packed_convolution(weight: Tensor, side: int, *, padding: int = 0, up: bool = False) -> Convolve | None:
    """Return a function that computes `convolve` with a fixed weight faster, but that autograd cannot differentiate.

    The weight is converted only once to the memory layout of oneDNN, the CPU library of PyTorch ("packed"). `convolve`
    converts it at every call, which takes longer than the convolution of a small map.

    Args:
        weight: (outputs, inputs, kernel, kernel).
        side: side of the maps for which the layout is best; maps of other sides are allowed too.
        padding: number of zeros around the maps on each side; ignored with `up`.
        up: whether a zero is inserted between neighbouring pixels, for up-sampling.

    Returns:
        The function from feature maps to feature maps. `None` if PyTorch has no packed convolution for the device or
        the dtype of the weight.
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

    Demodulation is the scaling of the output to unit variance.

    Attributes:
        weight: the weight. With demodulation it is scaled to a mean square of 1 for each output channel.
        squares: sums of the squares of this weight over the taps, (inputs, outputs); `None` without demodulation.
        packed: dtype of the feature maps -> the faster convolution with this weight, from `packed_convolution`, or
            `None` if PyTorch has no faster one. An entry is added when the dtype occurs for the first time. In place of
            the dict, `None` means that these constants are not kept for later calls.
    """

    weight: Tensor
    squares: Tensor | None
    packed: dict[torch.dtype, Convolve | None] | None


class Modulation:
    """A convolution whose input channels are multiplied by styles: factors that differ from sample to sample.

    The formulas are equations 1 to 3 of Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", 2020.

    As a rule the input is multiplied by the styles, and one convolution computes the whole batch. On the CPU without
    autograd, the weight is multiplied instead, for each sample, if the weight has no more numbers than the input of a
    sample. On the CPU, tensors that depend on the weight only are kept until the weight changes, unless autograd
    records operations on the weight.

    Args:
        padding: number of zeros around the input on each side; ignored with `up`.
        up: whether a zero is inserted between neighbouring pixels of the input, for up-sampling.
        demodulate: whether the output is scaled so that it has unit variance if the input has unit variance.
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
            x: feature maps with `inputs` channels.
            weight: weight of the convolution, (outputs, inputs, kernel, kernel).
            styles: for each sample the factors of the channels of x, (rows, inputs). Rows after the last sample are
                ignored: `padded_rows` adds them for equal rounding.
            bias: a number for each output channel, (outputs,), not multiplied by `gain`.
            gain: factor of the convolution, a number or a tensor of one number. With `demodulate=False` the gain is
                ignored, so the caller must multiply the styles by it.
            lowpass: filter (taps, taps) that is applied after the convolution and before the bias, for up-sampling;
                `None` for no filter.
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
        """Return the convolution of x with `constants.weight`, the same weight for all samples.

        On the CPU without autograd, the faster function from `packed_convolution` is used, if this object keeps
        `constants` for later calls.
        """
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
    """Return whether samples should be computed one by one, so that large feature maps stay in the caches of the CPU.

    The result is true on the CPU, unless autograd records operations on `tensors`, or `torch.compile` traces the code.

    Args:
        tensors: inputs and parameters of the computation, at least one tensor, all on one device.
    """
    return tensors[0].device.type == "cpu" and not is_compiling() and not any(map(in_graph, tensors))


def one_by_one(module: torch.nn.Module, draw: Callable[..., Tensor], *rows: Tensor) -> Tensor:
    """Return the pictures `draw(*rows)`, as a rule computed by a call of `draw` for each sample, in several threads.

    So a picture has the same bits in every batch. All samples are computed in one call if the device is not the CPU, if
    autograd records operations, or inside `torch.compile`.

    Args:
        module: the network, whose parameters `draw` uses.
        draw: function from as many tensors as `rows` has to a batch of pictures.
        rows: inputs of `draw`. Every tensor has a row for each sample.
    """
    if not len(rows[0]) or not drawn_alone(*rows, *module.parameters()):
        return draw(*rows)
    return torch.cat(in_pool(draw, list(zip(*(each.split(1) for each in rows), strict=True))))


def padded_rows(w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "rows w_dim"]:
    """Return w with its last row repeated until there are at least 8 rows (`DRAWN_TOGETHER`).

    If w has 8 rows or more, or none, w itself is returned. A matrix product of the result has the same rounding errors
    for every batch of 1 to 8 samples. Inside `torch.compile`, which would compile each number of rows anew, w itself is
    returned too.
    """
    missing = 0 if is_compiling() else DRAWN_TOGETHER - len(w)
    return torch.cat([w, w[-1:].expand(missing, -1)]) if missing > 0 and len(w) else w


def is_compiling() -> bool:
    """Return whether `torch.compile` is tracing the caller; always false for torch before 2.3, which cannot tell."""
    return torch.compiler.is_compiling() if hasattr(torch.compiler, "is_compiling") else False


def _signature(weight: Tensor) -> tuple[tuple[Any, ...], Tensor]:
    """Return a key and a few numbers of a weight, by which a later call finds out whether the weight has changed.

    The weight counts as unchanged if the key and the numbers are the same as at the earlier call. The key contains
    PyTorch's count of in-place operations on the weight. PyTorch does not count writing through `.data`, which many
    training loops use for moving averages. So a few numbers of the weight are compared too; they are a view, and the
    caller stores a copy.
    """
    version = None if weight.is_inference() else weight._version
    count = min(_PROBES, weight.numel())
    probes = weight.detach().as_strided((count,), (weight.numel() // count,))
    return (weight.data_ptr(), version, weight.dtype, weight.shape), probes
