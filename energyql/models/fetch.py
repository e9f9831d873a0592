"""Downloads from a hub such as huggingface.co: files are checked by size and digest, and slow downloads are cancelled.

Only the settings, the HTTP client and the errors of huggingface_hub are used. Its download functions have no time
limit, and name files in the cache after ETags, which a server chooses.
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

from energyql.errors import EnergyQLError, ModelError, first_line
from energyql.files import MOST_JSON, digest, replacing

PATIENCE = 60.0
"""Seconds in which at least `LEAST` bytes must arrive, unless the last file is complete earlier."""
LEAST = 1 << 20
"""Bytes that must arrive in `PATIENCE` seconds; a connection of 140 kbit/s is fast enough."""
TRIES = 3
"""Largest number of requests for one file, after broken connections and files of a wrong size or digest."""
COMMIT = re.compile("[0-9a-f]{40}")
"""Form of the id of a commit; an id from a server becomes part of a path only if it has this form."""
_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
"""A digest that a hub states for a file: 40 hexadecimal digits (SHA-1) or 64 (SHA-256)."""
_PASSING = (429, 500, 502, 503, 504)
"""HTTP statuses of an overloaded hub; the same request may succeed later."""
_T = TypeVar("_T")


class RemoteFile(NamedTuple):
    """A file in a repository of a hub, as the hub lists it.

    Attributes:
        name: path of the file in the repository.
        size: number of bytes.
        digest: hexadecimal SHA-256 of the content for a file in Git LFS, else the SHA-1 that git computes.
    """

    name: str
    size: int
    digest: str

    def is_at(self, path: Path) -> bool:
        """Whether the file `path` on the disk, which must exist, has the size and digest of this file."""
        if path.stat().st_size != self.size:
            return False
        git = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        with path.open("rb") as file:
            return digest(file, None if len(self.digest) == 64 else git) == self.digest


class Listing(NamedTuple):
    """The files of a repository at one commit, whose id has 40 hexadecimal digits, by their paths in the repository."""

    commit: str
    private: bool
    files: dict[str, RemoteFile]


def read_listing(text: bytes | str, name: str) -> Listing:
    """List of a repository's files from the JSON text that a hub sends; a `ModelError` if it is no such list."""
    try:
        facts = json.loads(text)
        listing = Listing(facts["sha"], facts.get("private") is True, {})
        if not COMMIT.fullmatch(listing.commit):
            raise ValueError(f"commit {listing.commit!r:.60}")
        for entry in facts["siblings"]:
            mark = (entry.get("lfs") or {}).get("sha256", entry["blobId"])
            file = RemoteFile(str(entry["rfilename"]), entry["size"], mark)
            if type(file.size) is not int or file.size < 0 or not _DIGEST.fullmatch(file.digest):
                raise ValueError(f"size {file.size!r:.60} and digest {file.digest!r:.80} of {file.name!r:.60}")
            listing.files[file.name] = file
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        wrong = f"the hub describes {name} in an unknown form: {what}"
        raise ModelError(wrong, hint="is HF_ENDPOINT the right hub?") from error
    return listing


def write_listing(listing: Listing) -> str:
    """JSON text from which `read_listing` makes a list again, so that a model can be used later without a network."""
    siblings = [{"rfilename": file.name, "size": file.size, "blobId": file.digest} for file in listing.files.values()]
    return json.dumps({"sha": listing.commit, "private": listing.private, "siblings": siblings})


def ask_listing(hub: Any, api: Any, name: str, revision: str | None = None) -> Listing:
    """Download the list of the files of a model, `owner/name`, from a hub.

    Args:
        hub: the module huggingface_hub.
        api: its `HfApi`, with the address of the hub.

    Raises:
        ModelError: the hub's answer is not a list of files.
        TimeoutError: it came too slowly.
        Exception: any error of huggingface_hub or of its HTTP library.
    """
    url = f"{api.endpoint}/api/models/{quote(name)}/revision/{quote(revision or 'main', safe='')}?blobs=true"

    async def ask(link: _Link) -> bytes:
        text = io.BytesIO()
        await link.receive(url, text, MOST_JSON)
        return text.getvalue()

    return read_listing(_Link(hub).run(ask), name)


def fetch(hub: Any, api: Any, name: str, commit: str, files: Iterable[RemoteFile], folder: Path) -> None:
    """Download files of a model at a commit. A file appears in the folder only after a check of its size and digest.

    `hub` and `api` are those of `ask_listing`. Names of files become paths in `folder`, so the caller must check the
    names.

    Raises:
        ModelError: a file does not arrive, or its size or digest is not that in `files`.
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
        hint = "download it again; files that have arrived stay in the cache"
        raise ModelError(f"{name} cannot be downloaded: {first_line(error)}", hint=hint) from error


class _Link:
    """Connection to a hub, which is closed if less than `LEAST` bytes arrive in `PATIENCE` seconds.

    Attributes:
        headers: HTTP headers of all requests, with the access token of the user.
        bar: progress bar that counts bytes, or `None`.
        file: name of the file that is downloaded, for messages.
        arrived: number of bytes that have arrived in all.
        ended: whether the user interrupted the download.
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
        """Run `work`, a coroutine function that downloads with this connection; a `TimeoutError` if it is too slow."""
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
        """Run `work`, and cancel it if too few bytes arrive."""
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
        """Download the rest of a file to `part`, again if the connection breaks or the content is wrong."""
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
        """Append the rest of a file to `target`, or replace it if the server sends all, up to `most` bytes in all."""
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
