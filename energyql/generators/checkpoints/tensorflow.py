"""Reader of official pickles of StyleGAN2 and StyleGAN2-ADA for TensorFlow, such as stylegan2-ffhq-config-f.pkl."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.generators.checkpoints.arrays import ArrayRecord
from energyql.generators.checkpoints.assemble import CONVOLUTIONS, MAPPING_PARTS, SIDES, assemble, official
from energyql.generators.checkpoints.network_pickle import TF_NETWORK, Checkpoint, plain_settings
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import ObjectRecord, Quota
from energyql.generators.checkpoints.unstated import DEFAULT_LR_MULTIPLIER
from energyql.generators.stylegan2 import StyleGAN2

OLDEST_VERSION = 4
"""Oldest version of a network that is read; the pickle states its version."""
COMPONENTS = ("mapping", "synthesis")
"""Names of the two networks inside a generator."""
SUPPORTED = {"nonlinearity": "lrelu", "mapping_nonlinearity": "lrelu", "use_noise": True, "normalize_latents": True}
"""Name of a setting in the file -> its only supported value; the setting may be missing."""


_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}
_PARTS = {
    "weight": "weight", "bias": "bias", "mod_weight": "affine.weight", "mod_bias": "affine.bias",
    "noise_strength": "noise_strength",
}  # fmt: skip
NAMES = {
    "synthesis/4x4/Const/const": "synthesis.b4.const",
    "dlatent_avg": "mapping.w_avg",
    **{f"mapping/Dense{i}/{part}": f"mapping.fc{i}.{part}" for i, part in MAPPING_PARTS},
    **{f"mapping/LabelEmbed/{part}": f"mapping.embed.{part}" for part in ("weight", "bias")},
    **{f"synthesis/noise{i}": f"{layer}.noise_const" for i, layer in enumerate(CONVOLUTIONS)},
    **{
        f"synthesis/{side}x{side}/{layer}/{part}": f"synthesis.b{side}.{_LAYERS[layer]}.{_PARTS[part]}"
        for side, layer, part in product(SIDES, _LAYERS, _PARTS)
    },
}
"""Name of a variable in TensorFlow -> name of the tensor in the official PyTorch code."""


def read_tensorflow(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Return the generator in an official TensorFlow pickle; `None` for any other file.

    Of the three networks in such a pickle it is the last, Gs, whose weights are averaged over the training. A StyleGAN
    of the first generation is an error.
    """
    content = checkpoint.content
    if not isinstance(content, tuple) or len(content) != 3 or not all(map(_is_network, content)):
        return None
    state = content[-1].state
    settings = plain_settings(state.get("static_kwargs"))
    variables = _variables(content[-1], Quota(checkpoint.size))
    if "synthesis/4x4/Conv/mod_weight" not in variables:
        raise CheckpointError("it is a TensorFlow network, but not a StyleGAN2")
    if state["version"] < OLDEST_VERSION:
        raise CheckpointError(f"its version {shown(state['version'])} is older than {OLDEST_VERSION}")
    for name, supported in SUPPORTED.items():
        if settings.get(name) not in (supported, None):
            raise CheckpointError(f"its {name} is {shown(settings[name])}; only {supported!r} is supported")
    if any(value.any() for name, value in variables.items() if name.rpartition("/")[2] == "lod"):
        raise CheckpointError("its training was not finished: the last layers are not in use yet (lod is not 0)")
    tensors = official({name: _transposed(name, value) for name, value in _fully_grown(variables).items()}, NAMES)
    taps = torch.tensor(settings.get("resample_kernel", [1, 3, 3, 1]) or [1, 1], dtype=torch.float32)
    tensors["resample_filter"] = taps / taps.sum()
    clamp, multiplier = settings.get("conv_clamp"), settings.get("mapping_lrmul") or DEFAULT_LR_MULTIPLIER
    checkpoint.given.check(multiplier, clamp)
    return assemble(tensors, clamp, multiplier, settings.get("architecture"))


def _fully_grown(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """Variables that are used after training: of layers that draw a picture in each resolution, only the last is."""
    side = max((side for side in SIDES if f"synthesis/{side}x{side}/Conv1/weight" in variables), default=0)
    last = "synthesis/ToRGB_lod0/"
    small = [name for name in variables if name.startswith("synthesis/ToRGB_lod") and not name.startswith(last)]
    used = [name for name in variables if name not in small and name.rpartition("/")[2] != "lod"]
    return {name.replace(last, f"synthesis/{side}x{side}/ToRGB/"): variables[name] for name in used}


def _is_network(part: Any) -> bool:
    return isinstance(part, ObjectRecord) and part.name == TF_NETWORK


def _variables(network: ObjectRecord, quota: Quota) -> dict[str, Tensor]:
    """Variables of a generator and of the two networks inside it, whose names are prefixes, in float32."""
    components = network.state["components"]
    variables: dict[str, Tensor] = {}
    for prefix, part in {"": network, **{f"{name}/": components[name] for name in COMPONENTS}}.items():
        for name, value in part.state["variables"]:
            if isinstance(value, ArrayRecord):
                quota.take(len(value.data))
                # A copy in the machine's byte order: torch accepts neither another order nor a read-only view.
                with np.errstate(over="ignore", invalid="ignore"):
                    variables[prefix + name] = torch.from_numpy(value.array().astype(np.float32))
            elif isinstance(value, int | float):
                variables[prefix + name] = torch.tensor(float(value))
    return variables


def _transposed(name: str, value: Tensor) -> Tensor:
    """A TensorFlow variable in the form of official PyTorch code: order of axes, mirrored kernels, biases plus 1."""
    if name.endswith("weight") and value.ndim == 4:
        value = value.flip(0, 1) if "/Conv0_up/" in name or "/Skip/" in name else value
        return value.permute(3, 2, 0, 1)
    if name.endswith("weight") and value.ndim == 2:
        return value.T
    return value + 1 if name.endswith("mod_bias") else value  # stored without the 1 that the program adds to styles
