"""The benchmark of data sets runs in miniature, and its killed run has the shards of an undisturbed one."""

import json
import os
import subprocess
import sys
from pathlib import Path

from needed import needed

needed("fsspec")
ROOT = Path(__file__).parents[2]


def test_smoke(tiny, tmp_path):
    command = [sys.executable, "-m", "benchmarks.dataset", "--smoke", "--model", str(tiny), "--out", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["killed"]["equal"]
    assert data["killed"]["shards"] == 8
    assert min(data["speeds"].values()) > 0
