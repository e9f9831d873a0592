"""Long computations do not keep the server from sending the page."""

import http.client
import threading
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

import pytest

from energyql.studio import descriptions
from energyql.studio.limits import RUNNING, WAITING
from studio.client import serving

ROOM = RUNNING + WAITING


@pytest.fixture
def blocked(tiny, monkeypatch):
    """A studio, and an event without which no check of a query ends."""
    with serving([str(tiny)]) as client:
        go, compiled = threading.Event(), descriptions.check

        def slow(*arguments, **settings):
            assert go.wait(60)
            return compiled(*arguments, **settings)

        monkeypatch.setattr(descriptions, "check", slow)
        yield client, go
        go.set()


def test_checks_that_do_not_end_block_nothing_else(blocked):
    studio, go = blocked
    key = studio.start(query="smile", n=1)
    with ThreadPoolExecutor(ROOM + 1) as users:
        checks = [users.submit(studio.post, "/api/check", {"query": "smile"}) for _ in range(ROOM + 1)]
        try:
            ended, _ = wait(checks, timeout=60, return_when=FIRST_COMPLETED)
            (refused,) = [check.result() for check in ended]
            assert refused.status == 503
            assert refused.json()["error"] == "Busy"
            assert refused.headers["retry-after"]
            assert studio.post("/api/jobs", {"query": "smile"}).status == 503
            for path in ("/", "/static/main.js", "/static/gallery.css", "/api/info"):
                assert studio.get(path).status == 200
            assert studio.finish(key)["state"] == "done"
            assert studio.get(f"/api/jobs/{key}/grid.png").status == 200
        finally:
            go.set()
        assert sorted(check.result().status for check in checks) == [200] * ROOM + [503]
    assert studio.post("/api/check", {"query": "smile"}).status == 200


def test_who_has_left_is_not_worked_for(tiny, monkeypatch):
    compiled, started, go, seen = descriptions.check, threading.Semaphore(0), threading.Event(), []

    def slow(question, *arguments, **settings):
        seen.append(question.query)
        started.release()
        assert go.wait(60)
        return compiled(question, *arguments, **settings)

    with serving([str(tiny)]) as studio, ThreadPoolExecutor(3) as users:
        monkeypatch.setattr(descriptions, "check", slow)
        checks = [users.submit(studio.post, "/api/check", {"query": "smile"}) for _ in range(2)]
        for _ in checks:
            assert started.acquire(timeout=60)
        gone = http.client.HTTPConnection("127.0.0.1", studio.port)
        gone.request("POST", "/api/check", b'{"query": "beard"}', {"content-type": "application/json"})
        for _ in range(5):  # each round trip lets the server see what came before
            assert studio.get("/api/info").status == 200
        gone.close()
        for _ in range(5):
            assert studio.get("/api/info").status == 200
        go.set()
        checks.append(users.submit(studio.post, "/api/check", {"query": "glasses"}))
        assert [check.result().status for check in checks] == [200] * 3
    assert seen == ["smile", "smile", "glasses"]


def test_two_checks_run_at_a_time_and_keep_their_warnings_apart(tiny, monkeypatch):
    compiled, together = descriptions.check, threading.Barrier(2)

    def met(*arguments, **settings):
        together.wait(60)
        rule = compiled(*arguments, **settings)
        together.wait(60)
        return rule

    with serving([str(tiny)]) as studio, ThreadPoolExecutor(2) as users:
        monkeypatch.setattr(descriptions, "check", met)
        always, plain = users.map(
            lambda query: studio.post("/api/check", {"query": query}).json(), ["smile OR NOT smile", "smile"]
        )
    assert "always true" in always["warnings"][0]["message"]
    assert plain["warnings"] == []
