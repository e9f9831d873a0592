"""One scripted visitor of a studio: what it does, and whether the responses are right."""

from __future__ import annotations

import http.client
import io
import json
import random
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from energyql.editing.edit import edit
from energyql.pipeline.generate import generate

DRAWS: tuple[dict[str, Any], ...] = (
    {"query": "smile", "n": 1, "seed": 1},
    {"query": "smile AND NOT (glasses OR beard)", "n": 4, "seed": 2},
    {"query": "hat OR beard", "n": 3, "seed": 3},
    {"query": "hair = red AND smile", "n": 2, "seed": 4, "semantics": "product"},
    {"query": "AT LEAST 2 OF (glasses, beard, hat)", "n": 6, "seed": 5},
    {"query": "beard XOR glasses", "n": 2, "seed": 6, "sampler": "ode"},
)
EDITS: tuple[dict[str, Any], ...] = (
    {"query": "smile", "seed": 1, "index": 0, "steps": ["hat"]},
    {"query": "smile AND NOT hat", "seed": 7, "index": 2, "steps": ["glasses", "NOT smile"]},
)
QUERIES = (*(each["query"] for each in DRAWS), "smile AND NOT glases", "smile AND", "", "hair = blu", "🙂")
GREY_LEVELS = 1
"""Difference of a pixel that the size of a batch and the number of threads may make."""
BUSY = 503
PATIENCE = 180.0
"""Seconds after which a job counts as hanging."""
Pixels = npt.NDArray[np.int16]


@dataclass
class Outcome:
    """What all clients found; each field is changed by single operations that threads cannot interrupt."""

    statuses: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    checks: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    compared: int = 0


@dataclass(frozen=True)
class Expected:
    """The pictures of the requests in `DRAWS` and `EDITS`, and verdicts, by the library."""

    draws: list[tuple[list[Pixels], list[bool]]]
    edits: list[tuple[list[Pixels], list[bool]]]


def expected_results(model: str, report: Callable[[float], None]) -> Expected:
    """Return what the library draws for the requests of the clients."""
    draws, edits = [], []
    for done, request in enumerate((*DRAWS, *EDITS)):
        report(done / len((*DRAWS, *EDITS)))
        if "n" in request:
            drawn = [generate(**request, model=model, device="cpu", progress=False)]
            draws.append(_pictures(drawn))
        else:
            start = generate(
                request["query"], 1, first=request["index"], seed=request["seed"], model=model, device="cpu",
                progress=False,
            )  # fmt: skip
            edited = edit(start, request["steps"], model=model, device="cpu", semantics="exact", progress=False)
            edits.append(_pictures([edited.start, *edited.steps]))
    report(1.0)
    return Expected(draws, edits)


def _pictures(results: list[Any]) -> tuple[list[Pixels], list[bool]]:
    images = [np.asarray(image, np.int16) for result in results for image in result.images]
    return images, [bool(holds) for result in results for holds in result.satisfied]


