"""Reader of official StyleGAN3 files (PyTorch), T and R."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from energyql.generators.checkpoints.assemble import MAX_MAPPING_LAYERS
from energyql.generators.checkpoints.network_pickle import Checkpoint
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights
from energyql.generators.checkpoints.unstated import GivenSettings, completed
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config

_MAPPING_SETTINGS = {"num_layers": "mapping_layers", "lr_multiplier": "mapping_lr_multiplier"}
_RENAMED = {"img_resolution": "resolution", "img_channels": "image_channels"}
_SETTINGS = _RENAMED | {
    field.name: field.name
    for field in dataclasses.fields(StyleGAN3Config)
    if field.name not in (*_RENAMED.values(), *_MAPPING_SETTINGS.values())
}
"""Names in the pickle -> fields of `StyleGAN3Config`."""
_TRAINING_SETTINGS = frozenset({"num_fp16_res", "magnitude_ema_beta", "w_avg_beta"})
"""Settings of speed and training, which do not change the picture."""
_REQUIRED = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels")
_LAYER = re.compile(r"^synthesis\.L(\d{1,3})_(\d{1,5})_(\d{1,6})\.", re.ASCII)
FILTER_ERROR = 1e-5
"""Largest difference of a stored filter from the same filter computed here."""
Config = TypeVar("Config", bound=StyleGAN3Config)


def read_stylegan3(checkpoint: Checkpoint) -> StyleGAN3 | None:
    """Return the generator of an official file, T or R; `None` if the file holds no StyleGAN3.

    The settings of a state dict follow from its shapes and filters, and from `completed`.

    Raises:
        CheckpointError: settings and tensors do not fit together, a setting is not supported, or the caller must give
            it.
    """
    record = checkpoint.network
    if record is None or "synthesis.input.freqs" not in record.tensors or has_class_features(record.tensors):
        return None
    if "synthesis.layers.0.weight" in record.tensors:
        raise CheckpointError("it is a part of a model folder", hint="give the folder")
    check_weights(record.tensors)
    if not record.class_name:
        return _read_state_dict(record.tensors, checkpoint.given)
    config = _configuration(record.init_kwargs)
    checkpoint.given.check(config.mapping_lr_multiplier, config.conv_clamp)
    return _build(record.tensors, config)


def has_class_features(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether tensors are those of a StyleGAN-XL, which has features of classes even if it is unconditional."""
    return "mapping.embed.weight" in tensors and "mapping.embed.bias" not in tensors


def _build(tensors: Mapping[str, Tensor], config: StyleGAN3Config) -> StyleGAN3:
    """Return the generator of tensors under official names; raise a CheckpointError if `config` does not fit them."""
    for i, signal in enumerate(config.signals()):
        # Names of layers contain sizes and channels, so they show whether the settings are understood correctly.
        layer = f"synthesis.L{i}_{signal.size}_{signal.channels}"
        if f"{layer}.weight" not in tensors:
            raise CheckpointError(f"its settings do not fit its weights: it has no layer {layer}, which they ask for")
    weights = {_LAYER.sub(r"synthesis.layers.\1.", name): tensor for name, tensor in tensors.items()}
    try:
        generator: StyleGAN3 = build_network(StyleGAN3, config, weights)
    except CheckpointError as error:
        raise CheckpointError(f"its settings do not fit its weights: {error.message}") from error
    return generator


def _read_state_dict(tensors: Mapping[str, Tensor], given: GivenSettings) -> StyleGAN3:
    """Return the generator of a state dict; raise a CheckpointError unless its filters are those of usual settings."""
    config = _inferred(tensors)
    hint = "if it is complete, its filters have unusual cutoffs, which no state dict holds: give the official pickle"
    try:
        generator = completed(
            given,
            lambda multiplier, clamp: _build(
                tensors, dataclasses.replace(config, mapping_lr_multiplier=multiplier, conv_clamp=clamp)
            ),
            clamped=True,
            has_mean="mapping.w_avg" in tensors,
        )
    except CheckpointError as error:
        raise CheckpointError(error.message, hint=error.hint or hint) from error
    with torch.random.fork_rng(devices=[]):  # because a new network draws its initial weights
        designed = StyleGAN3(config).state_dict()
    for name, tensor in generator.state_dict().items():
        if name.endswith("_filter") and not torch.allclose(tensor, designed[name], rtol=0, atol=FILTER_ERROR):
            raise CheckpointError(f"its filter {name} is not the usual one", hint=hint)
    return generator


