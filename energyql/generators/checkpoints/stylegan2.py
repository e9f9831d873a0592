"""Readers of StyleGAN2: official pickles of PyTorch (StyleGAN2-ADA) and TensorFlow, and rosinality's `.pt` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import CONVOLUTIONS, MAX_MAPPING_LAYERS, SIDES, assemble, official
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import Budget, TensorRecord
from energyql.generators.checkpoints.tensorflow import read_tensorflow
from energyql.generators.stylegan2 import StyleGAN2

DEFAULT_LR_MULTIPLIER = 0.01


def read_ada(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Build the generator of an official PyTorch pickle, with the settings that it was made with.

    Raises:
        CheckpointError: it is of an unsupported kind.
    """
    record = checkpoint.network
    if record is None or "synthesis.b4.const" not in record.tensors:
        return None
    clamp = _setting(record, "conv_clamp", r"synthesis\.b4\.conv1\.conv_clamp")
    lr_multiplier = _setting(record, "lr_multiplier", r"mapping\.fc0\.bias_gain", DEFAULT_LR_MULTIPLIER)
    for name, pattern, supported in (
        ("activation", r"(synthesis\.b\d+\.conv[01]|mapping\.fc\d+)\.activation", "lrelu"),
        ("architecture", r"synthesis\.b\d+\.architecture", "skip"),
    ):
        value = _setting(record, name, pattern, supported)
        if value != supported:
            raise CheckpointError(f"its {name} is {shown(value)}; only {supported!r} is supported")
    tensors = dict(record.tensors)
    for layer, side in CONVOLUTIONS.items():  # a network without noise inputs is one with noise of strength zero
        strength = f"{layer}.noise_strength"
        if (
            f"{layer}.weight" in tensors
            and strength not in tensors
            and record.attributes.get(f"{layer}.use_noise") is False
        ):
            tensors[strength] = torch.zeros(())
            tensors[f"{layer}.noise_const"] = torch.zeros(side, side)
    return assemble(tensors, conv_clamp=clamp, mapping_lr_multiplier=lr_multiplier)


def _setting(record: NetworkRecord, name: str, pattern: str, default: Any = None) -> Any:
    """Return a setting of the modules, else of the arguments of the network, in either layout."""
    found = {value for key, value in record.attributes.items() if re.fullmatch(pattern, key)}
    if len(found) > 1:
        raise CheckpointError(f"its layers differ in {name}")
    if found:
        return found.pop()
    for settings in (record.init_kwargs, *record.init_kwargs.values()):
        if isinstance(settings, dict) and settings.get(name) is not None:
            return settings[name]
    return default


_MARKER = "input.input"  # the learned constant of rosinality's networks
_PARTS = {
    "conv.weight": "weight",
    "conv.modulation.weight": "affine.weight",
    "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength",
    "activate.bias": "bias",
    "bias": "bias",
}
_LAYERS = {
    "conv1": "synthesis.b4.conv1",
    "to_rgb1": "synthesis.b4.torgb",
    **{f"convs.{i}": layer for i, layer in enumerate(list(CONVOLUTIONS)[1:])},
    **{f"to_rgbs.{i}": f"synthesis.b{side}.torgb" for i, side in enumerate(SIDES[1:])},
}
_NAMES = {
    _MARKER: "synthesis.b4.const",
    "latent_avg": "mapping.w_avg",
    **{
        f"style.{i + 1}.{part}": f"mapping.fc{i}.{part}"
        for i in range(MAX_MAPPING_LAYERS)
        for part in ("weight", "bias")
    },
    **{f"noises.noise_{i}": f"{layer}.noise_const" for i, layer in enumerate(CONVOLUTIONS)},
    **{f"{layer}.{part}": f"{_LAYERS[layer]}.{_PARTS[part]}" for layer in _LAYERS for part in _PARTS},
}
"""Rosinality's names -> official names."""


def read_rosinality(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Build the averaged generator of a checkpoint of rosinality's (Kim Seonghyeon's) PyTorch StyleGAN2.

    The state dict is `g_ema`, else `g`, else the content itself.

    Raises:
        CheckpointError: tensors are missing or of an unsupported kind.
    """
    content = checkpoint.content
    if not checkpoint.is_torch_file or not isinstance(content, dict):
        return None
    candidates = (content.get("g_ema"), content.get("g"), content)
    state = next((found for found in candidates if isinstance(found, dict) and _MARKER in found), None)
    if state is None:
        return None
    average = content.get("latent_avg")
    records: Mapping[Any, Any] = dict(state) | ({"latent_avg": average} if isinstance(average, TensorRecord) else {})
    budget = Budget(checkpoint.size)
    tensors: dict[str, Tensor] = {}
    filters: dict[str, Tensor] = {}
    for name, value in records.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise CheckpointError(f"{shown(name)} is not a tensor")
        budget.take(value.nbytes)
        if name.endswith((".blur.kernel", ".upsample.kernel")):  # stored four times as strong, for the inserted zeros
            filters[f"{name}.resample_filter"] = value.tensor().float() / 4
        else:
            tensors[name] = value.tensor().float()
    tensors = official(tensors, _NAMES)
    random = torch.Generator().manual_seed(0)
    for layer, side in sorted(CONVOLUTIONS.items()):  # early checkpoints lack the noise pictures
        if f"{layer}.noise_strength" in tensors and f"{layer}.noise_const" not in tensors:
            tensors[f"{layer}.noise_const"] = torch.randn(side, side, generator=random)
    return assemble(tensors | filters)


READERS = (read_ada, read_tensorflow, read_rosinality)