class Client:
    """A visitor that does one thing after the other, by random choice, until a time.

    Args:
        port: of the studio, on the loopback.
        expected: results to compare with.
        outcome: what was found, shared by all clients.
        chance: decides what it does.
    """

    def __init__(self, port: int, expected: Expected, outcome: Outcome, chance: random.Random) -> None:
        self.port, self.expected, self.outcome, self.chance = port, expected, outcome, chance

    def run(self, end: float) -> None:
        """Act until `end` on the monotonic clock; whatever goes wrong becomes a fault."""
        actions = {
            self.draw: 30, self.edit: 12, self.check: 60, self.cancel: 10, self.reload: 6, self.vary: 4, self.table: 2,
            self.bad: 30, self.idle: 4, self.drip: 4, self.browse: 10,
        }  # fmt: skip
        while time.monotonic() < end:
            (action,) = self.chance.choices(list(actions), list(actions.values()))
            self.outcome.actions[action.__name__] += 1
            try:
                action()
            except Exception as error:
                self.outcome.faults.append(f"{action.__name__}: {type(error).__name__}: {str(error)[:200]}")
            time.sleep(self.chance.uniform(0.0, 0.5))

    def draw(self) -> None:
        """Draw, wait, and compare a picture and all verdicts."""
        number = self.chance.randrange(len(DRAWS))
        self._compare(self._finish("/api/jobs", DRAWS[number]), self.expected.draws[number])

    def edit(self) -> None:
        """Edit, wait, and compare."""
        number = self.chance.randrange(len(EDITS))
        self._compare(self._finish("/api/edits", EDITS[number]), self.expected.edits[number])

    def vary(self) -> None:
        """Draw variations."""
        job = self._finish("/api/variations", {"query": "smile", "seed": 1, "n": 3})
        self._expect(job is None or job["done"] == 3, "variations are missing")

    def table(self) -> None:
        """Draw a truth table."""
        job = self._finish("/api/truth-tables", {"literals": ["smile", "glasses"], "n": 1})
        self._expect(job is None or job["done"] == 4, "rows are missing")

    def check(self) -> None:
        """Check a query, as the page does at every key."""
        started = time.perf_counter()
        status, body = self._ask("POST", "/api/check", {"query": self.chance.choice(QUERIES)})
        self.outcome.checks.append(time.perf_counter() - started)
        self._expect(status == BUSY or "ok" in json.loads(body), "a check has no answer")

    def cancel(self) -> None:
        """Begin a job and cancel it after a moment."""
        status, body = self._ask("POST", "/api/jobs", {"query": "smile AND hat", "n": 32, "seed": 9})
        if status == BUSY:
            return
        path = f"/api/jobs/{json.loads(body)['id']}"
        time.sleep(self.chance.uniform(0.0, 1.0))
        status, body = self._ask("DELETE", path)
        self._expect(status == 200, f"cancelling: {status}")

    def reload(self) -> None:
        """Begin a job and never ask about it, as a page that is closed without a word."""
        self._ask("POST", "/api/jobs", {"query": "smile AND hat", "n": 64, "seed": 10})

    def browse(self) -> None:
        """Load the page and its parts."""
        for path in ("/", "/static/main.js", "/static/studio.css", "/api/info"):
            status, _ = self._ask("GET", path)
            self._expect(status == 200, f"{path}: {status}")

    def bad(self) -> None:
        """Send something that must be refused, and by which status."""
        method, path, body, headers, wanted = self.chance.choice(BAD)
        status, answer = self._ask(method, path, body, headers)
        self._expect(status in (*wanted, BUSY), f"{method} {path} {str(body)[:40]}: {status}")
        self._expect("message" in json.loads(answer), "a refusal has no message")

    def idle(self) -> None:
        """Hold some connections and say nothing."""
        held = [socket.create_connection(("127.0.0.1", self.port), 30) for _ in range(8)]
        time.sleep(self.chance.uniform(0.5, 3.0))
        for connection in held:
            connection.close()

    def drip(self) -> None:
        """Send a request byte by byte; it is answered, or closed because it takes too long."""
        with socket.create_connection(("127.0.0.1", self.port), 30) as connection:
            try:
                for byte in b"GET /api/info HTTP/1.1\r\nhost: localhost\r\n\r\n":
                    connection.sendall(bytes([byte]))
                    time.sleep(self.chance.uniform(0.0, 0.1))
                connection.recv(100)
            except OSError:
                pass  # it made room for another, or its time was over

    def _finish(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Begin a job and wait for it; None if the studio is busy."""
        status, answer = self._ask("POST", path, body)
        if status == BUSY:
            return None
        job = json.loads(answer)
        self._expect(status == 202, f"{path}: {status} {job.get('message')}")
        end = time.monotonic() + PATIENCE
        while job["state"] in ("waiting", "running"):
            self._expect(time.monotonic() < end, f"{path} hangs at {job['stage']}")
            time.sleep(self.chance.uniform(0.1, 0.5))
            status, answer = self._ask("GET", f"/api/jobs/{job['id']}")
            self._expect(status == 200, f"status of a job: {status}")
            job = json.loads(answer)
        self._expect(job["state"] == "done", f"{path} ended as {job['state']}: {job['problem']}")
        return dict(job)

    def _compare(self, job: dict[str, Any] | None, expected: tuple[list[Pixels], list[bool]]) -> None:
        if job is None:
            return
        pictures, verdicts = expected
        self._expect([each["satisfied"] for each in job["pictures"]] == verdicts, "other verdicts")
        position = self.chance.randrange(len(pictures))
        status, data = self._ask("GET", f"/api/jobs/{job['id']}/pictures/{position}.png")
        if status == BUSY:
            return
        self._expect(status == 200, f"picture: {status}")
        with Image.open(io.BytesIO(data)) as picture:
            difference = np.abs(np.asarray(picture.convert("RGB"), np.int16) - pictures[position]).max()
        self._expect(difference <= GREY_LEVELS, f"a picture differs by {difference} grey levels")
        self.outcome.compared += 1

    def _ask(
        self, method: str, path: str, body: dict[str, Any] | bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {"content-type": "application/json"}
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            status, data = response.status, response.read()
        finally:
            connection.close()
        self.outcome.statuses[str(status)] += 1
        return status, data

    def _expect(self, right: bool, what: str) -> None:
        if not right:
            raise AssertionError(what)


_JSON = {"content-type": "application/json"}
BAD: tuple[tuple[str, str, Any, dict[str, str] | None, tuple[int, ...]], ...] = (
    ("POST", "/api/jobs", {"query": "smile AND"}, None, (422,)),
    ("POST", "/api/jobs", {"query": "smile", "n": "4"}, None, (422,)),
    ("POST", "/api/jobs", {"query": "smile", "n": True}, None, (422,)),
    ("POST", "/api/jobs", {"query": "smile", "n": 65}, None, (422,)),
    ("POST", "/api/jobs", {"query": "x" * 5000}, None, (422,)),
    ("POST", "/api/edits", {"query": "smile", "steps": ["glases"]}, None, (422,)),
    ("POST", "/api/edits", {"job": "nothing", "steps": ["hat"]}, None, (404,)),
    ("POST", "/api/truth-tables", {"literals": ["smile"] * 9}, None, (422,)),
    ("POST", "/api/check", b"{", _JSON, (422,)),
    ("POST", "/api/check", b"[" * 100_000, _JSON, (400,)),
    ("POST", "/api/check", b'{"query": "\xff"}', _JSON, (400,)),
    ("POST", "/api/check", b"x", {"content-type": "text/plain"}, (415,)),
    ("POST", "/api/check", b" " * 300_000, _JSON, (413,)),
    ("POST", "/api/photographs", b"no picture", {"content-type": "image/png"}, (422,)),
    ("POST", "/api/provenance", b"no picture", {"content-type": "image/png"}, (422,)),
    ("GET", "/api/jobs/nothing", None, None, (404,)),
    ("GET", "/api/jobs/nothing/grid.png", None, None, (404,)),
    ("GET", "/../../etc/passwd", None, None, (404,)),
    ("GET", "/api/info", None, {"host": "evil.example"}, (403,)),
    ("GET", "/api/info", None, {"origin": "https://evil.example"}, (403,)),
    ("DELETE", "/api/info", None, None, (405,)),
    ("PUT", "/api/jobs", {"query": "smile"}, None, (405,)),
)
"""Requests that must be refused, with the statuses that are right."""
