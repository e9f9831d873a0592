"""A StyleGAN2 from weights under their official names. The architecture follows from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.checkpoints.unstated import mean_w, warn_assumed
from energyql.generators.stylegan2 import Architecture, StyleGAN2, StyleGAN2Config

MAX_RESOLUTION = 2048
"""Largest side of pictures whose names of tensors are known."""
MAX_MAPPING_LAYERS = 64
"""Most layers of a mapping network."""
MAX_CLASSES = 2**16
"""Most classes of a generator."""
MAX_TAPS = 64
"""Most taps of a resampling filter along an axis."""
SIDES = [2**power for power in range(2, MAX_RESOLUTION.bit_length())]
"""Sides of feature maps, ascending."""
CONVOLUTIONS = {f"synthesis.b{side}.conv{i}": side for side in SIDES for i in (0, 1) if side > 4 or i}
"""Convolution -> side of its output, in order: one at 4x4, then two at each resolution."""
_LAYER = re.compile(r"(synthesis\.b\d+\.(?:conv[01]|torgb))\.(weight|affine\..*)")
"""Official names that have `conv.` between the two groups in this library."""


def official(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under their official names, without the axes of length 1 that other programs add.

    Args:
        tensors: tensors under the names of another program.
        names: name of the other program -> official name.

    Raises:
        CheckpointError: a tensor is not in the table of names.
    """
    renamed: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name not in names:
            raise CheckpointError(f"it has a tensor {shown(name)} that a StyleGAN2 has not")
        part = names[name].rpartition(".")[2]
        if part == "const" or (part == "weight" and value.ndim == 5):
            value = value.squeeze(0)
        elif part == "noise_const":
            value = value.reshape(value.shape[-2:])
        elif part == "noise_strength":
            value = value.reshape(())
        elif part in ("bias", "w_avg"):
            value = value.flatten()
        renamed[names[name]] = value
    return renamed


def assemble(
    tensors: Mapping[str, Tensor],
    *,
    conv_clamp: float | None = None,
    mapping_lr_multiplier: float = 0.01,
    architecture: Any = None,
) -> StyleGAN2:
    """Build a StyleGAN2 from tensors with the names of the official StyleGAN2-ADA code.

    Args:
        tensors: parameters and buffers. Without resampling filters, [1, 3, 3, 1] is used. Without `mapping.w_avg`, the
            mean of w is computed from a fixed seed.
        conv_clamp: see `StyleGANConfig`; no shape shows it.
        mapping_lr_multiplier: see `StyleGANConfig`; no shape shows it.
        architecture: the one that the file states, `None` if it states none. It must be the one that the names show.

    Returns:
        The generator in float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together or to the stated architecture.
    """
    check_weights(tensors)
    weights = {
        _LAYER.sub(r"\1.conv.\2", name): tensor.float()
        for name, tensor in tensors.items()
        if "resample_filter" not in name
    }
    weights["synthesis.resample_filter"] = _resample_filter(tensors)
    config = _configuration(weights, conv_clamp, mapping_lr_multiplier)
    if architecture not in (None, config.architecture):
        raise CheckpointError(
            f"its architecture is {shown(architecture)}, but its tensors are of {config.architecture}"
        )
    has_mean = "mapping.w_avg" in weights
    weights.setdefault("mapping.w_avg", torch.zeros(config.w_dim))
    generator: StyleGAN2 = build_network(StyleGAN2, config, weights)
    if not has_mean:
        generator.mapping.w_avg.copy_(mean_w(generator))
    return generator


def with_buffers(tensors: Mapping[str, Tensor], unused: Container[str] = ()) -> dict[str, Tensor]:
    """Return tensors together with missing buffers: some programs save parameters only.

    Args:
        tensors: tensors under their official names.
        unused: convolutions that add no noise: those that lack a strength of noise get 0. Convolutions with a strength
            that lack a map of noise get one from a fixed seed.

    Warns:
        CheckpointWarning: maps of noise or resampling filters are missing, on which pictures depend.
    """
    complete, assumed = dict(tensors), []
    random = torch.Generator().manual_seed(0)
    missing = False
    for layer, side in sorted(CONVOLUTIONS.items()):
        if f"{layer}.noise_strength" in tensors and f"{layer}.noise_const" not in tensors:
            complete[f"{layer}.noise_const"] = torch.randn(side, side, generator=random)
            missing = True
        elif layer in unused and f"{layer}.weight" in tensors and f"{layer}.noise_strength" not in tensors:
            complete[f"{layer}.noise_strength"] = torch.zeros(())
            complete[f"{layer}.noise_const"] = torch.zeros(side, side)
    if missing:
        assumed.append("noise pictures, which are drawn from seed 0: fine details are not those of other programs")
    if not any("resample_filter" in name for name in tensors):
        assumed.append("resampling filters, for which the usual [1, 3, 3, 1] is taken")
    if assumed:
        warn_assumed(f"the file lacks {'; and '.join(assumed)}")
    return complete