def _inferred(tensors: Mapping[str, Tensor]) -> StyleGAN3Config:
    """Return the settings that follow from names and shapes, with the usual ones for cutoffs and margins."""
    layers = named_layers(tensors)
    w_dim = tensors["synthesis.input.affine.weight"].shape[1]
    embedding = tensors["mapping.embed.weight"] if "mapping.embed.weight" in tensors else torch.empty(0, 0)
    number, resolution, colours = layers[-1]
    first = tensors["synthesis.L{}_{}_{}.weight".format(*layers[0])]
    config = StyleGAN3Config(
        resolution=resolution,
        z_dim=tensors["mapping.fc0.weight"].shape[1] - len(embedding),
        w_dim=w_dim,
        c_dim=embedding.shape[1],
        mapping_layers=mapping_depth(tensors),
        channel_base=resolution << 8,
        channel_max=max(channels for *_, channels in layers[:-1]),
        image_channels=colours,
        num_layers=number,
        conv_kernel=first.shape[-1],
        use_radial_filters=any(name.endswith(".down_filter") and value.ndim == 2 for name, value in tensors.items()),
    )
    return fitted_channels(config, layers)


def named_layers(tensors: Mapping[str, Tensor]) -> list[tuple[int, int, int]]:
    """Return number, size and channels of each layer, in order, from the names of tensors.

    Raises:
        CheckpointError: layers are missing.
    """
    layers = sorted(
        {(int(match[1]), int(match[2]), int(match[3])) for name in tensors if (match := _LAYER.match(name))}
    )
    if len(layers) < 2 or "mapping.fc0.weight" not in tensors:
        raise CheckpointError("it is a part of a StyleGAN3: layers are missing")
    return layers


def mapping_depth(tensors: Mapping[str, Tensor]) -> int:
    """Return the number of layers of the mapping network from the names of tensors."""
    return sum(f"mapping.fc{i}.weight" in tensors for i in range(MAX_MAPPING_LAYERS))


def fitted_channels(config: Config, layers: Sequence[tuple[int, int, int]]) -> Config:
    """Return `config` with the `channel_base` that gives the layers (number, size, channels) their channels."""
    # channel_base / 2f channels, rounded, where that is below the maximum
    narrow = [
        (channels, signal.cutoff)
        for (_, _, channels), signal in zip(layers[:-1], config.signals()[:-1], strict=True)
        if channels < config.channel_max
    ]
    if not narrow:
        return config
    low = max(2 * cutoff * (channels - 0.5) for channels, cutoff in narrow)
    high = min(2 * cutoff * (channels + 0.5) for channels, cutoff in narrow)
    powers = [1 << power for power in range(28) if low < 1 << power < high]
    return dataclasses.replace(config, channel_base=(powers or [round((low + high) / 2)])[0])


def _configuration(settings: Mapping[str, Any]) -> StyleGAN3Config:
    """Return the configuration of the arguments that a pickled network was built with.

    Raises:
        CheckpointError: an argument is missing, or not supported.
    """
    groups = {"mapping_kwargs": _MAPPING_SETTINGS, "synthesis_kwargs": _SETTINGS, "": _SETTINGS}
    nested = {group: settings.get(group, {}) for group in groups}
    nested[""] = {name: value for name, value in settings.items() if name not in groups}
    values: dict[str, Any] = {}
    for group, names in groups.items():
        arguments = nested[group]
        if not isinstance(arguments, Mapping):
            raise CheckpointError(f"its {group} are {_quoted(arguments)}")
        for name, value in arguments.items():
            if name in names:
                values[names[name]] = value
            elif name not in _TRAINING_SETTINGS:
                raise CheckpointError(f"it has a setting {_quoted(name)} = {_quoted(value)}, which is not supported")
    for name in _REQUIRED:
        if _SETTINGS[name] not in values:
            raise CheckpointError(f"its settings lack {name}")
    return StyleGAN3Config(**values)


def _quoted(value: Any) -> str:
    return ascii(value)[:80]


READERS = (read_stylegan3,)
