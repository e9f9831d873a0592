"""Connections to the web server: how many, and how long one may wait without a request."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from energyql.studio import guard
from energyql.studio.problems import StudioError, respond

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
