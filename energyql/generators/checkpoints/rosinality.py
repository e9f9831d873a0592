"""Checkpoints of the widely used PyTorch StyleGAN2 by Kim Seonghyeon (rosinality): `.pt` files with a `g_ema`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.generators.checkpoints.arrays import NUMPY_NAMES
from energyql.generators.checkpoints.assemble import assemble
from energyql.generators.checkpoints.inert import Names
from energyql.generators.checkpoints.records import SET_NAMES, TORCH_NAMES, TensorRecord, record
from energyql.generators.checkpoints.refusal import Refused, reading, shown
from energyql.generators.stylegan2 import StyleGAN2

NAMES: Names = {**TORCH_NAMES, **NUMPY_NAMES, **SET_NAMES, ("argparse", "Namespace"): record("argparse.Namespace")}
"""A training checkpoint also holds the options of the training; they stay a record."""
MARKER = "input.input"
"""The learned constant, by which a state dict of this kind is known."""


def is_rosinality(content: Any) -> bool:
    """Whether the content of a `.pt` file is a StyleGAN2 of this kind."""
    return _generator(content) is not None


def _generator(content: Any) -> Mapping[str, Any] | None:
    """The generator's state dict: `g_ema`, else `g`, else the content itself."""
    if not isinstance(content, dict):
        return None
    for candidate in (content.get("g_ema"), content.get("g"), content):
        if isinstance(candidate, dict) and MARKER in candidate:
            return candidate
    return None


def build_rosinality(content: Any, source: Path, file_size: int) -> StyleGAN2:
    """The averaged generator of a checkpoint. Resolution, channels, latent size and depth follow from the shapes.

    Raises:
        ModelError: tensors are missing or of a kind that is not supported.
    """
    with reading(source):
        state = _generator(content)
        if state is None:
            raise Refused(f"it has no {MARKER}")
        average = content.get("latent_avg")
        records = dict(state) | ({"latent_avg": average} if isinstance(average, TensorRecord) else {})
        room = 2 * file_size
        tensors: dict[str, Tensor] = {}
        for name, value in records.items():
            if not isinstance(name, str) or not isinstance(value, TensorRecord):
                raise Refused(f"{shown(name)} is not a tensor")
            room -= value.nbytes
            if room < 0:
                raise Refused("its tensors are larger than the file")
            tensors.update(_official(name, value.tensor().float()))
        _add_noise(tensors)
        return assemble(tensors, source)


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


def _official(name: str, value: Tensor) -> dict[str, Tensor]:
    """One tensor under its official name, or none if it is not needed."""
    if match := _STYLE.fullmatch(name):
        return {f"mapping.fc{int(match[1]) - 1}.{match[2]}": value}
    if match := _NOISE.fullmatch(name):
        return {f"{_convolution(int(match[1]))}.noise_const": value.reshape(value.shape[-2:])}
    if name == MARKER:
        return {"synthesis.b4.const": value.squeeze(0)}
    if name == "latent_avg":
        return {"mapping.w_avg": value.flatten()}
    if name.endswith((".blur.kernel", ".upsample.kernel")):  # stored four times as strong, to make up for new zeros
        return {f"{name}.resample_filter": value / 4}
    if match := _FIRST.fullmatch(name):
        prefix, part = "synthesis.b4.conv1" if match[1] == "conv1" else "synthesis.b4.torgb", match[2]
    elif match := _LATER.fullmatch(name):
        index, part = int(match[2]), match[3]
        prefix = _convolution(index + 1) if match[1] == "convs" else f"synthesis.b{2 ** (index + 3)}.torgb"
    else:
        part = ""
    if part not in _PARTS:
        raise ModelError(f"it has a tensor {shown(name)} that a StyleGAN2 has not")
    if part == "conv.weight" and value.ndim == 5:
        value = value.squeeze(0)
    elif part == "noise.weight":
        value = value.reshape(())
    elif part in ("bias", "activate.bias"):
        value = value.flatten()
    return {f"{prefix}.{_PARTS[part]}": value}


def _convolution(layer: int) -> str:
    """Official name of the convolution with number `layer`: one at 4x4, then two a resolution."""
    return f"synthesis.b{2 ** ((layer + 5) // 2)}.conv{(layer + 1) % 2}"


def _add_noise(tensors: dict[str, Tensor]) -> None:
    """Early checkpoints hold no noise pictures: draw them, from a fixed seed."""
    random = torch.Generator().manual_seed(0)
    for name in sorted(name for name in tensors if name.endswith(".noise_strength")):
        side = int(name.split(".")[1][1:])
        if name.replace("noise_strength", "noise_const") not in tensors and side <= 1024:
            tensors[name.replace("noise_strength", "noise_const")] = torch.randn(side, side, generator=random)
