"""The files of saved results: pictures, latents, descriptions, and the further parts of long runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
_PICTURE, _PART = re.compile(r"\d{5,18}\.png"), re.compile(r"\d{5,18}")


def is_picture_name(name: object) -> bool:
    """Whether a name is that of the picture of a saved result."""
    return isinstance(name, str) and _PICTURE.fullmatch(name) is not None


def part_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the further parts of a long run, each with the position of its first sample, in order."""
    if folder.is_dir():
        names = sorted((path.name for path in folder.iterdir() if _PART.fullmatch(path.name)), key=int)
        for path in (folder / name for name in names):
            if (path / RESULT).is_file() and not path.is_symlink():
                yield int(path.name), path


def picture_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the pictures of a saved result from position `first` on; no other file."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if is_picture_name(path.name) and int(path.stem) >= first]


def result_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files of a saved result with its further parts; its own pictures are numbered from `first`."""
    if not (folder / RESULT).is_file():
        return []
    named = [path for name in (RESULT, LATENTS, GRID) if (path := folder / name).is_file()]
    return [*named, *picture_files(folder, first), *part_files(folder)]


def part_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files of the further parts of a long run that begin at position `first` or later."""
    parts = [(start, part) for start, part in part_folders(folder) if start >= first]
    return [path for start, part in parts for path in result_files(part, start)]
