"""Limits of the studio: cost of a request, number of requests that run and wait, number of connections."""

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
        pictures: most pictures of one request.
        characters: most characters of one query.
        steps: most steps of one edit.
        body: most bytes of one request.
        photograph_bytes: most bytes of a photograph.
        photograph_pixels: most pixels of a photograph.
        waiting: most requests in the queue, besides the one that runs.
        seconds: longest running time of one request.
        unwatched: seconds without a request for its status after which a job is ended.
        unwatched_contended: seconds after which it is ended if other requests wait; far above the one second between
            two such requests of a page in the background, because a busy machine responds late.
        kept_seconds: how long a result is kept after it was last requested.
        kept_bytes: memory for all results together, or twice that of the largest result, if that is more; the oldest
            are dropped first.
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
    """Runs blocking functions in threads of its own, so that other threads can always send the page.

    Args:
        running: number of functions that run at a time.
        waiting: number of further functions that may wait; one more is refused.
    """

    def __init__(self, running: int = 2, waiting: int = 16) -> None:
        self._turns, self._threads = anyio.CapacityLimiter(running), anyio.CapacityLimiter(running)
        self._inside, self.capacity = 0, running + waiting

    async def run(self, client: Request, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """Return the result of a function.

        Args:
            client: the request for which the function is called.
            function: the function.
            arguments: its arguments.

        Raises:
            StudioError: too many calls wait already, or the client has disconnected before the function is called.
        """
        if self._inside >= self.capacity:  # no other thread changes this number
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
"""Largest number of connections; one more is refused. Against clients that hold them open, use a proxy."""
