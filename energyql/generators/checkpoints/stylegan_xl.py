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
"""Settings that the synthesis network of a pickle states; the layers state the other two."""
_OF_LAYERS = ("filter_size", "lrelu_upsampling")
_MOST_SIGNALS = 1_000_000
"""Most signals that are computed to find the heads; six heads take about 90,000."""
Layers = Sequence[tuple[int, int, int]]
"""Number, size and channels of each layer. One number is missing where the first head begins."""


def read_stylegan_xl(checkpoint: Checkpoint) -> StyleGANXL | None:
    """Build the generator of an official file. A network is a StyleGAN-XL if it has features of classes.

    No file says which heads a network has: they follow from its layers, and its filters must confirm them. A state dict
    has no settings; see `completed`.

    Raises:
        CheckpointError: its layers are not those of a StyleGAN-XL, or a setting must be given.
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
    """Return the settings that the file states, and those that its layers and filters confirm."""
    stated = {
        name: record.attributes[f"synthesis.{name}"] for name in _STATED if f"synthesis.{name}" in record.attributes
    }
    first = _name(layers[0])
    stated |= {
        name: record.attributes[f"{first}.{name}"] for name in _OF_LAYERS if f"{first}.{name}" in record.attributes
    }
    for config in _candidates({**_seen(record, layers), **stated}, layers):
        fitting = config if "channel_base" in stated else fitted_channels(config, layers)
        if _confirmed(fitting, record.tensors, layers):
            return fitting
    sizes = ", ".join(f"{number}: {size}x{size}" for number, size, _ in layers)
    raise CheckpointError(
        f"its layers are those of no StyleGAN-XL that is known: their numbers and sizes are {sizes}",
        hint="if the file is complete, it has unusual cutoffs, which no state dict holds: give the official pickle",
    )


def _seen(record: NetworkRecord, layers: Layers) -> dict[str, Any]:
    """Return the settings that follow from names and shapes."""
    tensors = record.tensors
    settings: dict[str, Any] = {
        "z_dim": tensors["mapping.fc0.weight"].shape[1],
        "w_dim": tensors["synthesis.input.affine.weight"].shape[1],
        "mapping_layers": mapping_depth(tensors),
        "channel_base": 1 << 27,  # until it is fitted
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
    """Yield the configurations whose layers have the sizes of those in the file."""
    sizes, final = [size for _, size, _ in layers], layers[-1][1]
    budget = Budget(0, _MOST_SIGNALS)
    kept = next((place for place, (number, *_) in enumerate(layers) if number != place), len(layers))
    for stem in (1 << power for power in range(3, final.bit_length())):
        critical = settings.get("num_critical", StyleGANXLConfig.num_critical)
        depth = len(layers) - 1 if kept == len(layers) else kept + critical
        if 2 * settings.get("first_cutoff", StyleGANXLConfig.first_cutoff) >= stem or depth <= critical:
            continue
        config = StyleGANXLConfig(resolution=stem, num_layers=depth, **settings)
        specs = config.signals()
        if kept == len(layers):
            if _fits(specs, sizes):
                yield config
        elif kept and _fits(config.kept(specs), sizes[:kept]):
            for heads in _heads(config, config.kept(specs)[-1], sizes[kept:], stem, final, budget):
                counts, factors = zip(*heads, strict=True)
                yield dataclasses.replace(config, resolution=final, head_layers=counts, up_factors=factors)


def _heads(
    config: StyleGANXLConfig, last: SignalSpec, sizes: list[int], resolution: int, final: int, budget: Budget
) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield the numbers of layers and the factors of heads that follow `last` and whose layers have these sizes."""
    most = min(len(sizes) + LEAST_HEAD - 1, MOST_HEAD)
    for factor in UP_FACTORS:
        for layers in range(LEAST_HEAD, most + 1) if resolution * factor <= final else ():
            budget.spend(layers)
            specs = config.head(last, layers, resolution * factor)
            if resolution * factor == final:
                if _fits(specs, sizes):
                    yield ((layers, factor),)
                continue
            kept = config.kept(specs)
            if kept and len(kept) < len(sizes) and _fits(kept, sizes[: len(kept)]):
                for others in _heads(config, kept[-1], sizes[len(kept) :], resolution * factor, final, budget):
                    yield ((layers, factor), *others)


def _fits(specs: Sequence[SignalSpec], sizes: Sequence[int]) -> bool:
    return [spec.size for spec in specs] == list(sizes)


def _confirmed(config: StyleGANXLConfig, tensors: Mapping[str, Tensor], layers: Layers) -> bool:
    """Whether the channels and the filters of all layers are those of a configuration."""
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
    """Return the tensors under our names."""
    places = {_name(layer): f"synthesis.layers.{place}" for place, layer in enumerate(layers)}
    found = {}
    for name, tensor in tensors.items():
        if name == "mapping.embed.weight":  # the features of classes; a stem without classes has them too
            continue
        layer, _, part = name.partition(".")[2].partition(".")
        place = places.get(f"synthesis.{layer}")
        found[f"{place}.{part}" if place else name.replace("mapping.embed_proj.", "mapping.embed.")] = tensor
    if classes:
        found["mapping.class_features"] = tensors["mapping.embed.weight"][:classes]
        if "mapping.w_avg" in found:  # of an early version, one for all classes
            found["mapping.w_avg"] = found["mapping.w_avg"].expand(classes, -1)
    return found


def _name(layer: tuple[int, int, int]) -> str:
    return "synthesis.L{}_{}_{}".format(*layer)


READERS = (read_stylegan_xl,)
