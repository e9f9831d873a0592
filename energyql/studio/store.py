"""Store of jobs and their results, which are kept for a while, within one limit of memory."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from energyql.studio.jobs import Job
from energyql.studio.limits import Limits
from energyql.studio.problems import StudioError
from energyql.studio.results import JobResult


class ResultStore:
    """Jobs and their results by id. Ended ones are dropped when they are old, or when memory is short.

    Memory is short when all results together take more than `Limits.kept_bytes`, or, if that is more, than twice the
    memory of the largest, so that a drawing of large pictures and an edit of one of them can be kept at the same time.

    Args:
        limits: the limits of time and memory.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._kept: OrderedDict[str, tuple[Job, JobResult]] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of jobs."""
        return len(self._kept)

    @property
    def held(self) -> int:
        """Memory of all results, in bytes."""
        with self._lock:
            return sum(result.held for _, result in self._kept.values())

    def put(self, job: Job, result: JobResult) -> None:
        """Add a job and its result."""
        with self._lock:
            self._kept[job.id] = (job, result)
            self._drop_old()

    def get(self, key: str) -> tuple[Job, JobResult]:
        """Return the job with id `key` and its result, and record that it was requested.

        Raises:
            StudioError: there is no such job, or no longer.
        """
        with self._lock:
            self._drop_old()
            if key not in self._kept:
                hint = "send it again: the same request gives the same pictures"
                raise StudioError("NotKept", "there is no such request here, or no longer", hint=hint)
            self._kept.move_to_end(key)
            self._kept[key][0].seen = time.monotonic()
            return self._kept[key]

    def _drop_old(self) -> None:
        oldest = time.monotonic() - self._limits.kept_seconds
        sizes = [result.held for _, result in self._kept.values()]
        total, room = sum(sizes), max(self._limits.kept_bytes, 2 * max(sizes, default=0))
        for key, (job, result) in list(self._kept.items()):
            # The newest stays, however large: its client has not received it yet.
            crowded = total > room and key != next(reversed(self._kept))
            if job.over and (job.seen < oldest or crowded):
                del self._kept[key]
                total -= result.held
