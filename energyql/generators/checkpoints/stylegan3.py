"""Reader of official StyleGAN3 pickles (PyTorch), T and R."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights
from energyql.generators.stylegan3 import StyleGAN3
from energyql.generators.stylegan3_config import StyleGAN3Config

_MAPPING_SETTINGS = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
_RENAMED = {"img_resolution": "resolution", "img_channels": "image_channels"}
_SETTINGS = _RENAMED | {
    field.name: field.name
    for field in dataclasses.fields(StyleGAN3Config)
    if field.name not in (*_RENAMED.values(), *_MAPPING_SETTINGS.values())
}
"""Names in the pickle -> ours."""
_TRAINING_SETTINGS = frozenset({"num_fp16_res", "magnitude_ema_beta", "w_avg_beta"})
"""Settings of speed and training, which do not change the picture."""
_REQUIRED = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_LAYER = re.compile(r"^synthesis\.L(\d{1,3})_\d{1,5}_\d{1,6}\.", re.ASCII)


def read_stylegan3(checkpoint: Checkpoint) -> StyleGAN3 | None:
    """Build the generator of an official pickle, T or R. A network is a StyleGAN3 if it has Fourier features.

    Raises:
        CheckpointError: its settings and tensors disagree, or a setting is not supported.
    """
    record = checkpoint.network
    if record is None or "synthesis.input.freqs" not in record.tensors:
        return None
    check_weights(record.tensors)
    config = _configuration(record.init_kwargs)
    for i, signal in enumerate(config.signals()):
        # Names of layers contain sizes and channels, so they show whether the settings are understood correctly.
        layer = f"synthesis.L{i}_{signal.size}_{signal.channels}"
        if f"{layer}.weight" not in record.tensors:
            raise CheckpointError(f"its settings ask for a layer {layer}, which it has not")
    weights = {_LAYER.sub(r"synthesis.layers.\1.", name): tensor for name, tensor in record.tensors.items()}
    generator: StyleGAN3 = build_network(StyleGAN3, config, weights)
    return generator


def _configuration(settings: Mapping[str, Any]) -> StyleGAN3Config:
    groups = {"mapping_kwargs": _MAPPING_SETTINGS, "synthesis_kwargs": _SETTINGS, "": _SETTINGS}
    nested = {group: settings.get(group, {}) for group in groups}
    nested[""] = {name: value for name, value in settings.items() if name not in groups}
    values: dict[str, Any] = {}
    for group, names in groups.items():
        given = nested[group]
        if not isinstance(given, Mapping):
            raise CheckpointError(f"its {group} are {_shown(given)}")
        for name, value in given.items():
            if name in names:
                values[names[name]] = value
            elif name not in _TRAINING_SETTINGS:
                raise CheckpointError(f"it has a setting {_shown(name)} = {_shown(value)}, which is not supported")
    for name in _REQUIRED:
        if _SETTINGS[name] not in values:
            raise CheckpointError(f"its settings lack {name}")
    return StyleGAN3Config(**values)


def _shown(value: Any) -> str:
    return ascii(value)[:80]


READERS = (read_stylegan3,)
