"""Attacks on the pages for labels, audits and lessons: whatever is sent, nothing is written, shown or broken."""

import http.client
import json
import math
import os
import threading
from contextlib import ExitStack

import pytest
import torch
from auditing.painted import painted
from odd import put
from toys import random_generator

from energyql.auditing.answers import AnswerBook, AuditPlan
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.labelling.app import create_app
from energyql.labelling.audit_app import create_audit_app
from energyql.labelling.folder import PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.source import ModelSource
from energyql.studio import guard
from energyql.teaching.app import create_app as create_lesson_app
from energyql.teaching.classroom import Classroom
from labelling.pages import picture_folder, running

NAN, INFINITY = math.nan, math.inf
HALF = "\ud800"
"""Half of a character, which JSON may have and UTF-8 may not."""
JSON = {"content-type": "application/json"}


class Labelling:
    """The page for labels of eight pictures."""

    path, undo, state, style = "/api/labels", "/api/labels/0", "/api/state", "/label/label.css"

    def __init__(self, tiny, folder):
        self.pictures = picture_folder(folder / "pictures")
        self.sheet = LabelSheet.open(folder / "labels.csv", self.pictures, "glasses, hair=black|brown, age=0..1")
        self.app = create_app(self.sheet)
        self.sheet.decide(5, {"glasses": "yes"})
        self.file, self.picture = self.sheet.path, self.pictures.file(3)
        self.address = "/api/pictures/3.png"

    def body(self):
        return {"index": 0, "labels": {"glasses": "no", "hair": "black", "age": 0.5}}

    def read(self):
        """The labels of a page that is opened again."""
        return LabelSheet.open(self.file, self.pictures, None).rows()


class Auditing:
    """The page of an audit by ann of 40 pictures, of which bob has looked at one."""

    path, undo, state, style = "/api/answers", "/api/answers", "/api/state", "/label/label.css"

    def __init__(self, tiny, folder):
        self.run = painted(tiny).save(folder / "run")
        self.session = self.open("bob")
        self.session.answer(self.session.next(1)[0].key, {"query": True})
        self.session = self.open("ann")
        self.app = create_audit_app(self.session)
        self.file, self.address = self.session.book.path, f"/api/pictures/{len(self.session.subject.pictures) - 1}"
        self.picture = self.run / self.session.subject.pictures[-1].key

    def open(self, by):
        subject = open_subject(self.run)
        return Session(subject, AnswerBook.open(subject, AuditPlan(30)), by)

    def body(self):
        return {"key": self.session.next(1)[0].key, "answers": {"query": False}}

    def read(self):
        """The answers of an audit that is opened again."""
        return self.open("ann").book.people


class Teaching:
    """The page of a lesson in which one picture is labelled."""

    path, undo, state, style = "/api/labels", "/api/finish?page=a", "/api/lesson", "/teach/teach.css"

    def __init__(self, tiny, folder):
        source, self.folder = ModelSource(random_generator()), folder / "model"
        room = Classroom.open(source, self.folder, torch.device("cpu"), wanted=96)
        room.lesson.wall.draw(room.lesson.wall.next_numbers(96))
        room.lesson.add("glasses, hair=black|brown, age=0..1")
        room.lesson.say("glasses", {5: "yes"})
        self.app, self.file = create_lesson_app(room), room.lesson.sheet.path
        self.address, self.picture = "/api/pictures/3.png", room.lesson.wall.folder.file(3)

    def body(self):
        return {"page": "a", "labels": {"glasses": {"0": "no"}}}

    def read(self):
        """The labels of a page that is opened again."""
        return LabelSheet.open(self.file, PictureFolder.read(self.file.parent), None).rows()


SERVERS = [Labelling, Auditing, Teaching]


@pytest.fixture(scope="module")
def every(tiny, tmp_path_factory):
    """Both servers, and clients of them: no attack changes anything, so all tests share them."""
    with ExitStack() as stack:
        servers = {kind: kind(tiny, tmp_path_factory.mktemp(kind.__name__)) for kind in SERVERS}
        for server in servers.values():
            server.client = stack.enter_context(running(server.app))
        yield servers


@pytest.fixture(params=SERVERS)
def server(every, request):
    """A server, whose file is the same and which still answers after the attack."""
    server = every[request.param]
    before = server.file.read_bytes()
    yield server
    assert server.file.read_bytes() == before
    assert server.client.get(server.state).status == 200


