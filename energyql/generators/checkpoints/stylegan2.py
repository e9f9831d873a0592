"""Readers of StyleGAN2: official files of PyTorch (StyleGAN2-ADA) and TensorFlow, and rosinality's `.pt` files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import (
    CONVOLUTIONS,
    MAX_MAPPING_LAYERS,
    SIDES,
    assemble,
    official,
    with_buffers,
)
from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import CheckpointError, check_weights, shown
from energyql.generators.checkpoints.state_dicts import find_state_dict
from energyql.generators.checkpoints.tensorflow import read_tensorflow
from energyql.generators.checkpoints.unpickle import Budget, TensorRecord
from energyql.generators.checkpoints.unstated import DEFAULT_LR_MULTIPLIER, GivenSettings, completed
from energyql.generators.stylegan2 import StyleGAN2


def read_ada(checkpoint: Checkpoint) -> StyleGAN2 | None:
    """Return the generator of an official PyTorch file; `None` if the file holds no StyleGAN2.

    Settings that the file does not hold are assumed and checked, or come from the caller: see `completed`.

    Raises:
        CheckpointError: the generator is of an unsupported kind, or the caller must give a setting.
    """
    record = checkpoint.network
    if record is None or "synthesis.b4.const" not in record.tensors:
        return None
    if "synthesis.resample_filter" in record.tensors:
        raise CheckpointError("it is a part of a model folder", hint="give the folder")
    if not record.class_name:
        return _read_state_dict(record.tensors, checkpoint.given)
    clamp = _setting(record, "conv_clamp", r"synthesis\.b4\.conv1\.conv_clamp")
    lr_multiplier = _setting(record, "lr_multiplier", r"mapping\.fc0\.bias_gain", DEFAULT_LR_MULTIPLIER)
    activation = _setting(record, "activation", r"(synthesis\.b\d+\.conv[01]|mapping\.fc\d+)\.activation", "lrelu")
    if activation != "lrelu":
        raise CheckpointError(f"its activation is {shown(activation)}; only 'lrelu' is supported")
    unused = {layer for layer in CONVOLUTIONS if record.attributes.get(f"{layer}.use_noise") is False}
    checkpoint.given.check(lr_multiplier, clamp)
    return assemble(
        with_buffers(record.tensors, unused),
        conv_clamp=clamp,
        mapping_lr_multiplier=lr_multiplier,
        architecture=_setting(record, "architecture", r"synthesis\.b\d+\.architecture"),
    )


def _read_state_dict(tensors: Mapping[str, Tensor], given: GivenSettings) -> StyleGAN2:
    """Return the generator of a state dict; see `read_ada`."""
    check_weights(tensors)
    has_noise = any(name.endswith(".noise_strength") for name in tensors)
    weights = with_buffers(tensors, () if has_noise else CONVOLUTIONS)
    return completed(
        given,
        lambda multiplier, clamp: assemble(weights, conv_clamp=clamp, mapping_lr_multiplier=multiplier),
        clamped=True,
        has_mean="mapping.w_avg" in weights,
    )


def _setting(record: NetworkRecord, name: str, pattern: str, default: Any = None) -> Any:
    """Return a setting of a network: of its layers, or of the arguments that it was built with.

    Args:
        record: the network.
        name: name of the argument, which may be in a dict inside the arguments.
        pattern: regular expression of the attributes of layers that hold the setting.
        default: value if the file does not hold the setting.

    Raises:
        CheckpointError: the layers differ.
    """
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
    """Return the averaged generator in a checkpoint of rosinality's (Kim Seonghyeon's) PyTorch StyleGAN2, or `None`.

    It may be the decoder of an encoder for pictures, such as pSp's and e4e's. The learning-rate multiplier is not in
    the file: see `completed`.

    Raises:
        CheckpointError: tensors are missing or of an unsupported kind, or the caller must give the multiplier.
    """
    state = find_state_dict(checkpoint.content, _MARKER)
    if state is None:
        return None
    state.entries.pop("latent_avg", None)
    tensors: dict[str, Tensor] = {}
    filters: dict[str, Tensor] = {}
    for name, value in state.tensors(Budget(checkpoint.size)).items():
        if name.endswith((".blur.kernel", ".upsample.kernel")):  # stored four times as strong, for the inserted zeros
            filters[f"{name}.resample_filter"] = value.float() / 4
        else:
            tensors[name] = value.float()
    average = state.beside("latent_avg")
    if isinstance(average, TensorRecord):
        tensors["latent_avg"] = _one_row(average.tensor().float())
    weights = with_buffers(official(tensors, _NAMES) | filters)
    return completed(
        checkpoint.given,
        lambda multiplier, _: assemble(weights, mapping_lr_multiplier=multiplier),
        clamped=False,
        has_mean="mapping.w_avg" in weights,
    )


def _one_row(average: Tensor) -> Tensor:
    """Return the mean of w, (w_dim,); `average` may be (rows, w_dim), since programs for W+ repeat it for each layer.

    Raises:
        CheckpointError: the rows differ.
    """
    rows = average.reshape(-1, average.shape[-1]) if average.ndim else average[None, None]
    if not torch.equal(rows, rows[:1].expand_as(rows)):
        raise CheckpointError("its latent_avg differs between layers, but w has one mean", hint="save it without")
    return rows[0]


READERS = (read_ada, read_tensorflow, read_rosinality)
