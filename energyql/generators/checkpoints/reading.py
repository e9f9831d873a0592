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
    """The error for a file that is damaged, unsafe or of an unsupported kind.

    Its message does not name the file; `reading` turns it into a `ModelError` that does.
    """


_AGAIN = "copy or download the file again; docs/checkpoints.md says which files are read"
"""Advice to the user if a file is damaged."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error that a damaged file can cause in a `with` block into a `ModelError` that names `path`.

    Other exceptions, such as `KeyboardInterrupt`, are not changed.
    """
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
    """Return the bytes of a file without reading them all: the system reads those that are used ("memory mapping").

    Raises:
        ModelError: the file is missing, empty, or not a regular file.
    """
    if not check_file(path):
        raise CheckpointError("it is empty")
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def shown(value: object, length: int = 80) -> str:
    """Return a text that shows a value of a file in an error message.

    A string is shown in ASCII, with escapes for other characters. A number or `None` is shown as in Python. For any
    other value the name of its type is shown, such as "a dict".

    Args:
        value: any value in the file.
        length: largest number of characters of a string that are shown; "..." follows if there are more.
    """
    if isinstance(value, str):
        return ascii(value[:length])[1:-1] + ("..." if len(value) > length else "")
    return str(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Raise a CheckpointError unless all weights are finite floating-point numbers.

    `tensors` are the weights by name, which the message states.

    Raises:
        CheckpointError: a tensor is of another dtype, or one of its numbers is infinite or no number.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{shown(name, 120)} holds {dtype}, not floating-point numbers")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{shown(name, 120)} has numbers that are not finite")


def build_network(network: Callable[[Any], Network], config: Any, weights: Mapping[str, Tensor]) -> Network:
    """Return a network with the weights of a file, in float32, in evaluation mode, without gradients to the weights.

    Args:
        network: class of the network, which is called with `config`.
        config: settings of the network.
        weights: all parameters and buffers of the network, by their names in this library.

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
    """Return a list of names as text for an error message: the first three, then the count of others.

    For eight names the result is "a, b, c and 5 more". There must be at least one name.
    """
    first, *rest = [shown(name, 120) for name in names]
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")
