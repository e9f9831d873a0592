"""Reader of official StyleGAN-XL files (PyTorch): stems, and generators with heads for higher resolutions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from energyql.generators.checkpoints.network_pickle import Checkpoint, NetworkRecord
from energyql.generators.checkpoints.reading import CheckpointError, build_network, check_weights
from energyql.generators.checkpoints.stylegan3 import (
    FILTER_ERROR,
    fitted_channels,
    has_class_features,
    mapping_depth,
    named_layers,
)
from energyql.generators.checkpoints.unpickle import Budget
from energyql.generators.checkpoints.unstated import completed
from energyql.generators.stylegan3 import SignalSpec, layer_filters
from energyql.generators.stylegan_xl import LEAST_HEAD, MOST_HEAD, UP_FACTORS, StyleGANXL, StyleGANXLConfig

_STATED = (
    "channel_base", "channel_max", "conv_kernel", "first_cutoff", "first_stopband", "last_stopband_rel",
    "margin_size", "num_critical", "output_scale", "use_radial_filters",
)  # fmt: skip
"""Settings that the synthesis network of a pickle states."""
_OF_LAYERS = ("filter_size", "lrelu_upsampling")
"""Settings that each layer of a pickle states."""
_MOST_SIGNALS = 1_000_000
"""Most signals that are computed to find the heads; six heads take about 90,000."""
Layers = Sequence[tuple[int, int, int]]
"""Number, size and channels of each layer. Numbers of layers that a head replaced are missing."""


def read_stylegan_xl(checkpoint: Checkpoint) -> StyleGANXL | None:
    """Return the generator of an official file; `None` if the file holds no StyleGAN-XL.

    No file states which heads a network has: they follow from its layers, and are checked with its filters. The other
    settings of a state dict come from `completed`.

    Raises:
        CheckpointError: the layers are those of no known StyleGAN-XL, or the caller must give a setting.
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
        generator: StyleGANXL = build_network(StyleGANXL, settings, weights)
        return generator

    if not record.class_name:
        return completed(checkpoint.given, build, clamped=True, has_mean="mapping.w_avg" in weights)
    multiplier = record.attributes.get("mapping.fc0.bias_gain", config.mapping_lr_multiplier)
    clamp = record.attributes.get(f"{_name(layers[0])}.conv_clamp")
    checkpoint.given.check(multiplier, clamp)
    return build(multiplier, clamp)


def _configuration(record: NetworkRecord, layers: Layers) -> StyleGANXLConfig:
    """Return the settings that the file states, and those that follow from its layers and agree with its filters.

    Raises:
        CheckpointError: no settings agree with them.
    """
    stated = {
        name: record.attributes[f"synthesis.{name}"] for name in _STATED if f"synthesis.{name}" in record.attributes
    }
    first = _name(layers[0])
    stated |= {
        name: record.attributes[f"{first}.{name}"] for name in _OF_LAYERS if f"{first}.{name}" in record.attributes
    }
    for config in _candidates({**_settings_of_shapes(record, layers), **stated}, layers):
        fitting = config if "channel_base" in stated else fitted_channels(config, layers)
        if _confirmed(fitting, record.tensors, layers):
            return fitting
    sizes = ", ".join(f"{number}: {size}x{size}" for number, size, _ in layers)
    raise CheckpointError(
        f"its layers are those of no StyleGAN-XL that is known: their numbers and sizes are {sizes}",
        hint="if the file is complete, it has unusual cutoffs, which no state dict holds: give the official pickle",
    )


def _settings_of_shapes(record: NetworkRecord, layers: Layers) -> dict[str, Any]:
    """Return the settings of `StyleGANXLConfig` that follow from names and shapes."""
    tensors = record.tensors
    settings: dict[str, Any] = {
        "z_dim": tensors["mapping.fc0.weight"].shape[1],
        "w_dim": tensors["synthesis.input.affine.weight"].shape[1],
        "mapping_layers": mapping_depth(tensors),
        "channel_base": 1 << 27,  # until `fitted_channels` is called
        "channel_max": max(channels for *_, channels in layers[:-1]),
        "image_channels": layers[-1][2],
        "conv_kernel": tensors[f"{_name(layers[0])}.weight"].shape[-1],
        "use_radial_filters": any(name.endswith(".down_filter") and value.ndim == 2 for name, value in tensors.items()),
    }
    if "mapping.embed_proj.weight" in tensors:
        settings["z_dim"] = len(tensors["mapping.embed_proj.weight"])
        classes, settings["class_features"] = tensors["mapping.embed.weight"].shape
        # The official code has features for each of 1,000 classes, however few there are.
        mean = tensors.get("mapping.w_avg", torch.empty(0))
        settings["c_dim"] = len(mean) if mean.ndim == 2 else record.attributes.get("mapping.c_dim", classes)
    return settings


