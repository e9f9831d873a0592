"""Processes that are killed (SIGKILL) while they save: `python -m pipeline.killing MODEL FOLDER SEED STEP NAMES...`.

The library is imported once, and each process that is killed is a fork. It is killed at every STEP-th file operation in
turn, which an audit hook counts, and then at random moments. NAMES say what it saves.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from PIL import Image

import energyql.pipeline.stream as streams
from energyql import Preset, Result, edit, generate, stream
from energyql.editing.folder import read_saved
from energyql.files import SAVED
from energyql.pipeline import run

EVENTS = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "open"}


def fork(work, kill_at):
    """Run `work` in a process that kills itself at a file operation; return whether it was killed."""
    if pid := os.fork():
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event in EVENTS:
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    work()
    os._exit(0)


def kill_after(work, seconds):
    """Run `work` again and again in a process that is killed after a while."""
    if pid := os.fork():
        time.sleep(seconds)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return
    while True:
        work()


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def query_of(path):
    with Image.open(path) as picture:
        return json.loads(picture.info["energyql"])["query"]


def check_descriptions(folder):
    """No description stands beside pictures of another result, also before anything is put right."""
    for path in folder.rglob("result.json"):
        if any(part.startswith(".energyql") for part in path.relative_to(folder).parts):
            continue
        data = json.loads(path.read_text())
        pictures = [path.parent / sample["picture"] for sample in data["samples"]]
        assert all(picture.is_file() for picture in pictures), path
        assert {query_of(picture) for picture in pictures} == {data["provenance"]["query"]}, path


def check(name, folder, before, after, again=True):
    """Kill `after`, which writes into a folder, on top of what `before` wrote; one of the two can be read then."""
    if name not in NAMES:
        return
    old, new = folder / "old", folder / "new"
    before(old)
    shutil.copytree(old, new)
    after(new)
    states, expected = [describe(old), describe(new)], files(new)
    kills, tried, found, target = chance.randrange(STEP), 0, [0, 0], folder / name

    def examine():
        check_descriptions(target)
        found[states.index(describe(target))] += 1
        after(target)
        assert describe(target) == states[1]
        left = sorted({*files(target)} ^ {*expected, "mine.txt"})
        assert not left, f"{name}, kill {kills}: {left}"

    killed = True
    while killed:
        begin(old, target)
        killed = fork(lambda: after(target), kills + 1)
        kills, tried = kills + STEP, tried + 1
        examine()
    for _ in range(max(1, 12 // STEP) if again else 0):
        begin(old, target)
        kill_after(lambda: (after(target), before(target)), chance.uniform(0.001, 0.1))
        examine()
    print(
        f"{name}: killed at {tried} file operations, {found[0]} times the old result was there, {found[1]} the new one"
    )
    assert min(found) > 0
    for used in (old, new, target):
        shutil.rmtree(used)


def begin(old, target):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(old, target)
    (target / "mine.txt").write_text("not yours")


def describe(folder):
    """All that can be read in a folder of a result or of an edit."""
    if not any((place / "edit.json").is_file() for place in (folder, folder / SAVED)):
        return described(folder)
    read_saved(folder)  # as every reader, it finishes what was begun
    if not (folder / "edit.json").is_file():  # what was begun replaces an edit by a result
        return described(folder)
    steps = json.loads((folder / "edit.json").read_text())["steps"]
    parts = [folder / "0-start", *(folder / str(i) for i in range(1, len(steps) + 1))]
    return [*map(described, parts), [(folder / str(i)).exists() for i in range(4)]]


def described(folder):
    result = Result.load(folder)
    return [result.provenance["query"], [picture.tobytes() for picture in result.images], result.z.tolist()]


def main(model, folder):
    settings = {"model": model, "device": "cpu", "progress": False}
    many, few = generate("smile", 5, **settings), generate("NOT smile", 2, **settings)
    check("more", folder, few.save, many.save)
    check("fewer", folder, many.save, few.save)
    brief = Preset(max_evaluations=3)  # how well an edit succeeds is not tested here
    short, long = (edit(0, steps, n=2, preset=brief, **settings) for steps in (["smile"], ["NOT smile", "glasses"]))
    check("longer-edit", folder, short.save, long.save)
    check("shorter-edit", folder, long.save, short.save)
    streams.PART, run.STREAM_BATCH = 4, 2
    runs = [lambda target, n=n: list(stream("smile", n, out=target, **settings)) for n in (9, 3)]
    check("run", folder, *runs, again=False)


if __name__ == "__main__":
    chance, STEP, NAMES = random.Random(int(sys.argv[3])), int(sys.argv[4]), sys.argv[5:]
    main(sys.argv[1], Path(sys.argv[2]))
