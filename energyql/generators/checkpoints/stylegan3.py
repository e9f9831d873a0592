"""Official StyleGAN3 pickles (PyTorch), T and R."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.generators.checkpoints.network_pickle import NetworkRecord
from energyql.generators.checkpoints.refusal import check_weights, reading
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config

_SETTINGS = {
    "img_resolution": "resolution",
    "img_channels": "image_channels",
    **{
        name: name
        for name in (
            "z_dim",
            "w_dim",
            "c_dim",
            "channel_base",
            "channel_max",
            "num_layers",
            "num_critical",
            "first_cutoff",
            "first_stopband",
            "last_stopband_rel",
            "margin_size",
            "output_scale",
            "conv_kernel",
            "filter_size",
            "lrelu_upsampling",
            "use_radial_filters",
            "conv_clamp",
        )
    },
}
"""Names in the pickle -> ours."""
_MAPPING_SETTINGS = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
_TRAINING_SETTINGS = frozenset({"num_fp16_res", "magnitude_ema_beta", "w_avg_beta"})
"""Speed and training only: the picture does not depend on them."""
_REQUIRED = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_LAYER = re.compile(r"^synthesis\.L(\d{1,3})_\d{1,5}_\d{1,6}\.", re.ASCII)


def is_stylegan3(record: NetworkRecord) -> bool:
    """Whether a network is a StyleGAN3 generator: it starts from Fourier features."""
    return "synthesis.input.freqs" in record.tensors


def build_stylegan3(record: NetworkRecord) -> StyleGAN3:
    """The generator in a record, T or R, in float32 on the CPU, in evaluation mode.

    Raises:
        ModelError: it is no StyleGAN3, or its settings and tensors disagree.
    """
    config, state = convert_stylegan3(record)
    generator = _without_memory(config)
    generator.load_state_dict(state, assign=True)
    return generator.eval().requires_grad_(False)


def convert_stylegan3(record: NetworkRecord) -> tuple[StyleGAN3Config, dict[str, Tensor]]:
    """Architecture and weights of a record: a configuration, and a state dict in float32 for `StyleGAN3(config)`.

    Raises:
        ModelError: it is no StyleGAN3, or its settings and tensors disagree.
    """
    with reading(record.source):
        if not is_stylegan3(record):
            raise ModelError("it has no Fourier features, so it is not a StyleGAN3 generator")
        check_weights(record.tensors)
        config = _configuration(record.init_kwargs)
        _check_layers(config, record.tensors)
        state = {_own_name(name): tensor.float() for name, tensor in record.tensors.items()}
        _check_shapes(config, state)
    return config, state


def _own_name(name: str) -> str:
    return _LAYER.sub(r"synthesis.layers.\1.", name)


def _without_memory(config: StyleGAN3Config) -> StyleGAN3:
    with torch.device("meta"):
        return StyleGAN3(config)


def _configuration(settings: Mapping[str, Any]) -> StyleGAN3Config:
    nested = {name: settings.get(name, {}) for name in ("mapping_kwargs", "synthesis_kwargs")}
    for name, value in nested.items():
        if not isinstance(value, Mapping):
            raise ModelError(f"its {name} are {_shown(value)}")
    flat = {name: value for name, value in settings.items() if name not in nested}
    values: dict[str, Any] = {}
    for given, names in (
        (nested["mapping_kwargs"], _MAPPING_SETTINGS),
        (nested["synthesis_kwargs"], _SETTINGS),
        (flat, _SETTINGS),
    ):
        for name, value in given.items():
            if name in names:
                values[names[name]] = value
            elif name not in _TRAINING_SETTINGS:
                raise ModelError(f"it has a setting {_shown(name)} = {_shown(value)}, which is not supported")
    for official in _REQUIRED:
        if _SETTINGS[official] not in values:
            raise ModelError(f"its settings lack {official}")
    return StyleGAN3Config(**values)


def _check_layers(config: StyleGAN3Config, tensors: Mapping[str, Tensor]) -> None:
    """Names of layers tell sizes and channels, so they show whether we read the settings as their author did."""
    for i, signal in enumerate(config.signals()):
        layer = f"synthesis.L{i}_{signal.size}_{signal.channels}"
        if f"{layer}.weight" not in tensors:
            raise ModelError(f"its settings ask for a layer {layer}, which it has not")


def _check_shapes(config: StyleGAN3Config, state: Mapping[str, Tensor]) -> None:
    expected = _without_memory(config).state_dict()
    for name, tensor in expected.items():
        if name not in state:
            raise ModelError(f"it has no {name}")
        if state[name].shape != tensor.shape:
            raise ModelError(f"{name} has the shape {tuple(state[name].shape)} instead of {tuple(tensor.shape)}")
    for name in state:
        if name not in expected:
            raise ModelError(f"it has a tensor {_shown(name)}, which a StyleGAN3 has not")


def _shown(value: Any) -> str:
    return ascii(value)[:80]
