"""The content of a foreign checkpoint as records, and networks under the official names as names and tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, cast

from torch import Tensor

from energyql.generators.checkpoints.arrays import DILL_NAMES, NUMPY_NAMES, plain
from energyql.generators.checkpoints.reading import CheckpointError, shown
from energyql.generators.checkpoints.state_dicts import find_state_dict
from energyql.generators.checkpoints.torch_file import read_torch_file
from energyql.generators.checkpoints.unpickle import (
    ANY,
    TORCH_NAMES,
    Budget,
    Names,
    ObjectRecord,
    Storage,
    TensorRecord,
    ordered_dict,
    record_of,
    unpickle,
)
from energyql.generators.checkpoints.unstated import GivenSettings

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
"""Name in the file for objects with their source text, as official PyTorch code pickles networks."""
TF_NETWORK = "dnnlib.tflib.network.Network"
"""Class of the networks in official TensorFlow files."""
OFFICIAL_MARKERS = ("synthesis.b4.const", "synthesis.input.freqs", "MainLayers.0.Layers.0.Basis")
"""For the official StyleGAN2, StyleGAN3 and R3GAN the name of a tensor that no other network has."""
PACKAGES = ("R3GAN", "feature_networks", "pg_modules", "timm.models", "torch.ao.nn", "torch.nn", "training")
"""Packages of classes whose objects may be in a file without source text: R3GAN, projected GAN and StyleGAN-XL."""
OFFICIAL_NAMES: Names = {
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): record_of(PERSISTENT),
    **{(module, "EasyDict"): ordered_dict for module in ("dnnlib", "dnnlib.util")},
    **{(package, ANY): record_of for package in PACKAGES},
}
"""Names in a pickle that holds networks of the official PyTorch code as objects."""
MAX_PARTS = 50_000
"""Most entries of the modules of a network; a module that is shared counts each time."""
MAX_DEPTH = 32
"""Most modules inside one another."""


@dataclass(frozen=True)
class NetworkRecord:
    """The tensors and settings of one network under the official names.

    Attributes:
        class_name: name of its class, "Generator" for generators of every family; "" for a state dict, which has
            neither `init_kwargs` nor `attributes`.
        init_kwargs: the arguments that it was built with: numbers, strings, lists and dicts.
        tensors: parameters and buffers by the names of a state dict, such as "synthesis.b4.const", as stored.
        attributes: numbers, strings and flags of the modules, such as "synthesis.b4.conv1.conv_clamp".
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file that another program wrote.

    Attributes:
        content: the saved value, with a TensorRecord in place of each tensor.
        size: number of bytes of the file.
        kind: kind of the file, for messages.
        metadata: the texts in the header of a file of safetensors.
        given: settings from the caller, for files that do not hold them.
    """

    content: Any
    size: int
    kind: str = "pickle"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    given: GivenSettings = field(default_factory=GivenSettings)

    @cached_property
    def network(self) -> NetworkRecord | None:
        """The averaged generator (`G_ema`) of official PyTorch code; `None` if the file holds none.

        In the file it is an object or a state dict, as an entry or as the whole content.

        Raises:
            CheckpointError: the network is damaged, or there are several generators.
        """
        whole = self.content.get("G_ema") if isinstance(self.content, dict) else self.content
        if isinstance(whole, ObjectRecord) and (whole.name == PERSISTENT or _is_plain(whole)):
            return _read_network(whole, Budget(self.size))
        for marker in OFFICIAL_MARKERS:
            if (state := find_state_dict(self.content, marker)) is not None:
                return NetworkRecord("", {}, state.tensors(Budget(self.size)))
        return None


def unpickle_official(data: memoryview) -> Any:
    """Return the value in a pickle of PyTorch or of TensorFlow that is not a file of `torch.save`, as records.

    Raises:
        CheckpointError: it is damaged or names something that is not allowed.
    """
    budget = Budget(len(data))

    def nested(content: Any) -> Storage:
        """Return the storage in a file of `torch.save` that is a byte string of the pickle."""
        if not isinstance(content, memoryview):
            raise CheckpointError("the data of a tensor is not bytes")
        storage = read_torch_file(content, TORCH_NAMES, budget)  # cannot nest again: these names have no loader
        if not isinstance(storage, Storage):
            raise CheckpointError("the data of a tensor is something else")
        return storage

    names: Names = {
        **TORCH_NAMES,
        **NUMPY_NAMES,
        **DILL_NAMES,
        ("torch.storage", "_load_from_bytes"): nested,
        **OFFICIAL_NAMES,
        ("dnnlib.tflib.network", "Network"): record_of(TF_NETWORK),
    }
    return unpickle(data, names, budget=budget)[0]


def _is_plain(value: ObjectRecord) -> bool:
    """Return whether an object is of a class in `PACKAGES`."""
    return value.name.startswith(tuple(f"{package}." for package in PACKAGES))


def _class_and_state(value: Any) -> tuple[str, dict[str, Any]]:
    """Return the class name and the state of a module: an object with its source text, or one of `PACKAGES`.

    Raises:
        CheckpointError: `value` is neither.
    """
    if isinstance(value, ObjectRecord) and _is_plain(value) and not value.arguments:
        return value.name.rpartition(".")[2], value.state
    if not isinstance(value, ObjectRecord) or value.name != PERSISTENT or len(value.arguments) != 1:
        raise CheckpointError("a part of the network is not one of the official code")
    meta = value.arguments[0]
    state = meta.get("state") if isinstance(meta, dict) and meta.get("type") == "class" else None
    if not isinstance(state, dict) or not isinstance(meta.get("class_name"), str):
        raise CheckpointError("a part of the network has no state")
    return meta["class_name"], state


def _read_network(network: Any, budget: Budget) -> NetworkRecord:
    """Return the tensors and attributes of a network, collected from its modules, each before its submodules.

    Raises:
        CheckpointError: a module is damaged, or the modules are nested without end.
    """
    class_name, state = _class_and_state(network)
    record = NetworkRecord(class_name, plain(state.get("_init_kwargs") or {}), {})
    parts, waiting = 0, [("", network)]
    while waiting:
        prefix, module = waiting.pop()
        state = _class_and_state(module)[1]
        groups = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        if not all(isinstance(group, dict) and all(isinstance(name, str) for name in group) for group in groups):
            raise CheckpointError("a part of the network has no parameters, buffers or modules")
        parameters, buffers, modules = cast(list[dict[str, Any]], groups)
        parts += sum(map(len, (state, parameters, buffers, modules)))
        if parts > MAX_PARTS or prefix.count(".") > MAX_DEPTH:
            raise CheckpointError("its modules are nested without end")
        for name, value in (parameters | buffers).items():
            if isinstance(value, TensorRecord):
                budget.take(value.nbytes)
                record.tensors[prefix + name] = value.tensor()
            elif value is not None:
                raise CheckpointError(f"{shown(prefix + name)} is not a tensor")
        for name, value in state.items():
            if isinstance(name, str) and isinstance(value, bool | int | float | str) and not name.startswith("_"):
                record.attributes[prefix + name] = value
        waiting += [(f"{prefix}{name}.", part) for name, part in reversed(modules.items()) if part is not None]
    return record
