"""Write files atomically, and read them with clear errors and bounds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.temporary import sweep, sweep_once, temporary

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_JSON = 1 << 26
"""Largest JSON file that is read, in bytes: its values take about ten times as much memory."""
MOST_DIGITS = 20
"""Most digits of a whole number in JSON: those of the largest seed; more would overflow as floats."""
DAMAGED_MODEL = "copy the model folder again, or train its attributes again"
"""Hint where a file of a model folder is damaged."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave.

    Raises:
        ArgumentError: it is something else, or empty.
    """
    if not isinstance(path, str | os.PathLike) or path == "":
        given = "empty text" if path == "" else f"{path!r:.40}"
        raise ArgumentError(f"{given} is not a path", hint='name a file or folder, such as "faces.png" or "faces"')
    return Path(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there on success, remove it on failure.

    Raises:
        ArgumentError: `path` cannot be written, for example because the disk is full, or it is no regular file.
    """
    with naming_target(path):
        if os.path.exists(path) and not os.path.isfile(path):
            kind = "a folder" if os.path.isdir(path) else "not a regular file"
            raise ArgumentError(f"cannot write {path}: it is {kind}", hint="name a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        with temporary(path.parent, path.suffix) as written:
            yield written
            written.replace(path)


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside `folder`, which is made if it is not there; remove it in the end.

    Raises:
        ArgumentError: it cannot be made.
    """
    with naming_target(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with temporary(folder) as staged:
            yield staged


@contextmanager
def naming_target(path: Path) -> Iterator[None]:
    """Raise an `ArgumentError` that names `path` where the block cannot write."""
    try:
        yield
    except OSError as error:
        raise ArgumentError(
            f"cannot write {path}: {error.strerror or error}",
            hint="save to another place, or see to the space and the permissions there",
        ) from error


@contextmanager
def naming_source(path: Path, kind: type[EnergyQLError] = ModelError) -> Iterator[None]:
    """Raise an error of this kind that names `path` where the block cannot read it."""
    try:
        yield
    except FileNotFoundError:
        raise kind(f"{path} is missing", hint=what_is_there(path)) from None
    except OSError as error:
        raise kind(
            f"cannot read {path}: {error.strerror or error}", hint="see to its permissions, or name another file"
        ) from error
    except MemoryError:
        raise kind(
            f"cannot read {path}: there is not enough memory", hint="end other programs, or name a smaller file"
        ) from None


def what_is_there(path: Path) -> str:
    """Return a hint for a file or folder that is missing: one of a similar name, or where it was looked for.

    A suggestion has the same suffix; only that of a file with the same name may differ.
    """
    folder = path.parent
    try:
        there = [folder / name for name in sorted(os.listdir(folder))]
    except OSError:
        return f"there is no folder {os.path.abspath(folder)}"
    names = {other.stem: other for other in there if other.stem == path.stem and other.is_file()}
    names |= {other.stem: other for other in there if other.suffix.lower() == path.suffix.lower()}
    near = get_close_matches(path.stem, names, n=1)
    return f"did you mean {names[near[0]]}?" if near else f"it was looked for in {os.path.abspath(folder)}"


def check_writable(path: Path, folder: Path) -> None:
    """Check, before any work is done, that `folder` can be written or made, so that `path` can be written into it.

    Raises:
        ArgumentError: it cannot; the message names `path`.
    """
    while not os.path.exists(folder) and folder != folder.parent:
        if os.path.islink(folder):
            raise ArgumentError(
                f"cannot write {path}: {folder} is a symbolic link to nothing",
                hint="name another folder, or make the one that it points to",
            )
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ArgumentError(f"cannot write {path}: {folder} is not a folder", hint="name another folder")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(
            f"cannot write {path}: {os.path.abspath(folder)} is not writable",
            hint="name another folder, or change its permissions",
        )


def check_destination(path: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> Path:
    """Check, before any work is done, that a result can be saved to `path`: a file with such a suffix, or a folder.

    Raises:
        ArgumentError: the path has the suffix of another kind of file, is a folder where a file is asked for or the
            other way round, or cannot be written.
    """
    file = path.suffix.lower() in suffixes
    if path.suffix and not file and not os.path.isdir(path):
        hint = f"end the path in {', '.join(suffixes)}, or name a folder"
        raise ArgumentError(f"a result cannot be saved as {path.suffix}", hint=hint)
    if file and os.path.isdir(path):
        raise ArgumentError(f"cannot write {path}: it is a folder", hint="name a file in it, or another folder")
    check_writable(path, path.parent if file else path)
    return path


def refuse_address(path: str | Path) -> None:
    """Raise an `ArgumentError` if an address is given in place of a file or folder."""
    if _ADDRESS.match(str(path)):
        raise ArgumentError(
            f"{path} is an address, and energyql reads files",
            hint="download it first, for example with curl -L -O, and give the file",
        )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8."""
    with replacing(path) as written:
        written.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture in the format that the path ends in."""
    with replacing(path) as written:
        picture.save(written)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    import torch  # here, because reading a vocabulary needs this module and must not wait for torch
    from safetensors.torch import save

    # Copies, because tensors that share memory are refused.
    form = torch.contiguous_format
    data = save({name: tensor.detach().cpu().clone(memory_format=form) for name, tensor in tensors.items()})
    with replacing(path) as written:
        written.write_bytes(data)


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links; a loop of them, which nothing can open, stays as it is."""
    return Path(os.path.realpath(path))


def check_file(path: Path, most: int | None = None, kind: type[EnergyQLError] = ModelError) -> int:
    """Check that a regular file is there, of at most so many bytes, and return its size.

    A device or a pipe is refused, because it may never end.

    Raises:
        EnergyQLError: it is not; of the kind that is asked for.
    """
    with naming_source(path, kind):
        status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise kind(f"cannot read {path}: it is {what}", hint="name a file")
    if most is not None and status.st_size > most:
        raise kind(
            f"cannot read {path}: it is larger than {most >> 20} MiB",
            hint="is it the right file? Those of this kind are smaller",
        )
    return status.st_size


def read_bytes(path: Path, most: int, kind: type[EnergyQLError] = ModelError) -> bytes:
    """Read a regular file of at most so many bytes.

    Raises:
        EnergyQLError: it is missing, larger or cannot be read; of the kind that is asked for.
    """
    size = check_file(path, most, kind)
    with naming_source(path, kind), path.open("rb") as file:
        return file.read(size)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of at most `MOST_JSON` bytes, whose whole numbers have at most `MOST_DIGITS` digits.

    Raises:
        ModelError: the file is missing or holds something else.
    """
    data = read_bytes(path, MOST_JSON)
    try:
        found = json.loads(data.decode("utf-8"), parse_int=_whole)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}", hint="write it again as JSON") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} must hold a JSON object", hint="its text begins with { and ends with }")
    return found


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        ModelError: it is missing, damaged or holds something else.
    """
    from safetensors import SafetensorError  # here, as in `write_tensors`
    from safetensors.torch import load_file

    check_file(path)
    try:
        with naming_source(path):
            return load_file(path)
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise ModelError(f"cannot read {path}: it is damaged ({error})", hint="copy or download it again") from error


def fingerprint(path: Path) -> str:
    """SHA-256 of a regular file, hexadecimal.

    Raises:
        ModelError: it cannot be read.
    """
    check_file(path)
    found = hashlib.sha256()
    with naming_source(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            found.update(block)
    return found.hexdigest()
