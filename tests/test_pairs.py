"""What a folder holds is of one run, whoever else wanted to write it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the commands are forks")
@pytest.mark.parametrize(
    ("seed", "count", "kinds"),
    [
        # Of three kinds, which take the folder in other places; one is killed; together, soon and later.
        pytest.param(12, 3, ["run", "edit", "model"], id="few"),
        pytest.param(0, 200, [], marks=pytest.mark.slow, id="many"),
    ],
)
def test_pairs_of_writers(tmp_path, seed, count, kinds):
    command = [sys.executable, "-m", "pairs", str(tmp_path), str(seed), str(count), *kinds]
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=1800, check=False,
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.endswith(f"{count} pairs\n")
