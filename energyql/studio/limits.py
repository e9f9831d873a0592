"""Limits of the studio: cost of a request, number of requests that run and wait."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
from fastapi import Request, Response
from fastapi.routing import APIRoute

from energyql.studio.problems import StudioError


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a studio: size and number of requests, times, and memory of results.

    A request that is too large, or for which the queue has no room, is refused with a message that names the limit.

    Args:
        pictures: most pictures of one request.
        characters: most characters of one query.
        steps: most steps of one edit.
        body: most bytes of the body of a request in JSON.
        photograph_bytes: most bytes of a picture that is sent: a photograph, or a PNG with its provenance.
        photograph_pixels: most pixels of such a picture.
        waiting: most requests in the queue, besides the one that runs.
        seconds: longest running time of one request, in seconds.
        unwatched: seconds without a request for its status after which a job is ended.
        unwatched_contended: the same while other jobs wait. A page in the background asks every second; the limit is
            far higher, because a busy machine responds late.
        kept_seconds: seconds for which a result is kept after the last request for it.
        kept_bytes: most bytes of all results together; or twice the bytes of the largest result, if that is more.
            Beyond the limit, the results that were not requested for the longest time are dropped first.
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


RUNNING, WAITING = 2, 16
"""Requests to the routes of one `limited_route()` that run at a time, and further ones that may wait."""


def limited_route() -> type[APIRoute]:
    """Class of routes whose requests share one limit: `RUNNING` run at a time, and `WAITING` may wait.

    So requests to other routes are handled at once. A request beyond the limit, or whose client has disconnected before
    its turn, raises a `StudioError` ("Busy").
    """
    turns, inside = anyio.Semaphore(RUNNING), set[Request]()

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_at_turn(request: Request) -> Response:
                if len(inside) >= RUNNING + WAITING:
                    message = f"{len(inside)} requests are being worked on already"
                    raise StudioError("Busy", message, hint="try again in a moment")
                inside.add(request)
                try:
                    await request.body()  # before the next message, which says that the client has disconnected
                    async with turns:
                        if await request.is_disconnected():
                            raise StudioError("Busy", "the client has disconnected")
                        return await handle(request)
                finally:
                    inside.discard(request)

            return handle_at_turn

    return LimitedRoute
