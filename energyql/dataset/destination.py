"""Destinations of data sets: folders, and object stores by fsspec. Both replace whole files only."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import NamedTemporaryFile, gettempdir
from typing import IO, Any, Protocol, TypeVar

from energyql.errors import ArgumentError, DataError, EnergyQLError, ModelError
from energyql.files import check_writable, fingerprint, naming_source, naming_target, replacing, sole_writer, sweep

PATIENCE = 300.0
"""Seconds for which a failed call of a store is repeated."""
_FIRST_PAUSE = 0.5
"""Seconds before the first repetition; the pause doubles each time."""
_LONGEST_PAUSE = 30.0
"""Seconds of the longest pause between repetitions."""
_SUFFIXES = (".json", ".jsonl", ".md", ".parquet", ".tar")
"""Suffixes of the files of a data set; a folder may not have them."""
_AT_ONCE = 64
"""Number of files that one call of a store reads."""
_LIBRARIES = {
    "s3": 'pip install "s3fs>=2024.2"',
    "gs": 'pip install "gcsfs>=2024.2"',
}
"""Protocol -> command that installs its library."""
_REFUSALS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ParamValidationError")
"""Classes of errors of the stores' libraries, by name, after which no call is repeated."""
_LASTING = (errno.EACCES, errno.EPERM, errno.EINVAL, errno.ENOSPC, errno.EROFS)
"""Numbers of system errors after which no call is repeated."""
Value = TypeVar("Value")


class Destination(Protocol):
    """A place for files with names such as `shards/000001.tar`.

    Attributes:
        name: path or address, for messages.
    """

    name: str

    def check(self) -> None:
        """Check, before any work is done, that files can be written.

        Raises:
            ArgumentError: they cannot.
        """

    def alone(self) -> AbstractContextManager[Any]:
        """Return a context manager that keeps other writers away, if the destination has locks.

        Raises:
            ArgumentError: on entry, if another process writes there.
        """

    def sizes(self) -> dict[str, int]:
        """Return name -> size in bytes of each file; temporary and hidden files are left out.

        Raises:
            DataError: a folder or a special file has the name of a file.
        """

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """Yield pairs (name, content) of files, in the order of `names`.

        Raises:
            DataError, ArgumentError: a file is missing or cannot be read.
        """

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """Return `use(file)` for a file that is open for reading; after a failure of the store `use` is called again.

        Raises:
            DataError, ArgumentError: the file is missing or cannot be read.
        """

    def writing(self, name: str) -> Any:
        """Return a context manager that yields a path on this machine; the file written there becomes file `name`.

        The file appears as a whole, or not at all if the block fails.
        """

    def mark(self, name: str) -> str:
        """Return the destination's own mark of a file's content, an ETag, or "" if it has none."""

    def holds(self, name: str, sha256: str, mark: str) -> bool:
        """Return whether a file has this content.

        Args:
            name: name of the file.
            sha256: SHA-256 of the content, hexadecimal, with which the file is compared if `mark` is empty.
            mark: the mark of the content, with which the mark of the file is compared; see `mark`.
        """

    def remove(self, names: Collection[str]) -> None:
        """Remove the files of these names; missing ones are skipped."""


