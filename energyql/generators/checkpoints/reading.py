"""The common part of all readers: errors that name the file, and networks built around checked weights."""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.errors import ModelError
from energyql.files import what_is_there


class CheckpointError(ModelError):
    """A file that is damaged, unsafe or of an unsupported kind. `reading` adds the name of the file."""


_AGAIN = "copy or download the file again; docs/checkpoints.md says which files are read"
"""Remedy for a damaged file."""


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error that a damaged file can cause inside the block into a ModelError that names `path`."""
    try:
        yield
    except ModelError as error:
        if str(path) in error.message:
            raise
        raise ModelError(f"cannot read {path}: {error.message}", hint=error.hint or _AGAIN) from error
    except FileNotFoundError:
        raise ModelError(f"{path} is missing", hint=what_is_there(path)) from None
    except MemoryError:
        hint = "end other programs, or read it on a machine with more memory"
        raise ModelError(f"cannot read {path}: there is not enough memory", hint=hint) from None
    except KeyError as error:
        raise ModelError(f"cannot read {path}: it is damaged ({error} is missing)", hint=_AGAIN) from error
    except (EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read {path}: it is damaged or cut short ({error})", hint=_AGAIN) from error
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        damage = f"it is damaged ({type(error).__name__}: {error})"
        raise ModelError(f"cannot read {path}: {damage}", hint=_AGAIN) from error


def file_bytes(path: Path) -> memoryview:
    """Return the bytes of a file, mapped into memory: the system reads only the parts that are used.

    Raises:
        CheckpointError: it is not a file, or empty.
        FileNotFoundError: it is missing.
    """
    if path.exists() and not path.is_file():
        raise CheckpointError("it is not a file")
    with path.open("rb") as file:
        try:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except ValueError:
            raise CheckpointError("it is empty") from None


def shown(value: object, length: int = 80) -> str:
    """Return a value of a file as text for a message.

    Text is in ASCII and cut to `length`; a number or `None` is unchanged; any other value is replaced by its type.
    """
    if isinstance(value, str):
        return ascii(value[:length])[1:-1] + ("..." if len(value) > length else "")
    return str(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Check that weights are finite floating-point numbers.

    Raises:
        CheckpointError: a tensor holds other numbers.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{shown(name, 120)} holds {dtype}, not floating-point numbers")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{shown(name, 120)} has numbers that are not finite")


def build_network(network: Callable[[Any], Any], config: Any, weights: Mapping[str, Tensor]) -> Any:
    """Return a network with weights of a file, in float32, in evaluation mode, without gradients to the weights.

    Args:
        network: class of the network, called with `config`.
        config: its settings.
        weights: the entries of its state dict.

    Raises:
        CheckpointError: tensors are missing, too many, or of other shapes.
    """
    with torch.device("meta"):  # no memory for weights that are replaced
        generator = network(config)
    expected: Mapping[str, Tensor] = generator.state_dict()
    if missing := [name for name in expected if name not in weights]:
        raise CheckpointError(f"tensors are missing: {_some(missing)}")
    if extra := [name for name in weights if name not in expected]:
        raise CheckpointError(f"it has tensors that a {type(generator).__name__} has not: {_some(extra)}")
    if wrong := [
        f"{name} {tuple(weights[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if weights[name].shape != tensor.shape
    ]:
        raise CheckpointError(f"tensors do not fit together: {_some(wrong)}")
    generator.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
    return generator.eval().requires_grad_(False)


def _some(names: Iterable[str]) -> str:
    """Return the first three names, and how many more there are, for a message."""
    first, *rest = [shown(name, 120) for name in names]
    return ", ".join([first, *rest[:2]]) + (f" and {len(rest) - 2} more" if len(rest) > 2 else "")
