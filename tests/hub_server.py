"""A hub for tests, in this process: what huggingface_hub asks of a server when it lists, downloads and commits."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from toys import pixels

from energyql import generate

NAME = "somebody/tiny"
TOKEN = "hf_of_the_tests"


def is_large(name: str, size: int) -> bool:
    """Whether a file goes by LFS."""
    return name.endswith(".safetensors") and size > 1000


@dataclass
class Repo:
    """Commits by their ids, each with all its files, and the commit of each branch and tag."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes], message: str = "", ref: str = "main") -> str:
        sha = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[sha], self.refs[ref] = dict(files), sha
        self.messages.append(message)
        return sha

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        sha = self.refs.get(revision, revision)
        return (sha, self.commits[sha]) if sha in self.commits else None

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


@dataclass
class Hub:
    """What the server holds, and what it was asked."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Files that are listed, but refused."""
    faults: dict[str, list[Callable[[_Handler, bytes], object]]] = field(default_factory=dict)
    """Last part of an address -> what sends the bodies of its answers, one after the other; the last one sends all
    later ones."""
    over: threading.Event = field(default_factory=threading.Event)
    etag: str = ""
    """Of all files, in place of their digests."""
    ranges: list[str] = field(default_factory=list)
    """Parts of files that were asked for."""
    resumes: bool = True
    """Whether parts of files are sent."""
    busy: int = 0
    """How many of the next files are refused for now."""
    listed: Callable[[], object] = lambda: None
    """Called after each list of files."""

    def add(self, name: str, files: dict[str, bytes]) -> Repo:
        self.repos[name] = Repo()
        self.repos[name].commit(files)
        return self.repos[name]

    def downloaded(self) -> list[str]:
        return sorted(
            {line.rpartition("/")[2] for line in self.asked if line.startswith("GET") and "/resolve/" in line}
        )


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def trickle(handler: _Handler, body: bytes) -> None:
    """Send a byte from time to time."""
    for byte in body:
        handler.wfile.write(bytes([byte]))
        time.sleep(0.005)


def silence(handler: _Handler, body: bytes) -> None:
    """Send nothing, for longer than a test waits."""
    handler.hub.over.wait(20)


def cut(handler: _Handler, body: bytes) -> None:
    """Send the first half, then close the connection."""
    handler.wfile.write(body[: len(body) // 2])
    handler.close_connection = True


def flip(handler: _Handler, body: bytes) -> None:
    """Send all, with one bit in the middle turned over."""
    middle = len(body) // 2
    handler.wfile.write(body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :])


def whole(handler: _Handler, body: bytes) -> None:
    """Send all."""
    handler.wfile.write(body)


def entry(name: str, data: bytes) -> dict[str, Any]:
    """What a hub says of a file."""
    lfs = {"lfs": {"sha256": sha256(data), "size": len(data), "pointerSize": 130}} if is_large(name, len(data)) else {}
    return {"rfilename": name, "size": len(data), "blobId": blob(data)} | lfs


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self._path()
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(found[1], found[2] or "main")
        else:
            self._file(path)

    def do_PUT(self) -> None:
        oid, data = self._path().removeprefix("/lfs/"), self._body()
        assert sha256(data) == oid
        self.hub.stored[oid] = data
        self._json({})

    def do_POST(self) -> None:
        path, data = self._path(), self._body()
        if path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._json({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            wanted = json.loads(data)
            name = f"{wanted['organization']}/{wanted['name']}"
            url, exists = f"{self.hub.url}/{name}", name in self.hub.repos
            if not exists:
                private = wanted.get("private") or wanted.get("visibility") == "private"
                self.hub.repos[name] = Repo(private=bool(private))
                self.hub.repos[name].commit({".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
            self._json({"url": url, "name": name, "id": name}, 409 if exists else 200)
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(data)["files"]
            modes = [("lfs" if is_large(file["path"], file["size"]) else "regular", file["path"]) for file in files]
            self._json({"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for mode, name in modes]})
        elif re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            wanted = json.loads(data)["objects"]
            action = [{"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}} for each in wanted]
            objects = [each | {"actions": one} for each, one in zip(wanted, action, strict=True)]
            self._json({"transfer": "basic", "objects": objects})
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self._commit(found[1], [json.loads(line) for line in data.splitlines()])
        else:
            self._json({"error": f"no such address: {path}"}, 404)

    def _commit(self, name: str, lines: list[dict[str, dict[str, str]]]) -> None:
        repo = self.hub.repos[name]
        files, message = dict(repo.files), ""
        for line in lines:
            key, value = line["key"], line["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(files, message)
        self._json({"commitUrl": f"{self.hub.url}/{name}/commit/{sha}", "commitOid": sha, "hookOutput": ""})

    def _found(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {TOKEN}"):
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
            return None
        if (at := repo.at(revision)) is None:
            self._json({"error": "Invalid rev id"}, 404, {"X-Error-Code": "RevisionNotFound"})
        return at

    def _info(self, name: str, revision: str) -> None:
        if at := self._found(name, revision):
            sha, files = at
            facts = {"_id": "1", "id": name, "modelId": name, "tags": [], "private": self.hub.repos[name].private}
            self._json(facts | {"sha": sha, "siblings": [entry(*file) for file in sorted(files.items())]})
            self.hub.listed()

    def _file(self, path: str) -> None:
        found = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if found is None:
            self._json({"error": f"no such address: {path}"}, 404)
        elif at := self._found(found[1], found[2]):
            sha, files = at
            if found[3] in self.hub.broken:
                self._json({"error": "no access"}, 403)
                return
            if found[3] not in files:
                self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
                return
            data = files[found[3]]
            etag = self.hub.etag or (sha256(data) if is_large(found[3], len(data)) else blob(data))
            headers, status = {"ETag": f'"{etag}"', "X-Repo-Commit": sha}, 200
            if self.hub.busy:
                self.hub.busy -= 1
                self._json({"error": "too much to do"}, 503)
                return
            if (asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) and self.hub.resumes:
                self.hub.ranges.append(asked[0])
                start, status = int(asked[1]), 206
                headers["Content-Range"], data = f"bytes {start}-{len(data) - 1}/{len(data)}", data[start:]
            self._answer(data, status, headers)

    def _path(self) -> str:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        return path

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _json(self, data: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._answer(json.dumps(data).encode(), status, {"Content-Type": "application/json"} | (headers or {}))

    def _answer(self, data: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        faults = self.hub.faults.get(urlsplit(self.path).path.rpartition("/")[2], [whole])
        send = faults.pop(0) if len(faults) > 1 else faults[0]
        with suppress(OSError):  # who asked has gone
            send(self, data)


@contextmanager
def serving() -> Iterator[Hub]:
    """Run a hub on a free port of this machine."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)  # and ends as soon
    thread.start()
    try:
        yield hub
    finally:
        hub.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def same_pictures(first: Any, second: Any) -> bool:
    """Whether two models draw the same pictures of the same energies."""
    a, b = (generate("smile OR beard", n=3, model=model, progress=False) for model in (first, second))
    return bool(pixels(a.images) == pixels(b.images) and a.energy.tolist() == b.energy.tolist())
