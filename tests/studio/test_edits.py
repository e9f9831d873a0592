"""Editing one picture over HTTP, with a tiny model."""

import io
import json
import zipfile

import pytest
from markup import decode
from PIL import Image

from energyql import edit, generate, load_model, parse
from energyql.language import bind
from energyql.logic.satisfiability import satisfied

START = {"query": "smile AND NOT beard", "seed": 4, "index": 2}
STEPS = ["beard", "hair = black"]


def bytes_of(picture):
    return decode(picture["image"]).convert("RGB").tobytes()


@pytest.fixture(scope="module")
def edited(tiny):
    start = generate(START["query"], 1, first=2, model=tiny, seed=4, device="cpu", progress=False)
    return edit(start, STEPS, model=tiny, device="cpu", progress=False)


@pytest.fixture(scope="module")
def key(studio):
    key = studio.start("/api/edits", steps=STEPS, **START)
    studio.finish(key)
    return key


def test_the_pictures_are_those_of_edit(studio, key, edited):
    job = studio.finish(key)
    expected = [edited.start, *edited.steps]
    assert (job["kind"], job["state"], job["total"]) == ("edit", "done", 3)
    assert [bytes_of(picture) for picture in job["pictures"]] == [result.images[0].tobytes() for result in expected]
    assert [picture["query"] for picture in job["pictures"]] == [
        "smile AND NOT beard",
        "beard",
        "beard AND hair = black",
    ]
    assert [picture["satisfied"] for picture in job["pictures"]] == [bool(result.satisfied[0]) for result in expected]
    assert {picture["index"] for picture in job["pictures"]} == {2}


def test_what_else_changed_is_told(studio, key, edited):
    pictures = studio.finish(key)["pictures"]
    assert pictures[0]["changes"] == []
    for picture, leaks in zip(pictures[1:], edited.leaks, strict=True):
        leaked = [change["attribute"] for change in picture["changes"] if not change["implied"]]
        assert sorted(leaked) == sorted(leaks.of(0))
        assert all(change["before"] != change["after"] or change["attribute"] == "age" for change in picture["changes"])


def test_the_start_is_the_picture_of_the_wall(studio, key):
    wall = studio.draw(query=START["query"], seed=4, n=4)
    assert bytes_of(wall["pictures"][2]) == bytes_of(studio.finish(key)["pictures"][0])


def test_fewer_steps_give_the_same_beginning(studio, key):
    """Undo leaves out the last step, and what is left must not move."""
    shorter = studio.draw("/api/edits", steps=STEPS[:1], **START)
    assert [bytes_of(p) for p in shorter["pictures"]] == [bytes_of(p) for p in studio.finish(key)["pictures"][:2]]


def test_a_step_that_is_impossible_with_an_earlier_one_takes_its_place(studio):
    job = studio.draw("/api/edits", steps=["smile", "NOT smile"], **START)
    assert job["state"] == "done"
    assert job["pictures"][2]["superseded"] == ["smile"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"steps": ["beard", "berd AND smile"]}, "step 2: 'berd' is not an attribute"),
        ({"steps": ["beard AND"]}, "step 1: an operand is missing"),
        ({"steps": ["smile"] * 100}, "this studio takes 24 steps"),
        ({"steps": []}, "steps: List should have at least 1 item"),
        ({"steps": "beard"}, "steps: Input should be a valid list"),
        ({"index": -1}, "index: Input should be greater than or equal to 0"),
        ({"query": "smil"}, "'smil' is not an attribute"),
        ({"n": 4}, "n: Extra inputs are not permitted"),
        ({"steps": ["x" * 5000]}, "step 1: the query has 5,000 characters"),
    ],
)
def test_bad_edits_are_clear_messages(studio, change, words):
    answer = studio.post("/api/edits", START | {"steps": STEPS} | change)
    assert answer.status == 422
    assert words in answer.json()["message"]


class TestDownloads:
    def test_each_step(self, studio, key, edited):
        for position, result in enumerate([edited.start, *edited.steps]):
            with Image.open(io.BytesIO(studio.get(f"/api/jobs/{key}/pictures/{position}.png").body)) as picture:
                assert picture.tobytes() == result.images[0].tobytes()

    def test_the_filmstrip(self, studio, key, edited):
        with Image.open(io.BytesIO(studio.get(f"/api/jobs/{key}/grid.png").body)) as picture:
            assert picture.size == edited.filmstrip().size

    def test_provenance_of_every_step(self, studio, key, edited):
        entries = studio.get(f"/api/jobs/{key}/provenance.json").json()
        assert [entry["query"] for entry in entries] == [START["query"], "beard", "beard AND hair = black"]
        assert entries[1]["edit"]["queries"] == STEPS
        assert [entry["index"] for entry in entries] == [[2]] * 3

    def test_everything(self, studio, key):
        with zipfile.ZipFile(io.BytesIO(studio.get(f"/api/jobs/{key}/result.zip").body)) as packed:
            names = packed.namelist()
            assert {"energyql/filmstrip.png", "energyql/edit.json", "energyql/0-start/00000.png"} <= set(names)
            assert json.loads(packed.read("energyql/edit.json"))["provenance"]["queries"] == STEPS


def test_a_step_says_whether_the_query_of_the_start_still_holds(studio, tiny, edited):
    model = load_model(tiny)
    job = studio.draw("/api/edits", steps=STEPS, **START)
    query = bind(parse(START["query"]), model.vocabulary)
    expected = [bool(satisfied(query, step.judged, model.vocabulary)[0]) for step in edited.steps]
    assert [picture["keeps_query"] for picture in job["pictures"]] == [None, *expected]


@pytest.mark.parametrize(
    ("field", "option", "value"),
    [("keep", "keep", ["hair"]), ("edit_strength", "strength", 0.01), ("layers", "layers", [0])],
)
def test_options_of_the_steps_arrive(studio, tiny, field, option, value):
    start = generate(START["query"], 1, first=2, model=tiny, seed=4, device="cpu", progress=False)
    expected = edit(start, STEPS, model=tiny, device="cpu", progress=False, **{option: value})
    job = studio.draw("/api/edits", steps=STEPS, **START, **{field: value})
    assert [bytes_of(picture) for picture in job["pictures"][1:]] == [
        step.images[0].tobytes() for step in expected.steps
    ]


def test_layers_that_do_not_exist_are_refused_before_the_work(studio):
    job = studio.draw("/api/edits", steps=STEPS, layers=[99], **START)
    assert job["state"] == "failed"
    assert "99" in job["problem"]["message"]