@pytest.fixture
def labels(every):
    return every[Labelling]


@pytest.fixture(params=SERVERS)
def own(tiny, tmp_path_factory, request):
    """A server that the test may change."""
    server = request.param(tiny, tmp_path_factory.mktemp("own"))
    with running(server.app) as server.client:
        yield server


def refused(answer, *statuses):
    assert answer.status in (statuses or (400, 422)), answer.body
    problem = answer.json()
    assert problem["message"]
    assert len(problem["message"]) < 1000
    assert "Traceback" not in answer.body.decode()
    return problem["message"]


class TestStrangers:
    @pytest.mark.parametrize(
        "headers",
        [
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "192.168.0.7"},
            {"host": ""},
            {"origin": "https://evil.example"},
            {"origin": "null"},
            {"origin": "http://localhost:1"},
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
        ],
    )
    def test_every_request_of_them_is_refused(self, server, headers):
        client = server.client
        for path in ("/", server.state, server.address, server.style):
            refused(client.get(path, **headers), 403)
        refused(client.post(server.path, server.body(), **headers), 403)
        refused(client.request("DELETE", server.undo, headers=headers), 403)

    def test_a_link_opens_the_page_and_writes_nothing(self, server):
        link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
        assert server.client.get("/", **link).status == 200
        refused(server.client.post(server.path, server.body(), **link), 403)

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    )
    def test_forms_of_other_pages_are_no_json(self, server, kind):
        body = json.dumps(server.body()).encode()
        refused(server.client.request("POST", server.path, body, {"content-type": kind}), 415)

    @pytest.mark.parametrize("method", ["HEAD", "PUT", "PATCH", "OPTIONS", "TRACE", "FOO"])
    def test_other_methods(self, server, method):
        for path in (server.path, server.address, server.state):
            answer = server.client.request(method, path, None if method == "HEAD" else b"{}", JSON)
            assert answer.status == 405

    def test_an_upgrade_to_a_web_socket_is_none(self, server):
        upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-key": "AAAA", "origin": "null"}
        refused(server.client.get(server.state, **upgrade), 403)
        del upgrade["origin"]
        assert server.client.get(server.state, **upgrade).status == 200


class TestBodies:
    def test_a_large_one_is_refused_by_what_it_says_and_by_what_it_is(self, server):
        refused(server.client.post(server.path, b"{}", **JSON, **{"content-length": "999999999"}), 413)
        connection = http.client.HTTPConnection("127.0.0.1", server.client.port, timeout=10)
        try:
            connection.request("POST", server.path, iter([b" " * 4096] * 10_000), JSON, encode_chunked=True)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the answer came before the end of the request
        else:
            assert connection.getresponse().status == 413
        finally:
            connection.close()

    def test_one_that_never_comes(self, server, monkeypatch):
        monkeypatch.setattr(guard, "REQUEST_SECONDS", 0.2)
        connection = http.client.HTTPConnection("127.0.0.1", server.client.port, timeout=10)
        connection.putrequest("POST", server.path)
        for name, value in (*JSON.items(), ("transfer-encoding", "chunked")):
            connection.putheader(name, value)
        connection.endheaders(b'4\r\n{"ke\r\n')
        assert server.client.get(server.state).status == 200  # while it waits
        assert connection.getresponse().status == 408
        connection.close()

    @pytest.mark.parametrize(
        "body",
        [
            b"", b"{", b"null", b"5", b"[]", b'"{}"', b"[" * 30_000, b'{"labels":' * 4000 + b"1" + b"}" * 4000,
            b'{"index": 0, "labels": {"hair": "\xff"}}', b'{"index": 1' + b"0" * 5000 + b', "labels": {}}',
        ],
    )  # fmt: skip
    def test_what_is_no_request(self, server, body):
        refused(server.client.post(server.path, body, **JSON))


