"""A process that is killed while it saves leaves the old result or the new one, and nothing else for good."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes that are killed are forks")
@pytest.mark.parametrize(
    ("step", "names"),
    [
        pytest.param(80, ["fewer", "longer-edit"], id="few"),
        pytest.param(
            1, ["more", "fewer", "longer-edit", "shorter-edit", "run"],
            marks=pytest.mark.slow, id="all",
        ),
    ],
)  # fmt: skip
def test_every_moment(tiny, tmp_path, step, names):
    command = [sys.executable, "-m", "pipeline.killing", str(tiny), str(tmp_path), "0", str(step), *names]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=900, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("file operations") == len(names)
