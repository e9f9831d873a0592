"""The queue, with work that does nothing but wait."""

import threading
import time
from dataclasses import replace

import pytest

from energyql.errors import ArgumentError
from energyql.studio.jobs import Queue
from energyql.studio.limits import Limits
from energyql.studio.problems import StudioError

LIMITS = Limits(waiting=2, seconds=5.0)


@pytest.fixture
def queue():
    made = Queue(LIMITS)
    yield made
    made.close()


def until(condition, seconds=3.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


class Work:
    """Runs until it is told to end, and looks all the time whether it should."""

    def __init__(self):
        self.started, self.go, self.ended = threading.Event(), threading.Event(), False

    def __call__(self, job):
        self.started.set()
        while not self.go.wait(0.005):
            job.check()
        self.ended = True


def start(queue, work):
    """The job of some work, once it runs."""
    job = queue.submit(work)
    assert work.started.wait(2)
    return job


def test_work_is_done_in_order_and_one_at_a_time(queue):
    log = []
    first = Work()
    jobs = [queue.submit(lambda job: (first(job), log.append("first")))]
    assert first.started.wait(2)
    jobs += [queue.submit(lambda job, n=n: log.append(n)) for n in (2, 3)]
    assert [job.state for job in jobs] == ["running", "waiting", "waiting"]
    assert [queue.place(job) for job in jobs] == [0, 1, 2]
    first.go.set()
    until(lambda: jobs[-1].over)
    assert log == ["first", 2, 3]
    assert [job.state for job in jobs] == ["done"] * 3


def test_what_does_not_fit_is_refused(queue):
    work = Work()
    start(queue, work)
    for _ in range(LIMITS.waiting):
        queue.submit(lambda job: None)
    with pytest.raises(StudioError, match="2 requests are waiting already\ntry again"):
        queue.submit(lambda job: None)
    work.go.set()
    until(lambda: not queue._waiting)
    queue.submit(lambda job: None)


def test_cancelling_what_waits(queue):
    work = Work()
    start(queue, work)
    ran = []
    waiting = queue.submit(ran.append)
    queue.cancel(waiting)
    assert waiting.state == "cancelled"
    work.go.set()
    done = queue.submit(lambda job: None)
    until(lambda: done.over)
    assert ran == []
    queue.cancel(done)
    assert done.state == "done"


def test_progress_is_told_and_ends_the_work(queue):
    go = threading.Event()

    def work(job):
        job.report("sampling", 0.25)
        go.wait(2)
        job.report("drawing", 0.5)

    job = queue.submit(work)
    until(lambda: job.stage == "sampling")
    assert job.fraction == 0.25
    queue.cancel(job)
    go.set()
    until(lambda: job.over)
    assert (job.state, job.stage) == ("cancelled", "sampling")


def test_an_error_is_recorded(queue):
    def work(job):
        raise ArgumentError("n is odd", hint="make it even")

    job = queue.submit(work)
    until(lambda: job.over)
    assert job.state == "failed"
    assert (job.problem.error, job.problem.message, job.problem.hint) == ("ArgumentError", "n is odd", "make it even")


def test_a_fault_of_ours_is_logged_and_not_shown(queue, caplog):
    def work(job):
        raise KeyError("secret")

    job = queue.submit(work)
    until(lambda: job.over)
    assert job.state == "failed"
    assert job.problem.error == "InternalError"
    assert "secret" not in job.problem.model_dump_json()
    until(lambda: "secret" in caplog.text)
    after = queue.submit(lambda job: None)
    until(lambda: after.state == "done")


def test_time_is_bounded():
    queue = Queue(replace(LIMITS, seconds=0.1))
    job = queue.submit(Work())
    until(lambda: job.over)
    assert job.state == "failed"
    assert job.problem.error == "TimeUp"
    assert "longer than 0.1 seconds" in job.problem.message
    queue.close()


def test_what_nobody_asks_about_is_given_up():
    queue = Queue(replace(LIMITS, unwatched=0.2, waiting=1))
    running = start(queue, Work())
    queue.submit(lambda job: None)
    while not running.over:
        time.sleep(0.02)
    assert running.state == "cancelled"
    assert running.problem.message == "nobody asked about it for 0.2 seconds"
    assert running.problem.hint == "draw again: the same pictures come"
    watched = queue.submit(Work())
    for _ in range(20):
        watched.seen = time.monotonic()
        time.sleep(0.02)
    assert watched.state == "running"
    queue.close()


def test_one_whose_page_is_gone_is_given_up_sooner_while_others_wait():
    queue = Queue(replace(LIMITS, unwatched=30.0, unwatched_contended=0.2))
    orphan, work = start(queue, Work()), Work()
    time.sleep(0.4)
    assert not orphan.over  # nobody waits for it
    watched = queue.submit(work)
    assert work.started.wait(2)
    assert orphan.state == "cancelled"
    assert orphan.problem.error == "Unwatched"
    assert orphan.problem.message == "nobody asked about it for 0.2 seconds while others waited"
    time.sleep(0.4)
    assert not watched.over
    work.go.set()
    until(lambda: watched.state == "done")
    queue.close()


def test_places_of_those_who_left_are_given_to_others():
    queue = Queue(replace(LIMITS, unwatched=0.15, waiting=1))
    running = start(queue, Work())
    left = queue.submit(lambda job: None)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        running.seen = time.monotonic()
        time.sleep(0.01)
    queue.submit(lambda job: None)
    assert left.state == "cancelled"
    assert left.problem.error == "Unwatched"
    queue.close()


def test_closing_ends_everything():
    queue = Queue(LIMITS)
    work = Work()
    running, waiting = queue.submit(work), queue.submit(lambda job: None)
    assert work.started.wait(2)
    queue.close()
    assert running.state == "cancelled"
    assert waiting.state == "cancelled"
    assert not queue._thread.is_alive()
    with pytest.raises(StudioError):
        queue.submit(lambda job: None)
