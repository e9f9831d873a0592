"""Files: written atomically, replaced all at once, locked meanwhile, and read with bounds and clear errors.

`saving` first writes the new files of a folder to a temporary folder inside it. The files are saved as soon as the
temporary folder is renamed to `SAVED`: from then on every reader or writer of the folder first moves them to their
places. Descriptions, such as `result.json`, are removed first and moved last, so that a description never stands beside
files that it does not describe.

While a folder is written, its file `.energyql-lock` is locked and names the writing process. The system releases the
lock of a process that is killed; the lock file that stays behind stops no other process. See
docs/decisions/one-writer.md.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import socket
import stat
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql.errors import ArgumentError, DataError, EnergyQLError, LockWarning, ModelError, caller_level

if sys.platform == "win32":
    import msvcrt

    fcntl = None
else:
    import fcntl

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

_NAME = re.compile(r"\.energyql-[0-9a-f]{16}(?:\..+)?", re.DOTALL)
_ABANDONED = 3600
"""Age in seconds from which a temporary file belongs to an ended process, on systems without `fcntl` locks."""
_swept: set[str] = set()
"""Absolute paths of the folders that this process has swept; see `sweep_once`."""


@contextmanager
def temporary(folder: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a new temporary file or folder in `folder`, locked by this process, and remove it in the end.

    Args:
        folder: an existing folder.
        suffix: the end of the file's name, may be empty; `None` makes a folder.
    """
    while True:
        path = folder / f".energyql-{secrets.token_hex(8)}{suffix or ''}"
        if suffix is None:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        with locked(path) as ours:
            if not ours:  # `sweep` of another process has removed it before it was locked
                continue
            try:
                yield path
            finally:
                _remove(path)
            return


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold the lock of an existing file or folder; the system releases the lock of a process that is killed.

    Args:
        path: the file or folder.
        wait: wait for another process that holds the lock; otherwise yield False.

    Yields:
        Whether the lock is held and `path` still exists.
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
        except OSError:  # another process holds the lock, or there are no locks: then `sweep` removes nothing
            held = wait
        yield held and path.exists()
    finally:
        os.close(descriptor)


def sweep_once(folder: Path) -> None:
    """Call `sweep` at the first call for a folder only, because a scan of a folder with many files takes long."""
    if (key := os.path.abspath(folder)) not in _swept:
        _swept.add(key)
        sweep(folder)


def sweep(folder: Path) -> None:
    """Remove the temporary files and folders of killed processes from `folder`."""
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


LOCK = ".energyql-lock"
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Error numbers of a lock that another process holds; any other means that the file system has no locks."""
_FAR = 1 << 30
"""Position of the byte that is locked under Windows, behind the text, because a locked byte cannot be read."""
_MOST_HOLDER = 4096
"""Bytes of the lock file that are read, more than its text has."""


@dataclass(eq=False)
class Writer:
    """A thread that holds a folder by `sole_writer`.

    Attributes:
        descriptor: file descriptor of the open lock file.
        work: what is being written, such as "a training".
        thread: identifier of the thread.
        depth: number of nested blocks of `sole_writer` that the thread is in.
    """

    descriptor: int
    work: str
    thread: int
    depth: int = 0

    def move(self) -> None:
        """Pass the folder to the calling thread, for an iterator that another thread goes on reading."""
        self.thread = threading.get_ident()


_writers: dict[Path, Writer] = {}
"""The writers of this process, by the real path of their folder."""
_unlocked: set[int] = set()
"""Device numbers of file systems without locks, for which this process has given a `LockWarning`."""


def _forget() -> None:
    """Close the lock files in a forked child process: the folders stay locked by the parent process."""
    for writer in _writers.values():
        with suppress(OSError):
            os.close(writer.descriptor)
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def sole_writer(folder: Path, work: str) -> Iterator[Writer]:
    """Hold a folder while the block writes into it; blocks of one thread may be nested.

    The folder is made if it does not exist, and removed again if the block leaves it empty. A file system without
    locks causes a `LockWarning`, and the block runs.

    Args:
        folder: the folder, held with everything in it.
        work: what is being written, such as "a training", for the error in other processes.

    Yields:
        The writer; blocks inside this one yield the same.

    Raises:
        ArgumentError: another process or thread writes into the folder, or the folder cannot be written.
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
            if not writer.depth and _writers.get(key) is writer:  # false in a forked child
                del _writers[key]
                _unlock(key / LOCK, writer.descriptor)
    finally:
        for path in new:
            with suppress(OSError):  # there is something in it
                path.rmdir()


