"""Build a StyleGAN2 from weights under their official names. The architecture follows from the shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.numerics.shapes import Float

MAX_RESOLUTION = 2048
MAX_MAPPING_LAYERS = 64
MAX_CLASSES = 2**16
MEAN_SAMPLES = 4096
_CHUNK = 128
SIDES = [2**power for power in range(2, MAX_RESOLUTION.bit_length())]
CONVOLUTIONS = {f"synthesis.b{side}.conv{i}": side for side in SIDES for i in (0, 1) if side > 4 or i}
"""Convolution -> side of its output, in order: one at 4x4, then two at each resolution."""
_LAYER = re.compile(r"(synthesis\.b\d+\.(?:conv[01]|torgb))\.(weight|affine\..*)")


def official(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return tensors under their official names, without the axes of length 1 that other programs add.

    Raises:
        CheckpointError: a tensor is not in the table of names.
    """
    found: dict[str, Tensor] = {}
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
        found[names[name]] = value
    return found


def assemble(
    tensors: Mapping[str, Tensor], *, conv_clamp: float | None = None, mapping_lr_multiplier: float = 0.01
) -> StyleGAN2:
    """Build a StyleGAN2 from tensors with the names of the official StyleGAN2-ADA code.

    Resampling filters may be left out. Without `mapping.w_avg`, the mean of w is computed, from a fixed seed. No shape
    depends on the two settings; see `StyleGANConfig`.

    Returns:
        The generator in float32 on the CPU, in evaluation mode.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together.
    """
    check_weights(tensors)
    weights = {
        _LAYER.sub(r"\1.conv.\2", name): tensor.float()
        for name, tensor in tensors.items()
        if "resample_filter" not in name
    }
    weights["synthesis.resample_filter"] = _resample_filter(tensors)
    config = _configuration(weights, conv_clamp, mapping_lr_multiplier)
    has_mean = "mapping.w_avg" in weights
    weights.setdefault("mapping.w_avg", torch.zeros(config.w_dim))
    generator: StyleGAN2 = build_network(StyleGAN2, config, weights)
    if not has_mean:
        generator.mapping.w_avg.copy_(mean_w(generator))
    return generator


@torch.no_grad()
def mean_w(generator: StyleGAN2, seed: int = 0) -> Float[Tensor, " w_dim"]:
    """Return the mean of w over `MEAN_SAMPLES` latents drawn from `seed`, with each class label in turn."""
    z = torch.randn(MEAN_SAMPLES, generator.z_dim, generator=torch.Generator().manual_seed(seed))
    classes = generator.config.c_dim
    total = torch.zeros(generator.config.w_dim)
    for first in range(0, MEAN_SAMPLES, _CHUNK):  # labels of many classes take room
        label = None
        if classes:
            label = torch.zeros(_CHUNK, classes)
            label[torch.arange(_CHUNK), torch.arange(first, first + _CHUNK) % classes] = 1.0
        total += generator.encode(z[first : first + _CHUNK], label=label).sum(0)
    return total / MEAN_SAMPLES


def _resample_filter(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the low-pass filter that all layers share."""
    binomial = torch.tensor([1.0, 3.0, 3.0, 1.0])
    standard = binomial.outer(binomial) / 64
    filters = [tensor.float() for name, tensor in tensors.items() if "resample_filter" in name]
    for kernel in filters:
        if kernel.shape != standard.shape or not torch.allclose(kernel, kernel.flip(0, 1)):
            raise CheckpointError(f"its resampling filter {tuple(kernel.shape)} is not a symmetric 4x4 one")
        if not torch.allclose(kernel, filters[0]):
            raise CheckpointError("its layers have different resampling filters")
    return filters[0] if filters else standard


def _configuration(weights: Mapping[str, Tensor], conv_clamp: float | None, lr_multiplier: float) -> StyleGAN2Config:
    def shape(name: str, dimensions: int) -> torch.Size:
        if name not in weights:
            raise CheckpointError(f"it has no {name}, so it is not a StyleGAN2 generator")
        if weights[name].ndim != dimensions or not weights[name].numel():
            raise CheckpointError(f"{name} has the shape {tuple(weights[name].shape)}")
        return weights[name].shape

    channels = {4: shape("synthesis.b4.const", 3)[0]}
    while f"synthesis.b{2 * max(channels)}.conv0.conv.weight" in weights and max(channels) < MAX_RESOLUTION:
        resolution = 2 * max(channels)
        channels[resolution] = shape(f"synthesis.b{resolution}.conv0.conv.weight", 4)[0]
    for resolution in channels:
        if f"synthesis.b{resolution}.skip.weight" in weights:
            raise CheckpointError("it has the residual architecture; only the one with skip connections is supported")
        if f"synthesis.b{resolution}.torgb.conv.weight" not in weights:
            raise CheckpointError(
                f"it has no picture at {resolution}x{resolution}; only the architecture with skip connections is "
                "supported"
            )
    z_dim = shape("mapping.fc0.weight", 2)[1]
    w_dim, c_dim = shape("synthesis.b4.conv1.conv.affine.weight", 2)[1], 0
    if "mapping.embed.weight" in weights:
        embedding, c_dim = shape("mapping.embed.weight", 2)
        z_dim -= embedding
        if c_dim > MAX_CLASSES or z_dim < 1:
            raise CheckpointError(f"its {c_dim} classes and {z_dim} latent numbers are impossible")
    base, largest = channel_rule(channels)
    return StyleGAN2Config(
        resolution=max(channels),
        z_dim=z_dim,
        w_dim=w_dim,
        c_dim=c_dim,
        mapping_layers=sum(f"mapping.fc{i}.weight" in weights for i in range(MAX_MAPPING_LAYERS)),
        mapping_lr_multiplier=lr_multiplier,
        channel_base=base,
        channel_max=largest,
        image_channels=shape("synthesis.b4.torgb.conv.weight", 4)[0],
        conv_clamp=conv_clamp,
    )


def channel_rule(channels: Mapping[int, int]) -> tuple[int, int]:
    """Return the channel_base and channel_max for which resolutions have these numbers of channels.

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
