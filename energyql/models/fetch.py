"""Files of a hub, checked against what the hub says of them, in a time that a slow server cannot stretch.

huggingface_hub downloads without a limit of time, and names files in its cache after the ETags that a server sends. So
only its settings, its HTTP client and its errors are used here: the times are limited below, and the names of files
come from the caller.
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
"""Seconds in which at least `LEAST` bytes must arrive, or the end of the last file."""
LEAST = 1 << 20
"""Bytes; in `PATIENCE` seconds, a line of 140 kbit/s brings them."""
AGAIN = "download it again; files that have arrived stay in the cache"
TRIES = 3
"""How often a file is asked for when the connection is cut, or its content is not what the hub says."""
COMMIT = re.compile("[0-9a-f]{40}")
"""Form of the id of a commit; one that a server sends becomes a part of a path only if it has this form."""
_DIGEST = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_PASSING = (429, 500, 502, 503, 504)
"""Answers of a hub that has too much to do."""
_BLOCK = 1 << 20
_T = TypeVar("_T")


class RemoteFile(NamedTuple):
    """What a hub says of a file.

    Attributes:
        name: path in the repository.
        size: in bytes.
        digest: of its content, hexadecimal: SHA-256 of a file of LFS, else the SHA-1 that git gives a blob.
    """

    name: str
    size: int
    digest: str

    def is_at(self, path: Path) -> bool:
        """Whether a file here has this size and this content."""
        if path.stat().st_size != self.size:
            return False
        if len(self.digest) == 64:
            found = hashlib.sha256()
        else:
            found = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)  # as git does
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
        return found.hexdigest() == self.digest


class Listing(NamedTuple):
    """The files of a repository at one commit.

    Attributes:
        commit: 40 hexadecimal digits.
        private: whether others cannot see the repository.
        files: by name.
    """

    commit: str
    private: bool
    files: dict[str, RemoteFile]


def read_listing(text: bytes | str, name: str) -> Listing:
    """Return a listing in the JSON form of hubs.

    Raises:
        ModelError: it has another form, such as a commit that is not hexadecimal.
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
    """Return the text that `read_listing` takes back."""
    siblings = [{"rfilename": file.name, "size": file.size, "blobId": file.digest} for file in listing.files.values()]
    return json.dumps({"sha": listing.commit, "private": listing.private, "siblings": siblings})


def _unknown_form(name: str, what: str) -> ModelError:
    return ModelError(f"the hub describes {name} in an unknown form: {what}", hint="is HF_ENDPOINT the right hub?")


def ask_listing(hub: Any, api: Any, name: str, revision: str | None = None) -> Listing:
    """Ask a hub for the files of a model.

    Args:
        hub: huggingface_hub.
        api: its interface to the hub.
        name: `owner/name`.
        revision: a branch, a tag or a commit; by default the main branch.

    Raises:
        ModelError: the answer has an unknown form.
        Exception: those of huggingface_hub and of its HTTP library; a `TimeoutError` where it took too long.
    """
    url = f"{api.endpoint}/api/models/{quote(name)}/revision/{quote(revision or 'main', safe='')}?blobs=true"

    async def ask(link: _Link) -> bytes:
        text = io.BytesIO()
        await link.receive(url, text, MOST_JSON)
        return text.getvalue()

    return read_listing(_Link(hub).run(ask), name)


def fetch(hub: Any, api: Any, name: str, commit: str, files: Iterable[RemoteFile], folder: Path) -> None:
    """Download files of a model; each comes to its place once its content is what the hub says.

    Args:
        hub: huggingface_hub.
        api: its interface to the hub.
        name: `owner/name`.
        commit: of the files.
        files: their names become paths in `folder`, so check them first.
        folder: is made if it is not there.

    Raises:
        ModelError: a file does not arrive, or with another content.
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
    except Exception as error:  # those of the HTTP library too, which is another one in every few versions
        raise ModelError(
            f"{name} cannot be downloaded: {first_line(error)}",
            hint=AGAIN,
        ) from error


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Link:
    """A connection to a hub, which ends if too little arrives.

    Args:
        hub: huggingface_hub.
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
        """Do work with this link.

        Raises:
            TimeoutError: less than `LEAST` arrived in `PATIENCE`.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._watch(work))
        with ThreadPoolExecutor(1) as pool:  # a thread that has a loop, such as that of a notebook, cannot run another
            done = pool.submit(asyncio.run, self._watch(work))
            try:
                return done.result()
            finally:
                self.ended = True  # after Ctrl-C

    async def _watch(self, work: Callable[[_Link], Awaitable[_T]]) -> _T:
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
                await asyncio.wait({task})  # it removes what it has half written

    async def save(self, url: str, file: RemoteFile, part: Path) -> None:
        """Write a file; where the connection is cut go on, and where the content is wrong start again.

        Raises:
            RuntimeError: it has not arrived after `TRIES`, or the hub refuses it.
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
        """Append what a server sends to a file, or replace the file where the server sends it from the beginning.

        Raises:
            ValueError: the file becomes larger than `most` bytes.
            Exception: those of huggingface_hub and of its HTTP library.
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
