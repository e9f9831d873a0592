"""Writes pickles that name things which need not exist, for attacks and for variants of official checkpoints."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LEGACY_HEAD = (
    pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    + pickle.dumps(1001, 2)
    + pickle.dumps({"protocol_version": 1001, "little_endian": True, "type_sizes": {}}, 2)
)

DATA = Path(__file__).parent / "data"
PERSISTENT = ("torch_utils.persistence", "_reconstruct_persistent_obj")


@dataclass(frozen=True)
class Named:
    """A global of the file."""

    module: str
    name: str


@dataclass
class Call:
    """A global called with arguments, then perhaps given a state."""

    function: Any
    arguments: tuple[Any, ...] = ()
    state: Any = None


class _Pickler(pickle._Pickler):  # type: ignore[name-defined,misc]
    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            if self.proto >= 4:
                self.save(obj.module)
                self.save(obj.name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call) and id(obj) in self.memo:
            self.write(self.get(self.memo[id(obj)][0]))
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
            self.memoize(obj)
            if obj.state is not None:
                self.save(obj.state)
                self.write(pickle.BUILD)
        else:
            super().save(obj, save_persistent_id)


def dumps(value: Any, protocol: int = 4) -> bytes:
    """Pickle plain values, tensors, arrays, `Named` and `Call`."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


@dataclass
class _Module:
    parameters: dict[str, Any] = field(default_factory=dict)
    modules: dict[str, _Module] = field(default_factory=dict)
    attributes: dict[str, Any] = field(default_factory=dict)

    def at(self, path: list[str]) -> _Module:
        return self if not path else self.modules.setdefault(path[0], _Module()).at(path[1:])

    def call(self, class_name: str = "Part", init_kwargs: Any = None, source: str = "") -> Call:
        state = {
            "training": False,
            "_parameters": self.parameters,
            "_buffers": {},
            "_modules": {name: module.call() for name, module in self.modules.items()},
            "_init_args": (),
            "_init_kwargs": init_kwargs or {},
            **self.attributes,
        }
        meta = {"type": "class", "version": 6, "module_src": source, "class_name": class_name, "state": state}
        return Call(Named(*PERSISTENT), (meta,))


def official(
    tensors: dict[str, Any],
    *,
    init_kwargs: dict[str, Any] | None = None,
    attributes: dict[str, Any] | None = None,
    source: str = "",
) -> Call:
    """A network as the official PyTorch code pickles it, from names such as "synthesis.b4.const"."""
    root = _Module()
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        root.at(path).parameters[last] = tensor
    for name, value in (attributes or {}).items():
        *path, last = name.split(".")
        root.at(path).attributes[last] = value
    return root.call("Generator", init_kwargs, source)


def torch_zip(content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return stream.getvalue()


def text(value: str) -> bytes:
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()
