"""The content of a checkpoint of another program, and the network of official code in it.

Official code is that of the authors of StyleGAN2, StyleGAN3, StyleGAN-XL, R3GAN or projected GAN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from energyql.generators.checkpoints.arrays import DILL_NAMES, NUMPY_NAMES
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.state_dicts import find_state_dict
from energyql.generators.checkpoints.torch_file import plain, read_torch_file
from energyql.generators.checkpoints.unpickle import (
    ANY,
    TORCH_NAMES,
    Names,
    ObjectRecord,
    Quota,
    TensorRecord,
    ordered_dict,
    record_of,
    unpickle,
)
from energyql.generators.checkpoints.unstated import GivenSettings

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
"""Record of an object that is stored with the source code of its class, as official PyTorch code does."""
TF_NETWORK = "dnnlib.tflib.network.Network"
"""Class of networks in official TensorFlow files."""
OFFICIAL_MARKERS = ("synthesis.b4.const", "synthesis.input.freqs", "MainLayers.0.Layers.0.Basis")
"""Tensors by which state dicts of StyleGAN2, StyleGAN3 (and StyleGAN-XL) and R3GAN are recognised."""
PACKAGES = ("R3GAN", "feature_networks", "pg_modules", "timm.models", "torch.ao.nn", "torch.nn", "training")
"""Packages of R3GAN, projected GAN and StyleGAN-XL; files hold objects of their classes without source code."""
OFFICIAL_NAMES: Names = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): record_of(PERSISTENT),
    ("dnnlib.tflib.network", "Network"): record_of(TF_NETWORK),
    **{(module, "EasyDict"): ordered_dict for module in ("dnnlib", "dnnlib.util")},
    **{(package, ANY): record_of for package in PACKAGES},
}
"""Names that a pickle of networks of official code may contain."""
MAX_SETTINGS = 10_000
"""Largest count of values in the settings of a network; a value in two places counts twice."""
MAX_PARTS = 50_000
"""Largest count of attributes, tensors and inner modules of a network; a module in two places counts twice."""
MAX_DEPTH = 32
"""Largest number of modules inside one another."""


@dataclass(frozen=True)
class NetworkRecord:
    """Tensors and settings of one network of official code, under official names; a state dict has only tensors.

    Attributes:
        class_name: name of the class of the network, as a rule "Generator"; "" for a state dict.
        init_kwargs: the arguments with which the network was built: numbers, strings, lists and dicts.
        tensors: parameters and buffers by name, such as "synthesis.b4.const", in the dtype of the file.
        attributes: numbers, strings and flags of the modules by name, such as "synthesis.b4.conv1.conv_clamp".
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file that another program wrote.

    Attributes:
        content: the saved value, with records in place of tensors and objects.
        size: number of bytes of the file.
        kind: kind of the file, for error messages, such as "PyTorch file".
        metadata: the texts in the header of a file of safetensors, by name.
        given: settings from the caller of `load_generator`, which the file may lack.
    """

    content: Any
    size: int
    kind: str = "pickle"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    given: GivenSettings = field(default_factory=GivenSettings)

    @cached_property
    def network(self) -> NetworkRecord | None:
        """The generator that official code saved as an object or a state dict; `None` if there is no such generator.

        It is the entry `G_ema`, weights averaged over the training, of a dict, or the whole content.
        """
        whole = self.content.get("G_ema") if isinstance(self.content, dict) else self.content
        if isinstance(whole, ObjectRecord) and (whole.name == PERSISTENT or _is_plain(whole)):
            return _read_network(whole, Quota(self.size))
        for marker in OFFICIAL_MARKERS:
            if (state := find_state_dict(self.content, marker)) is not None:
                return NetworkRecord("", {}, state.tensors(Quota(self.size)))
        return None


def unpickle_official(data: memoryview) -> Any:
    """Value in an official pickle of PyTorch or TensorFlow, with records in place of objects and tensors."""
    quota = Quota(len(data))

    def nested(content: Any) -> Any:
        """Read a file of `torch.save` inside the pickle, such as the numbers of a tensor."""
        if not isinstance(content, memoryview):
            raise CheckpointError("the data of a tensor is not bytes")
        return read_torch_file(content, TORCH_NAMES, quota)  # cannot nest again: these names have no loader

    loader: Names = {("torch.storage", "_load_from_bytes"): nested}
    return unpickle(data, {**TORCH_NAMES, **NUMPY_NAMES, **DILL_NAMES, **OFFICIAL_NAMES, **loader}, quota=quota)[0]


def plain_settings(settings: Any) -> dict[str, Any]:
    """Settings in a pickle as a dict of plain values (`plain`), at most `MAX_SETTINGS`; empty for `None`."""
    return dict(plain(settings or {}, Quota(MAX_SETTINGS, MAX_SETTINGS)))


def _is_plain(value: ObjectRecord) -> bool:
    """Whether an object is of a class in `PACKAGES`, and so stored without source code."""
    return value.name.startswith(tuple(f"{package}." for package in PACKAGES))


def _class_and_state(value: Any) -> tuple[str, dict[str, Any]]:
    """Class name and attributes of one module of a network, from its record."""
    if isinstance(value, ObjectRecord) and _is_plain(value) and not value.arguments:
        return value.name.rpartition(".")[2], value.state
    if not isinstance(value, ObjectRecord) or value.name != PERSISTENT:
        raise CheckpointError("a part of the network is not one of the official code")
    (meta,) = value.arguments
    return meta["class_name"], meta["state"]


def _read_network(network: Any, quota: Quota) -> NetworkRecord:
    """Read a network that is stored as an object, module by module; a module comes before those inside it."""
    class_name, state = _class_and_state(network)
    record = NetworkRecord(class_name, plain_settings(state.get("_init_kwargs")), {})
    parts, waiting = 0, [("", network)]
    while waiting:
        prefix, module = waiting.pop()
        state = _class_and_state(module)[1]
        parameters, buffers, modules = (state[name] for name in ("_parameters", "_buffers", "_modules"))
        parts += sum(map(len, (state, parameters, buffers, modules)))
        if parts > MAX_PARTS or prefix.count(".") > MAX_DEPTH:
            raise CheckpointError("its modules are nested without end")
        for name, value in (parameters | buffers).items():
            if isinstance(value, TensorRecord):
                record.tensors[prefix + name] = value.tensor(quota)
            elif value is not None:
                raise CheckpointError(f"{shown(prefix + name)} is not a tensor")
        for name, value in state.items():
            if isinstance(name, str) and isinstance(value, bool | int | float | str) and not name.startswith("_"):
                record.attributes[prefix + name] = value
        waiting += [(f"{prefix}{name}.", part) for name, part in reversed(modules.items()) if part is not None]
    return record