def _resample_filter(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the low-pass filter of all layers, (taps, taps), with an even number of taps, at least four.

    Raises:
        CheckpointError: layers have different filters, or a filter has an impossible shape.
    """
    binomial = torch.tensor([1.0, 3.0, 3.0, 1.0])
    # The layers called conv1 do not resample; in official files they hold the usual filter, even if others do not.
    filters = [
        tensor.float()
        for name, tensor in tensors.items()
        if "resample_filter" in name and not name.endswith(".conv1.resample_filter")
    ]
    for kernel in filters:
        if kernel.ndim not in (1, 2) or kernel.shape[0] != kernel.shape[-1] or not 1 <= len(kernel) <= MAX_TAPS:
            raise CheckpointError(f"its resampling filter has the shape {tuple(kernel.shape)}")
        if kernel.shape != filters[0].shape or not torch.allclose(kernel, filters[0]):
            raise CheckpointError("its layers have different resampling filters")
    kernel = filters[0] if filters else binomial / binomial.sum()
    if kernel.ndim == 1:
        kernel = kernel.outer(kernel)
    # Zeros do not shift the filter on the grid: one before an odd number of taps, equally many on both sides otherwise.
    kernel = F.pad(kernel, (len(kernel) % 2, 0) * 2)
    return F.pad(kernel, (max(0, 2 - len(kernel) // 2),) * 4)


def _configuration(weights: Mapping[str, Tensor], conv_clamp: float | None, lr_multiplier: float) -> StyleGAN2Config:
    """Return the settings that follow from the names and shapes of `weights`, with the last two arguments.

    Raises:
        CheckpointError: tensors are missing or have impossible shapes.
    """

    def shape(name: str, dimensions: int) -> torch.Size:
        """Return the shape of a tensor, which must have so many axes and no axis of length 0."""
        if name not in weights:
            raise CheckpointError(f"it has no {name}, so it is not a StyleGAN2 generator")
        if weights[name].ndim != dimensions or not weights[name].numel():
            raise CheckpointError(f"{name} has the shape {tuple(weights[name].shape)}")
        return weights[name].shape

    channels = {4: shape("synthesis.b4.const", 3)[0]}
    while f"synthesis.b{2 * max(channels)}.conv0.conv.weight" in weights and max(channels) < MAX_RESOLUTION:
        resolution = 2 * max(channels)
        channels[resolution] = shape(f"synthesis.b{resolution}.conv0.conv.weight", 4)[0]
    with_picture = [side for side in channels if f"synthesis.b{side}.torgb.conv.weight" in weights]
    architecture: Architecture = "skip"
    if with_picture == [max(channels)]:
        architecture = "resnet" if "synthesis.b8.skip.weight" in weights else "orig"
    elif missing := [side for side in channels if side not in with_picture]:
        raise CheckpointError(
            f"it has no picture at {missing[0]}x{missing[0]}, which no architecture of StyleGAN2 lacks"
        )
    layer_features, z_dim = shape("mapping.fc0.weight", 2)
    w_dim, c_dim, embed_features = shape("synthesis.b4.conv1.conv.affine.weight", 2)[1], 0, None
    if "mapping.embed.weight" in weights:
        embedding, c_dim = shape("mapping.embed.weight", 2)
        embed_features = None if embedding == w_dim else embedding
        z_dim -= embedding
        if c_dim > MAX_CLASSES or z_dim < 1:
            raise CheckpointError(f"its {c_dim} classes and {z_dim} latent numbers are impossible")
    base, largest = channel_rule(channels)
    depth = sum(f"mapping.fc{i}.weight" in weights for i in range(MAX_MAPPING_LAYERS))
    return StyleGAN2Config(
        resolution=max(channels),
        z_dim=z_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=depth,
        mapping_lr_multiplier=lr_multiplier,
        embed_features=embed_features,
        layer_features=None if depth == 1 or layer_features == w_dim else layer_features,
        channel_base=base,
        channel_max=largest,
        image_channels=shape(f"synthesis.b{max(channels)}.torgb.conv.weight", 4)[0],
        conv_clamp=conv_clamp,
        architecture=architecture,
        filter_taps=len(weights["synthesis.resample_filter"]),
    )


def channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Return `channel_base` and `channel_max` (see `StyleGAN2Config`) of a table from resolution to channels.

    Raises:
        CheckpointError: no such settings give these numbers of channels.

    >>> channel_rule({4: 512, 8: 512, 16: 256, 32: 128})
    (4096, 512)
    """
    largest = max(channels.values())
    base = max(resolution * count for resolution, count in channels.items())
    for resolution, count in channels.items():
        if min(base // resolution, largest) != count:
            table = ", ".join(f"{side}x{side}: {number}" for side, number in channels.items())
            raise CheckpointError(
                f"its numbers of channels ({table}) do not follow the rule min(base / resolution, maximum)"
            )
    return base, largest
