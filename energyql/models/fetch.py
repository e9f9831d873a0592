"""Downloads from a hub: files are checked against the sizes and digests in the hub's list, and times are limited.

huggingface_hub downloads without a limit of time, and names files in its cache after the ETags of a server. So only its
settings, its HTTP client and its errors are used here; the names of files come from the caller.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import re
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar
from urllib.parse import quote

from energyql.errors import EnergyQLError, ModelError
from energyql.files import MOST_JSON, replacing

PATIENCE = 60.0
"""Seconds in which at least `LEAST` bytes must arrive, unless the last file ends."""
LEAST = 1 << 20
"""Bytes that must arrive in `PATIENCE` seconds; a connection of 140 kbit/s is fast enough."""
AGAIN = "download it again; files that have arrived stay in the cache"
"""Remedy for a failed download."""
TRIES = 3
"""Most requests for a file, if connections are cut or the content has another size or digest than in the list."""
COMMIT = re.compile("[0-9a-f]{40}")
"""Form of the id of a commit. An id from a server becomes a part of a path only if it has this form."""
_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""Form of the digest of a file."""
_PASSING = (429, 500, 502, 503, 504)
"""HTTP statuses of a hub that has too much to do; the same request may succeed later."""
_BLOCK = 1 << 20
"""Bytes of a file that are read together."""
_T = TypeVar("_T")


class RemoteFile(NamedTuple):
    """The entry of a file in the list of a hub.

    Attributes:
        name: path in the repository.
        size: number of bytes.
        digest: hexadecimal digest of the content: SHA-256 of a file of LFS, else git's SHA-1 of a blob.
    """

    name: str
    size: int
    digest: str

    def is_at(self, path: Path) -> bool:
        """Return whether the file at `path`, which must exist, has this size and this digest."""
        if path.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            digest = hashlib.sha256()
        else:
            digest = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)  # as git does
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
        return digest.hexdigest() == self.digest


class Listing(NamedTuple):
    """The files of a repository at one commit.

    Attributes:
        commit: id of the commit, 40 hexadecimal digits.
        private: whether the repository is private.
        files: name -> file.
    """

    commit: str
    private: bool
    files: dict[str, RemoteFile]


def read_listing(text: bytes | str, name: str) -> Listing:
    """Return the listing in a JSON text of a hub.

    Args:
        text: the JSON text.
        name: `owner/name` of the repository, for messages.

    Raises:
        ModelError: the text has another form, such as a commit that is not hexadecimal.
    """
    try:
        facts = json.loads(text)
        listing = Listing(facts["sha"], facts.get("private") is True, {})
        if not COMMIT.fullmatch(listing.commit):
            raise ValueError(f"commit {listing.commit!r:.60}")
        for entry in facts["siblings"]:
            digest = (entry.get("lfs") or {}).get("sha256", entry["blobId"])
            file = RemoteFile(str(entry["rfilename"]), entry["size"], digest)
            if type(file.size) is not int or file.size < 0 or not _DIGEST.fullmatch(file.digest):
                raise ValueError(f"size {file.size!r:.60} and digest {file.digest!r:.80} of {file.name!r:.60}")
            listing.files[file.name] = file
    except KeyError as error:
        raise _unknown_form(name, f"{error} is missing") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise _unknown_form(name, str(error)) from error
    return listing


def write_listing(listing: Listing) -> str:
    """Return a listing as a JSON text, which `read_listing` can read."""
    siblings = [{"rfilename": file.name, "size": file.size, "blobId": file.digest} for file in listing.files.values()]
    return json.dumps({"sha": listing.commit, "private": listing.private, "siblings": siblings})


def _unknown_form(name: str, what: str) -> ModelError:
    """Return the error for a text of a hub about the repository `name` in which `what` is wrong."""
    return ModelError(f"the hub describes {name} in an unknown form: {what}", hint="is HF_ENDPOINT the right hub?")


def ask_listing(hub: Any, api: Any, name: str, revision: str | None = None) -> Listing:
    """Return the listing of a model, downloaded from a hub.

    Args:
        hub: the module huggingface_hub.
        api: its `HfApi` for the hub.
        name: `owner/name`.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        ModelError: the answer has an unknown form.
        TimeoutError: the answer came too slowly.
        Exception: any error of huggingface_hub or of its HTTP library.
    """
    url = f"{api.endpoint}/api/models/{quote(name)}/revision/{quote(revision or 'main', safe='')}?blobs=true"

    async def ask(link: _Link) -> bytes:
        text = io.BytesIO()
        await link.receive(url, text, MOST_JSON)
        return text.getvalue()

    return read_listing(_Link(hub).run(ask), name)