def _candidates(settings: Mapping[str, Any], layers: Layers) -> Iterator[StyleGANXLConfig]:
    """Yield the configurations with `settings` whose layers have the sizes of those in the file."""
    sizes, final = [size for _, size, _ in layers], layers[-1][1]
    budget = Budget(0, _MOST_SIGNALS)
    below = next((place for place, (number, *_) in enumerate(layers) if number != place), len(layers))
    for stem in (1 << power for power in range(3, final.bit_length())):
        critical = settings.get("num_critical", StyleGANXLConfig.num_critical)
        depth = len(layers) - 1 if below == len(layers) else below + critical
        if 2 * settings.get("first_cutoff", StyleGANXLConfig.first_cutoff) >= stem or depth <= critical:
            continue
        config = StyleGANXLConfig(resolution=stem, num_layers=depth, **settings)
        specs = config.signals()
        if below == len(layers):
            if _fits(specs, sizes):
                yield config
        elif below and _fits(config.below_head(specs), sizes[:below]):
            for heads in _heads(config, config.below_head(specs)[-1], sizes[below:], stem, final, budget):
                counts, factors = zip(*heads, strict=True)
                yield dataclasses.replace(config, resolution=final, head_layers=counts, up_factors=factors)


def _heads(
    config: StyleGANXLConfig, last: SignalSpec, sizes: list[int], resolution: int, final: int, budget: Budget
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the possible heads above a layer: for each head its number of layers and its factor.

    Args:
        config: the other settings.
        last: signal of the layer below the heads.
        sizes: sizes of the layers of the heads.
        resolution: side of the pictures below the heads.
        final: side of the pictures after the last head.
        budget: limit of the search, one operation for each signal.

    Raises:
        CheckpointError: the search is too long.
    """
    most = min(len(sizes) + LEAST_HEAD - 1, MOST_HEAD)
    for factor in UP_FACTORS:
        for layers in range(LEAST_HEAD, most + 1) if resolution * factor <= final else ():
            budget.spend(layers)
            specs = config.head(last, layers, resolution * factor)
            if resolution * factor == final:
                if _fits(specs, sizes):
                    yield ((layers, factor),)
                continue
            rest = config.below_head(specs)
            if rest and len(rest) < len(sizes) and _fits(rest, sizes[: len(rest)]):
                for others in _heads(config, rest[-1], sizes[len(rest) :], resolution * factor, final, budget):
                    yield ((layers, factor), *others)


def _fits(specs: Sequence[SignalSpec], sizes: Sequence[int]) -> bool:
    return [spec.size for spec in specs] == list(sizes)


def _confirmed(config: StyleGANXLConfig, tensors: Mapping[str, Tensor], layers: Layers) -> bool:
    """Return whether the channels and the filters of all layers are those of a configuration."""
    signals = config.signals()
    for place, (layer, after) in enumerate(zip(layers, signals, strict=True)):
        if layer[2] != after.channels:
            return False
        filters = layer_filters(signals[max(place - 1, 0)], after, config, rgb=place == len(signals) - 1)[2]
        for name, designed in zip(("up_filter", "down_filter"), filters, strict=True):
            stored = tensors.get(f"{_name(layer)}.{name}")
            if (stored is None) != (designed is None):
                return False
            if stored is not None and designed is not None:
                if stored.shape != designed.shape:
                    return False
                if not torch.allclose(stored.float(), designed, rtol=0, atol=FILTER_ERROR):
                    return False
    return True


def _weights(tensors: Mapping[str, Tensor], layers: Layers, classes: int) -> dict[str, Tensor]:
    """Return the tensors under the names of this library, from those under official names.

    The official code has features for more classes than the generator has; those of the first `classes` are used.
    """
    places = {_name(layer): f"synthesis.layers.{place}" for place, layer in enumerate(layers)}
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


def _name(layer: tuple[int, int, int]) -> str:
    """Return the official name of a layer with this number, size and channels."""
    return "synthesis.L{}_{}_{}".format(*layer)


READERS = (read_stylegan_xl,)
