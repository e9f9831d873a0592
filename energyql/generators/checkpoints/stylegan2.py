"""Readers of StyleGAN2: official pickles of PyTorch (StyleGAN2-ADA) and TensorFlow, and rosinality's `.pt` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import MAX_RESOLUTION, assemble
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import Budget, TensorRecord
from energyql.generators.checkpoints.tensorflow import read_tensorflow
from energyql.generators.stylegan2 import StyleGAN2

DEFAULT_LR_MULTIPLIER = 0.01
_SIDES = "|".join(str(2**power) for power in range(2, MAX_RESOLUTION.bit_length()))


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
    for name, value in (("conv_clamp", clamp), ("lr_multiplier", lr_multiplier)):
        if not (isinstance(value, int | float) and value > 0) and not (value is None and name == "conv_clamp"):
            raise CheckpointError(f"its {name} is {shown(value)}")
    tensors = dict(record.tensors)
    for name in record.tensors:  # a network without noise inputs is one with noise of strength zero
        layer = re.fullmatch(rf"synthesis\.b({_SIDES})\.conv[01]\.weight", name)
        prefix = name.removesuffix("weight")
        if layer and prefix + "noise_strength" not in tensors and record.attributes.get(prefix + "use_noise") is False:
            tensors[prefix + "noise_strength"] = torch.zeros(())
            tensors[prefix + "noise_const"] = torch.zeros(int(layer[1]), int(layer[1]))
    return assemble(
        tensors, conv_clamp=None if clamp is None else float(clamp), mapping_lr_multiplier=float(lr_multiplier)
    )


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
_STYLE = re.compile(r"style\.(\d+)\.(weight|bias)")
_FIRST = re.compile(r"(conv1|to_rgb1)\.([\w.]+)")
_LATER = re.compile(r"(convs|to_rgbs)\.(\d{1,2})\.([\w.]+)")
_NOISE = re.compile(r"noises\.noise_(\d{1,2})")


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
    for name, value in records.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise CheckpointError(f"{shown(name)} is not a tensor")
        budget.take(value.nbytes)
        tensors.update(_official(name, value.tensor().float()))
    _add_noise(tensors)
    return assemble(tensors)


def _official(name: str, value: Tensor) -> dict[str, Tensor]:
    """Return one tensor under its official name, or nothing if it is not needed."""
    if match := _STYLE.fullmatch(name):
        return {f"mapping.fc{int(match[1]) - 1}.{match[2]}": value}
    if match := _NOISE.fullmatch(name):
        return {f"{_convolution(int(match[1]))}.noise_const": value.reshape(value.shape[-2:])}
    if name == _MARKER:
        return {"synthesis.b4.const": value.squeeze(0)}
    if name == "latent_avg":
        return {"mapping.w_avg": value.flatten()}
    if name.endswith((".blur.kernel", ".upsample.kernel")):  # stored four times as strong, for the inserted zeros
        return {f"{name}.resample_filter": value / 4}
    if match := _FIRST.fullmatch(name):
        prefix, part = "synthesis.b4.conv1" if match[1] == "conv1" else "synthesis.b4.torgb", match[2]
    elif match := _LATER.fullmatch(name):
        index, part = int(match[2]), match[3]
        prefix = _convolution(index + 1) if match[1] == "convs" else f"synthesis.b{2 ** (index + 3)}.torgb"
    else:
        part = ""
    if part not in _PARTS:
        raise CheckpointError(f"it has a tensor {shown(name)} that a StyleGAN2 has not")
    if part == "conv.weight" and value.ndim == 5:
        value = value.squeeze(0)
    elif part == "noise.weight":
        value = value.reshape(())
    elif part in ("bias", "activate.bias"):
        value = value.flatten()
    return {f"{prefix}.{_PARTS[part]}": value}


def _convolution(layer: int) -> str:
    """Return the official name of the convolution with number `layer`: one at 4x4, then two at each resolution."""
    return f"synthesis.b{2 ** ((layer + 5) // 2)}.conv{(layer + 1) % 2}"


def _add_noise(tensors: dict[str, Tensor]) -> None:
    """Draw the noise pictures that early checkpoints lack, from a fixed seed."""
    random = torch.Generator().manual_seed(0)
    for name in sorted(name for name in tensors if name.endswith(".noise_strength")):
        side = int(name.split(".")[1][1:])
        if name.replace("noise_strength", "noise_const") not in tensors and side <= 1024:
            tensors[name.replace("noise_strength", "noise_const")] = torch.randn(side, side, generator=random)


READERS = (read_ada, read_tensorflow, read_rosinality)