def fetch(hub: Any, api: Any, name: str, commit: str, files: Iterable[RemoteFile], folder: Path) -> None:
    """Download files of a model into a folder; each appears there only when its size and digest are right.

    Args:
        hub: the module huggingface_hub.
        api: its `HfApi` for the hub.
        name: `owner/name`.
        commit: id of the commit of the files.
        files: the files. Their names become paths in `folder`, so the caller must check them.
        folder: the folder; it need not exist.

    Raises:
        ModelError: a file does not arrive, or has another content.
        ArgumentError: the folder cannot be written.
    """
    missing = list(files)

    async def get(link: _Link) -> None:
        total = sum(file.size for file in missing)
        with hub.utils.tqdm(total=total, unit="B", unit_scale=True, desc=name) as link.bar:
            for file in missing:
                url = hub.hf_hub_url(name, file.name, revision=commit, endpoint=api.endpoint)
                with replacing(folder / file.name) as part:
                    await link.save(url, file, part)

    try:
        if missing:
            _Link(hub).run(get)
    except EnergyQLError:
        raise
    except Exception as error:  # of the HTTP library too: versions of huggingface_hub use different ones
        raise ModelError(
            f"{name} cannot be downloaded: {first_line(error)}",
            hint=AGAIN,
        ) from error


def first_line(error: BaseException) -> str:
    """Return the first line of the message of an error that is not empty, or the name of its class."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Link:
    """A connection to a hub that ends if less than `LEAST` bytes arrive in `PATIENCE` seconds.

    Args:
        hub: the module huggingface_hub.
    """

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.headers = hub.utils.build_hf_headers(library_name="energyql") | {"Accept-Encoding": "identity"}
        self.client: Any = None
        self.bar: Any = None
        self.file = "the list of files"
        self.arrived = 0
        self.ended = False

    def run(self, work: Callable[[_Link], Awaitable[_T]]) -> _T:
        """Return the result of `work`, a coroutine function that downloads with this link.

        Raises:
            TimeoutError: too few bytes arrived.
            Exception: any error of `work`.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._watch(work))
        with ThreadPoolExecutor(1) as pool:  # a thread with an event loop, such as that of a notebook, can run no other
            future = pool.submit(asyncio.run, self._watch(work))
            try:
                return future.result()
            finally:
                self.ended = True  # after Ctrl-C

    async def _watch(self, work: Callable[[_Link], Awaitable[_T]]) -> _T:
        """Return the result of `work`, and cancel it if too few bytes arrive; see `run`."""
        async with self.hub.get_async_session() as self.client:
            task = asyncio.ensure_future(work(self))
            try:
                before = -LEAST
                while not task.done():
                    if self.arrived - before < LEAST:
                        few = f"less than {LEAST / 1024:g} KiB arrived in {PATIENCE:g} seconds"
                        raise TimeoutError(f"{self.file}: {few}")
                    before = self.arrived
                    await asyncio.wait({task}, timeout=PATIENCE)
                return await task
            finally:
                task.cancel()
                await asyncio.wait({task})  # it removes a file that it has written in part

    async def save(self, url: str, file: RemoteFile, part: Path) -> None:
        """Download a file, in several requests if the connection is cut or the content is wrong.

        Args:
            url: address of the file.
            file: its entry in the list of the hub.
            part: path where it is written; bytes that are there already are its beginning.

        Raises:
            RuntimeError: the file is not complete after `TRIES` requests, or the hub refuses it.
            OSError: the disk cannot be written.
        """
        self.file = file.name
        for left in reversed(range(TRIES)):
            try:
                with part.open("ab") as target:
                    await self.receive(url, target, file.size)
                if file.is_at(part):
                    return
                part.write_bytes(b"")
                raise ValueError("its content is not what the hub says")
            except Exception as error:
                answer = getattr(error, "response", None)  # of huggingface_hub's errors, which are OSErrors too
                if isinstance(error, OSError) and answer is None:  # of the disk
                    raise
                if not left or (answer is not None and answer.status_code not in _PASSING):
                    raise RuntimeError(f"{file.name}: {first_line(error)}") from error
            await asyncio.sleep(PATIENCE / 60)

    async def receive(self, url: str, target: BinaryIO, most: int) -> None:
        """Append the rest of a file of a server to `target`, or replace `target` if the server sends the whole file.

        Args:
            url: address of the file.
            target: file that holds the bytes that have arrived, positioned at its end.
            most: size that `target` may reach, in bytes.

        Raises:
            ValueError: the file is larger than `most` bytes.
            Exception: any error of huggingface_hub or of its HTTP library.
        """
        size = target.tell()
        headers = self.headers | ({"Range": f"bytes={size}-"} if size else {})
        async with self.client.stream("GET", url, headers=headers, follow_redirects=True) as response:
            self.hub.utils.hf_raise_for_status(response)
            if response.status_code != 206:
                size = target.truncate(0)
            async for block in response.aiter_raw():
                self.arrived += len(block)
                size += len(block)
                if self.ended:
                    raise asyncio.CancelledError
                if size > most:
                    target.truncate(0)
                    raise ValueError(f"it is larger than {most:,} bytes")
                target.write(block)
                if self.bar is not None:
                    self.bar.update(len(block))
