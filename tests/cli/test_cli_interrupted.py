"""`train` is ended by signals and continued; what other commands say of its folder meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMANDS, SUFFIX, arguments, invoke, write_inputs
from ended import SMALL
from toys import tiny_model

from energyql import Model, load_model
from energyql.errors import ModelError
from energyql.training import judge, teacher

LOOK = """
import os
import signal
from pathlib import Path


def look(images):
    with Path("calls.txt").open("a") as calls:
        calls.write(f"{len(images)}\\n")
    if Path("stop.txt").is_file():
        call, number = Path("stop.txt").read_text().split()
        if len(Path("calls.txt").read_text().split()) == int(call):
            os.kill(os.getpid(), int(number))
    return {"bright": images.mean((1, 2, 3))}
"""
OF_HEADS = ("-n", "60", "--steps", "9")
TRAIN = ("train", "bare", "--labeller", "looks:look", "--judge", "train", *OF_HEADS, "--out", "new model")
CONTINUE = "energyql train bare --labeller looks:look --judge train -n 60 --steps 9 --out 'new model'"


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a generator, a labeller and the folder of a training that was interrupted before its heads.

    Beside it is the folder "terminated", in which the training was continued and twice ended while the judge's pictures
    were labelled. A run that draws n pictures calls the labeller with 1 and n - 1 of them.
    """
    place = tmp_path_factory.mktemp("place") / "place"
    place.mkdir()
    write_inputs(tiny_model(place / "tiny"), place)
    (place / "looks.py").write_text(LOOK)
    there = place.with_name("terminated")
    stops = (place, 2, signal.SIGKILL), (place, 2, signal.SIGINT), (there, 4, signal.SIGINT), (there, 2, signal.SIGTERM)
    runs = [f"{folder}:{call}:{int(number)}" for folder, call, number in stops]
    environment = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, Path(__file__).with_name("ended.py"), *runs, *TRAIN, "-q"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    killed, first, second, terminated = json.loads(done.stdout)
    assert (killed[0], terminated[0]) == (-signal.SIGKILL, -signal.SIGTERM)
    for (code, errors), kept in ((first, "nothing yet"), (second, "labels, heads, second heads")):
        assert (code, errors.splitlines()[-1]) == (130, f"interrupted; kept: {kept}; to continue: {CONTINUE} -q")
    assert not files(place / "new model")
    return place


@pytest.fixture(autouse=True)
def small_judge(monkeypatch):
    """The settings of the judge in `ended.py`."""
    for module in (judge, teacher):
        monkeypatch.setattr(module, "PictureSettings", lambda: SMALL)


@pytest.fixture
def here(place, tmp_path, monkeypatch):
    shutil.copytree(place, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_it_is_finished_without_a_judge(place, tmp_path, monkeypatch):
    here = tmp_path / "terminated"
    shutil.copytree(place.with_name("terminated"), here)
    monkeypatch.chdir(here)
    (here / "calls.txt").write_text("")
    assert invoke(*TRAIN, "--judge", "none", "-q").exit_code == 0
    assert (here / "calls.txt").read_text() == ""
    assert load_model("new model").judge is None
    assert not (here / "new model" / ".training").exists()


def test_the_same_command_continues_with_the_same_result(place, monkeypatch):
    there = place.with_name("terminated")
    monkeypatch.chdir(there)
    assert load_model("new model").judge is None
    assert invoke(*TRAIN, "-q").exit_code == 0
    drawn = ["1", "47"], ["1", "47", "1", "11"]  # those of the heads are labelled; heads propose a fifth
    assert (there / "calls.txt").read_text().split() == [call for run in drawn for call in run]
    (there / "new model").rename(there / "first")
    assert invoke(*TRAIN, "-q").exit_code == 0
    assert files(there / "first") == files(there / "new model")


MORE = {
    "attributes": ("attributes", "-m", "MODEL"),
    "explain": ("explain", "smile", "-m", "MODEL"),
    "pilot": ("explain", "smile", "--pilot", "-m", "MODEL"),
    "evaluate": ("evaluate", "-m", "MODEL"),
    "report": ("report", "MODEL"),
    "studio": ("studio", "-m", "MODEL"),
    "train-judge": ("train-judge", "MODEL", "--labels", "labels.csv"),
    "upload": ("upload", "MODEL", "some/model"),
}
READERS = {name: words for name, words in {**COMMANDS, **MORE}.items() if {"MODEL", "plan.toml"} & {*words}}


@pytest.mark.parametrize("name", READERS)
def test_a_command_that_reads_it_says_how_to_continue(place, here, name):
    (here / "plan.toml").write_text((here / "plan.toml").read_text().replace(str(place / "tiny"), "new model"))
    words = arguments(name, "new model", f"out{SUFFIX.get(name, '.png')}") if name in COMMANDS else READERS[name]
    said = str(invoke(*("new model" if word == "MODEL" else word for word in words)).exception)
    said = " ".join(said.split())  # a plan shows its own line in between
    assert "the training of new model is not finished" in said
    assert "finished and kept: nothing yet to continue: cd " in said
    assert f" && {CONTINUE} -q" in said


def test_python_says_how_to_continue(place, here):
    for load in (load_model, Model.from_pretrained):
        with pytest.raises(ModelError, match="the training of new model is not finished\nfinished and kept: nothing"):
            load("new model")


def test_a_generator_without_heads_that_is_trained(here):
    shutil.copytree("new model/.training", "bare/.training")
    assert "bare is not finished" in str(invoke("generate", "smile", "-m", "bare").exception)
    assert invoke("sample", "bare", "-n", "1", "-q", "--out", "drawn").exit_code == 0  # which needs no heads
