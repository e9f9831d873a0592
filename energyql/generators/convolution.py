"""Up-sampling, and the modulated convolution of StyleGAN2 and StyleGAN3 with constants prepared for each weight.

Feature maps are channels-last, the layout of oneDNN's fastest kernels. Why and how fast: docs/decisions/drawing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.numerics.linear import can_pack, in_graph
from energyql.numerics.shapes import Float

DRAWN_TOGETHER = 8
"""Most samples whose small feature maps are computed in one batch on the CPU."""
_EPSILON = 1e-8
_PROBES = 8
"""Count of numbers of a weight that are compared to find out whether the weight has changed; see `_signature`."""


def convolve(
    x: Float[Tensor, "batch inputs side side"],
    weight: Float[Tensor, "outputs inputs kernel kernel"],
    bias: Float[Tensor, " outputs"] | None = None,
    *,
    padding: int = 0,
    up: bool = False,
) -> Tensor:
    """Return the convolution of x, with `padding` zeros around it.

    With `up`, zeros are inserted between the samples of x instead, and the new side is 2 side + kernel - 2.
    """
    if up:
        return F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
    return F.conv2d(x, weight, bias, padding=padding)


def filter_each(x: Float[Tensor, "batch channels side side"], kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return the correlation of every channel with one kernel (taps, taps), whose side is side - 1; taps are even."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(x, weight, bias, padding=len(kernel) // 2 - 1, groups=channels)


def upsample(x: Float[Tensor, "batch channels side side"], kernel: Tensor) -> Tensor:
    """Return x at twice its side, with a low-pass filter (taps, taps) of sum 1 on every channel; taps are even."""
    weight = (4 * kernel).to(x.dtype).repeat(x.shape[1], 1, 1, 1)
    return F.conv_transpose2d(x, weight, stride=2, padding=len(kernel) // 2 - 1, groups=x.shape[1])


def add_to_each_(
    x: Float[Tensor, "batch channels side side"], map: Float[Tensor, "*batch side side"]
) -> Float[Tensor, "batch channels side side"]:
    """Add a map (side, side) or (batch, 1, side, side) to every channel of x in place, and return x."""
    if x.dtype != torch.bfloat16 or len(x) > 1 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.add_(map.to(x.dtype))
    # As a product of rank one: in bfloat16 on the CPU, adding with broadcasting is ten times as slow.
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows.addmm_(map.to(x.dtype).reshape(-1, 1), x.new_ones(1, rows.shape[1]))
    return x


class PackedConvolution:
    """`convolve` for one weight, stored in the memory layout of oneDNN; see `energyql.numerics.linear`.

    Without it PyTorch packs the weight at every call, which takes longer than the convolution of a small map.

    Args:
        weight: (outputs, inputs, kernel, kernel).
        side: side of the maps for which the layout is chosen; maps of other sides are allowed.
        padding: zeros around the maps.
        up: whether zeros are inserted between samples; see `convolve`.
    """

    def __init__(self, weight: Tensor, side: int, *, padding: int = 0, up: bool = False) -> None:
        operators: Any = torch.ops.mkldnn
        size, ones = [1, weight.shape[1], side, side], [1, 1]
        geometry: tuple[Any, ...]
        if up:
            geometry = [0, 0], [0, 0], [2, 2], ones, 1
            pack, self._run = (
                operators._reorder_convolution_transpose_weight,
                operators._convolution_transpose_pointwise,
            )
            weight = weight.transpose(0, 1)
        else:
            geometry = [padding, padding], ones, ones, 1
            pack, self._run = operators._reorder_convolution_weight, operators._convolution_pointwise.default
        self._parameters = pack(weight.contiguous(), *geometry, size), None, *geometry, "none", [], ""

    @classmethod
    def of(cls, weight: Tensor, side: int, *, padding: int = 0, up: bool = False) -> PackedConvolution | None:
        """Return the packed convolution; `None` if device, dtype or build of PyTorch have none. See the class."""
        if not can_pack(weight):
            return None
        try:
            return cls(weight, side, padding=padding, up=up)
        except (AttributeError, RuntimeError):
            return None

    def __call__(self, x: Float[Tensor, "batch inputs side side"]) -> Tensor:
        """Return the convolution of x, without a derivative."""
        result: Tensor = self._run(x, *self._parameters)
        return result


@dataclass(frozen=True)
class _Constants:
    """Tensors that a `Modulation` computes once from its weight.

    Attributes:
        weight: the weight, scaled to unit mean square for each output if the output is demodulated.
        squares: (inputs, outputs), sums over the taps of the squares of the weight; `None` without demodulation.
        packed: dtype -> packed convolution, added at the first use; `None` for a dtype without packed convolutions.
    """

    weight: Tensor
    squares: Tensor | None
    packed: dict[torch.dtype, PackedConvolution | None]


class Modulation:
    """A convolution whose input channels are scaled by styles: equations 1 to 3 of Karras et al. 2020.

    As a rule the activations are scaled, and one convolution computes the whole batch. On the CPU without autograd, the
    weight is scaled for each sample instead, if it is smaller than the activations of a sample. Constants of the weight
    are cached on the CPU, unless autograd records operations on the weight, and computed again when it has changed.

    Args:
        padding: zeros around the maps.
        up: whether zeros are inserted between samples, for up-sampling; see `convolve`.
        demodulate: whether the output is scaled to unit variance for inputs of unit variance.
    """

    def __init__(self, *, padding: int = 0, up: bool = False, demodulate: bool = True) -> None:
        self.padding, self.up, self.demodulate = padding, up, demodulate
        self._cached: tuple[tuple[Any, ...], Tensor, _Constants] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_cached": None}  # packed weights can be neither copied nor saved

    def __call__(
        self,
        x: Float[Tensor, "batch inputs side side"],
        weight: Float[Tensor, "outputs inputs kernel kernel"],
        styles: Float[Tensor, "rows inputs"],
        bias: Float[Tensor, " outputs"],
        *,
        gain: float | Tensor = 1.0,
        lowpass: Float[Tensor, "taps taps"] | None = None,
    ) -> Float[Tensor, "batch outputs new_side new_side"]:
        """Return the convolution, multiplied by `gain`, plus the bias.

        Args:
            x: feature maps.
            weight: weight of the convolution.
            styles: factors of the channels of x. There may be more rows than samples, see `padded_rows`.
            bias: added to the channels of the result, not multiplied by `gain`.
            gain: factor of the convolution. It is ignored without demodulation: multiply the styles by it then.
            lowpass: filter between an up-sampling convolution and the bias; `None` for no filter.
        """
        constants = self._constants(weight)
        bias = bias.to(x.dtype)
        scale = None
        if constants.squares is not None:
            if x.dtype == torch.float16:  # demodulation cancels the scale of styles; at unit scale nothing overflows
                styles = styles * (styles.square().mean(1, keepdim=True) + _EPSILON).rsqrt()
            scale = ((styles.square() @ constants.squares + _EPSILON).rsqrt() * gain)[: len(x)]
        styles = styles[: len(x)]
        one_by_one = len(x) == 1 or (len(x) > 1 and drawn_alone(x, weight))
        if one_by_one and weight.numel() <= x.shape[1:].numel():
            factors = styles[:, None] if scale is None else scale[:, :, None] * styles[:, None]
            convolved = [
                self._with_scaled(one, constants.weight * own[:, :, None, None], bias, lowpass)
                for one, own in zip(x.split(1), factors, strict=True)
            ]
            return convolved[0] if len(convolved) == 1 else torch.cat(convolved)
        x = self._convolve(x * styles.to(x.dtype)[:, :, None, None], constants)
        if lowpass is not None:
            x = filter_each(x, lowpass)
        bias = bias[:, None, None]
        return x + bias if scale is None else torch.addcmul(bias, x, scale.to(x.dtype)[:, :, None, None])

    def _with_scaled(self, x: Tensor, weight: Tensor, bias: Tensor, lowpass: Tensor | None) -> Tensor:
        weight = weight.to(x.dtype)
        if lowpass is None:
            return convolve(x, weight, bias, padding=self.padding, up=self.up)
        return filter_each(convolve(x, weight, padding=self.padding, up=self.up), lowpass, bias)

    def _convolve(self, x: Tensor, constants: _Constants) -> Tensor:
        """Return the convolution with one weight for all samples, packed if the constants are the cached ones."""
        prepared = self._cached is not None and constants is self._cached[2]
        packed = None
        if prepared and drawn_alone(x) and not _in_autocast():
            if x.dtype not in constants.packed:
                weight = constants.weight.to(x.dtype)
                constants.packed[x.dtype] = PackedConvolution.of(weight, x.shape[-1], padding=self.padding, up=self.up)
            packed = constants.packed[x.dtype]
        if packed is None:
            return convolve(x, constants.weight.to(x.dtype), padding=self.padding, up=self.up)
        return packed(x)

    def _constants(self, weight: Tensor) -> _Constants:
        # On other devices the comparison would wait for the device, and the constants take no time.
        if weight.device.type != "cpu" or is_compiling() or in_graph(weight):
            return self._compute_constants(weight)
        key, probes = _signature(weight)
        if self._cached is None or key != self._cached[0] or not torch.equal(probes, self._cached[1]):
            with torch.inference_mode(False), torch.no_grad():  # a tensor of inference mode could not serve a gradient
                constants = self._compute_constants(weight.detach())
                self._cached = key, probes.clone(), constants
        return self._cached[2]

    def _compute_constants(self, weight: Tensor) -> _Constants:
        if not self.demodulate:
            return _Constants(weight, None, {})
        weight = weight * (weight.square().mean((1, 2, 3), keepdim=True) + _EPSILON).rsqrt()
        weight = weight.contiguous(memory_format=torch.channels_last)
        return _Constants(weight, weight.square().sum((2, 3)).t(), {})


def drawn_alone(*tensors: Tensor) -> bool:
    """Return whether samples may be computed one by one: on the CPU, without autograd or `torch.compile`.

    Args:
        tensors: inputs and parameters of the computation, at least one.
    """
    if tensors[0].device.type != "cpu" or is_compiling():
        return False
    return not any(in_graph(tensor) for tensor in tensors)


def padded_rows(w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "rows w_dim"]:
    """Return w with its last row repeated until there are `DRAWN_TOGETHER` rows or more.

    A product of these rows then has the same rounding errors for every size of batch.
    """
    missing = DRAWN_TOGETHER - len(w)
    return torch.cat([w, w[-1:].expand(missing, -1)]) if missing > 0 and len(w) else w


def is_compiling() -> bool:
    """Return whether `torch.compile` traces this code; always false for torch before 2.3, which has no such test."""
    return torch.compiler.is_compiling() if hasattr(torch.compiler, "is_compiling") else False


def _in_autocast() -> bool:
    """Return whether autocast is on for the CPU: packed convolutions do not follow it."""
    try:
        return torch.is_autocast_enabled("cpu")
    except TypeError:  # torch before 2.4
        return torch.is_autocast_cpu_enabled()


def _signature(weight: Tensor) -> tuple[tuple[Any, ...], Tensor]:
    """Return a key and some numbers of a weight; at least one of the two differs once the weight has changed.

    The key holds the version, in which PyTorch counts in-place operations. It does not count writing through `.data`,
    which many training loops use for moving averages, so the numbers are compared too.
    """
    version = None if weight.is_inference() else weight._version
    count = min(_PROBES, weight.numel())
    probes = weight.detach().as_strided((count,), (weight.numel() // count,))
    return (weight.data_ptr(), version, weight.dtype, weight.shape), probes
