"""Files of a folder that are replaced all at once, also where a process is killed while it writes.

New files are first written to a folder inside the one that they belong to. When that folder is renamed to `SAVED`, they
are saved: from then on everybody who reads or writes the folder first moves them to their places. Descriptions, such
as `result.json`, are removed first and come back last, so that none ever stands beside files that it does not describe.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import naming_target, read_json, real_path, staging, write_json
from energyql.temporary import locked

SAVED, OLD = ".energyql-saved", "old.json"
"""The folder of files that are to be moved to their places, and the list of the earlier files in it."""
_DESCRIPTIONS = ("result.json", "edit.json", "vocabulary.json")


@contextmanager
def saving(folder: Path, old: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
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


@contextmanager
def changing(folder: Path) -> Iterator[Path]:
    """Yield a folder with the files of `folder`; what is changed in it changes in `folder` when the block ends.

    A process that is killed leaves all files as they were, or all as they are after the block. Files must be replaced
    in it, as `energyql.files` does, not written over: they are links to those in `folder`. Folders are left out.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    finish_saving(folder)
    before = sorted(path.name for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    removed: list[Path] = []
    with saving(folder, lambda _: removed) as staged:
        links = {name: _linked(folder / name, staged / name) for name in before}
        yield staged
        for name, mark in links.items():
            path = staged / name
            if not os.path.lexists(path):
                removed.append(folder / name)
            elif _mark(path) == mark:
                path.unlink()


def _linked(path: Path, link: Path) -> tuple[int, ...]:
    """Make a link to a file, or a copy of it where there are no links; return what tells it from a later one."""
    if path.is_symlink():
        link.symlink_to(real_path(path))
    else:
        try:
            os.link(path, link)
        except OSError:  # a file system without links
            shutil.copy2(path, link)
    return _mark(link)


def _mark(path: Path) -> tuple[int, ...]:
    facts = path.lstat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def finish_saving(folder: Path) -> None:
    """Move files that were saved, but not yet moved to their places when their process was killed.

    Raises:
        ArgumentError: they cannot be moved, for example because the disk is read-only.
    """
    saved = folder / SAVED
    if not os.path.isdir(saved):  # false also for what cannot be a path
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
