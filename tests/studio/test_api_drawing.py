"""The HTTP API draws what the library draws."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from markup import decode
from toys import VOCABULARY

from energyql import generate

QUERY = "smile AND NOT (glasses OR beard)"


def whole(result):
    """Pictures of a result as the API sends them, to compare."""
    return [image.tobytes() for image in result.images]


def sent(job):
    return [decode(picture["image"]).convert("RGB").tobytes() for picture in job["pictures"]]


class TestDrawing:
    def test_the_pictures_are_those_of_generate(self, studio, tiny):
        job = studio.draw(query=QUERY, n=5, seed=3)
        expected = generate(QUERY, 5, model=tiny, seed=3, device="cpu", progress=False)
        assert job["state"] == "done"
        assert sent(job) == whole(expected)
        assert [picture["index"] for picture in job["pictures"]] == [0, 1, 2, 3, 4]
        assert [picture["satisfied"] for picture in job["pictures"]] == expected.satisfied.tolist()
        assert job["summary"] == expected.summary()

    def test_a_cross_says_which_part_failed(self, studio, tiny):
        job = studio.draw(query=QUERY, n=5, seed=3)
        result = generate(QUERY, 5, model=tiny, seed=3, device="cpu", progress=False)
        failed = [
            [
                part
                for part, holds in (("smile", smile), ("NOT glasses", not glasses), ("NOT beard", not beard))
                if not holds
            ]
            for smile, glasses, beard in zip(
                *(result.judged[name] for name in ("smile", "glasses", "beard")), strict=True
            )
        ]
        assert any(failed)
        for picture, parts in zip(job["pictures"], failed, strict=True):
            said = f"The query does not hold: {', '.join(parts)}" if parts else "The query holds"
            assert picture["verdict"] == f"{said}, says the image judge"

    def test_what_is_known_of_a_picture(self, studio):
        job = studio.draw(query=QUERY, n=3, seed=1)
        picture = job["pictures"][2]
        assert [clause["text"] for clause in picture["clauses"]] == ["smile", "NOT glasses", "NOT beard"]
        product = 1.0
        for clause in picture["clauses"]:
            product *= clause["probability"]
        assert picture["probability"] == pytest.approx(product, rel=1e-4)
        assert set(picture["judged"]) == set(VOCABULARY)
        assert picture["alt"].startswith("Picture 3 of 3. Image judge: ")
        assert f"The query {QUERY} {'holds' if picture['satisfied'] else 'does not hold'}." in picture["alt"]
        assert (picture["width"], picture["height"], picture["status"]) == (16, 16, "OK")
        assert job["joined"] == "all must hold"
        assert all(clause["needed"] for clause in job["clauses"])
        assert job["clauses"][0]["least"] == min(each["clauses"][0]["probability"] for each in job["pictures"])

    def test_every_setting_arrives(self, studio, tiny):
        settings = {
            "semantics": "product",
            "sampler": "ode",
            "strength": 3.0,
            "truncation": 0.9,
            "seed": 7,
            "noise": "random",
        }
        job = studio.draw(query="smile OR beard", n=2, **settings)
        expected = generate("smile OR beard", 2, model=tiny, device="cpu", progress=False, **settings)
        assert sent(job) == whole(expected)
        facts = {fact["name"]: fact["text"] for fact in job["facts"]}
        assert (facts["semantics"], facts["truncation"], facts["seed"]) == ("product", "0.9", "7")
        assert facts["noise"] == "random"
        assert "strength=3" in facts["sampler"]
        assert job["pictures"][0]["probability"] is None

    def test_pictures_can_be_asked_for_from_a_place_on(self, studio):
        key = studio.start(query="smile", n=4)
        assert len(studio.finish(key)["pictures"]) == 4
        later = studio.get(f"/api/jobs/{key}?after=3").json()
        assert [picture["position"] for picture in later["pictures"]] == [3]
        assert later["done"] == 4

    def test_users_at_the_same_time_get_their_own(self, studio, tiny):
        wanted = [
            (f"{word} AND hair = {colour}", seed)
            for word in ("smile", "beard")
            for colour in ("black", "brown")
            for seed in (0, 1)
        ]

        def one(pair):
            return sent(studio.draw(query=pair[0], n=3, seed=pair[1]))

        with ThreadPoolExecutor(len(wanted)) as users:
            found = list(users.map(one, wanted))
        for (query, seed), pictures in zip(wanted, found, strict=True):
            assert pictures == whole(generate(query, 3, model=tiny, seed=seed, device="cpu", progress=False))
        assert len({pictures[0] for pictures in found}) > 4


def test_more_pictures_of_a_run(studio):
    whole_run = studio.draw(query=QUERY, n=5, seed=3)["pictures"]
    more = studio.draw(query=QUERY, n=2, first=3, seed=3)["pictures"]
    assert [picture["index"] for picture in more] == [3, 4]
    assert [picture["image"] for picture in more] == [picture["image"] for picture in whole_run[3:]]
    assert {type(picture["doubtful"]) for picture in whole_run} == {bool}
