"""Second looks at doubted labels: what the page of `energyql label --doubtful` asks, and what it writes."""

import pytest

from energyql.errors import DataError
from energyql.labelling.app import create_app
from energyql.labelling.looks import Looks
from energyql.labelling.sheet import LabelSheet
from labelling.doubted import doubted_sheet
from labelling.pages import running


@pytest.fixture
def sheet(folder):
    return doubted_sheet(folder)


@pytest.fixture
def client(sheet):
    with running(create_app(sheet, looks=Looks(sheet))) as client:
        yield client


def test_the_picture_with_most_wrong_labels_comes_first(client):
    state = client.get("/api/state").json()
    assert (state["doubtful"], state["pictures"], state["labelled"], state["last"]) == (True, 3, 0, None)
    assert state["next"] == [2, 0, 4]  # 2 has two doubts, which are more than one of 0.8
    assert state["again"][0] == {
        "labels": {"glasses": "no", "hair": "black", "age": "3"},
        "doubted": ["glasses", "age"],
    }
    assert state["again"][1]["doubted"] == ["glasses"]


def test_a_look_settles(client, sheet):
    order = list(sheet.rows())
    body = {"index": 2, "labels": {"glasses": "yes", "age": 3}}
    state = client.post("/api/labels", body).json()
    assert (state["labelled"], state["pictures"], state["next"], state["last"]) == (1, 3, [0, 4], 2)
    assert sheet.rows()[2] == {"glasses": "yes", "hair": "black", "age": "3"}
    assert list(sheet.rows()) == order
    state = client.post("/api/labels", {"index": 0, "labels": {"glasses": "no"}}).json()
    assert state["next"] == [4]
    assert list(Looks(sheet).left()) == [4]  # of a new start too
    assert client.post("/api/labels", {"index": 4, "labels": {"hair": None}}).json()["next"] == []
    assert sheet.rows()[4]["hair"] == ""


def test_looks_are_taken_back(client, sheet):
    before = sheet.rows()
    client.post("/api/labels", {"index": 2, "labels": {"glasses": "yes"}})
    client.post("/api/labels", {"index": 0, "labels": {"glasses": "no"}})
    assert client.request("DELETE", "/api/labels/2").status == 422
    state = client.request("DELETE", "/api/labels/0").json()
    assert (state["next"], state["last"]) == ([0, 4], 2)
    state = client.request("DELETE", "/api/labels/2").json()
    assert (state["next"], state["labelled"], state["last"]) == ([2, 0, 4], 0, None)
    assert sheet.rows() == before


def test_what_is_refused(client, sheet):
    text = sheet.path.read_text()
    for body in (
        {"index": 1, "labels": {}},
        {"index": 2, "labels": {"hat": "yes"}},
        {"index": 2, "labels": {"age": 99}},
    ):
        assert client.post("/api/labels", body).status == 422
    assert sheet.path.read_text() == text
    assert not sheet.path.with_suffix(".settled.json").exists()


def test_a_label_that_is_changed_meanwhile(client, sheet):
    sheet.update({0: {"glasses": "yes"}})
    assert client.get("/api/state").json()["next"] == [2, 4]


def test_without_a_training(folder, tmp_path):
    sheet = LabelSheet.open(folder.path / "other.csv", folder, "glasses")
    for _ in range(2):  # without a table, and with one
        with pytest.raises(DataError, match=r"no training has looked .*other\.csv\ntrain first: .*train_attributes"):
            Looks(sheet).left()
        sheet.decide(0, {"glasses": "yes"})
