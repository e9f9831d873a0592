"""Reader of official StyleGAN3 pickles (PyTorch), T and R."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights
from energyql.generators.stylegan3 import StyleGAN3
from energyql.generators.stylegan3_config import StyleGAN3Config

_SETTINGS = {
    "img_resolution": "resolution",
    "img_channels": "image_channels",
    **{
        name: name
        for name in (
            "z_dim", "w_dim", "c_dim", "channel_base", "channel_max", "num_layers", "num_critical", "first_cutoff",
            "first_stopband", "last_stopband_rel", "margin_size", "output_scale", "conv_kernel", "filter_size",
            "lrelu_upsampling", "use_radial_filters", "conv_clamp",
        )
    },
}  # fmt: skip
"""Names in the pickle -> ours."""
_MAPPING_SETTINGS = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
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
    nested = {name: settings.get(name, {}) for name in ("mapping_kwargs", "synthesis_kwargs")}
    for name, value in nested.items():
        if not isinstance(value, Mapping):
            raise CheckpointError(f"its {name} are {_shown(value)}")
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
                raise CheckpointError(f"it has a setting {_shown(name)} = {_shown(value)}, which is not supported")
    for official in _REQUIRED:
        if _SETTINGS[official] not in values:
            raise CheckpointError(f"its settings lack {official}")
    return StyleGAN3Config(**values)


def _shown(value: Any) -> str:
    return ascii(value)[:80]


READERS = (read_stylegan3,)
