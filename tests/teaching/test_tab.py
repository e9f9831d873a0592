"""Lessons inside the studio."""

import time

import pytest
import torch
from labelling.pages import running

from energyql.files import sole_writer
from energyql.studio.app import create_app
from energyql.studio.guard import Access
from energyql.studio.serving import load_models
from energyql.studio.studio import Studio
from energyql.teaching.tab import Lessons
from teaching.conftest import teach


@pytest.fixture
def folder(room):
    """A model folder that a lesson has made."""
    room.lesson.add("bright")
    room.lesson.wall.draw(room.lesson.wall.next_numbers(140))
    teach(room)
    room.learn()
    room.save()
    return room.outcome.folder


@pytest.fixture
def studio(folder):
    """Name of the model in the studio, the studio, its lessons and a client."""
    models = [str(folder), "avatars"]
    loaded = load_models(models, "cpu")
    studio = Studio(loaded)
    lessons = Lessons(studio, dict(zip(loaded, models, strict=True)), torch.device("cpu"), Access())
    with running(create_app(studio, None, lessons)) as client:
        yield next(iter(loaded)), studio, lessons, client


def test_a_model_is_taught_in_the_studio(studio):
    name, studio, lessons, client = studio
    assert {each["name"]: each["teachable"] for each in client.get("/api/info").json()["models"]} == {
        name: True,
        "avatars": False,
    }
    page = client.get(f"/lessons/{name}/")
    assert (page.status, b"teach/teach.js" in page.body) == (200, True)
    assert client.get(f"/lessons/{name}/teach/teach.js").status == 200
    before = studio.session(name)
    client.post(f"/lessons/{name}/api/attributes", {"page": "a", "text": "dark"})
    room = lessons.open[name][0]
    teach(room, "dark")
    deadline = time.monotonic() + 120
    while "dark" not in studio.session(name).model.vocabulary:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert studio.session(name) is not before
    attributes = [each["name"] for each in client.get("/api/info").json()["models"][0]["attributes"]]
    assert attributes == ["bright", "dark"]
    drawn = client.draw(query="dark", n=1, verify="off", allow_weak=["dark"], model=name)
    assert drawn["state"] == "done"


def test_other_models_have_no_lesson(studio):
    *_, client = studio
    for name in ("avatars", "..", "no-such-model"):
        answer = client.get(f"/lessons/{name}/api/lesson")
        assert answer.status in (404, 422), answer.body


def test_a_lesson_elsewhere_is_told_of(studio, folder):
    name, *_, client = studio
    with sole_writer(folder / "pictures", "a lesson"):
        refused = client.get(f"/lessons/{name}/api/lesson")
    assert refused.status >= 400
    assert "lesson" in refused.json()["message"]
    assert client.get(f"/lessons/{name}/api/lesson").status == 200


def test_a_lesson_has_the_guard_of_the_studio(studio):
    name, *_, client = studio
    assert client.get(f"/lessons/{name}/api/lesson", host="evil.example").status == 403
    refused = client.post(f"/lessons/{name}/api/undo", {"page": "a"}, origin="http://evil.example")
    assert refused.status == 403
