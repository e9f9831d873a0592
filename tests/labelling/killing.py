"""Pages that are killed (SIGKILL) while people answer: `python -m labelling.killing MODEL FOLDER SEED STEP KILLS NAME`.

The library is imported once, and each server that is killed is a fork. It is killed at every STEP-th file operation in
turn, which an audit hook counts, then around the write of an answer, and then KILLS times at random moments. NAME is
"label", "audit" or "teach". Who starts the server again finds all that was acknowledged, and of the last request all or
nothing.
"""

import http.client
import os
import random
import signal
import sys
import threading
from itertools import product
from pathlib import Path

import torch
from auditing.painted import painted
from studio.client import Client
from toys import random_generator

from energyql.auditing import answers
from energyql.auditing.answers import AnswerBook
from energyql.auditing.session import Session
from energyql.auditing.subject import open_subject
from energyql.files import sole_writer
from energyql.labelling.app import create_app
from energyql.labelling.audit_app import create_audit_app
from energyql.labelling.folder import PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.source import ModelSource
from energyql.studio.web import listen, web_server
from energyql.teaching.app import create_app as create_lesson_app
from energyql.teaching.classroom import Classroom
from labelling.pages import picture_folder

EVENTS = {"os.rename", "os.remove", "os.mkdir", "open"}
OPERATIONS = 60
"""Number of file operations at which a server is killed: those of a start and of some answers."""


class Labels:
    """A page for labels, and what it should have: number of a picture -> its label, in the order of labelling."""

    state = "/api/state"

    def __init__(self, model, folder):
        self.pictures, self.place = picture_folder(folder / "label"), folder / "label"
        self.file = self.place / "labels.csv"

    def open(self):
        return LabelSheet.open(self.file, self.pictures, "glasses")

    def app(self):
        return create_app(self.open())

    def read(self):
        return {index: cells["glasses"] for index, cells in self.open().rows().items()}

    def request(self, state, known):
        """The next request of a person, and what is known after it."""
        if known and chance.random() < 0.3:
            last = list(known)[-1]
            return ("DELETE", f"/api/labels/{last}", None), {index: known[index] for index in known if index != last}
        index, label = chance.choice(self.pictures.indices), chance.choice(["yes", "no", ""])
        body = {"index": index, "labels": {"glasses": label or None}}
        return ("POST", "/api/labels", body), {**{key: known[key] for key in known if key != index}, index: label}


class Answers:
    """The page of an audit, and what it should have: key of a picture -> answer, in the order of answering."""

    state = "/api/state"

    def __init__(self, model, folder):
        self.run = painted(Path(model)).save(folder / "run")
        self.place = self.run / "audit"
        self.file = self.place / answers.ANSWERS

    def open(self):
        subject = open_subject(self.run)
        return Session(subject, AnswerBook.open(subject, None), "ann")

    def app(self):
        return create_audit_app(self.open())

    def read(self):
        return {key: given["query"] for key, given in self.open().answers.items()}

    def request(self, state, known):
        if known and (not state["next"] or chance.random() < 0.3):
            return ("DELETE", "/api/answers", None), dict(list(known.items())[:-1])
        key, answer = state["next"][0]["key"], chance.choice([True, False, None])
        return ("POST", "/api/answers", {"key": key, "answers": {"query": answer}}), {**known, key: answer}


class Lessons:
    """The page of a lesson that draws and learns all the time, and what it should have: number -> label."""

    state = "/api/wall?attribute=glasses"

    def __init__(self, model, folder):
        self.folder, self.place = folder / "model", folder / "model" / "pictures"
        self.file = self.place / "labels.csv"
        if pid := os.fork():  # threads of a fork need a process that has computed nothing
            assert os.waitpid(pid, 0)[1] == 0
            return
        room = self.open()
        room.lesson.wall.draw(room.lesson.wall.next_numbers(96))
        room.lesson.add("glasses")
        os._exit(0)

    def open(self):
        torch.set_num_threads(1)
        return Classroom.open(ModelSource(random_generator()), self.folder, torch.device("cpu"), wanted=20_000)

    def app(self):
        return create_lesson_app(self.open())

    def read(self):
        if not self.file.exists():
            return {}
        pictures = PictureFolder.read(self.place)
        rows = LabelSheet.open(self.file, pictures, None).rows()
        assert rows.keys() <= {*pictures.indices}
        return {index: cells["glasses"] for index, cells in sorted(rows.items()) if cells["glasses"]}

    def request(self, state, known):
        shown = chance.sample([cell["number"] for cell in state["screen"]] + list(known), 5)
        said = {number: chance.choice(["yes", "no", "no", None]) for number in dict.fromkeys(shown)}
        body = {"page": "a", "labels": {"glasses": {str(number): label for number, label in said.items()}}}
        following = {number: label for number, label in sorted((known | said).items()) if label}
        return ("POST", "/api/labels", body), following


def launch(kind, fatal):
    """Start a server in another process, in which `fatal` is called first; return its number and a client."""
    bound = listen("127.0.0.1", 0)
    bound.listen(64)
    if pid := os.fork():
        with bound:
            return pid, Client(bound.getsockname()[1], None)
    fatal()
    with sole_writer(kind.place, "a page"):
        web_server(kind.app()).run(sockets=[bound])
    os._exit(0)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def at_operation(number):
    """Kill this process at a file operation."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in EVENTS:
            count += 1
            if count == number:
                kill()

    return lambda: sys.addaudithook(hook)


def at_write(number, missing):
    """Kill this process at a write of an answer: when some of its bytes are missing; with `None`, when it is done."""
    count, sync = 0, os.fsync

    def fatal(descriptor):
        nonlocal count
        count += 1
        sync(descriptor)
        if count == number:
            if missing is not None:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size - missing)
            kill()

    return lambda: setattr(answers.os, "fsync", fatal)


def check(kind, fatal=lambda: None, seconds=None):
    """Ask a server until it is killed, compare what a new start reads, and return how many answers it acknowledged."""
    with sole_writer(kind.place, "a page"):
        known = kind.read()
    pid, client = launch(kind, fatal)
    timer = threading.Timer(seconds or 60, os.kill, (pid, signal.SIGKILL))
    following, clicks = known, 0
    try:
        client.get(kind.state)  # it has started
        timer.start()
        while True:
            state = client.get(kind.state).json()
            request, following = kind.request(state, known)
            answer = client.request(*request)
            assert answer.status == 200, answer.body
            known, clicks = following, clicks + 1
    except (OSError, http.client.HTTPException):
        pass  # it was killed
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    timer.cancel()
    with sole_writer(kind.place, "a page"):
        read = kind.read()
    states = [list(each.items()) for each in (known, following)]
    assert list(read.items()) in states, f"{read} is none of {states}"
    return clicks


def main(model, folder, step, kills, name):
    kind = {"label": Labels, "audit": Answers, "teach": Lessons}[name](model, folder)
    acknowledged = []
    for operation in range(1 + chance.randrange(step), OPERATIONS, step):
        kind.file.unlink(missing_ok=True)
        acknowledged.append(check(kind, at_operation(operation)))
    if name == "audit":
        writes = product(range(1, 5, step), (None, 0, 1, 30, 100))
        acknowledged += [check(kind, at_write(number, missing)) for number, missing in writes]
    acknowledged += [check(kind, seconds=chance.uniform(0.01, 3 if name == "teach" else 0.3)) for _ in range(kills)]
    print(f"killed {len(acknowledged)} times after {sum(acknowledged)} answers")
    assert any(acknowledged)


if __name__ == "__main__":
    chance = random.Random(int(sys.argv[3]))
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
