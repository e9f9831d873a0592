"""The command that writes data sets: what it prints, its exit codes, and that it can be killed at any moment."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import PLAN
from dataset.plans import files, samples

KILLED = Path(__file__).with_name("killed.py")


@pytest.fixture
def plan(tmp_path, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "plan.toml"
    path.write_text(PLAN.replace("MODEL", str(tiny)))
    return path


def test_a_data_set(main, plan, tmp_path, monkeypatch):
    code, out, errors = main("dataset", plan, "--out", "out", "--device", "cpu")
    assert code == 0, errors
    assert out.startswith("9 pictures in 3 shards, ")
    assert out.endswith("Saved out\n")
    assert "9 pictures in 3 shards, about " in errors
    assert len(samples(tmp_path / "out")) == 9
    code, out, errors = main("dataset", plan, "--out", "out", "--json", "-q")
    assert (code, errors) == (0, "")
    assert json.loads(out)["kept"] == 3
    monkeypatch.setenv("FORCE_COLOR", "1")  # so that standard error counts as a terminal
    _, _, errors = main("dataset", plan, "--out", "out")
    assert "9 of 9" in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", errors)
    assert "/s" not in errors  # to check a shard is no drawing


def test_progress_in_a_file(main, plan, monkeypatch):
    monkeypatch.setattr("energyql.progress.LINE_INTERVAL", 0.0)
    _, _, errors = main("dataset", plan, "--out", "out", "--device", "cpu")
    assert "\nsmile 50 %\n" in errors and errors.endswith(" 100 %\n")
    assert "9 of 9" not in errors


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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forks")
def test_a_command_that_is_killed_is_continued(plan):
    """SIGKILL again and again; the same command then completes the folder, with the bytes of an undisturbed run."""
    # An undisturbed run writes the plan, three files for each of three shards, and three in the end.
    runs = ["whole=0", "killed=-1,2,-4,2,3,-5,4,-2,3,0"]
    words = [sys.executable, str(KILLED), *runs, "dataset", str(plan), "-q", "--device", "cpu"]
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=alone, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert files("killed") == files("whole")
