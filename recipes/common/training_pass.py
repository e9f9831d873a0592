"""The synthesis network as it is drawn during training on a CPU: the same pictures, several times as fast.

An elementwise product by the styles costs as much as a convolution there, so large maps are convolved sample by sample
with weights that have the styles and the demodulation in them. Feature maps are bfloat16, channels-last.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.generators.convolution import filter_each
from energyql.generators.mapping import ACTIVATION_GAIN, ACTIVATION_SLOPE
from energyql.generators.stylegan2 import ModulatedConv, SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGB

LARGE = 64
"""Side from which on weights are scaled instead of activations."""
DTYPE = torch.bfloat16
_EPSILON = 1e-8


def draw(network: SynthesisNetwork, w: Tensor) -> Tensor:
    """Return pictures (batch, 3, side, side), float32, of w (batch, w_dim), without noise, with a graph."""
    if w.device.type != "cpu":
        with torch.autocast(w.device.type, DTYPE):
            picture: Tensor = network(w, "none")
        return picture.float()
    lowpass = 4 * network.resample_filter
    x = image = None
    for side in network.config.block_resolutions:
        block = cast(SynthesisBlock, network.get_submodule(f"b{side}"))
        if x is None:
            start = block.const.to(DTYPE).expand(len(w), -1, -1, -1)
            x = start.contiguous(memory_format=torch.channels_last)
        else:
            x = _layer(block.conv0, x, w, lowpass)
        x = _layer(block.conv1, x, w, lowpass)
        rgb = _to_rgb(block.torgb, x, w)
        image = rgb if image is None else _upsample(image, lowpass) + rgb
    assert image is not None
    return image


def _modulation(conv: ModulatedConv, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the weight at unit scale, the styles (batch, inputs) and the demodulation (batch, outputs)."""
    weight = conv.weight * (conv.weight.square().mean((1, 2, 3), keepdim=True) + _EPSILON).rsqrt()
    styles = conv.affine(w)
    squares = weight.square().sum((2, 3)).t()
    return weight, styles, ACTIVATION_GAIN * (styles.square() @ squares + _EPSILON).rsqrt()


def _layer(layer: SynthesisLayer, x: Tensor, w: Tensor, lowpass: Tensor) -> Tensor:
    weight, styles, scale = _modulation(layer.conv, w)
    bias = (layer.bias * ACTIVATION_GAIN).to(DTYPE)
    up = layer.conv.modulation.up
    if x.shape[-1] * (1 + up) < LARGE:
        x, weight = x * styles.to(DTYPE)[:, :, None, None], weight.to(DTYPE)
        if up:
            x = _Lowpass.apply(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), lowpass, None)
        else:
            x = F.conv2d(x, weight, padding=1)
        x = x * scale.to(DTYPE)[:, :, None, None] + bias[:, None, None]
    else:
        own = (weight * styles[:, None, :, None, None] * scale[:, :, None, None, None]).to(DTYPE)
        pairs = zip(x.split(1), own, strict=True)
        if up:
            wide = [F.conv_transpose2d(one, scaled.transpose(0, 1), stride=2) for one, scaled in pairs]
            x = _Lowpass.apply(torch.cat(wide), lowpass, bias)
        else:
            x = torch.cat([F.conv2d(one, scaled, bias, padding=1) for one, scaled in pairs])
    return F.leaky_relu(x, ACTIVATION_SLOPE)


class _Lowpass(torch.autograd.Function):
    """The filter after an up-sampling convolution. PyTorch's own gradient of it takes half of a training step."""

    @staticmethod
    def forward(context: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(kernel)
        return filter_each(x, kernel, bias)

    @staticmethod
    def backward(context: Any, grad: Tensor) -> tuple[Tensor, None, Tensor | None]:
        (kernel,) = context.saved_tensors
        channels = grad.shape[1]
        weight = kernel.flip(0, 1).to(grad.dtype).expand(channels, 1, -1, -1).contiguous()
        of_bias = None
        if context.needs_input_grad[2]:
            rows = grad.permute(0, 2, 3, 1).reshape(-1, channels)
            of_bias = (rows.new_ones(1, len(rows)) @ rows)[0]
        return F.conv2d(grad, weight, padding=len(kernel) // 2, groups=channels), None, of_bias


def _to_rgb(layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
    styles = layer.conv.affine(w) * layer.conv.style_gain
    weight = (layer.conv.weight[None, :, :, 0, 0] * styles[:, None]).to(x.dtype)
    batch, channels, side, _ = x.shape
    rows = x.permute(0, 2, 3, 1).reshape(batch, side * side, channels)
    colours = torch.bmm(rows, weight.transpose(1, 2)).float() + layer.bias
    return colours.transpose(1, 2).reshape(batch, -1, side, side)


def _upsample(image: Tensor, lowpass: Tensor) -> Tensor:
    """Double the side, by a convolution of the small picture: its gradient is faster than that of a transposed one."""
    colours = image.shape[1]
    weight = image.new_zeros(4 * colours, colours, 3, 3)
    for row, column in ((0, 0), (0, 1), (1, 0), (1, 1)):
        taps = lowpass[row::2, column::2]
        phase = F.pad(taps, (column, 1 - column, row, 1 - row))
        for colour in range(colours):
            weight[4 * colour + 2 * row + column, colour] = phase
    return F.pixel_shuffle(F.conv2d(image, weight, padding=1), 2)
