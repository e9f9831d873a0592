"""Official StyleGAN2-ADA pickles (PyTorch)."""

from __future__ import annotations

import re
from typing import Any

import torch

from energyql.errors import ModelError
from energyql.generators.checkpoints.assemble import MAX_RESOLUTION, assemble
from energyql.generators.checkpoints.network_pickle import NetworkRecord
from energyql.generators.checkpoints.refusal import shown
from energyql.generators.stylegan2 import StyleGAN2

DEFAULT_LR_MULTIPLIER = 0.01
_SIDES = "|".join(str(2**power) for power in range(2, MAX_RESOLUTION.bit_length()))


def is_stylegan2(record: NetworkRecord) -> bool:
    """Whether a network is a StyleGAN2 generator."""
    return "synthesis.b4.const" in record.tensors


def build_stylegan2(record: NetworkRecord) -> StyleGAN2:
    """The generator in a record, with the settings it was made with.

    Raises:
        ModelError: it is no StyleGAN2 or of a kind that is not supported.
    """
    clamp = _setting(record, "conv_clamp", r"synthesis\.b4\.conv1\.conv_clamp")
    lr_multiplier = _setting(record, "lr_multiplier", r"mapping\.fc0\.bias_gain", DEFAULT_LR_MULTIPLIER)
    for name, pattern, supported in (
        ("activation", r"(synthesis\.b\d+\.conv[01]|mapping\.fc\d+)\.activation", "lrelu"),
        ("architecture", r"synthesis\.b\d+\.architecture", "skip"),
    ):
        value = _setting(record, name, pattern, supported)
        if value != supported:
            raise ModelError(
                f"cannot read {record.source}: its {name} is {shown(value)}; only {supported!r} is supported"
            )
    for name, value in (("conv_clamp", clamp), ("lr_multiplier", lr_multiplier)):
        if not (isinstance(value, int | float) and value > 0) and not (value is None and name == "conv_clamp"):
            raise ModelError(f"cannot read {record.source}: its {name} is {shown(value)}")
    tensors = dict(record.tensors)
    for name in record.tensors:  # a network without noise inputs is one whose noise has no strength
        layer = re.fullmatch(rf"synthesis\.b({_SIDES})\.conv[01]\.weight", name)
        prefix = name.removesuffix("weight")
        if layer and prefix + "noise_strength" not in tensors and record.attributes.get(prefix + "use_noise") is False:
            tensors[prefix + "noise_strength"] = torch.zeros(())
            tensors[prefix + "noise_const"] = torch.zeros(int(layer[1]), int(layer[1]))
    return assemble(
        tensors,
        record.source,
        conv_clamp=None if clamp is None else float(clamp),
        mapping_lr_multiplier=float(lr_multiplier),
    )


def _setting(record: NetworkRecord, name: str, pattern: str, default: Any = None) -> Any:
    """A setting as the modules have it, else as the network was made with, in either layout."""
    found = {value for key, value in record.attributes.items() if re.fullmatch(pattern, key)}
    if len(found) > 1:
        raise ModelError(f"cannot read {record.source}: its layers differ in {name}")
    if found:
        return found.pop()
    for settings in (record.init_kwargs, *record.init_kwargs.values()):
        if isinstance(settings, dict) and settings.get(name) is not None:
            return settings[name]
    return default
