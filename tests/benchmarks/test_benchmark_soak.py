"""The soak of the studio finds what it looks for, and finds nothing wrong."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest
from avatars import random_avatars
from studio.client import serving

from benchmarks import soak, soak_client
from benchmarks.soak_client import BAD, Client, Expected, Outcome, expected_results

FOUND: dict[str, Any] = {
    "seconds": 3600, "faults": [], "statuses": {"200": 9}, "alive": True, "compared": 3, "memory": {"growth": 0.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"faults": ["draw: x", "draw: x"]}, "2 x draw: x"),
        ({"statuses": {"200": 9, "500": 2}}, "2 responses with status 500"),
        ({"alive": False}, "the studio ended"),
        ({"compared": 0}, "no result was compared"),
        ({"memory": {"growth": 60e6}}, "memory grew by 60 MB"),
    ],
)
def test_each_fault_is_a_failure(change: dict[str, Any], words: str) -> None:
    assert soak.failures(FOUND) == []
    (failure,) = soak.failures(FOUND | change)
    assert words in failure


def test_memory_is_compared_after_the_first_sixth() -> None:
    flat = [0.0] * 10 + [100.0] * 50
    assert soak.growth(flat) == 0
    assert soak.growth(flat + [300.0] * 12) == 200
    assert soak.failures(FOUND | {"seconds": 60, "memory": {"growth": 60e6}}) == []


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(random_avatars(tmp_path_factory.mktemp("soak") / "avatars"))


@pytest.fixture(scope="module")
def expected(model: str) -> Expected:
    return expected_results(model, lambda done: None)


@pytest.mark.slow
def test_every_action_succeeds_and_wrong_results_are_seen(model: str, expected: Expected) -> None:
    with serving([model]) as studio:
        client = Client(studio.port, expected, Outcome(), random.Random(0))
        for action in (client.draw, client.edit, client.vary, client.table, client.check, client.browse):
            action()
        for action in (client.cancel, client.reload, client.idle, client.drip):
            action()
        assert client.outcome.compared == 2
        wrong = [([255 - pixels for pixels in images], holds) for images, holds in expected.draws]
        with pytest.raises(AssertionError, match="grey levels"):
            Client(studio.port, Expected(wrong, []), Outcome(), random.Random(0)).draw()
        other = [(images, [not each for each in holds]) for images, holds in expected.draws]
        with pytest.raises(AssertionError, match="other verdicts"):
            Client(studio.port, Expected(other, []), Outcome(), random.Random(0)).draw()


def test_every_bad_request_is_refused_as_it_should_be(tiny: Any) -> None:
    with serving([str(tiny)]) as studio:
        client = Client(studio.port, Expected([], []), Outcome(), random.Random(0))
        for request in BAD:
            client.chance = type("First", (), {"choice": staticmethod(lambda _, request=request: request)})()
            client.bad()
    assert client.outcome.statuses.keys() <= {"400", "403", "404", "405", "413", "415", "422"}


def test_an_error_of_a_client_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(1, Expected([], []), Outcome(), random.Random(0))  # nobody listens there
    client.run(time.monotonic() + 0.5)
    assert any("ConnectionRefusedError" in fault for fault in client.outcome.faults)


@pytest.mark.slow
def test_a_minute_of_it() -> None:
    found = soak.soak("avatars", 60.0, 20, 0, lambda stage, done: None)
    assert soak.failures(found) == []
    assert found["check_seconds"]["count"] > 20
    assert np.isfinite(found["memory"]["growth"])
    assert soak_client.GREY_LEVELS == 1
