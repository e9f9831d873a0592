"""A queue of jobs with a limited length, and the one thread that runs them. Nothing here is about queries or pictures.

There is one thread, because torch uses all cores for one job already: two jobs at a time would both be slower.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

from energyql.errors import EnergyQLError
from energyql.studio.limits import Limits
from energyql.studio.problems import INTERNAL, Problem, StudioError, describe

State = Literal["waiting", "running", "done", "cancelled", "failed"]
log = logging.getLogger("energyql.studio")


class Stopped(Exception):
    """Ends the work of a job that was cancelled (no text), or abandoned (the text says why)."""


class Job:
    """One request to the studio that waits, runs or has ended.

    A job is abandoned, which means ended early, when no client has requested its status for some seconds.

    Attributes:
        id: a random text; a client that has it may read and cancel the job.
        state: an abandoned job is cancelled.
        fraction: fraction of the stage that is done, in [0, 1].
        problem: why the job failed or was abandoned; `None` for any other job.
        seen: time of the last request for the job, in seconds of `time.monotonic`.
        stopped: whether the job was cancelled, so that the next `check` ends its work.

    Args:
        work: called once with the job, which then forgets it.
        contended: whether other jobs wait; if they do, the job is abandoned earlier.
    """

    def __init__(
        self, work: Callable[[Job], None], limits: Limits, contended: Callable[[], bool] = lambda: False
    ) -> None:
        self.id = secrets.token_urlsafe(18)
        self.state: State = "waiting"
        self.stage, self.fraction = "waiting", 0.0
        self.problem: Problem | None = None
        self.seen = time.monotonic()
        self.stopped = False
        self._work: Callable[[Job], None] | None = work
        self._limits, self._contended = limits, contended
        self._deadline = float("inf")

    @property
    def over(self) -> bool:
        """Whether the job is done, cancelled or failed."""
        return self.state not in ("waiting", "running")

    @property
    def abandonment(self) -> str:
        """Why the job is to be abandoned, such as "nobody asked about it for 30 seconds"; "" if it is not.

        The requests of a client end when its page is closed or reloaded.
        """
        unseen, limits = time.monotonic() - self.seen, self._limits
        if unseen > limits.unwatched:
            return f"nobody asked about it for {limits.unwatched:g} seconds"
        if unseen > limits.unwatched_contended and self._contended():
            return f"nobody asked about it for {limits.unwatched_contended:g} seconds while others waited"
        return ""

    def check(self) -> None:
        """Raise an error if the work of the job is to end; the work calls this often.

        Raises:
            Stopped: the job was cancelled or is abandoned.
            StudioError: the job has run longer than `Limits.seconds`.
        """
        if self.stopped:
            raise Stopped
        if reason := self.abandonment:
            raise Stopped(reason)
        if time.monotonic() > self._deadline:
            message = f"the request took longer than {self._limits.seconds:g} seconds"
            raise StudioError("TimeUp", message, hint="ask for fewer pictures, or choose a quicker sampler")

    def report(self, stage: str, fraction: float) -> None:
        """Record the current stage, and the fraction of the stage that is done, in [0, 1].

        Raises the errors of `check` if the work is to end. The method can be the argument `progress` of
        `energyql.generate`.
        """
        self.check()
        self.stage, self.fraction = stage, fraction

    def run(self) -> None:
        """Do the work, unless the job was cancelled. An error of the work is not raised: `problem` describes it."""
        work, self._work = self._work, None  # so that its memory is freed when it ends
        if work is None:
            return
        self.state, self._deadline = "running", time.monotonic() + self._limits.seconds
        try:
            self.check()
            work(self)
            self.state = "done"
        except Stopped as stopped:
            self.cancel(str(stopped))
        except EnergyQLError as error:
            self.problem, self.state = describe(error), "failed"
        except Exception:
            log.exception("a request failed")
            self.problem, self.state = describe(INTERNAL), "failed"

    def cancel(self, reason: str = "") -> None:
        """Set the state to cancelled; `check`, not this method, ends the work of a running job.

        Args:
            reason: why the job was abandoned; "" if a client cancelled it.
        """
        self._work = None
        if reason:
            self.problem = describe(StudioError("Unwatched", reason, hint="draw again: the same pictures come"))
        self.state = "cancelled"


class Queue:
    """Jobs in the order of their arrival, of which one runs at a time, in a thread that starts with the queue."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="energyql-studio", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Job], None]) -> Job:
        """Add a job to the queue, after abandoned jobs were removed.

        Raises:
            StudioError: too many jobs are waiting already, or the studio is closing.
        """
        job = Job(work, self.limits, contended=lambda: bool(self._waiting))
        with self._change:
            for waiting in list(self._waiting):
                if reason := waiting.abandonment:
                    self._waiting.remove(waiting)
                    waiting.cancel(reason)
            if self._closed or len(self._waiting) >= self.limits.waiting:
                message = f"{len(self._waiting)} requests are waiting already"
                raise StudioError("Busy", message, hint="try again in a moment")
            self._waiting.append(job)
            self._change.notify_all()
        return job

    def cancel(self, job: Job) -> None:
        """Cancel a job: at once if it waits, at its next `check` if it runs. One that has ended keeps its state."""
        with self._change:
            job.stopped = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.cancel()

    def place(self, job: Job) -> int:
        """Number of jobs that end before `job` starts, with the running one; 0 if `job` runs or has ended."""
        with self._change:
            return 0 if job not in self._waiting else self._waiting.index(job) + (self._running is not None)

    def close(self, timeout: float = 5.0) -> None:
        """Cancel all jobs, and wait up to `timeout` seconds for the thread to end."""
        with self._change:
            self._closed = True
            for job in filter(None, [*self._waiting, self._running]):
                self.cancel(job)
            self._change.notify_all()
        self._thread.join(timeout)

    def _loop(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                self._running = self._waiting.popleft()
            self._running.run()
            with self._change:
                self._running = None
