"""Destinations of data sets: folders, and object stores by fsspec. In both, no file is ever half written."""

from __future__ import annotations

import errno
import os
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.files import (
    check_writable,
    digest,
    finish_saving,
    naming_source,
    naming_target,
    replacing,
    sole_writer,
    sweep,
)

if TYPE_CHECKING:
    from energyql.dataset.shard import FileRecord

PATIENCE = 300.0
"""Seconds for which a failed call of a store is repeated."""
_FIRST_PAUSE = 0.5
"""Seconds before the first repetition; each further pause is twice as long as the last one."""
_LONGEST_PAUSE = 30.0
"""Seconds of the longest pause between repetitions."""
_SUFFIXES = (".json", ".jsonl", ".md", ".parquet", ".tar")
"""Suffixes of the files of a data set; no folder in a destination may have such a suffix."""
_AT_ONCE = 64
"""Largest number of files that one call of a store reads."""
_LIBRARIES = {
    "s3": 'pip install "s3fs>=2024.2"',
    "gs": 'pip install "gcsfs>=2024.2"',
}
"""Protocol of an address -> command that installs the library for it."""
_REFUSALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ParamValidationError")
"""Classes of errors by which the library of a store refuses a call for good, so that the call is not repeated."""
_LASTING = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.EROFS)
"""System errors, such as a full disk, that would occur again: after them, a call is not repeated."""
_FORBIDDEN = "Forbidden: "
"""Start of the message with which gcsfs refuses a call for good, by an error without a number."""
Value = TypeVar("Value")


class Destination(Protocol):
    """A folder or an object store that holds a data set, as files with names such as `shards/000001.tar`.

    A file that is missing or cannot be read is a `DataError` in a folder and an `ArgumentError` in a store. All calls
    of a store, and all writing, may raise an `ArgumentError`.

    Attributes:
        name: path of the folder or address of the store, for messages.
    """

    name: str

    def check(self) -> None:
        """Raise an `ArgumentError` if files cannot be written; no file is written to find out."""

    def alone(self) -> AbstractContextManager[Any]:
        """Lock a folder against other processes that write a data set; an `ArgumentError` if one is writing.

        A store has no locks, so it stays open. Processes that write one plan do no harm there: they write the same
        bytes.
        """
        return nullcontext()

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes, without temporary and hidden files.

        Raises:
            DataError: in a folder, a sub-folder or a special file (such as a socket) is where a file should be.
        """

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield pairs (name, content) of files, in the order of `names`."""
        for name in names:
            yield name, self.reading(name, lambda file: file.read())

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """Open a file, and return `use(file)`.

        After a failure that may pass, such as a broken connection, a store opens the file and calls `use` again.
        """

    def writing(self, name: str) -> AbstractContextManager[Path]:
        """Context manager with a temporary path. At its end, the content becomes file `name`, whole or not at all."""

    def mark(self, name: str) -> str:
        """ETag of a file, by which a store identifies its content without reading it; "" if there is none."""
        return ""

    def holds(self, file: FileRecord) -> bool:
        """Whether a file still has the content that its record describes; `False` if a folder lacks the file.

        A file whose ETag is that of the record is not read. Any other file is read, and its SHA-256 decides, because
        the same content has another ETag after it was copied or encrypted with another key.
        """
        if file.mark and self.mark(file.file) == file.mark:
            return True
        with suppress(DataError):  # the file of a folder is missing
            return self.reading(file.file, digest) == file.sha256
        return False

    def remove(self, names: Collection[str]) -> None:
        """Remove files; names of missing files are skipped."""


