"""A process that is killed while it saves a training leaves the model as it was, or as it is after the training."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forks")
@pytest.mark.slow
@pytest.mark.parametrize(("what", "step"), [("old", "1"), ("judge", "13")])
def test_every_moment(tmp_path, what, step):
    command = [sys.executable, "-W", "ignore", "-m", "training.killing_models", str(tmp_path), step, what]
    paths = os.pathsep.join(map(str, [TESTS.parent, TESTS, TESTS / "training"]))
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "times the old model" in run.stdout
