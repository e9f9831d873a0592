"""Reader of official StyleGAN3 files (PyTorch), variants T and R.

The reader of StyleGAN-XL uses the public functions of this module too.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import mapping_settings, shape_of
from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights, shown
from energyql.generators.checkpoints.unstated import completed
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config, layer_filters

_MAPPING_SETTINGS = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
_RENAMED = {"img_resolution": "resolution", "img_channels": "image_channels"}
_FIELDS = {field.name for field in dataclasses.fields(StyleGAN3Config)}
_SETTINGS = _RENAMED | {name: name for name in _FIELDS - {*_RENAMED.values(), *_MAPPING_SETTINGS.values()}}
"""Name of a setting in a pickle -> field of `StyleGAN3Config`."""
_TRAINING_SETTINGS = frozenset({"num_fp16_res", "magnitude_ema_beta", "w_avg_beta"})
"""Settings in a pickle for speed and training, which do not change the pictures and are ignored."""
_REQUIRED = ("z_dim", "c_dim", "w_dim", "resolution", "image_channels")
_LAYER = re.compile(r"^synthesis\.L(\d{1,3})_(\d{1,5})_(\d{1,6})\.", re.ASCII)
FILTER_ERROR = 1e-5
"""Largest allowed difference between a number of a filter in a file and the same number computed from the settings."""
Layer = tuple[int, int, int]
"""A layer in a file: its number, side and channels, such as (0, 36, 512) for the official name
"synthesis.L0_36_512"."""
Config = TypeVar("Config", bound=StyleGAN3Config)


def read_stylegan3(checkpoint: Checkpoint) -> StyleGAN3 | None:
    """Return the generator in an official file of StyleGAN3, T or R; `None` if the file holds no StyleGAN3.

    For a state dict, settings follow from shapes and filters, except for the learning-rate multiplier and the limit of
    activations, for which see `completed`.
    """
    record = checkpoint.network
    if record is None or "synthesis.input.freqs" not in record.tensors or has_class_features(record.tensors):
        return None
    tensors = record.tensors
    if "synthesis.layers.0.weight" in tensors:
        raise CheckpointError("it is a part of a model folder", hint="give the folder")
    check_weights(tensors)
    if record.class_name:
        stated = _configuration(record.init_kwargs)
        checkpoint.given.check(stated.mapping_lr_multiplier, stated.conv_clamp)
        return _build(tensors, stated)
    layers = named_layers(tensors)
    number, resolution, _ = layers[-1]
    settings = settings_of_shapes(tensors, layers)
    config = fitted_channels(StyleGAN3Config(resolution=resolution, num_layers=number, **settings), layers)
    if not is_confirmed(config, tensors, layers):
        raise unknown_layers("StyleGAN3", layers)

    def build(multiplier: float, clamp: float | None) -> StyleGAN3:
        return _build(tensors, dataclasses.replace(config, mapping_lr_multiplier=multiplier, conv_clamp=clamp))

    return completed(checkpoint.given, build, clamped=True, has_mean="mapping.w_avg" in tensors)


def has_class_features(tensors: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of a StyleGAN-XL, which has features of classes even if it takes no condition."""
    return "mapping.embed.weight" in tensors and "mapping.embed.bias" not in tensors


def _build(tensors: Mapping[str, Tensor], config: StyleGAN3Config) -> StyleGAN3:
    """Build the generator if the sizes and channels in the official names of its layers follow from the settings."""
    # Names of layers contain sizes and channels, so they show whether the settings are understood correctly.
    names = [layer_name((i, signal.size, signal.channels)) for i, signal in enumerate(config.signals())]
    if missing := [name for name in names if f"{name}.weight" not in tensors]:
        raise CheckpointError(f"its settings do not fit its weights: it has no layer {missing[0]}, which they ask for")
    weights = {_LAYER.sub(r"synthesis.layers.\1.", name): tensor for name, tensor in tensors.items()}
    return build_network(StyleGAN3, config, weights)


