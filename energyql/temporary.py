"""Temporary files and folders, which are locked while they are written, so that those of killed processes are known."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.energyql-[0-9a-f]{16}(?:\..+)?", re.DOTALL)
_ABANDONED = 3600
"""Seconds after which a temporary file is one of a dead process, where there are no locks that would say so."""
_swept: set[str] = set()
"""Folders from which this process has removed what dead ones left."""


@contextmanager
def temporary(folder: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield an empty file with this suffix, or a folder, that is locked as long as this process works on it."""
    while True:
        path = folder / f".energyql-{secrets.token_hex(8)}{suffix or ''}"
        if suffix is None:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        with locked(path) as ours:
            if not ours:  # another process found it before it was locked, and took it for one that was left
                continue
            try:
                yield path
            finally:
                _remove(path)
            return


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of a file or folder; the system takes it from a process that is killed.

    Yields whether it is held and the path still exists. Without `wait` it is not held where another process holds it.
    """
    if fcntl is None:
        yield path.exists() and (wait or time.time() - path.stat().st_mtime > _ABANDONED)
        return
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        if wait and path.exists():
            raise
        yield False
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except OSError:  # another process holds it, or the file system has no locks: there nothing counts as left
            held = wait
        yield held and path.exists()
    finally:
        os.close(descriptor)


def sweep_once(folder: Path) -> None:
    """Call `sweep`, but only at the first call for a folder: a folder may hold many files, and get many more."""
    if (key := os.path.abspath(folder)) not in _swept:
        _swept.add(key)
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders that processes left in a folder when they were killed."""
    with suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]:
            with locked(path, wait=False) as left:
                if left:
                    _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