def _lock(folder: Path, path: Path, work: str) -> int:
    """Lock the lock file `path` of a folder, write into it who holds it, and return its descriptor.

    Raises:
        ArgumentError: another process holds the lock.
        OSError: the lock file cannot be opened.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open_lock(path)
        if descriptor is None:  # another writer has just removed the folder
            continue
        try:
            try:
                _take(descriptor)
            except OSError as error:
                if error.errno in _BUSY:
                    raise _refusal(folder, _holder(descriptor)) from None
                _warn(folder, descriptor, error)
            if _is_there(path, descriptor):  # else another process has just removed the file
                with suppress(OSError):  # no right to write the file, or the disk is full: it is locked all the same
                    os.ftruncate(descriptor, 0)
                    who = {"work": work, "process": os.getpid(), "host": socket.gethostname()}
                    os.write(descriptor, json.dumps(who).encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _open_lock(path: Path) -> int | None:
    """Return a descriptor of the lock file, made if necessary; `None` if its folder does not exist.

    It is open for writing where possible, because network file systems lock no other files.

    Raises:
        OSError: the file cannot be opened.
    """
    flags = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # a file of another user, perhaps of a killed process
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
    """Whether `path` still leads to the open file."""
    ours = os.fstat(descriptor)
    with suppress(FileNotFoundError):
        return ours.st_nlink > 0 and os.path.samestat(ours, os.stat(path))
    return False


def _unlock(path: Path, descriptor: int) -> None:
    """Remove and close a lock file; a process that has opened it meanwhile finds it removed, see `_is_there`."""
    with suppress(OSError):
        if sys.platform == "win32":  # Windows removes no open file: one that another process has open stays
            os.close(descriptor)
            path.unlink()
            return
        path.unlink()
    os.close(descriptor)


def _holder(descriptor: int) -> str:
    """Return the process that wrote a lock file, in words."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        who = json.loads(os.read(descriptor, _MOST_HOLDER))
        return f"{who['work']} (process {who['process']} on {who['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _warn(folder: Path, descriptor: int, error: OSError) -> None:
    """Warn that the file system of a folder has no locks, once for each file system."""
    if (device := os.fstat(descriptor).st_dev) not in _unlocked:
        _unlocked.add(device)
        message = f"the file system of {folder} has no locks ({error.strerror}), so a second writer cannot be noticed"
        warnings.warn(LockWarning(f"{message}: see to it that there is one only"), stacklevel=caller_level())


