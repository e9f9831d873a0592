"""Threads apart from the server's own, so that what computes for long never keeps the page from being sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio
import anyio.to_thread
from starlette.requests import Request

from energyql.studio.problems import Busy

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class Gate:
    """Lets a few calls run at a time, each in a thread, and some more wait, but not for askers who have left.

    Args:
        running: most calls at a time.
        waiting: most calls that wait.
    """

    def __init__(self, running: int = 2, waiting: int = 16) -> None:
        self._turns, self._threads = anyio.CapacityLimiter(running), anyio.CapacityLimiter(running)
        self._inside, self._most = 0, running + waiting

    async def run(self, asker: Request, function: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result:
        """What the function returns.

        Raises:
            Busy: too many calls wait already, or the asker is no longer there to be told more.
        """
        if self._inside >= self._most:  # the event loop is one thread, so nobody else counts meanwhile
            raise Busy(f"{self._inside} requests are being worked on already", hint="try again in a moment")
        self._inside += 1
        try:
            async with self._turns:
                if await asker.is_disconnected():
                    raise Busy("whoever asked has left")
                return await anyio.to_thread.run_sync(function, *arguments, limiter=self._threads)
        finally:
            self._inside -= 1
