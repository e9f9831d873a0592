"""Cancelling real work over HTTP, and what happens to a queue that is full."""

import time
from contextlib import contextmanager

import pytest
import torch

from energyql.studio.limits import Limits
from energyql.studio.tasks import checking_each_layer
from studio.client import serving

ENDLESS = {"query": "smile AND hair = black", "n": 64, "sampler": "published-predictor-corrector"}


@pytest.fixture(scope="module")
def small(tiny):
    with serving([str(tiny)], Limits(waiting=1, unwatched=60)) as client:
        yield client


@contextmanager
def slow(studio):
    """A generator each of whose drawing layers takes a while."""
    synthesis = studio.studio.models["tiny"].model.generator.synthesis
    handles = [module.register_forward_hook(lambda *_: time.sleep(0.02)) for module in synthesis.modules()]
    yield
    for handle in handles:
        handle.remove()


@pytest.mark.parametrize("slow_drawing", [False, True])
def test_cancel_stops_what_runs_and_frees_the_queue(small, slow_drawing):
    with slow(small):
        body = {"query": "smile", "n": 64} if slow_drawing else ENDLESS
        key = small.start(**body)
        while small.get(f"/api/jobs/{key}").json()["stage"] != ("drawing" if slow_drawing else "sampling"):
            time.sleep(0.01)
        assert small.request("DELETE", f"/api/jobs/{key}").status == 200
        assert small.finish(key)["state"] == "cancelled"
    assert small.draw(query="smile", n=1)["state"] == "done"


def test_what_was_drawn_before_is_kept(small):
    with slow(small):
        key = small.start(query="smile", n=40)
        while not (done := small.get(f"/api/jobs/{key}").json()["done"]):
            time.sleep(0.01)
        small.request("DELETE", f"/api/jobs/{key}")
        job = small.finish(key)
    assert job["state"] == "cancelled"
    assert 0 < done <= len(job["pictures"]) < 40
    assert small.get(f"/api/jobs/{key}/pictures/0.png").status == 200
    assert small.get(f"/api/jobs/{key}/pictures/39.png").status == 404
    assert small.get(f"/api/jobs/{key}/grid.png").status == 200


def test_a_full_queue_is_said_so(small):
    with slow(small):
        first = small.start(**ENDLESS)
        while small.get(f"/api/jobs/{first}").json()["state"] == "waiting":
            time.sleep(0.01)
        second = small.start(query="smile", n=1)
        assert small.get(f"/api/jobs/{second}").json()["place"] == 1
        refused = small.post("/api/jobs", {"query": "smile"})
        assert refused.status == 503
        assert refused.headers["retry-after"] == "2"
        assert refused.json()["message"] == "1 requests are waiting already"
        assert small.get(f"/api/jobs/{second}/grid.png").status == 409
        assert small.get(f"/api/jobs/{second}/pictures/0.png").status == 409
        small.request("DELETE", f"/api/jobs/{first}")
        assert small.finish(second)["state"] == "done"


def test_ctrl_c_does_not_wait_for_work(tiny):
    with serving([str(tiny)]) as client:
        client.start(**ENDLESS)
        while not (job := client.studio.queue._running):
            time.sleep(0.01)
    assert job.state == "cancelled"


class TestInterruptible:
    def test_it_stops_between_two_layers(self):
        layers = [torch.nn.Linear(1, 1) for _ in range(4)]
        network, seen = torch.nn.Sequential(*layers), []

        def check():
            seen.append(1)
            if len(seen) == 3:  # the whole, and its first two layers
                raise InterruptedError

        ran = []
        for layer in layers:
            layer.register_forward_hook(lambda *_: ran.append(1))
        with pytest.raises(InterruptedError), checking_each_layer(network, check):
            network(torch.zeros(1, 1))
        assert len(ran) == 1
        network(torch.zeros(1, 1))
        assert len(ran) == 5

    def test_what_is_no_module_is_left_alone(self):
        with checking_each_layer(object(), lambda: None):
            pass
