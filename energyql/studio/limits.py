"""Limits of the studio: the cost of one request, requests at a time and their waiting, connections at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

import anyio.to_thread
from starlette.requests import Request

from energyql.studio.problems import StudioError

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
"""Connections at a time; one more is refused. Against visitors who hold them open, a proxy goes in front."""
