"""Convolutions with constant weights, packed for repeated evaluation.

Feature maps are channels-last, the layout of oneDNN's fastest kernels. Why and how fast: docs/decisions/drawing.md.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.numerics.linear import can_pack
from energyql.numerics.shapes import Float


def convolve(
    x: Float[Tensor, "batch inputs side side"],
    weight: Float[Tensor, "outputs inputs kernel kernel"],
    bias: Float[Tensor, " outputs"] | None = None,
    *,
    padding: int = 0,
    up: bool = False,
) -> Tensor:
    """Convolve with `padding` zeros around x; or `up`, with zeros between samples, to a side of 2 side + kernel - 2."""
    if up:
        return F.conv_transpose2d(x, weight.transpose(0, 1), bias, stride=2)
    return F.conv2d(x, weight, bias, padding=padding)


def filter_each(x: Float[Tensor, "batch channels side side"], kernel: Tensor, bias: Tensor | None = None) -> Tensor:
    """Filter every channel with one kernel (taps, taps) without padding, but for one zero around x."""
    channels = x.shape[1]
    weight = kernel.to(x.dtype).expand(channels, 1, -1, -1).contiguous()
    return F.conv2d(x, weight, bias, padding=1, groups=channels)


def add_to_each_(
    x: Float[Tensor, "batch channels side side"], map: Float[Tensor, "*batch side side"]
) -> Float[Tensor, "batch channels side side"]:
    """Add a map (side, side) or (batch, 1, side, side) to every channel of x, in place."""
    if x.dtype != torch.bfloat16 or len(x) > 1 or not x.is_contiguous(memory_format=torch.channels_last):
        return x.add_(map.to(x.dtype))
    # A product of rank one: the sum broadcasts bfloat16 number by number, ten times as slow on the CPU.
    rows = x.permute(0, 2, 3, 1).flatten(0, 2)
    rows.addmm_(map.to(x.dtype).reshape(-1, 1), x.new_ones(1, rows.shape[1]))
    return x


class PackedConvolution:
    """`convolve` for one weight in the memory layout of oneDNN; see `energyql.numerics.linear`.

    Packing takes longer than a convolution of a small map, and PyTorch otherwise packs at every call.

    Args:
        weight: (outputs, inputs, kernel, kernel).
        side: of the maps that it is packed for; others work too.
        padding, up: as for `convolve`.
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
        """Pack a weight; `None` where device, dtype or build have no packed convolution."""
        if not can_pack(weight):
            return None
        try:
            return cls(weight, side, padding=padding, up=up)
        except (AttributeError, RuntimeError):
            return None

    def __call__(self, x: Float[Tensor, "batch inputs side side"]) -> Tensor:
        """Convolve; there is no derivative."""
        result: Tensor = self._run(x, *self._parameters)
        return result
