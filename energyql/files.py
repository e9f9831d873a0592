"""Reading and writing files: writing is atomic, one process at a time writes to a folder, and reading has limits.

`saving` replaces several files of a folder as one step. It writes them to a temporary folder inside, and renames that
to `.energyql-saved`: from then on, the files count as saved, and whoever reads or writes the folder first moves them to
their places. Descriptions, such as `result.json`, go first and come last, so that none lies beside files of another
result.

While a folder is written, its file `.energyql-lock` is locked and names the writer. If the writer is killed, the system
releases the lock, and the file that is left stops nobody. See docs/decisions/one-writer.md.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

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
"""Age in seconds from which a temporary file counts as left by an ended process, on systems without `fcntl` locks."""


@contextmanager
def temporary(folder: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield the path of a new temporary file or folder in `folder`, locked by this process, and remove it in the end.

    Args:
        suffix: end of the file's name, such as ".txt"; may be empty. With `None` a folder is made.
    """
    while True:
        path = folder / f".energyql-{secrets.token_hex(8)}{suffix or ''}"
        if suffix is None:
            path.mkdir()
        else:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
        with locked(path) as is_ours:
            if is_ours:  # else `sweep` of another process has removed it before it was locked
                try:
                    yield path
                finally:
                    _remove(path)
                return


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Lock an existing file or folder during the block. If this process is killed, the system releases the lock.

    Args:
        wait: whether to wait for a lock that another process has; otherwise False is yielded at once.

    Yields:
        Whether this process has the lock and `path` still exists. On a file system without locks, `wait` counts as the
        lock; under Windows, where nothing is locked, so does a `path` that is older than `_ABANDONED`.
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
    is_ours = wait
    try:
        with suppress(OSError):  # another process holds the lock, or there are no locks: then `sweep` removes nothing
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            is_ours = True
        yield is_ours and path.exists()
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove from `folder` the temporary files and folders that killed processes left behind."""
    with suppress(OSError):
        for path in [Path(entry.path) for entry in os.scandir(folder) if _NAME.fullmatch(entry.name)]:
            with locked(path, wait=False) as left:
                if left:
                    _remove(path)


_sweep_once = cache(sweep)
"""Like `sweep`, but done once a process for each path, which must be absolute, because a scan of many files takes
long."""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


LOCK = ".energyql-lock"
_BUSY = (errno.EAGAIN, errno.EACCES, errno.EDEADLK)
"""Numbers of errors that mean that another process has the lock; others mean that there are no locks."""
_FAR = 1 << 30
"""Position of the locked byte of a lock file under Windows: after the text, because a locked byte cannot be read."""
_MOST_HOLDER = 4096
"""Most bytes of a lock file that are read; its text is shorter."""


@dataclass(eq=False)
class Writer:
    """The right of one thread to write a folder or file, which no other thread or process has; see `sole_writer`.

    Attributes:
        descriptor: file descriptor of the open lock file.
        work: what is being written, such as "a training".
        thread: identifier of the thread.
        depth: number of nested blocks of `sole_writer` that the thread has entered.
    """

    descriptor: int
    work: str
    thread: int
    depth: int = 0

    def move(self) -> None:
        """Give the right to the calling thread: an iterator may be begun in one thread and continued in another."""
        self.thread = threading.get_ident()


_writers: dict[Path, Writer] = {}
"""The writers of this process, by the real path of their folder or file."""
_unlocked: set[int] = set()
"""Device numbers of file systems without locks, for which this process has given a `LockWarning`."""


def _forget() -> None:
    """In a child process (a fork), close all lock files; the locks remain with the parent."""
    for writer in _writers.values():
        with suppress(OSError):
            os.close(writer.descriptor)
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def sole_writer(folder: Path, work: str, file: str = "") -> Iterator[Writer]:
    """Let only this thread write into a folder, or one file of it, during the block; blocks of a thread may be nested.

    It stops only those that call `sole_writer` too. A missing folder is made, and removed in the end if it is still
    empty. On a file system without locks the block runs all the same, after a `LockWarning`.

    Args:
        work: what is being written, such as "a training", for the error in other processes.
        file: name of the only file that is written, so that others may write the rest of the folder; by default the
            whole folder, with its subfolders, is written.

    Raises:
        ArgumentError: another process or thread writes the folder or file, or it cannot be written.
    """
    target, place, thread = folder / file, real_path(folder), threading.get_ident()
    check_writable(target, folder)
    key, lock = place / file, place / (f"{LOCK}-{file}" if file else LOCK)
    new: list[Path] = []
    writer = _writers.get(key)
    if writer is not None and writer.thread != thread:
        raise _refusal(target, f"{writer.work} of another thread of this process")
    try:
        if writer is None:
            with naming_target(target):
                new = [path for path in (place, *place.parents) if not os.path.lexists(path)]
                descriptor = _lock(target, lock, work)
            writer = _writers[key] = Writer(descriptor, work, thread)
        writer.depth += 1
        try:
            yield writer
        finally:
            writer.depth -= 1
            if not writer.depth and _writers.get(key) is writer:  # false in a forked child
                del _writers[key]
                _unlock(lock, writer.descriptor)
    finally:
        for path in new:
            with suppress(OSError):  # there is something in it
                path.rmdir()


def _lock(target: Path, path: Path, work: str) -> int:
    """Make and lock the lock file `path`, with process, host and `work` as its text; return its file descriptor."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = _open_lock(path)
        except FileNotFoundError:  # another writer has just removed the folder
            if path.parent.is_dir():
                raise
            continue
        with ExitStack() as stack:
            stack.callback(os.close, descriptor)
            try:
                _take(descriptor)
            except OSError as error:
                if error.errno in _BUSY:
                    raise _refusal(target, _holder(descriptor)) from None
                _warn(target, descriptor, error)
            if _is_there(path, descriptor):  # else another process has just removed the file
                with suppress(OSError):  # no right to write the file, or the disk is full: it is locked all the same
                    os.ftruncate(descriptor, 0)
                    who = {"work": work, "process": os.getpid(), "host": socket.gethostname()}
                    os.write(descriptor, json.dumps(who).encode())
                stack.pop_all()
                return descriptor


