"""One writer a folder: a lock that ends with its process.

While a folder is written, its file `.energyql-lock` is locked and says who writes. The system takes the lock from a
process that is killed; the file that it leaves locks nobody out. See docs/decisions/one-writer.md.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from energyql.errors import ArgumentError, LockWarning, caller_level
from energyql.files import check_writable, naming_target, real_path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".energyql-lock"
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Errors of a lock that somebody else holds; any other means that the file system has none."""
_FAR = 1 << 30
"""The byte that is locked under Windows: a locked byte cannot be read, and those before it say who writes."""
_MOST = 4096
"""Bytes of the file that are read."""


@dataclass(eq=False)
class Writer:
    """A thread that writes a folder.

    Attributes:
        descriptor: of the open lock file.
        work: what it writes, such as "a training".
        thread: its number.
        depth: blocks of `sole_writer` that it is in.
    """

    descriptor: int
    work: str
    thread: int
    depth: int = 0

    def move(self) -> None:
        """Make the calling thread the one that writes, as where an iterator is read in another one."""
        self.thread = threading.get_ident()


_writers: dict[Path, Writer] = {}
"""Those of this process, by folder."""
_unlocked: set[int] = set()
"""File systems without locks, of which this process has warned."""


def _forget() -> None:
    """Leave the folders to the parent in a process that was forked: it goes on without its children."""
    for writer in _writers.values():
        with suppress(OSError):
            os.close(writer.descriptor)
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def sole_writer(folder: Path, work: str) -> Iterator[Writer]:
    """Hold a folder while the block writes into it; blocks of one thread may hold it inside each other.

    The folder is made if it is not there, and removed again if the block leaves it empty. Where the file system has no
    locks, a `LockWarning` says so, and the block runs.

    Args:
        folder: that is written, with all that is in it.
        work: what is written, for the message to others, such as "a training".

    Raises:
        ArgumentError: somebody else writes into it, or it cannot be written.
    """
    check_writable(folder, folder)
    key, thread = real_path(folder), threading.get_ident()
    new: list[Path] = []
    writer = _writers.get(key)
    if writer is not None and writer.thread != thread:
        raise _refusal(folder, f"{writer.work} of another thread of this process")
    try:
        if writer is None:
            with naming_target(folder):
                new = [path for path in (key, *key.parents) if not os.path.lexists(path)]
                descriptor = _lock(folder, key / LOCK, work)
            writer = _writers[key] = Writer(descriptor, work, thread)
        writer.depth += 1
        try:
            yield writer
        finally:
            writer.depth -= 1
            if not writer.depth and _writers.get(key) is writer:  # else this is a fork
                del _writers[key]
                _unlock(key / LOCK, writer.descriptor)
    finally:
        for path in new:
            with suppress(OSError):  # there is something in it
                path.rmdir()


def _lock(folder: Path, path: Path, work: str) -> int:
    """Lock the file `path` of a folder, and say in it who writes; return its descriptor."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(path)
        if descriptor is None:  # another writer has just removed the folder
            continue
        try:
            try:
                _take(descriptor)
            except OSError as error:
                if error.errno in _BUSY:
                    raise _refusal(folder, _holder(descriptor)) from None
                _warn(folder, descriptor, error)
            if _is_there(path, descriptor):  # else its last writer has just removed it
                with suppress(OSError):  # of another user, or the disk is full: it is locked nevertheless
                    os.ftruncate(descriptor, 0)
                    who = {"work": work, "process": os.getpid(), "host": socket.gethostname()}
                    os.write(descriptor, json.dumps(who).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open(path: Path) -> int | None:
    """Open the file of a lock; network file systems need it open for writing. `None` if there is no folder any more."""
    flags = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # that of another user, who may have been killed
        if not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | flags)
    except FileNotFoundError:
        if path.parent.is_dir():
            raise
        return None


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one of this path."""
    ours = os.fstat(descriptor)
    with suppress(FileNotFoundError):
        return ours.st_nlink > 0 and os.path.samestat(ours, os.stat(path))
    return False


def _unlock(path: Path, descriptor: int) -> None:
    """Remove the file of a lock and close it: who has opened it meanwhile sees that it is not there any more."""
    with suppress(OSError):
        if sys.platform == "win32":  # no open file can be removed there, so one that somebody else has opened stays
            os.close(descriptor)
            path.unlink()
            return
        path.unlink()
    os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return in words who has locked a file."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        who = json.loads(os.read(descriptor, _MOST))
        return f"{who['work']} (process {who['process']} on {who['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _warn(folder: Path, descriptor: int, error: OSError) -> None:
    """Warn, once for each file system, that it has no locks."""
    if (device := os.fstat(descriptor).st_dev) not in _unlocked:
        _unlocked.add(device)
        message = f"the file system of {folder} has no locks ({error.strerror}), so a second writer cannot be noticed"
        warnings.warn(LockWarning(f"{message}: see to it that there is one only"), stacklevel=caller_level())


def _refusal(folder: Path, holder: str) -> ArgumentError:
    return ArgumentError(
        f"{folder} is being written by {holder}", hint="wait until that has ended, or name another folder"
    )
