"""Shapes in signatures, checked while the tests run: jaxtyping reads them, beartype compares."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from random import Random
from types import FunctionType, ModuleType
from typing import Any, runtime_checkable

import jaxtyping
import torch
from beartype import BeartypeConf, beartype
from beartype._check.code import codemain

from energyql.numerics import shapes

compiling = getattr(torch.compiler, "is_compiling", lambda: False)  # missing in torch before 2.3
FIRST, SELDOM = 2, 100
"""In each test the first calls of a function are checked, then every hundredth: a check takes longer than a layer."""
test = 0
"""Number of the test that runs."""
KINDS = ("Bool", "Float", "Int")
CHECKER = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for mypy


class _Finder(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name.startswith("energyql.") else None
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for value in vars(module).values():
            if getattr(value, "_is_protocol", False) and value.__module__ == module.__name__:
                runtime_checkable(value)  # beartype checks that the methods are there
        for owner in [module, *(value for value in vars(module).values() if isinstance(value, type))]:
            if owner is module or owner.__module__ == module.__name__:
                for name, value in list(vars(owner).items()):
                    checked = _checked(value)
                    if checked is not value:
                        setattr(owner, name, checked)


def _checked(value: Any) -> Any:
    """The function or method with its shapes checked; anything else as it is."""
    if isinstance(value, classmethod | staticmethod):
        inner = _checked(value.__func__)
        return value if inner is value.__func__ else type(value)(inner)
    if not isinstance(value, FunctionType) or hasattr(value, "unchecked") or not _has_shapes(value):
        return value
    strict = jaxtyping.jaxtyped(value, typechecker=CHECKER)

    counted, calls = test, 0

    @wraps(value)
    def checked(*args: Any, **kwargs: Any) -> Any:
        nonlocal counted, calls
        if compiling():  # torch.compile would trace the check as well, and the two do not go together
            return value(*args, **kwargs)
        if counted != test:
            counted, calls = test, 0
        calls += 1
        return (value if calls > FIRST and calls % SELDOM else strict)(*args, **kwargs)

    checked.unchecked = value  # type: ignore[attr-defined]
    return checked


def _has_shapes(function: FunctionType) -> bool:
    if function.__code__.co_filename == "<string>":  # of a dataclass: a record is checked where it is used
        return False
    notes = [note for note in function.__annotations__.values() if isinstance(note, str)]
    return any(f"{kind}[" in note for note in notes for kind in KINDS)


def begin_test() -> None:
    """Count calls anew."""
    global test
    test += 1


def install() -> None:
    """Check what is imported from now on; nothing of the library with shapes may have been imported before."""
    # beartype checks one item of a sequence, a random one; tests see whether the library changes the global state.
    codemain.getrandbits = Random(0).getrandbits
    for kind in KINDS:
        setattr(shapes, kind, getattr(jaxtyping, kind))
    sys.meta_path.insert(0, _Finder())
