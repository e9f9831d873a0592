"""Readers of checkpoints of StyleGAN2: official ones of PyTorch (StyleGAN2-ADA) and TensorFlow, and rosinality's.

rosinality is a user of GitHub, whose PyTorch code saves `.pt` files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import (
    CONVOLUTIONS,
    MAPPING_PARTS,
    SIDES,
    assemble,
    official,
    with_buffers,
)
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import CheckpointError, check_weights, shown
from energyql.generators.checkpoints.state_dicts import find_state_dict
from energyql.generators.checkpoints.tensorflow import read_tensorflow
from energyql.generators.checkpoints.unpickle import Quota, TensorRecord
from energyql.generators.checkpoints.unstated import DEFAULT_LR_MULTIPLIER, GivenSettings, completed
from energyql.generators.stylegan2 import StyleGAN2


def read_ada(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Return the generator in an official PyTorch file (StyleGAN2-ADA); `None` if the file holds no such StyleGAN2.

    A state dict lacks learning-rate multiplier and limit of activations, for which see `completed`.
    """
    record = checkpoint.network
    if record is None or "synthesis.b4.const" not in record.tensors:
        return None
    if "synthesis.resample_filter" in record.tensors:
        raise CheckpointError("it is a part of a model folder", hint="give the folder")
    if not record.class_name:
        check_weights(record.tensors)
        has_noise = any(name.endswith(".noise_strength") for name in record.tensors)
        weights = with_buffers(record.tensors, () if has_noise else CONVOLUTIONS)
        return _completed(checkpoint.given, weights, clamped=True)
    clamp = _setting(record, "conv_clamp", r"synthesis\.b4\.conv1\.conv_clamp")
    lr_multiplier = _setting(record, "lr_multiplier", r"mapping\.fc0\.bias_gain", DEFAULT_LR_MULTIPLIER)
    activation = _setting(record, "activation", r"(synthesis\.b\d+\.conv[01]|mapping\.fc\d+)\.activation", "lrelu")
    if activation != "lrelu":
        raise CheckpointError(f"its activation is {shown(activation)}; only 'lrelu' is supported")
    unused = {layer for layer in CONVOLUTIONS if record.attributes.get(f"{layer}.use_noise") is False}
    checkpoint.given.check(lr_multiplier, clamp)
    architecture = _setting(record, "architecture", r"synthesis\.b\d+\.architecture")
    return assemble(with_buffers(record.tensors, unused), clamp, lr_multiplier, architecture)


def _completed(given: GivenSettings, tensors: Mapping[str, Tensor], *, clamped: bool) -> StyleGAN2:
    """Generator of a file without learning-rate multiplier and limit of activations, see `completed`."""
    has_mean = "mapping.w_avg" in tensors
    return completed(given, lambda lr, clamp: assemble(tensors, clamp, lr), clamped=clamped, has_mean=has_mean)


def _setting(record: NetworkRecord, name: str, pattern: str, default: Any = None) -> Any:
    """Setting of a network: an attribute that layers have in common, or else the argument `name` it was built with."""
    values = {value for key, value in record.attributes.items() if re.fullmatch(pattern, key)}
    if len(values) > 1:
        raise CheckpointError(f"its layers differ in {name}")
    if values:
        return values.pop()
    for settings in (record.init_kwargs, *record.init_kwargs.values()):
        if isinstance(settings, dict) and settings.get(name) is not None:
            return settings[name]
    return default


_MARKER = "input.input"  # the learned constant of rosinality's networks
_PARTS = {
    "conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength", "activate.bias": "bias", "bias": "bias",
}  # fmt: skip
_LAYERS = {
    "conv1": "synthesis.b4.conv1",
    "to_rgb1": "synthesis.b4.torgb",
    **{f"convs.{i}": layer for i, layer in enumerate(list(CONVOLUTIONS)[1:])},
    **{f"to_rgbs.{i}": f"synthesis.b{side}.torgb" for i, side in enumerate(SIDES[1:])},
}
_NAMES = {
    _MARKER: "synthesis.b4.const",
    "latent_avg": "mapping.w_avg",
    **{f"style.{i + 1}.{part}": f"mapping.fc{i}.{part}" for i, part in MAPPING_PARTS},
    **{f"noises.noise_{i}": f"{layer}.noise_const" for i, layer in enumerate(CONVOLUTIONS)},
    **{f"{layer}.{part}": f"{_LAYERS[layer]}.{_PARTS[part]}" for layer in _LAYERS for part in _PARTS},
}
"""Name of a tensor in rosinality's code -> official name."""


def read_rosinality(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Return the generator in a file of the PyTorch code of rosinality (Kim Seonghyeon); `None` if the file holds none.

    Averaged weights are used if the file has some. Files of pSp and e4e, programs that encode pictures, are read too:
    their decoder is such a generator. The file lacks the learning-rate multiplier, for which see `completed`.
    """
    state = find_state_dict(checkpoint.content, _MARKER)
    if state is None:
        return None
    state.entries.pop("latent_avg", None)
    tensors = {name: value.float() for name, value in state.tensors(Quota(checkpoint.size)).items()}
    kernels = [name for name in tensors if name.endswith((".blur.kernel", ".upsample.kernel"))]
    # They are stored four times as strong, for the inserted zeros.
    filters = {f"{name}.resample_filter": tensors.pop(name) / 4 for name in kernels}
    average = state.beside("latent_avg")
    if isinstance(average, TensorRecord):
        tensors["latent_avg"] = _one_row(average.tensor().float())
    return _completed(checkpoint.given, with_buffers(official(tensors, _NAMES) | filters), clamped=False)


def _one_row(average: Tensor) -> Tensor:
    """Mean of w, (w_dim,), from a file that has it once, or the same for each layer."""
    rows = average.reshape(-1, average.shape[-1]) if average.ndim else average[None, None]
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise CheckpointError("its latent_avg differs between layers, but w has one mean", hint="save it without")
    return rows[0]


READERS = (read_ada, read_tensorflow, read_rosinality)
