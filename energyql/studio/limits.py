"""Limits of the studio: the cost of one request, requests at a time, connections at a time and their waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, TypeVarTuple

import anyio.to_thread
import h11
from starlette.requests import Request
from uvicorn.protocols.http.h11_impl import H11Protocol

from energyql.studio import guard
from energyql.studio.problems import StudioError, respond

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a studio. A request beyond one of them is refused with a message that names the limit.

    Args:
        pictures: of one request.
        characters: of one query.
        steps: of one edit.
        body: bytes of one request.
        photograph_bytes: of a photograph.
        photograph_pixels: of a photograph.
        waiting: requests in the queue, besides the one that runs.
        seconds: running time of one request.
        unwatched: seconds without a status request after which a job is given up.
        unwatched_contended: the same while other requests wait; far above the second between two status requests of a
            page in the background, because a busy machine answers late.
        kept_seconds: how long a result is kept after it was last requested.
        kept_bytes: memory for all results together, or twice that of the largest one, if that is more; the oldest are
            dropped first.
    """

    pictures: int = 64
    characters: int = 4000
    steps: int = 24
    body: int = 256 * 1024
    photograph_bytes: int = 10 * 1024 * 1024
    photograph_pixels: int = 32_000_000
    waiting: int = 8
    seconds: float = 120.0
    unwatched: float = 30.0
    unwatched_contended: float = 8.0
    kept_seconds: float = 3600.0
    kept_bytes: int = 24 * 1024 * 1024


class RequestLimiter:
    """Runs blocking calls in threads of its own, a few at a time, so that the server can always send the page.

    Besides the calls that are `running`, a number may be `waiting`; one more is refused.
    """

    def __init__(self, running: int = 2, waiting: int = 16) -> None:
        self._turns, self._threads = anyio.CapacityLimiter(running), anyio.CapacityLimiter(running)
        self._inside, self.capacity = 0, running + waiting

    async def run(self, client: Request, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return the function's result, unless too many calls wait already or the client has disconnected meanwhile."""
        if self._inside >= self.capacity:  # the event loop is one thread, so this count cannot change meanwhile
            raise StudioError(
                "Busy", f"{self._inside} requests are being worked on already", hint="try again in a moment"
            )
        self._inside += 1
        try:
            async with self._turns:
                if await client.is_disconnected():
                    raise StudioError("Busy", "the client has disconnected")
                return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)
        finally:
            self._inside -= 1


CONNECTIONS = 100
"""Connections at a time; one more closes the one that has been idle for longest."""


class BoundedProtocol(H11Protocol):
    """HTTP with a time limit for headers and a limit of connections that idle ones cannot use up.

    uvicorn has neither: it waits for headers for ever, and refuses every new connection when there are too many.
    `Guard` limits the time of the body.
    """

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._timer: asyncio.TimerHandle | None = None
        self._active = self.loop.time()

    @property
    def idle(self) -> bool:
        """Whether it waits for its client: for a request, for the rest of one, or for a response to be taken."""
        waits = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        return waits or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first request, and make room if there are too many connections."""
        super().connection_made(transport)
        self._await_headers(True)
        if len(self.connections) > CONNECTIONS:
            others = [other for other in self.connections if isinstance(other, BoundedProtocol) and other is not self]
            idle = [other for other in others if other.idle]
            if idle:
                min(idle, key=lambda other: other._active).transport.abort()
            else:
                self._refuse(StudioError("Busy", "too many connections are open", hint="try again in a moment"))

    def data_received(self, data: bytes) -> None:
        """Stop the timer when the headers are complete, and start it again between requests."""
        self._active = self.loop.time()
        super().data_received(data)
        self._await_headers(self.conn.their_state is h11.IDLE)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer."""
        self._await_headers(False)
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP as everything is refused, in JSON."""
        self._refuse(StudioError("HTTPError", "the request is not HTTP", hint="send HTTP/1.1"))

    def _refuse(self, error: StudioError) -> None:
        response = respond(error)
        headers = [*response.raw_headers, (b"connection", b"close")]
        for event in (
            h11.Response(status_code=response.status_code, headers=headers),
            h11.Data(data=bytes(response.body)),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _await_headers(self, awaited: bool) -> None:
        if awaited and self._timer is None:  # a request that arrives byte by byte gets no more time
            self._timer = self.loop.call_later(guard.REQUEST_SECONDS, self.transport.close)
        elif not awaited and self._timer is not None:
            self._timer.cancel()
            self._timer = None
