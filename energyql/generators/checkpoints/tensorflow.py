"""Official pickles of StyleGAN2 and StyleGAN2-ADA for TensorFlow, such as stylegan2-ffhq-config-f.pkl."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.generators.checkpoints.arrays import ArrayRecord, plain
from energyql.generators.checkpoints.assemble import CONVOLUTIONS, MAX_MAPPING_LAYERS, SIDES, assemble, official
from energyql.generators.checkpoints.network_pickle import TF_NETWORK, Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.unpickle import Budget, ObjectRecord
from energyql.generators.checkpoints.unstated import DEFAULT_LR_MULTIPLIER
from energyql.generators.stylegan2 import StyleGAN2

OLDEST_VERSION = 4
"""Oldest version of the pickle format that is read."""
COMPONENTS = ("mapping", "synthesis")
"""Networks inside a generator."""
SUPPORTED = {
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "use_noise": True,
    "normalize_latents": True,
}
"""Settings and their only supported values. Settings that are not here follow from the variables."""


_LAYERS = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}
_PARTS = {
    "weight": "weight",
    "bias": "bias",
    "mod_weight": "affine.weight",
    "mod_bias": "affine.bias",
    "noise_strength": "noise_strength",
}
NAMES = {
    "synthesis/4x4/Const/const": "synthesis.b4.const",
    "dlatent_avg": "mapping.w_avg",
    **{
        f"mapping/Dense{i}/{part}": f"mapping.fc{i}.{part}"
        for i in range(MAX_MAPPING_LAYERS)
        for part in ("weight", "bias")
    },
    **{f"mapping/LabelEmbed/{part}": f"mapping.embed.{part}" for part in ("weight", "bias")},
    **{f"synthesis/noise{i}": f"{layer}.noise_const" for i, layer in enumerate(CONVOLUTIONS)},
    **{
        f"synthesis/{side}x{side}/{layer}/{part}": f"synthesis.b{side}.{_LAYERS[layer]}.{_PARTS[part]}"
        for side in SIDES
        for layer in _LAYERS
        for part in _PARTS
    },
}
"""Names of variables -> official names in PyTorch."""


def read_tensorflow(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Return the averaged generator (Gs) of an official TensorFlow pickle; `None` if the file is no such pickle.

    It is the last of three networks in the pickle.

    Raises:
        CheckpointError: it is a StyleGAN of the first generation, or of an unsupported kind.
    """
    content = checkpoint.content
    if not isinstance(content, tuple) or len(content) != 3 or not all(map(_is_network, content)):
        return None
    state = content[2].state
    settings = plain(state.get("static_kwargs") or {})
    variables: dict[str, Tensor] = {}
    budget = Budget(checkpoint.size)
    _collect(content[2], "", variables, budget)
    for name in COMPONENTS:
        _collect(_component(content[2], name), f"{name}/", variables, budget)
    if "synthesis/4x4/Conv/mod_weight" not in variables:
        raise CheckpointError("it is a TensorFlow network, but not a StyleGAN2", hint="StyleGAN2 is supported")
    version = state.get("version")
    if not isinstance(version, int) or version < OLDEST_VERSION:
        raise CheckpointError(f"its version {shown(version)} is older than {OLDEST_VERSION}")
    for name, supported in SUPPORTED.items():
        if settings.get(name) not in (supported, None):
            raise CheckpointError(f"its {name} is {shown(settings[name])}; only {supported!r} is supported")
    if "mapping/LabelConcat/weight" in variables:
        raise CheckpointError("it is conditional in the way of the first StyleGAN2, which is not supported")
    if any(value.any() for name, value in variables.items() if name.rpartition("/")[2] == "lod"):
        raise CheckpointError("its training was not finished: the last layers are not in use yet (lod is not 0)")
    tensors = official({name: _transposed(name, value) for name, value in _fully_grown(variables).items()}, NAMES)
    taps = torch.tensor(settings.get("resample_kernel", [1, 3, 3, 1]) or [1, 1], dtype=torch.float32)
    tensors["resample_filter"] = taps / taps.sum()
    clamp, multiplier = settings.get("conv_clamp"), settings.get("mapping_lrmul") or DEFAULT_LR_MULTIPLIER
    checkpoint.given.check(multiplier, clamp)
    return assemble(
        tensors,
        conv_clamp=clamp,
        mapping_lr_multiplier=multiplier,
        architecture=settings.get("architecture"),
    )


def _fully_grown(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the variables that are used at full resolution.

    Configurations B to D have a layer that draws the picture for each resolution; only the last one is used.
    """
    side = max((side for side in SIDES if f"synthesis/{side}x{side}/Conv1/weight" in variables), default=0)
    last = "synthesis/ToRGB_lod0/"
    return {
        name.replace(last, f"synthesis/{side}x{side}/ToRGB/"): value
        for name, value in variables.items()
        if name.rpartition("/")[2] != "lod" and (name.startswith(last) or not name.startswith("synthesis/ToRGB_lod"))
    }


def _is_network(part: Any) -> bool:
    return isinstance(part, ObjectRecord) and part.name == TF_NETWORK


def _component(network: ObjectRecord, name: str) -> ObjectRecord:
    components = network.state.get("components")
    component = components.get(name) if isinstance(components, dict) else None
    if not isinstance(component, ObjectRecord) or not _is_network(component):
        raise CheckpointError(f"it has no {name} network")
    return component


def _collect(network: ObjectRecord, prefix: str, variables: dict[str, Tensor], budget: Budget) -> None:
    """Add the variables of a network to `variables`, with `prefix` before their names, and count them in `budget`."""
    pairs = network.state.get("variables")
    for pair in pairs if isinstance(pairs, list) else ():
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise CheckpointError("a variable has no name")
        if isinstance(pair[1], ArrayRecord):
            budget.take(len(pair[1].data))
            # A copy in the machine's byte order: torch accepts neither another order nor a read-only view.
            with np.errstate(over="ignore", invalid="ignore"):
                variables[prefix + pair[0]] = torch.from_numpy(pair[1].array().astype(np.float32))
        elif isinstance(pair[1], int | float):
            variables[prefix + pair[0]] = torch.tensor(float(pair[1]))


def _transposed(name: str, value: Tensor) -> Tensor:
    """Return a variable in the layout of the PyTorch code (StyleGAN2-ADA)."""
    if name.endswith("weight") and value.ndim == 4:
        value = value.flip(0, 1) if "/Conv0_up/" in name or "/Skip/" in name else value
        return value.permute(3, 2, 0, 1)
    if name.endswith("weight") and value.ndim == 2:
        return value.T
    return value + 1 if name.endswith("mod_bias") else value  # stored without the 1 that the program adds to styles
