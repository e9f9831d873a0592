"""The files of saved results: pictures, latents, descriptions, and the further parts of long runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from energyql.errors import ArgumentError

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
LABELLING = "pictures.json"
"""What a folder of pictures to label holds; see `energyql.labelling.folder`."""
PROVENANCE = "energyql"
"""Text field of a PNG that holds the provenance."""
_HEAD = 512
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


def numbered_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the files with names of pictures from position `first` on, whoever wrote them."""
    if not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if is_picture_name(path.name) and int(path.stem) >= first]


def picture_files(folder: Path, first: int = 0) -> list[Path]:
    """Return the pictures of a saved result from position `first` on; no other file."""
    return [path for path in numbered_files(folder, first) if _is_ours(path)]


def _is_ours(path: Path) -> bool:
    """Whether a file begins like a picture of a result, whose text field "energyql" comes before its pixels."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return PROVENANCE.encode() in file.read(_HEAD)


def check_free(folder: Path, count: int) -> None:
    """Check that the pictures of `count` samples take the place of no file that no result wrote.

    Raises:
        ArgumentError: they would, or the folder holds an edit, or pictures to label.
    """
    for name, what in ((EDIT, "an edit"), (LABELLING, "pictures to label")):
        if (folder / name).is_file():
            raise ArgumentError(f"{folder} holds {what}", hint="name another folder")
    grid = folder / GRID
    foreign = [path for path in numbered_files(folder) if int(path.stem) < count and not _is_ours(path)]
    foreign += [grid] if grid.is_file() and not (folder / RESULT).is_file() and not _is_ours(grid) else []
    if foreign:
        raise ArgumentError(
            f"{foreign[0]} is not of this library, and a picture of that name is to be written there",
            hint="name another folder",
        )


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
