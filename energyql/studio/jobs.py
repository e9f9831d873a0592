"""A bounded queue of jobs, and the one thread that runs them; independent of queries and pictures.

There is one thread, because torch uses all cores for one request already: two at a time would both be slower.
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
    """Signal that ends the work of a job that was cancelled or abandoned; its text is the reason for abandoning it."""


class Job:
    """One request, waiting, running or ended.

    Attributes:
        id: a random text; a client that has it may read and cancel the job.
        state: waiting, running, done, cancelled or failed.
        stage: the current stage.
        fraction: the fraction of the stage that is done, in [0, 1].
        problem: why the job failed or was abandoned; `None` for any other job.
        seen: time of the last request for the job, on the monotonic clock.
        stopped: whether the next `check` ends the work.

    Args:
        work: function that is called once with the job; the reference to it is dropped when the job ends.
        limits: the longest running time, and how long the job may go without a request for it.
        contended: returns whether other jobs wait for the thread.
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
        """Whether the job has ended, in whatever state."""
        return self.state not in ("waiting", "running")

    @property
    def abandonment(self) -> str:
        """Reason for abandoning the job, in words; empty while a client still requests its status.

        A client stops doing so when its page is closed or loaded again.
        """
        unseen, limits = time.monotonic() - self.seen, self._limits
        if unseen > limits.unwatched:
            return f"nobody asked about it for {limits.unwatched:g} seconds"
        if unseen > limits.unwatched_contended and self._contended():
            return f"nobody asked about it for {limits.unwatched_contended:g} seconds while others waited"
        return ""

    def check(self) -> None:
        """End the work by an error if it shall not go on; the work calls this often.

        Raises:
            Stopped: the job was cancelled, or is abandoned.
            StudioError: the job has run too long.
        """
        if self.stopped:
            raise Stopped
        if reason := self.abandonment:
            raise Stopped(reason)
        if time.monotonic() > self._deadline:
            raise StudioError(
                "TimeUp",
                f"the request took longer than {self._limits.seconds:g} seconds",
                hint="ask for fewer pictures, or choose a quicker sampler",
            )

    def report(self, stage: str, fraction: float) -> None:
        """Record the progress; a function for `progress` of `energyql.generate`. It raises what `check` raises."""
        self.check()
        self.stage, self.fraction = stage, fraction

    def run(self) -> None:
        """Do the work. Errors are recorded in `state` and `problem`, not raised."""
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
        """Record that the job was cancelled, or abandoned for `reason`."""
        self._work = None
        if reason:
            self.problem = describe(StudioError("Unwatched", reason, hint="draw again: the same pictures come"))
        self.state = "cancelled"


class Queue:
    """Jobs in the order of their arrival, of which one runs at a time.

    Args:
        limits: the limits of the jobs and of their number.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._closed = False
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._loop, name="energyql-studio", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[Job], None]) -> Job:
        """Add a job to the queue and return it; waiting jobs that are abandoned are removed first.

        Args:
            work: function of the job that does the work.

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
        """Cancel a job: at once if it is waiting, at its next `check` if it is running; an ended job stays as it is."""
        with self._change:
            job.stopped = True
            if job in self._waiting:
                self._waiting.remove(job)
                job.cancel()

    def place(self, job: Job) -> int:
        """Return the number of jobs that run before this one; 0 for a running or ended job."""
        with self._change:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

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
                while not self._waiting and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                self._running = self._waiting.popleft()
            self._running.run()
            with self._change:
                self._running = None
