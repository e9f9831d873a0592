"""The page of a lesson: what it answers, and whom."""

import time

import pytest
import torch
from labelling.pages import running
from toys import tiny_model

from energyql.pipeline.source import ModelSource
from energyql.teaching.app import create_app
from energyql.teaching.classroom import Classroom
from teaching.conftest import brightness


@pytest.fixture
def client(room):
    with running(create_app(room)) as client:
        yield client


def say(client, page="a", **labels):
    return client.post("/api/labels", {"page": page, "labels": {"bright": labels}})


def test_a_lesson_over_http(client, room):
    state = client.get("/api/lesson").json()
    assert (state["attributes"], state["drawn"], state["can_undo"]) == ([], 160, False)
    state = client.post("/api/attributes", {"page": "a", "text": "bright"}).json()
    assert [(each["name"], each["values"]) for each in state["attributes"]] == [("bright", ["no", "yes"])]
    wall = client.get("/api/wall?attribute=bright").json()
    assert [cell["number"] for cell in wall["screen"]] == list(range(40))
    told = brightness(room.lesson.wall, list(range(40)))
    limit = sorted(told.values())[20]
    state = say(client, **{str(number): "yes" if value > limit else "no" for number, value in told.items()}).json()
    assert state["attributes"][0]["meter"]["counts"] == {"no": 21, "yes": 19}
    assert state["can_undo"]
    wall = client.get("/api/wall?attribute=bright").json()
    assert {part["title"] for part in wall["sections"]} == {"surely yes", "unsure", "surely no"}
    assert all(cell["guess"] in ("yes", "no") for cell in wall["screen"])

    assert client.post("/api/check", {"query": "NOT bright"}).json()["ok"]
    wrong = client.post("/api/check", {"query": "bright AND brigt"}).json()
    assert wrong["problem"]["spans"] == [[11, 16]]
    answer = client.post("/api/questions", {"query": "bright", "n": 4}).json()
    deadline = time.monotonic() + 60
    while not answer["finished"] and time.monotonic() < deadline:
        time.sleep(0.1)
        answer = client.get("/api/questions").json()
    assert len(answer["cells"]) == 4
    assert all(cell["readings"]["bright"] in ("yes", "no") for cell in answer["cells"])
    picture = client.get(f"/api/pictures/{answer['cells'][0]['number']}.png")
    assert picture.headers["content-type"] == "image/png"
    state = client.post("/api/undo", {"page": "a"}).json()
    assert sum(state["attributes"][0]["meter"]["counts"].values()) == 0


def test_one_page_writes_and_the_other_is_told(client, room):
    client.post("/api/attributes", {"page": "a", "text": "bright"})
    refused = say(client, page="b", **{"0": "yes"})
    assert (refused.status, refused.json()["message"]) == (409, "another page teaches in this lesson")
    assert room.lesson.rows == {}
    assert client.post("/api/writer", {"page": "b"}).json()["writer"] == "b"
    assert say(client, page="b", **{"0": "yes"}).status == 200
    assert say(client, page="a", **{"1": "yes"}).status == 409


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/labels", {"page": "a", "labels": {"bright": {"x": "yes"}}}, 422),
        ("POST", "/api/labels", {"page": "a", "labels": {"odd": {"1": "yes"}}}, 422),
        ("POST", "/api/labels", {"page": "a", "labels": {"bright": {"1": "yes"}}, "more": 1}, 422),
        ("POST", "/api/attributes", {"page": "a", "text": "="}, 422),
        ("POST", "/api/questions", {"query": "bright"}, 422),
        ("POST", "/api/questions", {"query": "bright", "n": 65}, 422),
        ("POST", "/api/undo", {"page": "a"}, 422),
        ("POST", "/api/finish", {"page": "a"}, 422),
        ("GET", "/api/questions", None, 409),
        ("GET", "/api/wall?attribute=odd", None, 422),
        ("GET", "/api/pictures/77777.png", None, 404),
    ],
)
def test_bad_requests_are_refused(client, method, path, body, status):
    client.post("/api/attributes", {"page": "a", "text": "bright"})
    answer = client.request(method, path) if body is None else client.post(path, body)
    assert answer.status == status
    assert answer.json()["message"]


def test_a_generator_that_fails_is_told(room):
    room.wanted = 200

    def fail(numbers):
        raise RuntimeError("no memory")

    room.lesson.wall.draw = fail
    with running(create_app(room)) as client:
        deadline = time.monotonic() + 30
        while client.get("/api/lesson").json()["problem"] is None and time.monotonic() < deadline:
            time.sleep(0.1)
        assert client.get("/api/lesson").json()["problem"]["message"] == "the generator failed: no memory"


def test_queries_may_ask_for_what_the_model_had(tmp_path):
    source = ModelSource(tiny_model(tmp_path / "tiny", truncation=(0.7, 0.7)))
    room = Classroom.open(source, tmp_path / "model", torch.device("cpu"), wanted=40)
    room.lesson.wall.draw(room.lesson.wall.next_numbers(40))
    with running(create_app(room)) as client:
        state = client.get("/api/lesson").json()
        assert state["attributes"] == []
        assert {
            "name": "smile",
            "written": "smile",
            "kind": "yes/no",
            "values": ["no", "yes"],
            "low": 0.0,
            "high": 1.0,
        } in (state["taken"])
        assert client.post("/api/check", {"query": "smile AND NOT beard"}).json()["ok"]
        answer = client.post("/api/questions", {"query": "smile", "n": 4}).json()
        assert [cell["readings"] for cell in answer["cells"]] == [{}] * 4  # nothing of it is a label
        state = client.post("/api/attributes", {"page": "a", "text": "bright"}).json()
        assert [each["name"] for each in state["attributes"]] == ["bright"]
        refused = client.post("/api/attributes", {"page": "a", "text": "smile"})
        assert "'smile' already" in refused.json()["message"]