def _open_lock(path: Path) -> int:
    """Open or make a lock file, for writing if possible: network file systems lock no file that is only read."""
    flags = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o666)
    except PermissionError:  # a file of another user, perhaps of a killed process
        if not path.is_file():
            raise
        return os.open(path, os.O_RDONLY | flags)


def _take(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _FAR, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether `path` is still the file that is open as `descriptor`, and not removed or replaced meanwhile."""
    ours = os.fstat(descriptor)
    with suppress(FileNotFoundError):
        return ours.st_nlink > 0 and os.path.samestat(ours, os.stat(path))
    return False


def _unlock(path: Path, descriptor: int) -> None:
    """Remove and close a lock file; a process that waits for it then sees with `_is_there` that it is gone."""
    close = partial(os.close, descriptor)
    # Windows removes no open file: one that another process has open stays.
    for step in (close, path.unlink) if sys.platform == "win32" else (path.unlink, close):
        with suppress(OSError):
            step()


def _holder(descriptor: int) -> str:
    """Who wrote the open lock file, such as "a training (process 12 on host)", or "another process"."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        who = json.loads(os.read(descriptor, _MOST_HOLDER))
        return f"{who['work']} (process {who['process']} on {who['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _warn(target: Path, descriptor: int, error: OSError) -> None:
    """Warn, once for each file system, that it has no locks; `error` is that of the attempt to lock."""
    if (device := os.fstat(descriptor).st_dev) not in _unlocked:
        _unlocked.add(device)
        message = f"the file system of {target} has no locks ({error.strerror}), so a second writer cannot be noticed"
        warnings.warn(LockWarning(message), stacklevel=caller_level())


def _refusal(target: Path, holder: str) -> ArgumentError:
    hint = f"wait until that has ended, or name another {'folder' if target.is_dir() else 'file'}"
    return ArgumentError(f"{target} is being written by {holder}", hint=hint)


PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_PICTURE = 1 << 28
"""Largest picture that is read, in bytes."""
MOST_JSON = 1 << 26
"""Largest JSON file that is read, in bytes; its values take about ten times as much memory."""
MOST_DIGITS = 20
"""Most digits of a whole number in JSON, as many as the largest seed has. Much longer numbers overflow as floats."""
DAMAGED_MODEL = "copy the model folder again, or train its attributes again"
"""Hint of the error for a damaged file of a model folder."""
_ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:/")
_NO_TEXT = re.compile("[\ud800-\udfff]")
"""Characters that Python uses in a path in place of bytes that are not UTF-8."""


def as_path(path: str | os.PathLike[str]) -> Path:
    """Convert a path that a user gives, a text or an object, to a `Path`.

    Raises:
        ArgumentError: it is no path, is empty, or is longer than the system allows.
    """
    try:
        if path == "":
            raise ValueError
        os.lstat(Path(path))
    except (TypeError, ValueError):  # also half of a character, which no system takes
        raise ArgumentError(f"{path!r:.40} is not a path", hint="name a file or folder") from None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ArgumentError(f"{path} is too long for a path", hint="name a file or folder") from None
    return Path(path)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path for a new file, and move the file to `path` at the end of the block, unless that fails.

    The temporary path is in the folder of `path`, which is made if it is missing.

    Raises:
        ArgumentError: `path` is not a regular file or cannot be written, for example because the disk is full.
    """
    with naming_target(path):
        _check_regular(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(Path(os.path.abspath(path.parent)))
        with temporary(path.parent, path.suffix) as new:
            yield new
            new.replace(path)


def _check_regular(path: Path) -> None:
    if os.path.exists(path) and not os.path.isfile(path):
        kind = "a folder" if os.path.isdir(path) else "not a regular file"
        raise ArgumentError(f"cannot write {path}: it is {kind}")


@contextmanager
def naming_target(path: Path) -> Iterator[None]:
    """Replace an `OSError` of the block, which writes to `path`, by an `ArgumentError` whose message names `path`."""
    try:
        yield
    except OSError as error:
        hint = "save to another place, or see to the space and the permissions there"
        raise ArgumentError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error


@contextmanager
def naming_source(path: Path, kind: type[EnergyQLError] = ModelError) -> Iterator[None]:
    """Replace an `OSError` or `MemoryError` of the block, which reads `path`, by an error of class `kind`."""
    try:
        yield
    except FileNotFoundError:
        raise kind(f"{path} is missing", hint=what_is_there(path)) from None
    except OSError as error:
        raise kind(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError:
        raise kind(f"cannot read {path}: there is not enough memory") from None


def what_is_there(path: Path) -> str:
    """Hint about a missing path: a similar name, else the folder that was searched, or where a broken link leads."""
    if path.is_symlink():
        return f"it is a link to {real_path(path)}, and nothing is there"
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
    """Check, before any work is done, that `path` can be written: a file in `folder`, or `folder` itself.

    The folder need not exist. Nothing remains on the disk.

    Raises:
        ArgumentError: `path` cannot be written; the message names it.
    """
    if path != folder:
        _check_regular(path)
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not os.path.isdir(folder):
        raise ArgumentError(f"cannot write {path}: {folder} is not a folder", hint="name another folder")
    with naming_target(path):
        with suppress(FileNotFoundError):
            os.lstat(path)  # raises where the name is too long
        with temporary(folder, ".txt"):  # raises where no file can be made
            pass


def check_destination(path: Path, suffixes: Sequence[str] = PICTURE_SUFFIXES) -> Path:
    """Check, before any work is done, that a result can be saved to `path`, a file or a folder, and return `path`.

    Args:
        suffixes: possible ends of a file's name, in lower case, with a dot.

    Raises:
        ArgumentError: `path` has another suffix and is no existing folder, has one of them but is a folder, or cannot
            be written.
    """
    file = path.suffix.lower() in suffixes
    if path.suffix and not file and not os.path.isdir(path):
        hint = f"end the path in {', '.join(suffixes)}, or name a folder"
        raise ArgumentError(f"this cannot be saved as {path.suffix}", hint=hint)
    check_writable(path, path.parent if file else path)
    return path


def refuse_address(path: str | Path) -> None:
    """Raise an `ArgumentError` if `path` is an address on the web, such as `https://...`."""
    if _ADDRESS.match(str(path)):
        raise ArgumentError(f"{path} is an address, and energyql reads files", hint="download it, and give the file")


def write_text(path: Path, text: str) -> None:
    """Write `text` to the file `path` as UTF-8; like all writers here, it leaves an old file as it is if that fails."""
    with replacing(path) as target:
        target.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write `data` to the file `path` as indented JSON."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def write_picture(path: Path, picture: Image, **options: Any) -> None:
    """Write a picture to `path`, whose suffix decides on the format; `options` are those of Pillow's `save`.

    Raises:
        ArgumentError: the file cannot be written, or the picture is too large for the format.
    """
    with replacing(path) as target:
        try:
            picture.save(target, **options)
        except ValueError as error:  # a side is longer than the format allows
            raise ArgumentError(f"cannot write {path}: {error}", hint="save as .png, or to a folder") from error


def tensor_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as the bytes of a file in the format safetensors."""
    from safetensors.torch import save  # here, because other users of this module need no torch

    # Copies, because safetensors refuses tensors that share memory.
    return save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name to the file `path`, in the format safetensors."""
    data = tensor_bytes(tensors)
    with replacing(path) as target:
        target.write_bytes(data)


def real_path(path: Path) -> Path:
    """Absolute path without symbolic links, except links that form a loop."""
    return Path(os.path.realpath(path))


def refuse_special(path: Path, kind: type[EnergyQLError] = ModelError) -> None:
    """Raise an error of class `kind` if `path` is a pipe, device or socket: reading one may wait for ever."""
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise kind(f"cannot read {path}: it is no regular file", hint="save what it gives to a file, and name that")


def check_file(path: Path, most: int | None = None, kind: type[EnergyQLError] = ModelError) -> int:
    """Size in bytes of a regular file.

    Raises:
        EnergyQLError: it is missing, larger than `most` bytes, or no regular file; the class of the error is `kind`.
    """
    refuse_special(path, kind)
    with naming_source(path, kind):
        status = os.stat(path)
    if stat.S_ISDIR(status.st_mode):
        raise kind(f"cannot read {path}: it is a folder", hint="name a file")
    if most is not None and status.st_size > most:
        raise kind(f"cannot read {path}: it is larger than {most >> 20} MiB")
    return status.st_size


def read_bytes(path: Path, most: int, kind: type[EnergyQLError] = ModelError) -> bytes:
    """Content of the regular file `path`; errors are those of `check_file`."""
    size = check_file(path, most, kind)
    with naming_source(path, kind), path.open("rb") as file:
        return file.read(size)


def read_json(path: Path, kind: type[EnergyQLError] = ModelError) -> dict[str, Any]:
    """Read a file that contains a JSON object, as a dict.

    Raises:
        EnergyQLError: the file is missing, has more than 64 MiB (`MOST_JSON`), or is no JSON object, or a whole number
            in it has more than 20 digits. The class of the error is `kind`.
    """
    data = read_bytes(path, MOST_JSON, kind)
    try:
        content = parse_json(data)
    except ValueError as error:
        raise kind(f"cannot read {path}: {error}", hint="write it again as JSON") from error
    if not isinstance(content, dict):
        raise kind(f"{path} must hold a JSON object", hint="its text begins with { and ends with }")
    return content


def parse_json(data: bytes) -> Any:
    """Value of a JSON text in UTF-8.

    Raises:
        ValueError: `data` is not UTF-8 or not JSON, is nested too deep, or has a whole number of more than 20 digits.
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
    """Number that a text of 1 to 20 digits from 0 to 9 stands for; `None` for any other text."""
    return int(text) if re.fullmatch(f"[0-9]{{1,{MOST_DIGITS}}}", text) else None


def read_tensors(path: Path, kind: type[EnergyQLError] = ModelError) -> dict[str, Tensor]:
    """Read a file in the format safetensors: its tensors by name, on the CPU.

    Raises:
        EnergyQLError: the file is missing, damaged, or of another format; the class of the error is `kind`.
    """
    from safetensors import SafetensorError  # here, as in `tensor_bytes`
    from safetensors.torch import load, load_file

    check_file(path, kind=kind)
    try:
        with naming_source(path, kind):
            # `load_file` opens no path that is not valid text.
            return load(path.read_bytes()) if _NO_TEXT.search(str(path)) else load_file(path)
    except (SafetensorError, ValueError, TypeError, LookupError, RuntimeError) as error:
        raise kind(f"cannot read {path}: it is damaged ({error})", hint="copy or download it again") from error


CACHE = "ENERGYQL_CACHE"
"""Environment variable that sets the folder for caches; if it is set to an empty text, nothing is cached."""
STATE = "ENERGYQL_STATE"
"""Environment variable that sets the folder for what this machine remembers; empty: it remembers nothing."""


def cache_folder() -> Path | None:
    """The folder for caches: that of `ENERGYQL_CACHE`, else "energyql" in the system's folder for caches.

    `None` if the variable is set to an empty text, or the system has no such folder.
    """
    named = os.environ.get(CACHE)
    if named is not None:
        return Path(named) if named else None
    return _users("~/Library/Caches", os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def state_folder() -> Path | None:
    """The folder for what this machine remembers: that of `ENERGYQL_STATE`, else "energyql" in the system's folder.

    `None` if the variable is empty or a relative path, which another working directory could fill, or there is none.
    """
    named = os.environ.get(STATE)
    if named is not None:
        return Path(named) if os.path.isabs(named) else None
    return _users("~/Library/Application Support", os.environ.get("XDG_STATE_HOME") or "~/.local/state")


def _users(mac: str, linux: str) -> Path | None:
    """Folder "energyql" in the user's folder of a kind, by its place on each system; `None` if there is none."""
    places = {"win32": os.environ.get("LOCALAPPDATA", ""), "darwin": mac}
    base = os.path.expanduser(places.get(sys.platform, linux))
    return Path(base) / "energyql" if os.path.isabs(base) else None


_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def refuse_code(folder: Path) -> None:
    """Raise a `ModelError` if a folder of another library, such as diffusers or transformers, holds code.

    Code is a file of Python, or one that may be a pickle, unless a safetensors file lies beside it.
    """
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".py":
            raise ModelError(f"{path} is code, which is not run", hint="use a class that the library itself has")
        if path.suffix in _PICKLES and not any(path.parent.glob("*.safetensors")):
            hint = (
                "where you trust it, load it with its own library, and save_pretrained(NEW_FOLDER) writes safetensors"
            )
            raise ModelError(f"{path} may be a pickle, which could run code, and is not read", hint=hint)


def fingerprint(path: Path) -> str:
    """SHA-256 of a regular file's content, as 64 hexadecimal digits.

    Raises:
        ModelError: the file cannot be read.
    """
    check_file(path)
    with naming_source(path), path.open("rb") as file:
        return digest(file)


def json_digest(data: object) -> str:
    """SHA-256 of JSON values as 64 hexadecimal digits; the order of keys makes no difference."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def digest(file: IO[bytes], start: Any = None) -> str:
    """Digest of the rest of an open file, in hexadecimal digits; `start` is a hash object, by default a new SHA-256."""
    sha = hashlib.sha256() if start is None else start
    while block := file.read(1 << 20):
        sha.update(block)
    return str(sha.hexdigest())


SAVED = ".energyql-saved"
"""Name of the subfolder with new files that `saving` has written, but not yet moved to their places."""
OLD = "old.json"
"""Name of the JSON file in `SAVED` with the old files to remove: under "gone" those that no new file replaces, under
"hidden" the descriptions, such as `result.json`, that new files replace."""
_DESCRIPTIONS = ("result.json", "edit.json", "vocabulary.json")


@contextmanager
def saving(folder: Path, old: Callable[[Path], Iterable[Path]]) -> Iterator[Path]:
    """Yield an empty folder for new files; at the end of the block, the new files replace old files in `folder`.

    If the process is killed, `folder` has all old files or all new files. Files that are neither old nor new stay.
    Others that try to save into `folder` during the block get an error.

    Args:
        folder: the folder, which is made if it is missing.
        old: function from `folder` to the paths of the old files in it, which are removed or replaced; called in the
            end.

    Raises:
        ArgumentError: the folder cannot be written, or another process or thread writes into it.
        DataError: an earlier `saving` of the folder was interrupted, and its files are damaged.
    """
    with sole_writer(folder, "a result"):
        finish_saving(folder)
        sweep(folder)
        with naming_target(folder), temporary(folder) as staged:
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
    """Yield a temporary folder with links to the files of `folder`, to change several of them as one step.

    What the block adds, replaces or removes there is done in `folder` at its end, all or nothing. The block must
    replace a file (see `replacing`) and not write into it, because a hard link is the same file. Subfolders are left
    out.

    Raises:
        ArgumentError, DataError: as for `saving`.
    """
    removed: list[Path] = []
    with saving(folder, lambda _: removed) as staged:
        # Locks and temporary files of others, such as a table of labels that is written, come and go.
        names = (path.name for path in folder.iterdir() if path.is_file())
        before = sorted(name for name in names if not name.startswith(".energyql-"))
        links = {name: _linked(folder / name, staged / name) for name in before}
        yield staged
        for name, mark in links.items():
            path = staged / name
            if not os.path.lexists(path):
                removed.append(folder / name)
            elif file_mark(path) == mark:
                path.unlink()


def _linked(path: Path, link: Path) -> tuple[int, ...]:
    """Make `link` a link to the file `path`, or else a copy; its `file_mark` later shows whether it was replaced."""
    if path.is_symlink():
        link.symlink_to(real_path(path))
    else:
        try:
            os.link(path, link)
        except OSError:  # a file system without links
            shutil.copy2(path, link)
    return file_mark(link)


def file_mark(path: Path) -> tuple[int, ...]:
    """Numbers that change when a file (or the link itself) is replaced or written: device, inode, size, time in ns."""
    facts = path.lstat()
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def finish_saving(folder: Path) -> None:
    """Complete an interrupted `saving`, if there is one: move its files to their places in `folder`.

    Raises:
        ArgumentError: the files cannot be moved, for example because the disk is read-only.
        DataError: the list of the old files to remove is damaged.
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
            except (KeyError, TypeError, ValueError, ModelError) as error:
                raise DataError(f"{saved} is damaged: {error}", hint="delete it") from error
        shutil.rmtree(saved)


def _move(saved: Path, folder: Path) -> None:
    """Move the files of `saved` to `folder`, and remove the old ones; after an interruption, it can be called again.

    Raises:
        KeyError, TypeError, ValueError, ModelError: the list of old files is damaged, or names a path outside `folder`,
            as a folder from a stranger may do.
    """
    new = [path for path in _files(saved) if path != Path(OLD)]
    lists = read_json(saved / OLD)
    gone, hidden = ([Path(str(name)) for name in lists[name]] for name in ("gone", "hidden"))
    root = real_path(folder)
    for path in (*new, *gone, *hidden):
        if path.is_absolute() or ".." in path.parts or not real_path(folder / path.parent).is_relative_to(root):
            raise ValueError(f"it names {path}")
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
    """Sort key: descriptions, such as `result.json`, before other files, and a folder's before its subfolders'."""
    return path.name not in _DESCRIPTIONS, len(path.parts), path


def _files(folder: Path) -> list[Path]:
    """Paths of all files in a folder and its subfolders, relative to the folder."""
    return [Path(root, name).relative_to(folder) for root, _, names in os.walk(folder) for name in names]
