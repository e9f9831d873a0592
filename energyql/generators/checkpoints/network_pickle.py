"""Networks in the pickles of the official StyleGAN2-ADA and StyleGAN3 code, as names and tensors."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from energyql.generators.checkpoints.arrays import NUMPY_NAMES, plain
from energyql.generators.checkpoints.inert import Budget, Names
from energyql.generators.checkpoints.records import (
    EASY_DICT,
    SET_NAMES,
    TORCH_NAMES,
    Record,
    Storage,
    TensorRecord,
    record,
)
from energyql.generators.checkpoints.refusal import Refused, reading, shown
from energyql.generators.checkpoints.torch_file import read_torch_file
from energyql.generators.checkpoints.unpickle import unpickle

PERSISTENT = "torch_utils.persistence._reconstruct_persistent_obj"
TF_NETWORK = "dnnlib.tflib.network.Network"
MAX_PARTS = 50_000
"""Most entries of modules that are looked at; modules that are shared count each time."""
MAX_DEPTH = 32


@dataclass(frozen=True)
class NetworkRecord:
    """One network of an official pickle.

    Attributes:
        class_name: name of its class, "Generator" for StyleGAN2 and StyleGAN3 alike; tell them apart by `tensors`.
        init_kwargs: what it was built with: numbers, strings, lists and dicts, NumPy scalars turned into Python ones.
        tensors: parameters and buffers by the names of a state dict, such as "synthesis.b4.const", as stored.
        source: the file, for messages.
        attributes: numbers, strings and flags of the modules, such as "synthesis.b4.conv1.conv_clamp".
    """

    class_name: str
    init_kwargs: dict[str, Any]
    tensors: dict[str, Tensor]
    source: Path
    attributes: dict[str, Any] = field(default_factory=dict)


def read_network_pickle(path: Path, network: str = "G_ema") -> NetworkRecord:
    """Read one network of an official StyleGAN2-ADA or StyleGAN3 pickle, without running anything in it.

    Args:
        path: the `.pkl` file.
        network: which one; "G_ema" is the generator to draw with.

    Raises:
        ModelError: the file is missing, damaged, holds a class that is not allowed, or is another format.
    """
    with reading(path):
        data = file_bytes(path)
        return network_record(unpickle_official(data), len(data), path, network)


def file_bytes(path: Path) -> memoryview:
    """The bytes of a file, which the system reads as they are looked at."""
    if path.exists() and not path.is_file():
        raise Refused("it is not a file")
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise Refused("it is empty") from None


def unpickle_official(data: memoryview) -> Any:
    """The records in an official pickle of either era.

    Raises:
        Refused: it is damaged or names something that is not allowed.
    """
    budget = Budget(len(data))

    def nested(content: Any) -> Storage:
        if not isinstance(content, memoryview):
            raise Refused("the data of a tensor is not bytes")
        storage = read_torch_file(content, TORCH_NAMES, budget)  # cannot nest again: these names have no loader
        if not isinstance(storage, Storage):
            raise Refused("the data of a tensor is something else")
        return storage

    names: Names = {
        **TORCH_NAMES,
        **NUMPY_NAMES,
        **SET_NAMES,
        **EASY_DICT,
        ("torch.storage", "_load_from_bytes"): nested,
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): record(PERSISTENT),
        ("dnnlib.tflib.network", "Network"): record(TF_NETWORK),
    }
    return unpickle(data, names, budget=budget)[0]


def network_record(content: Any, file_size: int, path: Path, network: str = "G_ema") -> NetworkRecord:
    """The network called `network` in what `unpickle_official` returned."""
    if not isinstance(content, dict) or network not in content:
        found = ", ".join(shown(key, 30) for key in islice(content, 8)) if isinstance(content, dict) else ""
        raise Refused(f"it has no network {network}" + (f", only {found}" if found else ""))
    class_name, state = _meta(content[network])
    collector = _Collector(file_size)
    collector.visit(content[network], "", 0)
    return NetworkRecord(
        class_name, plain(state.get("_init_kwargs") or {}), collector.tensors, path, collector.attributes
    )


def _meta(value: Any) -> tuple[str, dict[str, Any]]:
    """Class name and state of a persistent object."""
    if not isinstance(value, Record) or value.name != PERSISTENT or len(value.arguments) != 1:
        raise Refused("a part of the network is not one of the official code")
    meta = value.arguments[0]
    state = meta.get("state") if isinstance(meta, dict) and meta.get("type") == "class" else None
    if not isinstance(state, dict) or not isinstance(meta.get("class_name"), str):
        raise Refused("a part of the network has no state")
    return meta["class_name"], state


class _Collector:
    """Gathers the tensors of a module and of those inside it."""

    def __init__(self, file_size: int) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.attributes: dict[str, Any] = {}
        self.parts = 0
        self.room = 2 * file_size  # parts that share their data must not multiply it without end

    def visit(self, module: Any, prefix: str, depth: int) -> None:
        _, state = _meta(module)
        self.count(state, depth)
        for group in ("_parameters", "_buffers"):
            for name, value in self.items(state, group):
                if isinstance(value, TensorRecord):
                    self.room -= value.nbytes
                    if self.room < 0:
                        raise Refused("its tensors are larger than the file")
                    self.tensors[prefix + name] = value.tensor()
                elif value is not None:
                    raise Refused(f"{shown(prefix + name)} is not a tensor")
        for name, value in state.items():
            if isinstance(name, str) and isinstance(value, bool | int | float | str) and not name.startswith("_"):
                self.attributes[prefix + name] = value
        for name, value in self.items(state, "_modules"):
            if value is not None:
                self.visit(value, f"{prefix}{name}.", depth + 1)

    def count(self, members: dict[str, Any], depth: int = 0) -> None:
        self.parts += 1 + len(members)
        if self.parts > MAX_PARTS or depth > MAX_DEPTH:
            raise Refused("its modules are nested without end")

    def items(self, state: dict[str, Any], group: str) -> list[tuple[str, Any]]:
        members = state.get(group)
        if not isinstance(members, dict) or not all(isinstance(name, str) for name in members):
            raise Refused(f"a part of the network has no {group}")
        self.count(members)
        return list(members.items())
