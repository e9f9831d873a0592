"""Reader of official StyleGAN-XL files (PyTorch).

A generator is a network of low resolution, the stem, and perhaps heads: groups of layers for higher resolutions, not
the heads that classify attributes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import build_network, check_weights
from energyql.generators.checkpoints.stylegan3 import (
    Layer,
    fitted_channels,
    has_class_features,
    is_confirmed,
    layer_name,
    named_layers,
    settings_of_shapes,
    unknown_layers,
)
from energyql.generators.checkpoints.unpickle import Quota
from energyql.generators.checkpoints.unstated import completed
from energyql.generators.stylegan_xl import LEAST_HEAD, MOST_HEAD, UP_FACTORS, StyleGANXL, StyleGANXLConfig

_STATED = (
    "channel_base", "channel_max", "conv_kernel", "first_cutoff", "first_stopband", "last_stopband_rel",
    "margin_size", "num_critical", "output_scale", "use_radial_filters",
)  # fmt: skip
"""Settings that are attributes of the synthesis network in a pickle."""
_OF_LAYERS = ("filter_size", "lrelu_upsampling")
"""Settings that are attributes of each layer in a pickle, with equal values; the values of the first layer are read."""
_MOST_SIGNALS = 1_000_000
"""Largest number of layers, in all settings together, that the search for heads tries."""


def read_stylegan_xl(checkpoint: Checkpoint) -> StyleGANXL | None:
    """Return the generator in an official file of StyleGAN-XL; `None` if the file holds no StyleGAN-XL.

    No file states its heads: they are found from the sides and channels of the layers, and checked with the filters. A
    state dict lacks learning-rate multiplier and limit of activations, for which see `completed`.
    """
    record = checkpoint.network
    if record is None or "synthesis.input.freqs" not in record.tensors or not has_class_features(record.tensors):
        return None
    check_weights(record.tensors)
    layers = named_layers(record.tensors)
    config = _configuration(record, layers)
    weights = _weights(record.tensors, layers, config.c_dim)

    def build(multiplier: float, clamp: float | None) -> StyleGANXL:
        settings = dataclasses.replace(config, mapping_lr_multiplier=multiplier, conv_clamp=clamp)
        return build_network(StyleGANXL, settings, weights)

    if not record.class_name:
        return completed(checkpoint.given, build, clamped=True, has_mean="mapping.w_avg" in weights)
    multiplier = record.attributes.get("mapping.fc0.bias_gain", config.mapping_lr_multiplier)
    clamp = record.attributes.get(f"{layer_name(layers[0])}.conv_clamp")
    checkpoint.given.check(multiplier, clamp)
    return build(multiplier, clamp)


def _configuration(record: NetworkRecord, layers: Sequence[Layer]) -> StyleGANXLConfig:
    """Settings of the generator: those that the file states, and others from which all its layers follow."""
    places = {name: f"synthesis.{name}" for name in _STATED}
    places |= {name: f"{layer_name(layers[0])}.{name}" for name in _OF_LAYERS}
    stated = {name: record.attributes[place] for name, place in places.items() if place in record.attributes}
    for config in _candidates({**_settings_of_shapes(record, layers), **stated}, layers):
        fitting = config if "channel_base" in stated else fitted_channels(config, layers)
        if is_confirmed(fitting, record.tensors, layers):
            return fitting
    raise unknown_layers("StyleGAN-XL", layers)


def _settings_of_shapes(record: NetworkRecord, layers: Sequence[Layer]) -> dict[str, Any]:
    """Settings that follow from shapes, as in `settings_of_shapes`, and those of classes, but not of heads."""
    tensors = dict(record.tensors)
    features = tensors.pop("mapping.embed.weight")
    settings = settings_of_shapes(tensors, layers)
    if "mapping.embed_proj.weight" in tensors:
        settings["z_dim"] = len(tensors["mapping.embed_proj.weight"])
        classes, settings["class_features"] = features.shape
        # The official code has features for each of 1,000 classes, however few there are.
        mean = tensors.get("mapping.w_avg", torch.empty(0))
        settings["c_dim"] = len(mean) if mean.ndim == 2 else record.attributes.get("mapping.c_dim", classes)
    return settings


def _candidates(settings: Mapping[str, Any], layers: Sequence[Layer]) -> Iterator[StyleGANXLConfig]:
    """Search for stems and heads, with these `settings`, whose layers have the same sides as those in a file."""
    sizes, final = [size for _, size, _ in layers], layers[-1][1]
    quota = Quota(0, _MOST_SIGNALS)
    below = next((place for place, (number, *_) in enumerate(layers) if number != place), len(layers))
    has_heads, cutoff = below < len(layers), settings.get("first_cutoff", StyleGANXLConfig.first_cutoff)
    critical = settings.get("num_critical", StyleGANXLConfig.num_critical)
    depth = below + critical if has_heads else below - 1
    stems = [1 << power for power in range(3, final.bit_length())] if depth > critical else []
    waiting = [StyleGANXLConfig(resolution=stem, num_layers=depth, **settings) for stem in stems if stem > 2 * cutoff]
    for config in waiting:
        signals = [signal.size for signal in config.signals()]
        if signals == sizes:
            yield config
        common = signals[: -config.num_critical - 1]  # a head replaces the other layers
        if not has_heads or not common or common != sizes[: len(common)] or len(common) == len(sizes):
            continue
        for factor in UP_FACTORS:
            resolution = factor * config.resolution
            most = min(len(sizes) - len(common) + LEAST_HEAD - 1, MOST_HEAD) if resolution <= final else 0
            for count in range(LEAST_HEAD, most + 1):
                quota.spend(len(signals) + count)
                heads, factors = (*config.head_layers, count), (*config.up_factors, factor)
                changes: dict[str, Any] = {"resolution": resolution, "head_layers": heads, "up_factors": factors}
                waiting.append(dataclasses.replace(config, **changes))


def _weights(tensors: Mapping[str, Tensor], layers: Sequence[Layer], classes: int) -> dict[str, Tensor]:
    """Tensors of a file under the names of this library; only the first `classes` rows of features of classes."""
    places = {layer_name(layer): f"synthesis.layers.{place}" for place, layer in enumerate(layers)}
    weights = {}
    for name, tensor in tensors.items():
        if name == "mapping.embed.weight":  # the features of classes; networks without classes have them too
            continue
        layer, _, part = name.partition(".")[2].partition(".")
        place = places.get(f"synthesis.{layer}")
        weights[f"{place}.{part}" if place else name.replace("mapping.embed_proj.", "mapping.embed.")] = tensor
    if classes:
        weights["mapping.class_features"] = tensors["mapping.embed.weight"][:classes]
        if "mapping.w_avg" in weights:  # an early version has one mean for all classes
            weights["mapping.w_avg"] = weights["mapping.w_avg"].expand(classes, -1)
    return weights


READERS = (read_stylegan_xl,)
