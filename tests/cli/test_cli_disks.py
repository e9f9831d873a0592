"""Commands on full and read-only disks: one message, never a stack trace, and no file that is left half written."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from commands import COMMANDS, SUFFIX, arguments, write_inputs

from energyql.cli import main as cli
from energyql.files import sole_writer
from energyql.generators.stylegan2 import StyleGAN2

resource = pytest.importorskip("resource")


@pytest.fixture
def main(monkeypatch, capsys, tmp_path, tiny):
    """Run a command in a folder with its inputs; return exit code and errors."""
    monkeypatch.chdir(tmp_path)
    write_inputs(tiny, tmp_path)

    def call(*arguments, most=None):
        monkeypatch.setattr(sys, "argv", ["energyql", *arguments])
        with pytest.raises(SystemExit) as caught, largest_file(most):
            cli.main()
        return caught.value.code, capsys.readouterr().err

    return call


@contextmanager
def largest_file(size):
    """Writing more than so many bytes to one file fails, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    compiles = sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # a module that is imported now would be compiled to a file that is cut off
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = compiles


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk(main, tiny, tmp_path, command):
    code, errors = main(*arguments(command, tiny, f"out{SUFFIX.get(command, '')}"), most=150)
    assert (code, errors.count("ArgumentError: cannot write out")) == (2, 1), errors
    assert "too large" in errors.replace("\n", " ")
    assert list(tmp_path.rglob(".*")) == []


PLACES = ("/proc/energyql", "file/x", "loop", "n" * 300)


@pytest.mark.parametrize(
    ("place", "command"),
    [
        pytest.param(place, command, marks=[] if (i + j) % 4 == 0 else pytest.mark.slow)
        for i, place in enumerate(PLACES)
        for j, command in enumerate(COMMANDS)
    ],
)
def test_no_place_to_write(main, tiny, tmp_path, command, place, monkeypatch):
    monkeypatch.setattr(StyleGAN2, "synthesize", never)
    (tmp_path / "file").write_text("a file")
    if place == "loop":
        (tmp_path / f"loop{SUFFIX.get(command, '')}").symlink_to("loop2")
        (tmp_path / "loop2").symlink_to(f"loop{SUFFIX.get(command, '')}")
    if place == "loop" and command in SUFFIX:
        return  # a file takes the place of the link
    code, errors = main(*arguments(command, tiny, place + SUFFIX.get(command, "")))
    refusals = errors.count("ArgumentError: cannot write") + errors.count(" is too long for a path")
    assert (code, refusals) == (2, 1), errors


def never(*arguments):
    raise AssertionError("a picture is drawn")


@pytest.mark.parametrize("command", [*sorted(COMMANDS.keys() - SUFFIX.keys()), "gallery"])
def test_a_second_writer(main, tiny, tmp_path, command, monkeypatch):
    monkeypatch.setattr(StyleGAN2, "synthesize", never)
    with sole_writer(tmp_path / "out", "a run") as writer:
        writer.thread = -1  # another one
        code, errors = main(*arguments(command, tiny, "out"))
    message = "ArgumentError: out is being written by a run of another thread of this process"
    assert (code, errors) == (2, f"{message}\nwait until that has ended, or name another folder\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_devices_stay_devices(main, tiny, tmp_path):
    for command in ("score", "generate", "train"):
        code, errors = main(*arguments(command, tiny, "/dev/full"))
        assert (code, errors.count("ArgumentError: cannot write /dev/full")) == (2, 1), errors
    assert not os.path.isfile("/dev/full")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no device that is always full")
def test_standard_output_on_a_full_disk(tmp_path):
    (tmp_path / "table.csv").write_text("smile\n" + "0.5\n" * 20000)
    command = [sys.executable, "-m", "energyql", "score", "smile", "table.csv"]
    with open("/dev/full", "wb") as full:
        run = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, check=False,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
    assert run.returncode == 1
    assert run.stderr.strip() == "EnergyQLError: cannot write standard output: No space left on device"


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: 5 bytes")])
def test_the_end_of_memory(main, tiny, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("energyql.pipeline.score.rank_table", fail)
    code, errors = main("score", "smile", "table.csv")
    assert code == 1
    assert errors.startswith("EnergyQLError: there is not enough memory")


def test_other_errors_are_not_hidden(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a file of the working folder would be taken for a plugin

    def fail(*_, **__):
        raise RuntimeError("a fault of energyql")

    monkeypatch.setattr("energyql.pipeline.score.rank_table", fail)
    monkeypatch.setattr(sys, "argv", ["energyql", "score", "smile", "table.csv"])
    with pytest.raises(RuntimeError, match="a fault of energyql"):
        cli.main()
