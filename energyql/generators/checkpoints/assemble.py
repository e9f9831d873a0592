"""Building of a StyleGAN2 from weights under official names, those of the PyTorch code of StyleGAN2-ADA.

An example is "synthesis.b4.const". The settings follow from names and shapes of the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.checkpoints.unstated import mean_w, warn_assumed
from energyql.generators.stylegan2 import Architecture, StyleGAN2, StyleGAN2Config

MAX_RESOLUTION = 2048
"""Largest side of pictures for which the tables in this module have names of tensors."""
MAX_MAPPING_LAYERS = 64
"""Largest number of layers of a mapping network."""
MAPPING_PARTS = [(i, part) for i in range(MAX_MAPPING_LAYERS) for part in ("weight", "bias")]
"""For each tensor of a mapping network the index of its layer, and "weight" or "bias"."""
MAX_TAPS = 64
"""Largest number of taps of a resampling filter along an axis."""
SIDES = [2**power for power in range(2, MAX_RESOLUTION.bit_length())]
"""Possible sides of feature maps, in ascending order."""
CONVOLUTIONS = {f"synthesis.b{side}.conv{i}": side for side in SIDES for i in (0, 1) if side > 4 or i}
"""Official name of a convolution -> side of its output, in the order of the network."""
_AXES = {"const": 3, "weight": 4, "noise_const": 2, "noise_strength": 0}
"""Last part of an official name -> largest number of axes of the tensor; all other tensors have one axis."""
_LAYER = re.compile(r"(synthesis\.b\d+\.(?:conv[01]|torgb))\.(weight|affine\..*)")
"""Matches the official name of a tensor as two groups, between which the name in this library has `conv.`."""


def official(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Rename tensors of another program to official names, and remove axes of length 1 that the program adds."""
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name not in names:
            raise CheckpointError(f"it has a tensor {shown(name)} that a StyleGAN2 has not")
        axes = _AXES.get(names[name].rpartition(".")[2])
        shape = [-1] if axes is None else value.shape[max(0, value.ndim - axes) :]
        renamed[names[name]] = value.reshape(shape)
    return renamed


def assemble(
    tensors: Mapping[str, Tensor], conv_clamp: float | None = None, multiplier: float = 0.01, architecture: Any = None
) -> StyleGAN2:
    """Build a StyleGAN2 from tensors with official names, in float32, without gradients to its weights.

    Missing resampling filters are [1, 3, 3, 1], and a missing mean of w is computed (`mean_w`). No tensor contains
    `conv_clamp`, the limit of activations, or `multiplier`, the learning-rate multiplier of the mapping network.
    `architecture` is what the file states, and must agree with the tensors.
    """
    check_weights(tensors)
    names = [name for name in tensors if "resample_filter" not in name]
    weights = {_LAYER.sub(r"\1.conv.\2", name): tensors[name].float() for name in names}
    weights["synthesis.resample_filter"] = _resample_filter(tensors)
    config = _configuration(weights, conv_clamp, multiplier)
    if architecture not in (None, config.architecture):
        raise CheckpointError(f"its architecture is {shown(architecture)}, its tensors are of {config.architecture}")
    has_mean = "mapping.w_avg" in weights
    weights.setdefault("mapping.w_avg", torch.zeros(config.w_dim))
    generator = build_network(StyleGAN2, config, weights)
    if not has_mean:
        generator.mapping.w_avg.copy_(mean_w(generator))
    return generator


def with_buffers(tensors: Mapping[str, Tensor], unused: Iterable[str] = ()) -> dict[str, Tensor]:
    """Add maps of noise that a file lacks, as some programs save only parameters, to tensors of official names.

    A convolution with a strength of noise but no map gets a random one, from seed 0. Convolutions in `unused` add no
    noise: those without a strength get the strength 0 and a map of zeros.

    Warns:
        CheckpointWarning: maps of noise are missing, or resampling filters; the pictures may differ from the program's.
    """
    complete, assumed = dict(tensors), []
    random = torch.Generator().manual_seed(0)
    noisy = [layer for layer in sorted(CONVOLUTIONS) if f"{layer}.noise_strength" in tensors]
    lacking = [layer for layer in noisy if f"{layer}.noise_const" not in tensors]
    for layer in lacking:
        complete[f"{layer}.noise_const"] = torch.randn([CONVOLUTIONS[layer]] * 2, generator=random)
    for layer in unused:
        if f"{layer}.weight" in tensors and layer not in noisy:
            complete[f"{layer}.noise_strength"] = torch.zeros(())
            complete[f"{layer}.noise_const"] = torch.zeros([CONVOLUTIONS[layer]] * 2)
    if lacking:
        assumed.append("noise pictures, which are drawn from seed 0: fine details are not those of other programs")
    if not any("resample_filter" in name for name in tensors):
        assumed.append("resampling filters, for which the usual [1, 3, 3, 1] is taken")
    if assumed:
        warn_assumed(f"the file lacks {'; and '.join(assumed)}")
    return complete


