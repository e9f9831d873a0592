"""Edits of several pictures, of pictures that are held, and variations, with a tiny model."""

import io
import json
import zipfile

import pytest
import torch
from markup import decode
from PIL import Image

from energyql import edit, generate
from energyql.sampling.traversal import vary
from energyql.studio import tasks

RUN = {"query": "glasses", "seed": 4}


def bytes_of(picture):
    return decode(picture["image"]).convert("RGB").tobytes()


def drawn(job):
    return [bytes_of(picture) for picture in job["pictures"]]


def pixels(result):
    return [image.tobytes() for image in result.images]


@pytest.fixture(scope="module")
def wall(studio):
    return studio.draw(**RUN, n=4)


class TestSeveral:
    def test_the_pictures_are_those_of_edit(self, studio, tiny):
        job = studio.draw("/api/edits", **RUN, indices=[3, 0], steps=["beard", "NOT smile"])
        start = generate("glasses", 4, model=tiny, seed=4, device="cpu", progress=False)[[3, 0]]
        expected = edit(start, ["beard", "NOT smile"], model=tiny, device="cpu", progress=False)
        assert drawn(job) == [each for result in [start, *expected.steps] for each in pixels(result)]
        assert [(p["row"], p["column"], p["index"]) for p in job["pictures"]] == [
            (0, 0, 3), (1, 0, 0), (0, 1, 3), (1, 1, 0), (0, 2, 3), (1, 2, 0),
        ]  # fmt: skip
        leaks = [p["changes"] for p in job["pictures"][2:4]]
        for row, changes in enumerate(leaks):
            leaked = sorted(change["attribute"] for change in changes if not change["implied"])
            assert leaked == sorted(expected.leaks[0].of(row))

    def test_settings_of_the_edit_arrive(self, studio, tiny):
        settings = {"keep": ["hair"], "mode": "alone", "layers": [0, 1]}
        job = studio.draw("/api/edits", **RUN, steps=["beard", "NOT smile"], edit_strength=7.0, **settings)
        start = generate("glasses", 1, model=tiny, seed=4, device="cpu", progress=False)
        expected = edit(
            start, ["beard", "NOT smile"], model=tiny, device="cpu", strength=7.0, progress=False, **settings
        )  # fmt: skip
        assert drawn(job)[1:] == [each for result in expected.steps for each in pixels(result)]
        entry = studio.get(f"/api/jobs/{job['id']}/provenance.json").json()[1]["edit"]
        assert (entry["keep"], entry["mode"], entry["preset"]["strength"]) == (["hair"], "alone", 7.0)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"keep": ["hat"]}, "'hat' is not an attribute of model"),
            ({"layers": [99]}, "layers are whole numbers from 0"),
            ({"layers": {"hat": [0]}}, "'hat' is not an attribute of model"),
        ],
    )
    def test_what_only_the_edit_can_see_is_a_failed_job(self, studio, change, words):
        job = studio.draw("/api/edits", **RUN, steps=["beard"], **change)
        assert job["state"] == "failed"
        assert words in job["problem"]["message"]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"indices": [1], "index": 2}, "give index or indices, not both"),
            ({"indices": ["1"]}, "indices.0: Input should be a valid integer"),
            ({"positions": [0]}, "positions count in a job"),
            ({"job": "x", "index": 0}, "of a job give positions"),
            ({"query": None}, "give the query of a run, or a job"),
            ({"indices": list(range(65))}, "65 pictures are too many"),
            ({"indices": list(range(8)), "steps": ["beard"] * 9}, "72 pictures are too many"),
            ({"keep": "hair"}, "keep: Input should be a valid list"),
            ({"mode": "both"}, "mode: Input should be 'cumulative' or 'alone'"),
            ({"layers": ["a"]}, "layers.list[int].0: Input should be a valid integer"),
            ({"edit_strength": 1e7}, "edit_strength: Input should be less than or equal to 1000000"),
        ],
    )
    def test_bad_requests_are_clear_messages(self, studio, change, words):
        answer = studio.post("/api/edits", {**RUN, "steps": ["beard"], **change})
        assert answer.status == 422
        assert words in answer.json()["message"]