class Folder(Destination):
    """A folder of this machine, or of a file system that several machines share."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def check(self) -> None:
        """Raise an `ArgumentError` if files cannot be written in the folder."""
        check_writable(self.path, self.path)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder, and finish an audit that was killed between writing the card and the manifest."""
        with sole_writer(self.path, "a data set"):
            finish_saving(self.path)
            yield

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes; a `DataError` for a special file, or a sub-folder with a suffix in `_SUFFIXES`."""
        by_name = {}
        with naming_source(self.path, DataError):
            for root, folders, names in os.walk(self.path):
                folders[:] = [name for name in folders if not name.startswith(".")]
                files = [name for name in names if not name.startswith(".")]
                for path in (Path(root, name) for name in files + folders):
                    if path.is_file():
                        with suppress(FileNotFoundError):  # another process has just removed it
                            by_name[path.relative_to(self.path).as_posix()] = path.stat().st_size
                    elif os.path.lexists(path) and (path.name in files or path.suffix in _SUFFIXES):
                        what = "a folder" if path.is_dir() else "no regular file"
                        raise DataError(f"{path} is {what}", hint="remove it, or name another place")
        return by_name

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """Return `use(file)` for the open file."""
        with naming_source(self.path / name, DataError), (self.path / name).open("rb") as file:
            return use(file)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield a temporary path in the folder; at the end of the block, it becomes file `name`."""
        with replacing(self.path / name) as path:
            yield path
            with path.open("rb") as file:
                os.fsync(file.fileno())  # so that no manifest without its shards is left after a power failure

    def remove(self, names: Collection[str]) -> None:
        """Remove files, and then their sub-folders if they are empty; missing files are skipped."""
        with naming_target(self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            for folder in sorted({(self.path / name).parent for name in names} - {self.path}):
                with suppress(OSError):
                    sweep(folder)
                    folder.rmdir()


class Store(Destination):
    """An object store that fsspec can open. A failed call is repeated for `PATIENCE` seconds, with growing pauses.

    Args:
        url: the address, such as `s3://bucket/folder` or `gs://bucket/folder`.

    Raises:
        ArgumentError: there is no such protocol, or its library is not installed.
    """

    def __init__(self, url: str) -> None:
        self.name = url
        protocol = url.partition("://")[0]
        try:
            fsspec: Any = import_module("fsspec")
            self._system, root = fsspec.url_to_fs(url, use_listings_cache=False)
        except ImportError as error:
            hint = _LIBRARIES.get(protocol, "see the documentation of fsspec")
            raise ArgumentError(f"{url} needs a library that is not installed: {error}", hint=hint) from None
        except ValueError as error:
            hint = "name a folder, or an address such as s3://bucket/folder"
            raise ArgumentError(f"cannot write {url}: {error}", hint=hint) from None
        self._root = str(root).rstrip("/")

    def check(self) -> None:
        """Do nothing: whether a store can be written shows only when it is written."""

    def sizes(self) -> dict[str, int]:
        """Name -> size in bytes of the objects at the address, without hidden objects."""

        def find() -> Mapping[str, Any]:
            with suppress(FileNotFoundError):
                return dict(self._system.find(self._root, detail=True))
            return {}

        files = self._call(find)
        names = {path[len(self._root) :].lstrip("/"): facts["size"] for path, facts in files.items()}
        return {name: size for name, size in names.items() if name and not name.startswith(".")}

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield pairs (name, content) of objects; one call of the store reads up to `_AT_ONCE` of them."""
        ordered = list(names)
        for start in range(0, len(ordered), _AT_ONCE):
            some = ordered[start : start + _AT_ONCE]
            contents = self._call(partial(self._system.cat, list(map(self._path, some))))
            yield from ((name, contents[self._path(name)]) for name in some)

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """Open an object, and return `use(file)`; both are repeated after a failure that may pass."""

        def call() -> Value:
            with self._system.open(self._path(name), "rb") as file:
                return use(file)

        return self._call(call)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Yield the path of a temporary file of this machine; after the block, it is uploaded as object `name`."""
        with naming_target(Path(gettempdir())), NamedTemporaryFile(prefix="energyql-") as file:
            yield Path(file.name)
            self._call(partial(self._put, Path(file.name), name))

    def _put(self, file: Path, name: str) -> None:
        """Upload a file, and compare the size of the object, because some stores do not notice a cut connection."""
        self._system.put_file(str(file), self._path(name))
        with suppress(FileNotFoundError):
            if self._system.info(self._path(name))["size"] == file.stat().st_size:
                return
        raise OSError(f"{name} has not arrived as a whole")  # so that it is uploaded again

    def mark(self, name: str) -> str:
        """ETag of an object; "" if the store has none."""
        facts = self._call(lambda: self._system.info(self._path(name)))
        return str(facts.get("ETag") or facts.get("etag") or "")

    def remove(self, names: Collection[str]) -> None:
        """Remove objects; names of missing objects are skipped."""
        paths = [self._path(name) for name in names]

        def remove() -> None:
            try:
                self._system.rm(paths)
            except FileNotFoundError:  # stores that delete one by one stop at a missing object
                for path in paths:
                    with suppress(FileNotFoundError):
                        self._system.rm(path)

        self._call(remove)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _call(self, call: Callable[[], Value]) -> Value:
        """Return `call()`; repeat it after errors that may pass. After `PATIENCE` seconds, raise an `ArgumentError`."""
        end, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return call()
            except EnergyQLError:
                raise
            except FileNotFoundError as error:
                hint = "make the bucket first, and see to its name; an own server is named in AWS_ENDPOINT_URL"
                raise ArgumentError(f"{self.name} is not there: {error}", hint=hint) from error
            except Exception as error:  # each library has its own classes of errors
                refused = type(error).__name__ in _REFUSALS or str(error).startswith(_FORBIDDEN)
                if refused or getattr(error, "errno", None) in _LASTING:
                    hint = "see to the name of the bucket, to the credentials and to what they allow"
                    raise ArgumentError(f"cannot write {self.name}: {error}", hint=hint) from error
                if time.monotonic() + pause > end:
                    problem = f"{self.name} has not answered for {PATIENCE:.0f} seconds: {error or type(error)}"
                    hint = "see to the store and the network; the same command then continues"
                    raise ArgumentError(problem, hint=hint) from error
            time.sleep(pause * random.uniform(0.5, 1))  # random, so that workers do not call all at once
            pause = min(2 * pause, _LONGEST_PAUSE)


def open_destination(out: str | Path) -> Destination:
    """Return a `Folder` for a path or an address `file://...`, and a `Store` for any other address.

    Raises:
        ArgumentError: there is no such kind of store, or its library is not installed.
    """
    text = os.fspath(out)
    if text.startswith("file://"):
        return Folder(Path(text[len("file://") :]))
    return Store(text) if "://" in text else Folder(Path(text))
