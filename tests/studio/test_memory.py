"""What the studio keeps is counted in full, and nothing else is kept."""

import gc
import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from toys import VOCABULARY

from energyql import generate
from energyql.pipeline.model import load_model
from energyql.pipeline.plan import plan_query
from energyql.pipeline.run import draw
from energyql.pipeline.session import Session
from energyql.studio.jobs import Queue
from energyql.studio.limits import Limits
from energyql.studio.memory import held_bytes
from energyql.studio.results import JOB_BYTES
from studio.client import serving
from studio.test_jobs import Work, start, until


def test_all_kinds_of_memory_are_counted_once():
    tensor, array, picture = torch.zeros(1000), np.zeros(500), Image.new("RGB", (30, 20))
    nested = {"a": [tensor, (tensor[:10], array)], "b": picture, "c": VOCABULARY}
    assert 4000 + 4000 + 2400 <= held_bytes(nested) <= 4000 + 4000 + 2400 + 2000
    assert held_bytes(tensor, tensor, tensor[5:]) == held_bytes(tensor)
    assert held_bytes(VOCABULARY) == held_bytes(str) == 0


def test_a_job_lets_its_work_go_when_it_ends():
    queue = Queue(Limits(waiting=2))
    works = [Work() for _ in range(3)]
    done, running, waiting = works
    jobs = [start(queue, done)]
    done.go.set()
    until(lambda: jobs[0].over)
    jobs.append(start(queue, running))
    jobs.append(queue.submit(waiting))
    for job in jobs:
        queue.cancel(job)
    until(lambda: all(job.over for job in jobs))
    dead = [weakref.ref(work) for work in works]
    works.clear()
    del done, running, waiting
    until(lambda: [each() for each in dead] == [None] * 3)
    queue.close()


def test_a_prepared_query_is_freed_without_the_garbage_collector(tiny):
    """In a cycle, its packed weights would stay until the collector runs, which it does by the number of objects."""
    pipeline = Session(load_model(tiny), torch.device("cpu"))
    gc.disable()
    try:
        prepared = plan_query(pipeline, "smile AND NOT glasses")
        draw(prepared, 2, progress=False)
        dead = [weakref.ref(prepared), weakref.ref(prepared.energy_in_float32)]
        del prepared
        assert [each() for each in dead] == [None, None]
    finally:
        gc.enable()


def test_results_are_counted_with_all_they_hold(studio):
    key = studio.start(query="smile", n=4)
    studio.finish(key)
    result = studio.studio.store.get(key)[1]
    pictures = sum(len(picture.image) for picture in result.pictures)
    latents = sum(tensor.nbytes for result in result.results for tensor in (result.z, result.w))
    assert result.held > JOB_BYTES + pictures + latents + 4 * 16 * 16 * 4


def held(client):
    """Memory of all results of a studio, in bytes."""
    return sum(result.held for _, result in client.studio.store._kept.values())


@pytest.mark.parametrize("path", ["/api/jobs", pytest.param("/api/edits", marks=pytest.mark.slow)])
def test_many_requests_stay_within_one_limit(tiny, path):
    body = {"query": "smile", "n": 2} if path == "/api/jobs" else {"query": "smile", "steps": ["beard"]}
    limits = Limits(kept_bytes=120_000)
    with serving([str(tiny)], limits) as client:
        keys = [client.start(path, **body, seed=seed) for seed in range(3)]
        for key in keys:
            client.finish(key)
        size = client.studio.store.get(keys[0])[1].held
        for seed in range(limits.kept_bytes // size + 3):
            client.draw(path, **body, seed=seed)
        assert held(client) <= limits.kept_bytes + size
        assert client.get(f"/api/jobs/{keys[0]}").status == 404


def test_cancelled_requests_are_dropped_too(tiny):
    limits = Limits(kept_bytes=40 * JOB_BYTES)  # more than twice a job with its pictures, which may or may not be drawn
    with serving([str(tiny)], limits) as client:
        first = client.start(query="smile", n=16)
        for _ in range(100):
            key = client.start(query="beard", n=16)
            client.request("DELETE", f"/api/jobs/{key}")
        assert held(client) <= limits.kept_bytes + client.studio.store.get(key)[1].held + 16 * JOB_BYTES
        client.request("DELETE", f"/api/jobs/{first}")
        assert len(client.studio.store._kept) <= 44


def resident():
    """Resident memory of this process, in bytes."""
    with open("/proc/self/status", encoding="ascii") as status:
        return 1024 * int(next(line for line in status if line.startswith("VmRSS")).split()[1])


@pytest.mark.slow
def test_a_thousand_draws_end_within_50_mb_of_the_first_ten():
    queries = ("smile", "smile AND NOT glasses", "hat OR beard", "hair = red AND smile")
    with serving(["avatars"]) as client:
        generate("smile", 4, progress=False)
        for number in range(1000):
            client.draw(query=queries[number % 4], n=4, seed=number)
            if number == 9:
                first = resident()
        assert resident() - first < 50e6