class Folder:
    """A folder of this machine, or of a file system that several share."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, str(path)

    def check(self) -> None:
        """See `Destination`."""
        check_writable(self.path, self.path)

    def alone(self) -> AbstractContextManager[Any]:
        """See `Destination`."""
        return sole_writer(self.path, "a data set")

    def sizes(self) -> dict[str, int]:
        """See `Destination`."""
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

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """See `Destination`."""
        for name in names:
            with naming_source(self.path / name, DataError):
                yield name, (self.path / name).read_bytes()

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """See `Destination`."""
        with naming_source(self.path / name, DataError), (self.path / name).open("rb") as file:
            return use(file)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """See `Destination`."""
        with replacing(self.path / name) as path:
            yield path
            with path.open("rb") as file:
                os.fsync(file.fileno())  # so that no manifest without its shards is left after a power failure

    def mark(self, name: str) -> str:
        """See `Destination`."""
        return ""

    def holds(self, name: str, sha256: str, mark: str) -> bool:
        """See `Destination`."""
        with suppress(ModelError):
            return fingerprint(self.path / name) == sha256
        return False

    def remove(self, names: Collection[str]) -> None:
        """See `Destination`."""
        with naming_target(self.path):
            for name in names:
                (self.path / name).unlink(missing_ok=True)
            for folder in sorted({(self.path / name).parent for name in names} - {self.path}):
                with suppress(OSError):
                    sweep(folder)
                    folder.rmdir()


class Store:
    """A store that fsspec can open: `s3://bucket/folder`, `gs://bucket/folder` and others.

    A failed call is repeated for `PATIENCE` seconds, with growing pauses.

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
        """Do nothing: the first file that is written, the plan, shows whether the store can be written."""

    def alone(self) -> AbstractContextManager[Any]:
        """Return a context manager without effect: stores have no locks; writers of one plan write the same bytes."""
        return nullcontext()

    def sizes(self) -> dict[str, int]:
        """See `Destination`."""

        def find() -> dict[str, int]:
            files = self._system.find(self._root, detail=True)
            names = {path[len(self._root) :].lstrip("/"): facts["size"] for path, facts in files.items()}
            return {name: size for name, size in names.items() if name and not name.startswith(".")}

        try:
            return self._repeated(find)
        except FileNotFoundError:
            return {}

    def read(self, names: Collection[str]) -> Iterator[tuple[str, bytes]]:
        """See `Destination`."""
        left = list(names)
        while left:
            some, left = left[:_AT_ONCE], left[_AT_ONCE:]
            paths = {self._path(name): name for name in some}
            contents: dict[str, bytes] = self._named(partial(self._system.cat, list(paths)))
            yield from ((name, contents[path]) for path, name in paths.items())

    def reading(self, name: str, use: Callable[[IO[bytes]], Value]) -> Value:
        """See `Destination`."""

        def call() -> Value:
            with self._system.open(self._path(name), "rb") as file:
                return use(file)

        return self._named(call)

    @contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """See `Destination`."""
        with naming_target(Path(gettempdir())), NamedTemporaryFile(prefix="energyql-") as file:
            yield Path(file.name)
            self._named(lambda: self._system.put_file(file.name, self._path(name)))

    def mark(self, name: str) -> str:
        """See `Destination`."""
        facts = self._named(lambda: self._system.info(self._path(name)))
        return str(facts.get("ETag") or facts.get("etag") or "")

    def holds(self, name: str, sha256: str, mark: str) -> bool:
        """See `Destination`."""
        if mark:
            return self.mark(name) == mark

        def digest(file: IO[bytes]) -> str:
            sha = hashlib.sha256()
            while block := file.read(1 << 22):
                sha.update(block)
            return sha.hexdigest()

        return self.reading(name, digest) == sha256

    def remove(self, names: Collection[str]) -> None:
        """See `Destination`."""
        left = [self._path(name) for name in names]
        while left:
            some, left = left[:1000], left[1000:]
            with suppress(FileNotFoundError):
                self._repeated(partial(self._system.rm, some))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"

    def _named(self, call: Callable[[], Value]) -> Value:
        """Return what a call of the store returns; see `_repeated`.

        Raises:
            ArgumentError: a file or the bucket is missing, or the store refuses or does not respond.
        """
        try:
            return self._repeated(call)
        except FileNotFoundError as error:
            hint = "make the bucket first, and see to its name; an own server is named in AWS_ENDPOINT_URL"
            raise ArgumentError(f"{self.name} is not there: {error}", hint=hint) from error

    def _repeated(self, call: Callable[[], Value]) -> Value:
        """Return what a call of the store returns; repeat it after an error that may pass.

        Raises:
            FileNotFoundError: there is no such file or bucket.
            ArgumentError: the store refuses, or fails for longer than `PATIENCE`.
        """
        end, pause = time.monotonic() + PATIENCE, _FIRST_PAUSE
        while True:
            try:
                return call()
            except (FileNotFoundError, EnergyQLError):
                raise
            except Exception as error:  # each library has its own classes of errors
                if getattr(error, "errno", None) in _LASTING or type(error).__name__ in _REFUSALS:
                    hint = "see to the name of the bucket, to the credentials and to what they allow"
                    raise ArgumentError(f"cannot write {self.name}: {error}", hint=hint) from error
                if time.monotonic() + pause > end:
                    raise ArgumentError(
                        f"{self.name} has not answered for {PATIENCE:.0f} seconds: {error or type(error)}",
                        hint="see to the store and the network; the same command then continues",
                    ) from error
            time.sleep(pause * random.uniform(0.5, 1))  # random, so that workers do not call all at once
            pause = min(2 * pause, _LONGEST_PAUSE)


def open_destination(out: str | Path) -> Destination:
    """Return the folder or store of a path or address.

    Raises:
        ArgumentError: there is no such kind of store, or its library is not installed.
    """
    text = os.fspath(out)
    if text.startswith("file://"):
        return Folder(Path(text[len("file://") :]))
    return Store(text) if "://" in text else Folder(Path(text))
