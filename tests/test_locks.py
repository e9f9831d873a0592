import errno
import json
import os
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from energyql import ArgumentError, LockWarning, files
from energyql.files import LOCK, sole_writer

HOLDER = """
import sys
from pathlib import Path
from energyql.files import sole_writer

with sole_writer(Path(sys.argv[1]), "a training", *sys.argv[2:]):
    print("held", flush=True)
    sys.stdin.read()
"""
ROOT = Path(__file__).parents[1]


@contextmanager
def other(folder, *file):
    """Another process, which holds the folder, or a file of it, until its input ends."""
    command = [sys.executable, "-c", HOLDER, str(folder), *file]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.stdin.close()


def test_a_second_process_is_told_who_writes(tmp_path):
    with other(tmp_path) as process, pytest.raises(ArgumentError) as caught, sole_writer(tmp_path, "a run"):
        pass
    host = os.uname().nodename if hasattr(os, "uname") else ""
    assert caught.value.message.startswith(f"{tmp_path} is being written by a training (process {process.pid} on ")
    assert host in caught.value.message
    assert caught.value.hint == "wait until that has ended, or name another folder"
    with sole_writer(tmp_path, "a run"):  # that has ended
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_a_folder_has_a_writer_of_its_own(tmp_path):
    with other(tmp_path, "a.csv") as process:
        with sole_writer(tmp_path, "a run"), sole_writer(tmp_path, "labels", "b.csv"):
            pass
        with pytest.raises(ArgumentError) as caught, sole_writer(tmp_path, "labels", "a.csv"):
            pass
    assert f"a.csv is being written by a training (process {process.pid} on " in caught.value.message
    assert caught.value.hint == "wait until that has ended, or name another file"
    with sole_writer(tmp_path, "labels", "a.csv"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_killed_writer_locks_nobody_out(tmp_path):
    with other(tmp_path) as process:
        process.kill()
    assert (tmp_path / LOCK).exists()
    with sole_writer(tmp_path, "a run"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_an_empty_one_is_not_left(tmp_path):
    for folder in (tmp_path / "a" / "b", tmp_path / "full"):
        with pytest.raises(ValueError, match="^refused$"), sole_writer(folder, "a run"):
            assert (folder / LOCK).is_file()
            if folder.name == "full":
                (folder / "mine.txt").touch()
            raise ValueError("refused")
    assert [path.name for path in tmp_path.rglob("*")] == ["full", "mine.txt"]


def test_one_thread_holds_a_folder_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "a")
    with sole_writer(Path("a"), "a run"):
        with sole_writer(tmp_path / "link", "a result"):
            pass
        assert (tmp_path / "a" / LOCK).exists()
        monkeypatch.chdir("/")
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_another_thread_is_told(tmp_path):
    told = []

    def write():
        try:
            with sole_writer(tmp_path, "an edit"):
                pass
        except ArgumentError as error:
            told.append(error.message)

    with sole_writer(tmp_path, "a run") as writer:
        for _ in range(2):
            thread = threading.Thread(target=write)
            thread.start()
            thread.join()
        assert told == 2 * [f"{tmp_path} is being written by a run of another thread of this process"]
        writer.thread = -1
        with pytest.raises(ArgumentError, match="another thread"), sole_writer(tmp_path, "an edit"):
            pass
        writer.move()
        with sole_writer(tmp_path, "an edit"):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_fork_holds_nothing(tmp_path):
    (told, tell), (end, ending) = os.pipe(), os.pipe()
    with sole_writer(tmp_path, "a run"):
        if not (child := os.fork()):
            try:
                with sole_writer(tmp_path, "an edit"):
                    os._exit(1)
            except ArgumentError:
                os.write(tell, b"told")
            os.read(end, 1)  # goes on after its parent
            os._exit(0)
        assert os.read(told, 4) == b"told"
    with sole_writer(tmp_path, "a run"):  # although the child still runs
        pass
    os.write(ending, b".")
    assert os.waitpid(child, 0)[1] == 0
    for descriptor in (told, tell, end, ending):
        os.close(descriptor)


def test_a_lock_that_is_removed_as_it_is_opened_is_opened_again(tmp_path, monkeypatch):
    opened, take = [], files._take

    def slowly(descriptor):
        opened.append(descriptor)
        if len(opened) == 1:  # the last writer ends just now
            (tmp_path / LOCK).unlink()
        take(descriptor)

    monkeypatch.setattr(files, "_take", slowly)
    with sole_writer(tmp_path, "a run"):
        assert len(opened) == 2
        with pytest.raises(OSError, match="unavailable"):
            take(os.open(tmp_path / LOCK, os.O_RDWR))


def test_a_file_system_without_locks_is_named_once(tmp_path, monkeypatch):
    def no_locks(descriptor):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(files, "_take", no_locks)
    monkeypatch.setattr(files, "_unlocked", set())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            with sole_writer(tmp_path, "a run"):
                pass
    (warning,) = caught
    assert warning.category is LockWarning
    assert str(warning.message).startswith(f"the file system of {tmp_path} has no locks (No locks available), so a sec")


def test_the_lock_of_another_user_is_taken(tmp_path):
    """It may lie there because its process was killed."""
    (tmp_path / LOCK).write_text("{")
    (tmp_path / LOCK).chmod(0o400)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with sole_writer(tmp_path, "a run"):
            assert (tmp_path / LOCK).exists()
    assert list(tmp_path.iterdir()) == []


def test_a_link_in_place_of_a_lock_is_not_followed(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    (tmp_path / LOCK).symlink_to(tmp_path / "mine.txt")
    with pytest.raises(ArgumentError, match="cannot write"), sole_writer(tmp_path, "a run"):
        pass
    assert (tmp_path / "mine.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"work": "a run"}'])
def test_a_holder_that_has_not_said_who_it_is(tmp_path, text):
    with other(tmp_path):
        (tmp_path / LOCK).write_text(text)
        with pytest.raises(ArgumentError, match="by another process\n"), sole_writer(tmp_path, "a run"):
            pass