def wrong_labels():
    for value in (None, True, "0", 0.5, -1, 7, 10**30, NAN, INFINITY, HALF, [], {}):
        yield "index", value
    for value in (None, True, 1, "x", [], {"glasses": []}, {"glasses": {"glasses": "yes"}}):
        yield "labels", value
    for value in ("maybe", "<b>yes</b>", "yes\0", HALF, 2, -1, 1e300, NAN, INFINITY, [], {}):
        yield "labels", {"glasses": value}
    for value in ("green", "black|brown", "black\0", "\x1b[2J", "=1+1", HALF, True, 1, NAN, "x" * 60_000):
        yield "labels", {"hair": value}
    for value in ("x", "0,5", 1.5, -1, 10**30, 10**400, NAN, INFINITY, -INFINITY, HALF, "\x1b[2J", [0.5]):
        yield "labels", {"age": value}
    for name in ("hat", "", "index", "__class__", "\x1b[2J", HALF, "<script>", "x" * 60_000):
        yield "labels", {name: "yes"}
    yield "labels", {str(number): [] for number in range(3000)}
    yield "path", "/etc/passwd"


def wrong_answers():
    for value in (None, True, 0, NAN, [], {}, "", "00039.png", "../result.json", "<script>", "\0\x1b[2J", HALF):
        yield "key", value
    yield "key", "x" * 60_000
    for value in (None, True, 1, "query", [], ["query"]):
        yield "answers", value
    for value in (1, 0, 1.0, 2, NAN, INFINITY, 10**400, "yes", "true", "maybe", "", HALF, [], {}, {"query": True}):
        yield "answers", {"query": value}
    for name in ("smile", "", "Query", "__class__", "\x1b[2J", HALF, "<script>", "x" * 60_000):
        yield "answers", {name: True}
    yield "answers", {HALF: []}
    yield "answers", {str(number): [] for number in range(3000)}
    yield "by", "bob"


def wrong_teaching():
    for value in (
        None,
        True,
        1,
        "x",
        [],
        {"glasses": []},
        {"glasses": {"0": []}},
        {"glasses": {"0": {}}},
        {"0": "yes"},
    ):
        yield "labels", value
    for name in ("", "hat", "__class__", HALF, "<script>", "\x1b[2J", "x" * 60_000):
        yield "labels", {name: {"0": "yes"}}
    for value in ("maybe", "<b>yes</b>", "yes\0", HALF, 2, -1, 1e300, NAN, INFINITY):
        yield "labels", {"glasses": {"1": "yes", "0": value}}
    for number in ("", "x", "-1", "1e0", "99999999", "9" * 4999, "0.5", HALF, "../labels.csv", "\x1b[2J"):
        yield "labels", {"glasses": {"1": "yes", number: "yes"}}
    yield "labels", {"glasses": {"1": "yes"}, "hair": {"1": "green"}}
    for value in (None, 5, [], "x" * 60_000):
        yield "page", value
    yield "path", "/etc/passwd"


WRONG = [(Teaching, *case) for case in wrong_teaching()]
WRONG += [(Labelling, *case) for case in wrong_labels()] + [(Auditing, *case) for case in wrong_answers()]


@pytest.mark.parametrize(("kind", "field", "value"), WRONG, ids=[f"{case[1]}-{case[2]!a:.30}" for case in WRONG])
def test_wrong_values_of_every_field(every, kind, field, value):
    server = every[kind]
    before = server.file.read_bytes()
    message = refused(server.client.post(server.path, json.dumps(server.body() | {field: value}).encode(), **JSON))
    assert not {character for character in message if ord(character) < 32}
    assert server.file.read_bytes() == before


def test_fields_that_are_missing(server):
    for field in server.body():
        body = server.body()
        del body[field]
        assert "Field required" in refused(server.client.post(server.path, body))