def _refusal(folder: Path, holder: str) -> ArgumentError:
    return ArgumentError(
        f"{folder} is being written by {holder}", hint="wait until that has ended, or name another folder"
    )


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_JSON = 1 << 26
"""Largest JSON file that is read, in bytes: its values take about ten times as much memory."""
MOST_DIGITS = 20
"""Most digits of a whole number in JSON: those of the largest seed; more would overflow as floats."""
DAMAGED_MODEL = "copy the model folder again, or train its attributes again"
"""Hint where a file of a model folder is damaged."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return a path that a user gave as a `Path`.

    Raises:
        ArgumentError: `path` is no path, is empty, or is longer than the system allows.
    """
    try:
        if not isinstance(path, str | os.PathLike) or path == "" or b"\0" in os.fsencode(path):
            raise TypeError
        os.lstat(path)
    except (TypeError, ValueError):  # also half of a character, which no system takes
        given = "empty text" if path == "" else f"{path!r:.40}"
        raise ArgumentError(
            f"{given} is not a path", hint='name a file or folder, such as "faces.png" or "faces"'
        ) from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ArgumentError(f"{path} is too long for a path", hint="name a file or folder") from None
    return Path(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end of the block move the new file from there to `path`.

    If the block fails, `path` stays as it was.

    Raises:
        ArgumentError: `path` cannot be written, for example because the disk is full, or is not a regular file.
    """
    with naming_target(path):
        _check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep_once(path.parent)
        with temporary(path.parent, path.suffix) as new:
            yield new
            new.replace(path)


def _check_regular(path: Path) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise ArgumentError(f"cannot write {path}: it is {kind}", hint="name a file")


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """Yield a new temporary folder inside `folder`, and remove it in the end; `folder` is made if necessary.

    Raises:
        ArgumentError: `folder` cannot be written.
    """
    with naming_target(folder):
        folder.mkdir(parents=True, exist_ok=True)
        sweep(folder)
        with temporary(folder) as staged:
            yield staged


@contextmanager
def naming_target(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block, which writes `path`, into an error that names `path`.

    Raises:
        ArgumentError: the block raised an `OSError`.
    """
    try:
        yield
    except OSError as error:
        raise ArgumentError(
            f"cannot write {path}: {error.strerror or error}",
            hint="save to another place, or see to the space and the permissions there",
        ) from error


@contextmanager
def naming_source(path: Path, kind: type[EnergyQLError] = ModelError) -> Iterator[None]:
    """Turn an error of the block, which reads `path`, into an error of type `kind` that names `path`.

    Raises:
        EnergyQLError: the block raised an `OSError` or a `MemoryError`.
    """
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
    """Return a hint for a file or folder that is missing: a path of a similar name, or where it was looked for.

    A suggestion has the suffix of `path`, or is a file with the same name and another suffix.
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
    """Check, before any work is done, that `path` can be written into `folder`, which may have to be made.

    Args:
        path: the file to write, or `folder` itself.
        folder: the folder.

    Raises:
        ArgumentError: `path` cannot be written; the message names it.
    """
    if path != folder:
        _check_regular(path)
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
    with naming_target(path), suppress(FileNotFoundError):
        os.lstat(path)  # raises where the name is too long
    with naming_target(path), temporary(folder, ".txt"):  # the disk may be full, or the system refuse for other reasons
        pass


def check_destination(path: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> Path:
    """Check, before any work is done, that a result can be saved to `path`, and return `path`.

    Args:
        path: a file that ends in one of `suffixes`, or a folder.
        suffixes: in lower case, each with its dot.

    Raises:
        ArgumentError: the path has the suffix of another kind of file, ends like a file but is a folder, or cannot be
            written.
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
    """Check that `path` is no address such as `https://...`.

    Raises:
        ArgumentError: it is one.
    """
    if _ADDRESS.match(str(path)):
        raise ArgumentError(
            f"{path} is an address, and energyql reads files",
            hint="download it first, for example with curl -L -O, and give the file",
        )


def write_text(path: Path, text: str) -> None:
    """Write text as UTF-8; see `replacing`."""
    with replacing(path) as target:
        target.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` as indented JSON; see `replacing`."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_picture(path: Path, picture: Image) -> None:
    """Write a picture in the format of the path's suffix; see `replacing`."""
    with replacing(path) as target:
        picture.save(target)


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the content of a file of safetensors with these tensors."""
    import torch  # here, because other users of this module need no torch, which takes long to import
    from safetensors.torch import save

    # Copies, because safetensors refuses tensors that share memory.
    form = torch.contiguous_format
    return save({name: tensor.detach().cpu().clone(memory_format=form) for name, tensor in tensors.items()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as a file of safetensors; see `replacing`."""
    data = tensor_bytes(tensors)
    with replacing(path) as target:
        target.write_bytes(data)


def real_path(path: Path) -> Path:
    """Return the absolute path without symbolic links; a path in a loop of links keeps them."""
    return Path(os.path.realpath(path))


def refuse_special(path: Path, kind: type[EnergyQLError] = ModelError) -> None:
    """Check that `path` is no pipe, device or socket, whose opening or reading may never end.

    Raises:
        EnergyQLError: it is one; the type is `kind`.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise kind(f"cannot read {path}: it is no regular file", hint="save what it gives to a file, and name that")


def check_file(path: Path, most: int | None = None, kind: type[EnergyQLError] = ModelError) -> int:
    """Check that `path` is a regular file of at most `most` bytes (`None`: of any size), and return its size in bytes.

    Raises:
        EnergyQLError: it is not; the type is `kind`.
    """
    refuse_special(path, kind)
    with naming_source(path, kind):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise kind(f"cannot read {path}: it is a folder", hint="name a file")
    if most is not None and status.st_size > most:
        raise kind(
            f"cannot read {path}: it is larger than {most >> 20} MiB",
            hint="is it the right file? Those of this kind are smaller",
        )
    return status.st_size


def read_bytes(path: Path, most: int, kind: type[EnergyQLError] = ModelError) -> bytes:
    """Read a regular file of at most `most` bytes.

    Raises:
        EnergyQLError: the file is missing, larger or cannot be read; the type is `kind`.
    """
    size = check_file(path, most, kind)
    with naming_source(path, kind), path.open("rb") as file:
        return file.read(size)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of at most `MOST_JSON` bytes, whose whole numbers have at most `MOST_DIGITS` digits.

    Raises:
        ModelError: the file is missing, cannot be read, or holds no such object.
    """
    data = read_bytes(path, MOST_JSON)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise ModelError(f"cannot read {path}: {error}", hint="write it again as JSON") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} must hold a JSON object", hint="its text begins with { and ends with }")
    return content


def parse_json(data: bytes) -> Any:
    """Return the value of a JSON text in UTF-8, whose whole numbers have at most `MOST_DIGITS` digits.

    Raises:
        ValueError: `data` is no such text, or is nested too deep.
    """
    try:
        return json.loads(data.decode("utf-8"), parse_int=_whole)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _whole(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def read_whole(text: str) -> int | None:
    """Return the number in a text of 1 to `MOST_DIGITS` digits from 0 to 9; `None` for any other text."""
    return int(text) if re.fullmatch(f"[0-9]{{1,{MOST_DIGITS}}}", text) else None


def _is_text(path: Path) -> bool:
    try:
        return bool(str(path).encode())
    except UnicodeEncodeError:
        return False


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors.

    Raises:
        ModelError: the file is missing, damaged, or of another format.
    """
    from safetensors import SafetensorError  # here, as in `tensor_bytes`
    from safetensors.torch import load, load_file

    check_file(path)
    try:
        with naming_source(path):
            # `load_file` opens no path that is not valid text.
            return load_file(path) if _is_text(path) else load(path.read_bytes())
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise ModelError(f"cannot read {path}: it is damaged ({error})", hint="copy or download it again") from error


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a regular file, hexadecimal.

    Raises:
        ModelError: the file cannot be read.
    """
    check_file(path)
    digest = hashlib.sha256()
    with naming_source(path), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


SAVED = ".energyql-saved"
"""Name of the folder whose files are saved, but not yet moved to their places."""
OLD = "old.json"
"""Name of the file in it that lists the earlier files to remove: "gone", and "hidden", whose places new files take."""
_DESCRIPTIONS = ("result.json", "edit.json", "vocabulary.json")


@contextmanager
def saving(folder: Path, old: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """Yield an empty folder for new files; at the end of the block they replace the old files in `folder`.

    If the process is killed, `folder` holds all old files or all new ones. Its other files stay. No other process or
    thread may write into `folder` meanwhile.

    Args:
        folder: made if necessary.
        old: returns the files in a folder that are old: they are removed, or replaced by new files of the same name.

    Raises:
        ArgumentError: the folder cannot be written, or another process or thread writes into it.
        DataError: the files of an earlier, interrupted saving are damaged.
    """
    with sole_writer(folder, "a result"):
        finish_saving(folder)
        with naming_target(folder), staging(folder) as staged:
            try:
                yield staged
            except ArgumentError as error:  # name the folder that the user named
                raise ArgumentError(error.message.replace(str(staged), str(folder)), hint=error.hint) from error
            new = set(_files(staged))
            if taken := [path for path in new if (folder / path).is_dir()]:
                raise ArgumentError(f"cannot write {folder / taken[0]}: it is a folder", hint="name another folder")
            earlier = {path.relative_to(folder) for path in old(folder) if path.is_file()}
            hidden = {path for path in earlier & new if path.name in _DESCRIPTIONS}
            lists = {"gone": earlier - new, "hidden": hidden}
            write_json(staged / OLD, {name: sorted(map(Path.as_posix, paths)) for name, paths in lists.items()})
            staged.rename(folder / SAVED)
        finish_saving(folder)


@contextmanager
def changing(folder: Path) -> Iterator[Path]:
    """Yield a folder with links to the files of `folder`; changes in it are made in `folder` at the end of the block.

    If the process is killed, all files of `folder` are as before the block, or all as after it. Files in the yielded
    folder must be replaced, as `replacing` does, not written in place, because a link is the file in `folder` itself.
    Folders inside `folder` are left out.

    Raises:
        ArgumentError: the folder cannot be written, or another process or thread writes into it.
        DataError: the files of an earlier, interrupted saving are damaged.
    """
    removed: list[Path] = []
    with saving(folder, lambda _: removed) as staged:
        before = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name != LOCK)
        links = {name: _linked(folder / name, staged / name) for name in before}
        yield staged
        for name, mark in links.items():
            path = staged / name
            if not os.path.lexists(path):
                removed.append(folder / name)
            elif _mark(path) == mark:
                path.unlink()


def _linked(path: Path, link: Path) -> tuple[int, ...]:
    """Link or copy a file to `link`, and return the mark of the new file; see `_mark`."""
    if path.is_symlink():
        link.symlink_to(real_path(path))
    else:
        try:
            os.link(path, link)
        except OSError:  # a file system without links
            shutil.copy2(path, link)
    return _mark(link)


def _mark(path: Path) -> tuple[int, ...]:
    """Return numbers that differ after a file was replaced or written: device, inode, size and time of change."""
    facts = path.lstat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def finish_saving(folder: Path) -> None:
    """Move the files of an interrupted `saving` to their places, if there are some.

    Raises:
        ArgumentError: they cannot be moved, for example because the disk is read-only.
        DataError: they are damaged.
    """
    saved = folder / SAVED
    if not os.path.isdir(saved):  # false also for what cannot be a path
        return
    with naming_target(folder), locked(saved) as held:
        if not held:  # another process has just moved them
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
    """Move all files of the folder `saved` to `folder`; a move that was interrupted can be repeated.

    Raises:
        ArgumentError: a listed path leaves `folder`.
        KeyError, TypeError, ValueError, ModelError: the list of earlier files is damaged.
    """
    new = [path for path in _files(saved) if path != Path(OLD)]
    lists = read_json(saved / OLD)
    gone, hidden = ([Path(str(name)) for name in lists[name]] for name in ("gone", "hidden"))
    _check_inside(folder, [*new, *gone, *hidden])
    # A hidden file that is not in `new` was moved before an interruption: its place holds the new file.
    for path in sorted([*gone, *(path for path in hidden if path in new)], key=_descriptions_first):
        (folder / path).unlink(missing_ok=True)
    for path in sorted(new, key=_descriptions_first, reverse=True):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (saved / path).replace(folder / path)
    for emptied in sorted({folder / path.parent for path in gone}, key=lambda path: -len(path.parts)):
        with suppress(OSError):  # there are other files in it
            emptied.rmdir()


def _descriptions_first(path: Path) -> tuple[bool, int, Path]:
    """Return a key that sorts descriptions before other files, and that of the whole folder before those inside it."""
    return path.name not in _DESCRIPTIONS, len(path.parts), path


def _files(folder: Path) -> list[Path]:
    """Return the paths of all files in a folder and the folders inside it, relative to the folder."""
    return [Path(root, name).relative_to(folder) for root, _, names in os.walk(folder) for name in names]


def _check_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Check that all paths, relative to `folder`, stay inside it, because the list may come from a stranger.

    Raises:
        ArgumentError: a path leaves the folder.
    """
    root = real_path(folder)
    for path in paths:
        if path.is_absolute() or ".." in path.parts or not real_path(folder / path.parent).is_relative_to(root):
            raise ArgumentError(f"{folder / SAVED} is damaged: it names {path}", hint="delete it")
