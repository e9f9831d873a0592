"""Official pickles of StyleGAN2 and StyleGAN2-ADA for TensorFlow, such as stylegan2-ffhq-config-f.pkl."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.generators.checkpoints.arrays import ArrayRecord, plain
from energyql.generators.checkpoints.assemble import assemble
from energyql.generators.checkpoints.network_pickle import TF_NETWORK, Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.records import Budget, ObjectRecord
from energyql.generators.stylegan2 import StyleGAN2

OLDEST_VERSION = 4
COMPONENTS = ("mapping", "synthesis")
SUPPORTED = {
    "architecture": "skip",
    "nonlinearity": "lrelu",
    "mapping_nonlinearity": "lrelu",
    "use_noise": True,
    "normalize_latents": True,
    "mapping_func": None,
    "synthesis_func": None,
}
"""Settings and their only supported values; `None`: any value, because the variables show what is meant."""


def read_tensorflow(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Build the averaged generator (Gs), the last of the three networks in such a pickle.

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
        if supported is not None and settings.get(name) not in (supported, None):
            raise CheckpointError(f"its {name} is {shown(settings[name])}; only {supported!r} is supported")
    if "mapping/LabelConcat/weight" in variables:
        raise CheckpointError("it is conditional in the way of the first StyleGAN2, which is not supported")
    clamp = settings.get("conv_clamp")
    tensors = _official_names(variables)
    taps = torch.tensor(settings.get("resample_kernel") or [1, 3, 3, 1], dtype=torch.float32)
    tensors["resample_filter"] = taps.outer(taps) / taps.sum() ** 2
    return assemble(
        tensors,
        conv_clamp=None if clamp is None else float(clamp),
        mapping_lr_multiplier=float(settings.get("mapping_lrmul") or 0.01),
    )


def _is_network(part: Any) -> bool:
    return isinstance(part, ObjectRecord) and part.name == TF_NETWORK


def _component(network: ObjectRecord, name: str) -> ObjectRecord:
    components = network.state.get("components")
    component = components.get(name) if isinstance(components, dict) else None
    if not isinstance(component, ObjectRecord) or not _is_network(component):
        raise CheckpointError(f"it has no {name} network")
    return component


def _collect(network: ObjectRecord, prefix: str, variables: dict[str, Tensor], budget: Budget) -> None:
    """Add the variables of a network."""
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


_DENSE = re.compile(r"mapping/Dense(\d+)/(weight|bias)")
_EMBEDDING = re.compile(r"mapping/LabelEmbed/(weight|bias)")
_NOISE = re.compile(r"synthesis/noise(\d+)")
_LAYER = re.compile(r"synthesis/(\d+)x\1/(Conv|Conv0_up|Conv1|ToRGB|Skip)/(\w+)")
_LAYER_NAMES = {"Conv": "conv1", "Conv0_up": "conv0", "Conv1": "conv1", "ToRGB": "torgb", "Skip": "skip"}


def _official_names(variables: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert variables to tensors under the names and in the layout of StyleGAN2-ADA."""
    tensors: dict[str, Tensor] = {}
    for name, value in variables.items():
        if match := _DENSE.fullmatch(name):
            tensors[f"mapping.fc{match[1]}.{match[2]}"] = value.T if value.ndim == 2 else value
        elif match := _EMBEDDING.fullmatch(name):
            tensors[f"mapping.embed.{match[1]}"] = value.T if value.ndim == 2 else value
        elif match := _NOISE.fullmatch(name):
            layer = int(match[1])
            block = 2 ** min((layer + 5) // 2, 30)
            tensors[f"synthesis.b{block}.conv{(layer + 1) % 2}.noise_const"] = value.reshape(value.shape[-2:])
        elif match := _LAYER.fullmatch(name):
            prefix = f"synthesis.b{match[1]}.{_LAYER_NAMES[match[2]]}"
            tensors.update(_layer(prefix, match[3], value, flip=match[2] in ("Conv0_up", "Skip")))
        elif name == "synthesis/4x4/Const/const":
            tensors["synthesis.b4.const"] = value[0]
        elif name == "dlatent_avg":
            tensors["mapping.w_avg"] = value
        elif name.startswith("synthesis/ToRGB_lod"):
            raise CheckpointError("it has the architecture without skip connections, which is not supported")
        elif name.rpartition("/")[2] != "lod":
            raise CheckpointError(f"it has a variable {shown(name)} that a StyleGAN2 has not")
    return tensors


def _layer(prefix: str, part: str, value: Tensor, *, flip: bool) -> dict[str, Tensor]:
    """Convert one variable of a convolution layer. Styles are stored without the 1 that is added to them."""
    if part == "weight" and value.ndim == 4:
        value = value.flip(0, 1) if flip else value
        return {f"{prefix}.weight": value.permute(3, 2, 0, 1)}
    if part == "mod_weight":
        return {f"{prefix}.affine.weight": value.T if value.ndim == 2 else value}
    if part == "mod_bias":
        return {f"{prefix}.affine.bias": value + 1}
    return {
        f"{prefix}.{part}": value.reshape(()) if part == "noise_strength" and math.prod(value.shape) == 1 else value
    }