class TestHeld:
    def test_pictures_of_a_job(self, studio, wall, tiny):
        verified = {"verify": "sure"}  # pictures that are held, and those of edits, are not verified
        job = studio.draw("/api/edits", job=wall["id"], positions=[2, 1], steps=["beard"], **verified)
        again = studio.draw("/api/edits", **RUN, indices=[2, 1], steps=["beard"])
        assert drawn(job) == drawn(again)
        assert drawn(job)[0] == drawn(wall)[2]

    def test_all_of_them_by_default_and_of_an_edit_the_last(self, studio, wall):
        job = studio.draw("/api/edits", job=wall["id"], steps=["beard"])
        assert len(job["pictures"]) == 8
        further = studio.draw("/api/edits", job=job["id"], steps=["NOT smile"])
        assert drawn(further)[:4] == drawn(job)[4:]

    def test_pictures_of_several_queries(self, studio, wall):
        first = studio.draw("/api/edits", **RUN, steps=["beard"])
        job = studio.draw("/api/edits", job=first["id"], positions=[0, 1], steps=["NOT smile"])
        assert drawn(job)[:2] == drawn(first)
        assert [(p["row"], p["column"]) for p in job["pictures"]] == [(0, 0), (1, 0), (0, 1), (1, 1)]

    @pytest.mark.parametrize(
        ("source", "status", "words"),
        [
            ({"job": "nothing"}, 404, "no such request"),
            ({"positions": [4]}, 404, "there is no picture 4"),
            ({"positions": [0, 2**40]}, 404, "there is no picture 1099511627776"),
        ],
    )
    def test_what_is_not_held(self, studio, wall, source, status, words):
        answer = studio.post("/api/edits", {"job": wall["id"], "steps": ["beard"], **source})
        assert answer.status == status
        assert words in answer.json()["message"]

    def test_a_job_without_pictures_yet(self, studio):
        key = studio.start(query="smile AND hair = black", n=64, sampler="published-predictor-corrector")
        answer = studio.post("/api/edits", {"job": key, "steps": ["beard"]})
        assert (answer.status, answer.json()["error"]) == (409, "NotReady")
        studio.request("DELETE", f"/api/jobs/{key}")
        studio.finish(key)


class TestVariations:
    @pytest.mark.parametrize("source", [{**RUN, "index": 1}, {**RUN, "indices": [1, 3]}])
    def test_they_satisfy_the_query_and_depend_on_their_seed(self, studio, source):
        jobs = [studio.draw("/api/variations", **source, n=4, variation_seed=seed) for seed in (0, 0, 1)]
        assert [job["state"] for job in jobs] == ["done"] * 3
        assert drawn(jobs[0]) == drawn(jobs[1]) != drawn(jobs[2])
        assert len(set(drawn(jobs[0]))) == 4
        assert {p["query"] for p in jobs[0]["pictures"]} == {"glasses"}
        assert [(p["row"], p["column"], p["position"]) for p in jobs[0]["pictures"]] == [
            (row, 0, row) for row in range(4)
        ]
        result = studio.studio.store.get(jobs[0]["id"])[1].results[0]
        assert (result.probability > 0.85).all()

    def test_the_amount_is_the_distance_before_the_query_moves_it(self, studio, wall, monkeypatch):
        start = generate("glasses", 2, model=studio.studio.models["tiny"].model, seed=4, progress=False)[1]
        begun, edit_pictures = [], tasks._edit
        monkeypatch.setattr(
            tasks, "_edit", lambda given, at, *rest: begun.append(at.z) or edit_pictures(given, at, *rest)
        )
        for amount in (0.0, 0.8):
            studio.draw("/api/variations", job=wall["id"], positions=[1], n=3, amount=amount)
        at_start, far = ((1 - torch.cosine_similarity(z, start.z)).tolist() for z in begun)
        assert max(at_start) < 1e-5
        assert min(far) > 0.2

    def test_another_query(self, studio, wall):
        job = studio.draw("/api/variations", job=wall["id"], positions=[1], n=2, wanted="smile AND beard")
        assert {p["query"] for p in job["pictures"]} == {"smile AND beard"}
        assert job["kind"] == "variations"

    def test_downloads_are_those_of_a_result(self, studio, wall):
        job = studio.draw("/api/variations", job=wall["id"], positions=[1], n=2)
        base = f"/api/jobs/{job['id']}"
        with zipfile.ZipFile(io.BytesIO(studio.get(f"{base}/result.zip").body)) as packed:
            assert {"energyql/00001.png", "energyql/result.json"} <= set(packed.namelist())
        with Image.open(io.BytesIO(studio.get(f"{base}/pictures/1.png").body)) as picture:
            assert picture.tobytes() == drawn(job)[1]
            known = json.loads(picture.text["energyql"])
        assert known["edit"]["start"]["variations"] == {"amount": 0.3, "seed": 0, "of": [1]}

    def test_wrong_requests(self, studio):
        for change, words in (
            ({"amount": 1.1}, "amount: Input should be less than or equal to 1"),
            ({"amount": True}, "amount: Input should be a valid number"),
            ({"n": 65}, "65 pictures"), ({"wanted": "hat"}, "'hat' is not"),
        ):  # fmt: skip
            answer = studio.post("/api/variations", {**RUN, **change})
            assert answer.status == 422
            assert words in answer.json()["message"]


class TestVary:
    def test_of_one(self):
        z = torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
        stays, weights = vary(z, 5, 0.0, 3)
        assert torch.allclose(stays, z.expand(5, -1), atol=1e-5)
        assert torch.allclose(weights, torch.ones(5, 1))
        arrived = vary(z, 5, 1.0, 3)[0]
        assert not torch.isclose(arrived, z).all(1).any()
        assert torch.allclose(vary(z, 5, 0.4, 3)[0][:2], vary(z, 2, 0.4, 3)[0])

    def test_mixtures_are_as_long_as_what_was_mixed(self):
        z = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
        mixed, weights = vary(z, 50, 0.0, 1)
        assert torch.allclose(weights.sum(1), torch.ones(50))
        assert (weights >= 0).all()
        assert torch.allclose(mixed.norm(dim=1), weights @ z.norm(dim=1), rtol=1e-4)
