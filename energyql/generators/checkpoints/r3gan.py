"""Reader of official R3GAN files (PyTorch). All settings follow from names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.r3gan import MOST_STAGES, R3GAN, R3GANConfig

_MARKER = "MainLayers.0.Layers.0.Basis"
"""Name of a tensor that only generators of R3GAN have."""
_NAMES = {
    "EmbeddingLayer.weight": "embed",
    "AggregationLayer.Layer.weight": "colours",
    _MARKER: "stages.0.basis",
    "MainLayers.0.Layers.0.LinearLayer.weight": "stages.0.linear",
}
"""Official name -> name in this library, of tensors outside the numbered layers."""
_LAYER = re.compile(r"MainLayers\.(\d)\.Layers\.(\d{1,3})\.(.+)", re.ASCII)
"""Official name of a tensor of a layer: stage, layer, part."""
_TRANSITION = {"LinearLayer.Layer.weight": "widen", "Resampler.Kernel": "resample_filter"}
"""Parts of layer 0 of a stage, which changes side and width: official name -> name in this library."""
_BLOCK = {
    "LinearLayer1.Layer.weight": "expand",
    "LinearLayer2.Layer.weight": "mix",
    "LinearLayer3.Layer.weight": "reduce",
    "NonLinearity1.Bias": "bias1",
    "NonLinearity2.Bias": "bias2",
}
"""Parts of a residual block: official name -> name in this library."""


def read_r3gan(checkpoint: Checkpoint) -> R3GAN | None:
    """Return the averaged generator of an official file; `None` if the file holds no R3GAN.

    The official program computes the last stages in bfloat16; here they are in float32.

    Raises:
        CheckpointError: tensors are missing, too many, or do not fit together.
    """
    record = checkpoint.network
    if record is None:
        return None
    tensors = {name.removeprefix("Model."): tensor for name, tensor in record.tensors.items()}
    if _MARKER not in tensors:
        return None
    if checkpoint.given.lr_multiplier is not None or checkpoint.given.conv_clamp is not None:
        raise CheckpointError("an R3GAN has no lr_multiplier and no conv_clamp", hint="leave the setting out")
    check_weights(tensors)
    weights = {_own_name(name): tensor for name, tensor in tensors.items()}
    generator: R3GAN = build_network(R3GAN, _configuration(weights), weights)
    return generator


def _own_name(name: str) -> str:
    """Return the name in this library of a tensor with an official name.

    Raises:
        CheckpointError: an R3GAN has no such tensor.
    """
    if name in _NAMES:
        return _NAMES[name]
    if match := _LAYER.fullmatch(name):
        stage, layer, part = match.groups()
        if layer == "0" and part in _TRANSITION:
            return f"stages.{stage}.{_TRANSITION[part]}"
        if layer != "0" and part in _BLOCK:
            return f"stages.{stage}.blocks.{int(layer) - 1}.{_BLOCK[part]}"
    raise CheckpointError(f"it has a tensor {shown(name, 120)} that an R3GAN has not")


def _configuration(weights: Mapping[str, Tensor]) -> R3GANConfig:
    """Return the settings that follow from names and shapes; `build_network` checks that all tensors fit them.

    Raises:
        CheckpointError: residual blocks are missing.
    """
    widths, groups, blocks = [], [], []
    for stage in range(MOST_STAGES):
        prefix = f"stages.{stage}.blocks"
        count = len({name.split(".")[3] for name in weights if name.startswith(f"{prefix}.")})
        if not count:
            break
        mix, reduce = weights[f"{prefix}.0.mix"], weights[f"{prefix}.0.reduce"]
        widths.append(reduce.shape[0])
        groups.append(len(mix) // mix.shape[1])
        blocks.append(count)
    if not widths:
        raise CheckpointError("it is a part of an R3GAN: residual blocks are missing")
    embed = weights.get("embed")
    classes, features = (0, 0) if embed is None else (embed.shape[1], embed.shape[0])
    return R3GANConfig(
        z_dim=weights["stages.0.linear"].shape[1] - features,
        widths=tuple(widths),
        groups=tuple(groups),
        blocks=tuple(blocks),
        expansion=weights["stages.0.blocks.0.expand"].shape[0] // widths[0],
        kernel=weights["stages.0.blocks.0.mix"].shape[-1],
        filter_taps=weights["stages.1.resample_filter"].shape[-1] if len(widths) > 1 else 4,
        c_dim=classes,
        embed_features=features,
        image_channels=len(weights["colours"]),
    )


READERS = (read_r3gan,)