class TestPaths:
    @pytest.mark.parametrize(
        "path",
        [
            "/api/pictures/..%2Fpictures.json", "/api/pictures/%2e%2e%2fresult.json.png", "/api/pictures/-1.png",
            "/api/pictures/" + "9" * 5000, "/api/pictures/99.png", "/api/pictures/%00", "/api/pictures/%ff.png",
            "/api/pictures/1e0.png", "/label/../app.py", "/label/..%2Fapp.py", "/label/..%5c..%5capp.py", "/label/%00",
            "/label/" + "a" * 5000, "/label/%ff%fe", "//etc/passwd", "/static/%2e%2e/app.py", "/pictures.json",
            "/result.json", "/labels.csv", "/audit/answers.jsonl", "/%ff",
        ],
    )  # fmt: skip
    def test_nothing_else_is_served(self, server, path):
        refused(server.client.get(path), 404, 422)

    @pytest.mark.parametrize("index", ["x", "1e0", "%00", "%ff", "9" * 5000, "..%2F0", "true"])
    def test_undoing_what_has_no_number(self, labels, index):
        refused(labels.client.request("DELETE", f"/api/labels/{index}"), 404, 422)

    @pytest.mark.skipif(os.name == "nt", reason="no links and pipes")
    @pytest.mark.parametrize(
        ("odd", "why"),
        [
            ("nothing", "is missing"), ("link", "is no picture"), ("empty", "is no picture"),
            ("dangling", "is missing"), ("loop", "Too many levels"), ("folder", "it is a folder"),
            ("pipe", "it is no regular file"), ("device", "it is no regular file"),
        ],
    )  # fmt: skip
    def test_other_things_in_place_of_a_picture(self, server, tmp_path, odd, why):
        (tmp_path / "private").write_text("a secret")
        picture, kept = server.picture, server.picture.rename(tmp_path / "kept.png")
        put(picture, odd, tmp_path / "private")
        try:
            assert why in refused(server.client.get(server.address))
            assert server.client.get(server.state).status == 200
        finally:
            if odd == "folder":
                picture.rmdir()
            kept.replace(picture)

    def test_a_picture_behind_a_link_is_one(self, server, tmp_path):
        picture, kept = server.picture, server.picture.rename(tmp_path / "kept.png")
        picture.symlink_to(kept)
        answer = server.client.get(server.address)
        assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
        kept.replace(picture)


class TestFiles:
    @pytest.mark.skipif(os.name == "nt", reason="no pipes and devices")
    @pytest.mark.parametrize("odd", ["folder", "pipe", "device"])
    def test_other_things_in_place_of_the_answers(self, own, odd):
        own.file.unlink()
        put(own.file, odd)
        assert str(own.file) in refused(own.client.post(own.path, own.body()))
        assert own.file.is_symlink() or not own.file.is_file()

    def test_a_full_disk(self, own, monkeypatch):
        before, old = own.file.read_bytes(), own.client.get(own.state).body

        def full(*arguments, **settings):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("energyql.files.Path.write_text", full)
            patch.setattr("energyql.auditing.answers.os.fsync", full)
            assert f"cannot write {own.file}: No space left" in refused(own.client.post(own.path, own.body()))
        assert own.file.read_bytes() == before
        assert own.client.get(own.state).body == old
        assert own.client.post(own.path, own.body()).status == 200

    @pytest.mark.skipif(os.name == "nt", reason="names are text there")
    @pytest.mark.parametrize("kind", SERVERS)
    def test_a_folder_whose_name_is_no_text(self, kind, tiny, tmp_path):
        folder = tmp_path / os.fsdecode(b"caf\xe9")
        folder.mkdir()
        server = kind(tiny, folder)
        with running(server.app) as client:
            assert client.get(server.state).status == 200
            assert client.post(server.path, server.body()).status == 200
            server.picture.unlink()
            refused(client.get(server.address))


class TestAtTheSameMoment:
    def test_many_tabs_that_answer_and_take_back(self, own):
        """Requests cross: each is done as a whole or refused, and the file says what the page says."""
        statuses = set()

        def click(number):
            for turn in range(6):
                if (turn + number) % 3:
                    answer = own.client.post(own.path, own.body())
                else:
                    answer = own.client.request("DELETE", own.undo)
                statuses.add(answer.status)

        threads = [threading.Thread(target=click, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 200 in statuses
        assert statuses <= {200, 422}
        state = own.client.get(own.state).json()
        if isinstance(own, Labelling | Teaching):
            assert len(own.read()) == state["labelled"]
        else:
            assert own.read() == own.session.book.people
            assert len(own.read().get("ann", {})) == state["answered"]

    @pytest.mark.parametrize("own", [Auditing], indirect=True)
    def test_nobody_takes_back_what_another_person_said(self, own):
        said = own.read()["bob"]
        assert len(said) == 1
        assert refused(own.client.request("DELETE", own.undo)) == "there is no answer to take back"
        (key,) = said
        assert own.body()["key"] == key  # ann is asked about it too
        assert own.client.post(own.path, own.body()).status == 200
        assert own.client.request("DELETE", own.undo).status == 200
        assert own.client.request("DELETE", own.undo).status == 422
        assert own.read() == {"bob": said, "ann": {}}
