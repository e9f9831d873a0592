"""Results that are kept for a while, in bounded memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from energyql.studio.answers import Answer
from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.problems import NotKept


class Shelf:
    """Jobs and their answers by id. Those that are over go when they are old, or when there are too many.

    Args:
        limits: for how long, and how many bytes.
        clock: seconds; another one for tests.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._clock = limits, clock
        self._kept: OrderedDict[str, tuple[Job, Answer, float]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def put(self, job: Job, answer: Answer) -> None:
        """Keep one more."""
        with self._lock:
            self._kept[job.id] = (job, answer, self._clock())
            self._tidy()

    def get(self, key: str) -> tuple[Job, Answer]:
        """The job of an id, with its answer.

        Raises:
            NotKept: there is none, or no longer.
        """
        with self._lock:
            self._tidy()
            if key not in self._kept:
                raise NotKept(
                    "there is no such request here, or no longer",
                    hint="send it again: the same request gives the same pictures",
                )
            job, answer, _ = self._kept[key]
            self._kept[key] = (job, answer, self._clock())
            self._kept.move_to_end(key)
            return job, answer

    def _tidy(self) -> None:
        oldest = self._clock() - self._limits.kept_seconds
        total = sum(answer.size for _, answer, _ in self._kept.values())
        for key, (job, answer, used) in list(self._kept.items()):
            # The newest stays, however large: whoever asked for it has not seen it yet.
            crowded = total > self._limits.kept_bytes and key != next(reversed(self._kept))
            if job.over and (used < oldest or crowded):
                del self._kept[key]
                total -= answer.size
