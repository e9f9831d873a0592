"""The file of answers: what may stand in it, what may stand in its place, and a disk that is full."""

import json
import os

import pytest
from odd import put

from auditing.painted import painted
from energyql import audit
from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.questions import read_answer
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.errors import ArgumentError, DataError


def session_of(folder, by="me", **plan):
    subject = open_subject(folder)
    return Session(subject, AnswerBook.open(subject, AuditPlan(**plan) if plan else None), by)


@pytest.fixture
def path(folder):
    """The file of answers of an audit that has just begun."""
    return session_of(folder, clicks=5).book.path


def append(path, session, answers, other=()):
    """Write a line by hand."""
    picture = session.next(1)[0]
    line = {"picture": picture.key, "by": "me", "sha256": picture.fingerprint(), "answers": answers} | dict(other)
    path.write_text(path.read_text() + json.dumps(line) + "\n")


class TestValues:
    @pytest.mark.parametrize(
        ("value", "answer"),
        [
            (True, True), (False, False), (None, None), (1, True), (0, False), (1.0, True), ("yes", True),
            ("No", False), ("true", True), ("false", False), ("1", True), ("0", False),
        ],
    )  # fmt: skip
    def test_what_is_meant(self, value, answer):
        assert read_answer(value) is answer

    @pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), "maybe", "", "null", [], {}, [True], "yes\0"])
    def test_what_is_no_answer(self, path, folder, value):
        append(path, session_of(folder), {"query": value})
        with pytest.raises(DataError, match="line 2, is damaged: .* is none of true, false and null"):
            session_of(folder)

    @pytest.mark.parametrize(("yes", "no"), [(1, 0), ("yes", "no"), (1.0, 0.0)])
    def test_a_query_follows_from_them_as_from_true_and_false(self, tiny, tmp_path, yes, no):
        """The complement of an integer is no negation: NOT glasses was true of none."""
        reports = []
        for number, (true, false) in enumerate([(True, False), (yes, no)]):
            folder = painted(tiny).save(tmp_path / str(number) / "run")
            session = session_of(folder, clicks=6, attributes=True)
            for _ in range(6):
                append(session.book.path, session, {"smile": true, "glasses": false})
                session = session_of(folder)
            reports.append(session.evidence.report().to_dict() | {"name": ""})
        assert reports[0] == reports[1]
        assert reports[0]["share"]["share"] > 0.5

    @pytest.mark.parametrize("value", [1, 0, 1.0, True, False])
    def test_verdicts(self, folder, value):
        described = json.loads((folder / "result.json").read_text())
        described["samples"][0]["satisfied"] = value
        (folder / "result.json").write_text(json.dumps(described))
        assert open_subject(folder).pictures[0].verdict is bool(value)

    @pytest.mark.parametrize(
        "plan",
        [
            {"attributes": "no"}, {"attributes": 1}, {"attributes": None}, {"clicks": True}, {"clicks": "6"},
            {"width": True}, {"width": "0.1"}, {"width": float("nan")}, {"more": 1},
        ],
    )  # fmt: skip
    def test_wrong_plans(self, path, folder, plan):
        first = json.loads(path.read_text())
        path.write_text(json.dumps(first | {"plan": first["plan"] | plan}) + "\n")
        with pytest.raises(DataError, match="line 1, is damaged"):
            session_of(folder)

    @pytest.mark.parametrize(
        "line",
        [
            {"picture": 5}, {"picture": None}, {"picture": []}, {"by": []}, {"by": None}, {"by": "\ud800"},
            {"by": "\x1b[2J"}, {"by": "x" * 1000}, {"answers": []}, {"answers": None}, {"undo": []}, {"undo": {}},
        ],
    )  # fmt: skip
    def test_wrong_lines(self, path, folder, line):
        session = session_of(folder)
        append(path, session, {"query": True})
        append(path, session, {"query": True}, line)
        with pytest.raises(DataError, match="line 3, is damaged"):
            session_of(folder)

    @pytest.mark.parametrize("name", ["\x1b[2J", "two\nlines", "nul\0", "\udcff", "\u202e", "x" * 201])
    def test_names_that_cannot_be_shown(self, folder, name):
        with pytest.raises(ArgumentError, match="is no name of a person\na name is a text of at most 200 visible"):
            session_of(folder, name)

    @pytest.mark.parametrize("name", ["Ännchen O'Neil", "<b>bob</b>", "安", "x" * 200])
    def test_any_other_name(self, folder, name):
        session = session_of(folder, name)
        session.answer(session.next(1)[0].key, {"query": True})
        assert session_of(folder, name).answers == session.answers


