"""The page of an audit: what it answers, and what it keeps to itself."""

import threading

import pytest
from auditing.painted import painted

from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.labelling.app import AHEAD
from energyql.labelling.audit_app import create_audit_app
from labelling.pages import running


@pytest.fixture
def session(tiny, tmp_path):
    subject = open_subject(painted(tiny).save(tmp_path / "run"))
    return Session(subject, AnswerBook.open(subject, AuditPlan(6)), "ann")


@pytest.fixture
def client(session):
    with running(create_audit_app(session)) as client:
        yield client


def test_to_the_end_and_back(client, session):
    state = client.get("/api/state").json()
    assert (state["answered"], state["left"], state["by"], len(state["next"])) == (0, 6, "ann", AHEAD)
    assert "satisfied" not in str(state)
    for number, answer in enumerate((True, False, None, True, True, True, False)):
        assert state["summary"] == ""
        answers = {} if answer is None else {"query": answer}  # the page leaves out what nobody can tell
        state = client.post("/api/answers", {"key": state["next"][0]["key"], "answers": answers}).json()
        assert state["answered"] == number + 1
    assert (state["next"], state["left"]) == ([], 0)
    assert state["summary"].startswith("audited: ")
    state = client.request("DELETE", "/api/answers").json()
    assert (state["answered"], len(state["next"]), state["summary"]) == (6, 1, "")
    assert list(session.answers.values())[2] == {"query": None}


def test_the_same_picture_in_two_tabs(client, session):
    key = client.get("/api/state").json()["next"][0]["key"]
    answers = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(client.post("/api/answers", {"key": key, "answers": {"query": True}}))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status for answer in answers) == [200, 422, 422, 422]
    (refusal,) = {answer.json()["message"] for answer in answers if answer.status == 422}
    assert refusal == f"'{key}' is not the picture that is asked now"
    assert len(session.answers) == 1


def test_conditions(session, client):
    session.book.plan = AuditPlan(6, attributes=True)
    asked = client.get("/api/state").json()["next"][0]
    assert asked["questions"] == ["smile", "glasses"]
    client.post("/api/answers", {"key": asked["key"], "answers": {"smile": True}})
    assert session.answers == {asked["key"]: {"smile": True, "glasses": None}}


def test_pictures_and_parts_of_the_page(client, session):
    page = client.get("/")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    for path in ("/label/audit.js", "/label/label.css"):
        assert path in page.body.decode()
        assert client.get(path).status == 200
    picture = client.get("/api/pictures/3")
    assert (picture.status, picture.headers["content-type"]) == (200, "image/png")
    assert picture.body == session.subject.pictures[3].data()
    assert client.get("/api/pictures/40").status == 404


@pytest.mark.parametrize(
    "body", [{"key": "x", "answers": {}}, {"answers": {}}, {"key": "x", "answers": {"query": "maybe"}}]
)
def test_refusals(client, session, body):
    assert client.post("/api/answers", body).status == 422
    assert client.request("DELETE", "/api/answers").status == 422
    assert session.answers == {}
