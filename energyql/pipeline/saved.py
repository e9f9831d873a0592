"""The files of saved results: pictures, latents, descriptions, and the further parts of long runs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from energyql.errors import ArgumentError, ModelError
from energyql.files import read_json

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
COMPARISON = "comparison.png"
"""What an inversion has beside its result."""
LABELLING = "pictures.json"
"""What a folder of pictures to label holds; see `energyql.labelling.folder`."""
PROVENANCE = "energyql"
"""Text field of a PNG that holds the provenance."""
_HEAD = 512
_PICTURE, _PART = re.compile(r"\d{5,18}\.png"), re.compile(r"\d{5,18}")


def is_picture_name(name: object) -> bool:
    """Whether a name is that of the picture of a saved result."""
    return isinstance(name, str) and _PICTURE.fullmatch(name) is not None


def _parts(folder: Path) -> list[Path]:
    """Return the folders below one that have names of parts, in order."""
    if not folder.is_dir():
        return []
    named = (path for path in folder.iterdir() if _PART.fullmatch(path.name) and not path.is_symlink())
    return sorted((path for path in named if path.is_dir()), key=lambda path: int(path.name))


def part_folders(folder: Path) -> Iterator[tuple[int, Path]]:
    """Yield the further parts of a long run, each with the position of its first sample, in order."""
    for path in _parts(folder):
        if (path / RESULT).is_file():
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


def held_samples(folder: Path) -> int:
    """Return the number of samples of the result that a folder holds; 0 if it holds none that can be read."""
    with suppress(ModelError, KeyError, TypeError):
        return len(read_json(folder / RESULT)["samples"])
    return 0


def holds_inversion(folder: Path) -> bool:
    """Whether the result that a folder holds is that of an inversion, beside its comparison."""
    with suppress(ModelError, KeyError, TypeError):
        return (folder / COMPARISON).is_file() and "inverted" in read_json(folder / RESULT)["provenance"]
    return False


def check_free(folder: Path, count: int, held: int = 0) -> None:
    """Check that the pictures of samples `held` to `count - 1` take the place of no file that no result wrote.

    Raises:
        ArgumentError: they would, or the folder holds an edit, an inversion, or pictures to label.
    """
    for what, there in (
        ("an edit", (folder / EDIT).is_file()),
        ("an inversion", holds_inversion(folder)),
        ("pictures to label", (folder / LABELLING).is_file()),
    ):
        if there:
            raise ArgumentError(f"{folder} holds {what}", hint="name another folder")
    new_parts = [path for path in _parts(folder) if not (path / RESULT).is_file()]
    foreign = [
        path
        for place in (folder, *new_parts)
        for path in numbered_files(place, held)
        if int(path.stem) < count and not _is_ours(path)
    ]
    grid = folder / GRID
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
