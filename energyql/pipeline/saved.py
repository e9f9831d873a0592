"""Saved results that replace earlier ones all at once, also where a run is killed while it writes.

New files are first written to a folder inside the one that they belong to. When that folder is renamed to `SAVED`, the
result is saved: from then on everybody who reads or writes the folder first moves its files to their places.
Descriptions, `result.json` and `edit.json`, are removed first and come back last, so that none ever stands
beside pictures of another result.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import naming_target, read_json, real_path, staging, write_json
from energyql.temporary import locked

RESULT, LATENTS, GRID, EDIT = "result.json", "latents.safetensors", "grid.png", "edit.json"
SAVED, OLD = ".energyql-saved", "old.json"
"""The folder of files that are to be moved to their places, and the list of the earlier files in it."""
_PICTURE, _PART = re.compile(r"\d{5,18}\.png"), re.compile(r"\d{5,18}")
_DESCRIPTIONS = (RESULT, EDIT)


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


@contextmanager
def saving(folder: Path, old: Callable[[Path], Iterable[Path]] = result_files) -> Iterator[Path]:
    """Yield an empty folder for new files; when the block ends, they take the place of the old ones in `folder`.

    A process that is killed leaves the old files or the new ones. Files that are neither stay as they are.

    Args:
        folder: is made if it is not there.
        old: returns those files in it that are removed, unless a new one has their name.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    finish_saving(folder)
    with naming_target(folder), staging(folder) as staged:
        try:
            yield staged
        except ArgumentError as error:  # people know the folder that they named
            raise ArgumentError(error.message.replace(str(staged), str(folder)), hint=error.hint) from error
        new = set(_files(staged))
        if taken := [path for path in new if (folder / path).is_dir()]:
            raise ArgumentError(f"cannot write {folder / taken[0]}: it is a folder", hint="name another folder")
        finish_saving(folder)  # another process may have saved there meanwhile
        earlier = {path.relative_to(folder) for path in old(folder) if path.is_file()}
        hidden = {path for path in earlier & new if path.name in _DESCRIPTIONS}
        lists = {"gone": earlier - new, "hidden": hidden}
        write_json(staged / OLD, {name: sorted(map(Path.as_posix, paths)) for name, paths in lists.items()})
        staged.rename(folder / SAVED)
    finish_saving(folder)


def finish_saving(folder: Path) -> None:
    """Move the files of a result that was saved, but not yet moved to its place when its process was killed.

    Raises:
        ArgumentError: they cannot be moved, for example because the disk is read-only.
    """
    saved = folder / SAVED
    if not saved.is_dir():
        return
    with naming_target(folder), locked(saved) as held:
        if not held:  # another process has just done it
            return
        if (saved / OLD).is_file():  # else an earlier process was killed while it removed the empty folder
            try:
                _move(saved, folder)
            except ArgumentError:
                raise
            except (KeyError, TypeError, ValueError, ModelError) as error:
                raise DataError(f"{saved} is damaged: {error}", hint="delete it") from error
        shutil.rmtree(saved)


def _move(saved: Path, folder: Path) -> None:
    """Move all files of `saved` to `folder`; can be repeated after an interruption at any point."""
    new = [path for path in _files(saved) if path != Path(OLD)]
    lists = read_json(saved / OLD)
    gone, hidden = ([Path(str(name)) for name in lists[name]] for name in ("gone", "hidden"))
    _check_inside(folder, [*new, *gone, *hidden])
    # A hidden file that is not among the new ones has come back already: it is the new one.
    for path in sorted([*gone, *(path for path in hidden if path in new)], key=_descriptions_first):
        (folder / path).unlink(missing_ok=True)
    for path in sorted(new, key=_descriptions_first, reverse=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (saved / path).replace(folder / path)
    for emptied in sorted({folder / path.parent for path in gone}, key=lambda path: -len(path.parts)):
        with suppress(OSError):  # there are other files in it
            emptied.rmdir()


def _descriptions_first(path: Path) -> tuple[bool, int, Path]:
    """Order files so that descriptions come first, and that of the whole folder before those of its parts."""
    return path.name not in _DESCRIPTIONS, len(path.parts), path


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder, relative to it."""
    return [Path(root, name).relative_to(folder) for root, _, names in os.walk(folder) for name in names]


def _check_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Check that nothing outside the folder is removed or replaced, whoever wrote the list.

    Raises:
        ArgumentError: a path leaves the folder.
    """
    root = real_path(folder)
    for path in paths:
        if path.is_absolute() or ".." in path.parts or not real_path(folder / path.parent).is_relative_to(root):
            raise ArgumentError(f"{folder / SAVED} is damaged: it names {path}", hint="delete it")
