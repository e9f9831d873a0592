"""Reader of official R3GAN files (PyTorch). All settings follow from the names and shapes of the tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.r3gan import MOST_STAGES, R3GAN, R3GANConfig

_MARKER = "MainLayers.0.Layers.0.Basis"
"""Official name of a tensor that every R3GAN generator has, and no other network."""
_NAMES = {
    "EmbeddingLayer.weight": "embed", "AggregationLayer.Layer.weight": "colours", _MARKER: "stages.0.basis",
    "MainLayers.0.Layers.0.LinearLayer.weight": "stages.0.linear",
}  # fmt: skip
"""Official name of a tensor -> name in this library, for tensors that are not in `_TRANSITION` or `_BLOCK`."""
_LAYER = re.compile(r"MainLayers\.(\d)\.Layers\.(\d{1,3})\.(.+)", re.ASCII)
"""Matches an official name: number of the stage, number of the layer in the stage, and last part of the name."""
_TRANSITION = {"LinearLayer.Layer.weight": "widen", "Resampler.Kernel": "resample_filter"}
"""Last part of an official name -> that in this library, in layer 0 of a stage, which changes side and channels."""
_BLOCK = {
    "LinearLayer1.Layer.weight": "expand", "LinearLayer2.Layer.weight": "mix", "LinearLayer3.Layer.weight": "reduce",
    "NonLinearity1.Bias": "bias1", "NonLinearity2.Bias": "bias2",
}  # fmt: skip
"""Last part of an official name -> that in this library, in residual blocks, the layers from 1 on."""


def read_r3gan(checkpoint: Checkpoint) -> R3GAN | None:
    """Return the generator in an official R3GAN file; `None` if the file holds no R3GAN.

    The weights are those averaged over the training (G_ema). The official program computes the last stages in bfloat16,
    this library in float32.
    """
    record = checkpoint.network
    if record is None:
        return None
    tensors = {name.removeprefix("Model."): tensor for name, tensor in record.tensors.items()}
    if _MARKER not in tensors:
        return None
    checkpoint.given.refuse("an R3GAN")
    check_weights(tensors)
    weights = {_own_name(name): tensor for name, tensor in tensors.items()}
    return build_network(R3GAN, _configuration(weights), weights)


def _own_name(name: str) -> str:
    """Name in this library of the tensor that is called `name` in the official code."""
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
    """Settings from some of the weights, under the names of this library; `build_network` checks all of them."""
    stages = [f"stages.{stage}.blocks." for stage in range(MOST_STAGES) if f"stages.{stage}.blocks.0.mix" in weights]
    if not stages:
        raise CheckpointError("it is a part of an R3GAN: residual blocks are missing")
    mixes = [weights[f"{stage}0.mix"] for stage in stages]
    widths = tuple(len(weights[f"{stage}0.reduce"]) for stage in stages)
    features, classes = weights["embed"].shape if "embed" in weights else (0, 0)
    filter_taps = weights["stages.1.resample_filter"].shape[-1] if len(widths) > 1 else 4
    groups = tuple(len(mix) // mix.shape[1] for mix in mixes)
    blocks = tuple(len({name.split(".")[3] for name in weights if name.startswith(stage)}) for stage in stages)
    sizes = {"z_dim": weights["stages.0.linear"].shape[1] - features, "c_dim": classes, "embed_features": features}
    sizes |= {"expansion": len(mixes[0]) // widths[0], "kernel": mixes[0].shape[-1], "filter_taps": filter_taps}
    return R3GANConfig(widths=widths, groups=groups, blocks=blocks, image_channels=len(weights["colours"]), **sizes)


READERS = (read_r3gan,)
