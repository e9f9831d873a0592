"""Write files atomically, and read them with clear errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql.errors import ArgumentError, ModelError

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; move it there on success, remove it on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{secrets.token_hex(8)}{path.suffix}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def naming_target(path: Path) -> Iterator[None]:
    """Raise an `ArgumentError` that names `path` where the block cannot write."""
    try:
        yield
    except OSError as error:
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error


def check_writable(path: Path, folder: Path) -> None:
    """Check, before any work is done, that `folder` can be written or made, so that `path` can be written into it.

    Raises:
        ArgumentError: it cannot; the message names `path`.
    """
    while not os.path.exists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ArgumentError(f"cannot write {path}: {folder} is not a folder")
    if not os.access(folder, os.W_OK):
        raise ArgumentError(f"cannot write {path}: {folder} is not writable")


def check_destination(path: Path) -> Path:
    """Check, before any work is done, that a result can be saved to `path`: a picture, or a folder.

    Raises:
        ArgumentError: the path has the suffix of another kind of file, is a folder where a file is asked for or the
            other way round, or cannot be written.
    """
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    if path.suffix and not picture and not os.path.isdir(path):
        hint = f"end the path in {', '.join(PICTURE_SUFFIXES)}, or name a folder"
        raise ArgumentError(f"a result cannot be saved as {path.suffix}", hint=hint)
    if picture and os.path.isdir(path):
        raise ArgumentError(f"cannot write {path}: it is a folder", hint="name a file in it, or another folder")
    check_writable(path, path.parent if picture else path)
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
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture in the format that the path ends in."""
    with replacing(path) as temporary:
        picture.save(temporary)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors."""
    import torch  # here, because reading a vocabulary needs this module and must not wait for torch
    from safetensors.torch import save

    # Copies, because tensors that share memory are refused.
    form = torch.contiguous_format
    data = save({name: tensor.detach().cpu().clone(memory_format=form) for name, tensor in tensors.items()})
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: the file is missing or holds something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"cannot read {path}: {error}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path} must hold a JSON object")
    return data


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
