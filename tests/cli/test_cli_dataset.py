"""The command that writes data sets: what it prints, its exit codes, and that it can be killed at any moment."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from commands import ENTRY, PLAN
from dataset.plans import files, samples


@pytest.fixture
def plan(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace("MODEL", str(tiny)))
    return path


def test_a_data_set(main, plan, tmp_path):
    code, out, errors = main("dataset", plan, "--out", "out", "--device", "cpu")
    assert code == 0, errors
    assert out.startswith("9 pictures in 3 shards, ")
    assert out.endswith("Saved out\n")
    assert "9 pictures in 3 shards, about " in errors
    assert len(samples(tmp_path / "out")) == 9
    code, out, errors = main("dataset", plan, "--out", "out", "--json", "-q")
    assert (code, errors) == (0, "")
    assert json.loads(out)["kept"] == 3


def test_a_dry_run_says_the_cost_and_writes_nothing(main, plan, tmp_path):
    code, out, _ = main("dataset", plan, "--out", "out", "--dry-run", "-q")
    assert code == 0
    assert out.startswith("9 pictures in 3 shards, about ")
    assert " for one worker" in out
    code, out, _ = main("dataset", plan, "--out", "out", "--dry-run", "--json", "-q")
    assert json.loads(out)["pictures"] == 9
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


def test_an_incomplete_data_set_has_its_own_exit_code(main, plan, tmp_path):
    """The judge of the tiny model sees no glasses with a beard."""
    arguments = ("dataset", plan, "--out", "out", "--only-satisfied", "--budget", "2", "-q")
    for _ in range(2):
        code, _, errors = main(*arguments)
        assert code == 13
        assert errors.startswith("IncompleteError: out is incomplete: 'both' lacks 5 of 5")
    assert {known["class"] for _, known, _ in samples(tmp_path / "out").values()} == {"smile"}


def test_mistakes_are_shown_with_their_line(main, plan, tmp_path):
    plan.write_text(plan.read_text().replace("beard", "berd"))
    code, _, errors = main("dataset", "plan.toml", "--out", "out")
    assert code == 9
    assert "line 6: UnknownAttribute: 'berd' is not an attribute of model 'tiny'\n  6 | query = \"" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["plan.toml"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="nothing kills a process like this here")
def test_a_command_that_is_killed_is_continued(main, plan, tmp_path):
    """SIGKILL after random times; the same command then completes the folder, with the bytes of an undisturbed run."""
    plan.write_text(plan.read_text().replace("count = 5", "count = 300").replace("count = 4", "count = 150"))
    command = [sys.executable, "-c", ENTRY, "dataset", str(plan), "-q", "--device", "cpu", "--out"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*command, "whole"], env=alone, check=True, timeout=120)
    chance, finished = random.Random(0), 0
    for _ in range(4):
        process = subprocess.Popen([*command, "killed"], env=alone)
        while process.poll() is None and len(list(tmp_path.glob("killed/parts/*.json"))) <= finished:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        process.wait()
        finished = len(list(tmp_path.glob("killed/parts/*.json")))
        assert 0 < finished < 150
    subprocess.run([*command, "killed"], env=alone, check=True, timeout=120)
    assert files("killed") == files("whole")