def settings_of_shapes(tensors: Mapping[str, Tensor], layers: Sequence[Layer]) -> dict[str, Any]:
    """Settings that follow from names and shapes of tensors, by the names of `StyleGAN3Config`; not all of them.

    `resolution` and `num_layers` are missing; `channel_base` is without meaning until the caller calls
    `fitted_channels`.
    """
    return {
        **mapping_settings(tensors, shape_of(tensors, "synthesis.input.affine.weight", 2)[1]),
        "channel_base": 1 << 27,  # until `fitted_channels` is called
        "channel_max": max(channels for *_, channels in layers[:-1]),
        "image_channels": layers[-1][2],
        "conv_kernel": shape_of(tensors, f"{layer_name(layers[0])}.weight", 4)[-1],
        "use_radial_filters": any(name.endswith(".down_filter") and value.ndim == 2 for name, value in tensors.items()),
    }


def named_layers(tensors: Mapping[str, Tensor]) -> list[Layer]:
    """The layers in the official names of tensors, at least two, in order."""
    matches = [match for name in tensors if (match := _LAYER.match(name))]
    layers = sorted({(int(match[1]), int(match[2]), int(match[3])) for match in matches})
    if len(layers) < 2:
        raise CheckpointError("it is a part of a StyleGAN3: layers are missing")
    return layers


def layer_name(layer: Layer) -> str:
    """Official name of a layer, such as "synthesis.L0_36_512"."""
    return "synthesis.L{}_{}_{}".format(*layer)


def fitted_channels(config: Config, layers: Sequence[Layer]) -> Config:
    """Replace `channel_base`, by a power of two if possible, so that layers have the same channels as in a file.

    If no number fits, a wrong one is taken, for which `is_confirmed` is false.
    """
    # channel_base / 2f channels, rounded, where that is below the maximum
    pairs = zip([layer[2] for layer in layers[:-1]], config.signals()[:-1], strict=True)
    narrow = [(channels, signal.cutoff) for channels, signal in pairs if channels < config.channel_max]
    if not narrow:
        return config
    low = max(2 * cutoff * (channels - 0.5) for channels, cutoff in narrow)
    high = min(2 * cutoff * (channels + 0.5) for channels, cutoff in narrow)
    powers = [1 << power for power in range(28) if low < 1 << power < high]
    return dataclasses.replace(config, channel_base=(powers or [round((low + high) / 2)])[0])


def is_confirmed(config: StyleGAN3Config, tensors: Mapping[str, Tensor], layers: Sequence[Layer]) -> bool:
    """Whether sides, channels and filters of all layers in a file are those that follow from settings."""
    signals, none = config.signals(), torch.empty(0)
    if [layer[1:] for layer in layers] != [(signal.size, signal.channels) for signal in signals]:
        return False
    for place, layer in enumerate(layers):
        filters = layer_filters(signals, place, config)[2]
        for name, taps in zip(("up_filter", "down_filter"), filters, strict=True):
            stored, designed = tensors.get(f"{layer_name(layer)}.{name}", none), none if taps is None else taps
            if stored.shape != designed.shape:
                return False
            if not torch.allclose(stored.float(), designed, rtol=0, atol=FILTER_ERROR):
                return False
    return True


def unknown_layers(kind: str, layers: Sequence[Layer]) -> CheckpointError:
    """Error for a file of the architecture `kind` whose layers or filters follow from no usual settings."""
    sizes = ", ".join(f"{number}: {size}x{size}" for number, size, _ in layers)
    hint = "if the file is complete, it has unusual cutoffs, which no state dict holds: give the official pickle"
    return CheckpointError(f"its layers are of no known {kind}: their numbers and sizes are {sizes}", hint=hint)


def _configuration(settings: Mapping[str, Any]) -> StyleGAN3Config:
    """Settings of a pickled network, from the arguments with which the official code built it."""
    own = {name: value for name, value in settings.items() if name not in ("mapping_kwargs", "synthesis_kwargs")}
    own |= settings.get("synthesis_kwargs", {})
    values: dict[str, Any] = {}
    for arguments, names in ((own, _SETTINGS), (settings.get("mapping_kwargs", {}), _MAPPING_SETTINGS)):
        for name, value in arguments.items():
            if name in names:
                values[names[name]] = value
            elif name not in _TRAINING_SETTINGS:
                raise CheckpointError(f"it has a setting {shown(name)} = {shown(value)}, which is not supported")
    if missing := [name for name in _REQUIRED if name not in values]:
        raise CheckpointError(f"its settings lack {missing[0]}")
    return StyleGAN3Config(**values)


READERS = (read_stylegan3,)
