"""Small files that claim to be large are refused before they take much memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.slow
def test_what_reading_takes(tmp_path):
    pytest.importorskip("pyarrow")
    pytest.importorskip("resource")
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    run = subprocess.run(
        [sys.executable, "-m", "training.memory", str(tmp_path)], capture_output=True, text=True, timeout=300,
        check=False, env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert len(rows) == 7
    taken = {name: (int(megabytes), outcome) for megabytes, name, outcome in rows}
    assert max(megabytes for megabytes, _ in taken.values()) < 500, taken
    assert taken.pop("8000.png")[1] == "read"
    assert all("Error: " in outcome for _, outcome in taken.values()), taken
    assert "11500 x 11500 pixels" in taken["11500.png"][1]
    assert "more than 8,388,608 cells" in taken["rows.parquet"][1]
    assert all("holds more than 64 MiB" in taken[f"{name}.parquet"][1] for name in ("cells", "texts"))