def _resample_filter(tensors: Mapping[str, Tensor]) -> Tensor:
    """Low-pass filter that all layers share, (taps, taps), padded to an even number of taps, at least four."""
    # The layers called conv1 do not resample; in official files they hold the usual filter, even if others do not.
    names = [name for name in tensors if "resample_filter" in name and not name.endswith(".conv1.resample_filter")]
    filters = [tensors[name].float() for name in names]
    for kernel in filters:
        if kernel.ndim not in (1, 2) or kernel.shape[0] != kernel.shape[-1] or not 1 <= len(kernel) <= MAX_TAPS:
            raise CheckpointError(f"its resampling filter has the shape {tuple(kernel.shape)}")
        if kernel.shape != filters[0].shape or not torch.allclose(kernel, filters[0]):
            raise CheckpointError("its layers have different resampling filters")
    kernel = filters[0] if filters else torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
    if kernel.ndim == 1:
        kernel = kernel.outer(kernel)
    # Zeros do not shift the filter on the grid: one before an odd number of taps, equally many on both sides otherwise.
    kernel = F.pad(kernel, (len(kernel) % 2, 0) * 2)
    return F.pad(kernel, (max(0, 2 - len(kernel) // 2),) * 4)


def shape_of(tensors: Mapping[str, Tensor], name: str, axes: int) -> torch.Size:
    """Shape of the tensor called `name`, which must have so many axes and must not be empty."""
    if name not in tensors:
        raise CheckpointError(f"it has no {name}, so it is no complete StyleGAN generator")
    if tensors[name].ndim != axes or not tensors[name].numel():
        raise CheckpointError(f"{name} has the shape {tuple(tensors[name].shape)}")
    return tensors[name].shape


def mapping_settings(tensors: Mapping[str, Tensor], w_dim: int) -> dict[str, Any]:
    """Settings of the mapping network, by the names of `StyleGANConfig`, from shapes of tensors with official names."""
    depth = sum(f"mapping.fc{i}.weight" in tensors for i in range(MAX_MAPPING_LAYERS))
    layer_features, inputs = shape_of(tensors, "mapping.fc0.weight", 2)
    embedding, classes = shape_of(tensors, "mapping.embed.weight", 2) if "mapping.embed.weight" in tensors else (0, 0)
    return {
        "z_dim": inputs - embedding, "w_dim": w_dim, "c_dim": classes, "mapping_layers": depth,
        "embed_features": None if embedding in (0, w_dim) else embedding,
        "layer_features": None if depth == 1 or layer_features == w_dim else layer_features,
    }  # fmt: skip


def _configuration(weights: Mapping[str, Tensor], conv_clamp: float | None, lr_multiplier: float) -> StyleGAN2Config:
    """Settings of a StyleGAN2 from the names and shapes of its weights, under the names of this library."""
    channels = {4: shape_of(weights, "synthesis.b4.const", 3)[0]}
    for side in SIDES[1:]:
        if f"synthesis.b{side}.conv0.conv.weight" not in weights:
            break
        channels[side] = shape_of(weights, f"synthesis.b{side}.conv0.conv.weight", 4)[0]
    resolution = max(channels)
    with_picture = [side for side in channels if f"synthesis.b{side}.torgb.conv.weight" in weights]
    architecture: Architecture = "skip"
    if with_picture == [resolution]:
        architecture = "resnet" if "synthesis.b8.skip.weight" in weights else "orig"
    elif missing := [side for side in channels if side not in with_picture]:
        raise CheckpointError(f"it has no picture at {missing[0]}x{missing[0]}, as every architecture of StyleGAN2 has")
    settings = mapping_settings(weights, shape_of(weights, "synthesis.b4.conv1.conv.affine.weight", 2)[1])
    settings["channel_base"], settings["channel_max"] = channel_rule(channels)
    settings["image_channels"] = shape_of(weights, f"synthesis.b{resolution}.torgb.conv.weight", 4)[0]
    settings |= {"mapping_lr_multiplier": lr_multiplier, "conv_clamp": conv_clamp, "architecture": architecture}
    return StyleGAN2Config(resolution, **settings, filter_taps=len(weights["synthesis.resample_filter"]))


def channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Settings `channel_base` and `channel_max` that give blocks these numbers of channels, by their resolution.

    >>> channel_rule({4: 512, 8: 512, 16: 256, 32: 128})
    (4096, 512)
    """
    base, largest = max(side * count for side, count in channels.items()), max(channels.values())
    if any(min(base // side, largest) != count for side, count in channels.items()):
        table = ", ".join(f"{side}x{side}: {count}" for side, count in channels.items())
        raise CheckpointError(f"its numbers of channels ({table}) are not min(base / resolution, maximum)")
    return base, largest
