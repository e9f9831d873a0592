"""What is wrong with a checkpoint, and how that becomes an error that names the file."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from energyql.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Refused(Exception):
    """What is wrong with a file, before its name is known. `reading` turns it into a ModelError."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


def shown(value: object, length: int = 80) -> str:
    """A string of a file as ASCII, cut; anything else as its type, for printing it may take forever."""
    if isinstance(value, str):
        return ascii(value[:length])[1:-1] + ("..." if len(value) > length else "")
    return str(value) if value is None or isinstance(value, bool | int | float) else f"a {type(value).__name__}"


def check_weights(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that are no finite numbers.

    Raises:
        Refused: names the first of them.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise Refused(
                f"{shown(name, 120)} holds {str(tensor.dtype).removeprefix('torch.')}, not numbers with digits"
            )
        if not tensor.isfinite().all():
            raise Refused(f"{shown(name, 120)} has numbers that are not finite")


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a damaged file causes inside the block into a ModelError that names `path`."""
    try:
        yield
    except Refused as error:
        raise ModelError(f"cannot read {path}: {error}", hint=error.hint) from error
    except ModelError as error:
        if str(path) in error.message:
            raise
        raise ModelError(f"cannot read {path}: {error.message}", hint=error.hint) from error
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except KeyError as error:
        raise ModelError(f"cannot read {path}: it is damaged ({error} is missing)") from error
    except (OSError, LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError) as error:
        raise ModelError(f"cannot read {path}: it is damaged ({type(error).__name__}: {error})") from error
    except (EOFError, struct.error, zipfile.BadZipFile) as error:
        raise ModelError(f"cannot read {path}: it is damaged or cut short ({error})") from error