@pytest.mark.skipif(os.name == "nt", reason="no links and pipes")
class TestOtherThings:
    @pytest.mark.parametrize(
        ("odd", "why"),
        [
            ("pipe", "it is no regular file"), ("folder", "it is a folder"), ("device", "it is no regular file"),
            ("dangling", "is missing\nit is a link to .*elsewhere, and nothing is there"), ("loop", "Too many levels"),
        ],
    )  # fmt: skip
    def test_in_place_of_the_answers(self, folder, path, odd, why):
        path.unlink()
        put(path, odd)
        with pytest.raises(DataError, match=why):
            session_of(folder)
        with pytest.raises(DataError, match=why):
            audit(folder)
        assert not (path.parent / "elsewhere").exists()

    @pytest.mark.parametrize("odd", ["pipe", "folder", "device", "dangling", "loop", "nothing"])
    def test_in_their_place_later(self, folder, path, odd):
        """A new file would lack the plan, so that no answer in it could be read."""
        session = session_of(folder)
        path.unlink()
        put(path, odd)
        with pytest.raises(ArgumentError, match=f"cannot write {path}"):
            session.answer(session.next(1)[0].key, {"query": True})
        assert session.answers == {}
        assert not path.is_file()

    @pytest.mark.parametrize("odd", ["pipe", "folder", "device", "loop"])
    def test_in_place_of_a_result(self, folder, odd):
        (folder / "result.json").unlink()
        put(folder / "result.json", odd)
        with pytest.raises(DataError, match="holds no pictures to audit"):
            open_subject(folder)

    def test_in_place_of_a_shard(self, tmp_path):
        (tmp_path / "shards").mkdir()
        (tmp_path / "plan.json").write_text('{"plan": {"classes": []}}')
        for name in ("manifest.jsonl", "README.md"):
            (tmp_path / name).touch()
        put(tmp_path / "shards" / "000000.tar", "pipe")
        with pytest.raises(DataError, match=r"000000\.tar: it is no regular file"):
            open_subject(tmp_path)

    def test_answers_behind_a_link_stay_there(self, folder, path):
        there = path.rename(folder.parent / "elsewhere.jsonl")
        path.symlink_to(there)
        session = session_of(folder)
        session.answer(session.next(1)[0].key, {"query": True})
        assert path.is_symlink()
        assert session_of(folder).answers == session.answers


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/passwd", "sub/00000.png", "..", "", "\0", 5, None, ["00000.png"], "x" * 5000]
)
def test_names_of_pictures_lead_nowhere_else(folder, name):
    described = json.loads((folder / "result.json").read_text())
    described["samples"][0]["picture"] = name
    (folder / "result.json").write_text(json.dumps(described))
    with pytest.raises(DataError, match="is not the name of a picture"):
        open_subject(folder)


@pytest.mark.parametrize("room", [0, 1, 20, 90])
def test_a_disk_that_is_full_after_some_bytes(folder, path, room):
    """The answers that follow, when there is room again, do not stand after half a line."""
    resource = pytest.importorskip("resource")
    session = session_of(folder)
    session.answer(session.next(1)[0].key, {"query": True})
    before, key = path.read_bytes(), session.next(1)[0].key
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + room, limits[1]))
    try:
        with pytest.raises(ArgumentError, match=f"cannot write {path}: File too large"):
            session.answer(key, {"query": True})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    session.answer(key, {"query": False})
    assert session_of(folder).answers == session.answers
    assert len(session.answers) == 2
