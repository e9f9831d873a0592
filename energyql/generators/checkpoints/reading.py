"""Functions that all readers of checkpoints use: errors that name the file, and networks built with checked weights."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.files import check_file, naming_source

Network = TypeVar("Network", bound=torch.nn.Module)


class CheckpointError(ModelError):
    """The error for a damaged, unsafe or unsupported file, until `reading` adds the name of the file."""


_AGAIN = "copy or download the file again; docs/checkpoints.md says which files are read"
"""Advice to the user if a file is damaged."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error that a damaged file can cause in a `with` block into a `ModelError` that names `path`."""
    try:
        with naming_source(path):
            yield
    except ModelError as error:
        if str(path) in error.message:
            raise
        raise ModelError(f"cannot read {path}: {error.message}", hint=error.hint or _AGAIN) from error
    except (EOFError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        problem = f"{error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise ModelError(f"cannot read {path}: it is damaged ({problem})", hint=_AGAIN) from error


def file_bytes(path: Path) -> memoryview:
    """Bytes of a file, which must not be empty, mapped to memory: only those that are used are read."""
    if not check_file(path):
        raise CheckpointError("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def shown(value: object, length: int = 80) -> str:
    """Text that shows a value of a file in an error message: strings in ASCII, numbers, and the type of anything else.

    A string is cut to `length` characters, and "..." follows.
    """
    if isinstance(value, str):
        return ascii(value[:length])[1:-1] + ("..." if len(value) > length else "")
    return str(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise a `CheckpointError` unless all weights are finite floating-point numbers."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{shown(name, 120)} holds {dtype}, not floating-point numbers")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{shown(name, 120)} has numbers that are not finite")


def build_network(network: Callable[[Any], Network], config: Any, weights: Mapping[str, Tensor]) -> Network:
    """Build a network with the weights of a file, in float32, in evaluation mode, without gradients to the weights.

    Raises:
        CheckpointError: tensors are missing, too many, or of shapes that do not fit `config`.
    """
    with torch.device("meta"):  # no memory for weights that are replaced
        generator = network(config)
    expected: Mapping[str, Tensor] = generator.state_dict()
    if missing := [name for name in expected if name not in weights]:
        raise CheckpointError(f"tensors are missing: {_some(missing)}")
    if extra := [name for name in weights if name not in expected]:
        raise CheckpointError(f"it has tensors that a {type(generator).__name__} has not: {_some(extra)}")
    shapes = {name: (tuple(weights[name].shape), tuple(tensor.shape)) for name, tensor in expected.items()}
    if wrong := [f"{name} {ours} instead of {theirs}" for name, (ours, theirs) in shapes.items() if ours != theirs]:
        raise CheckpointError(f"tensors do not fit together: {_some(wrong)}")
    generator.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return generator.eval().requires_grad_(False)


def _some(names: Iterable[str]) -> str:
    """List of names for an error message, such as "a, b, c and 5 more"."""
    first, *rest = [shown(name, 120) for name in names]
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")
