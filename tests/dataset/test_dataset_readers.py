"""Data sets are read by the programs that people train with, and their counts are right by another program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from needed import needed

from dataset.plans import known_plan, write
from energyql import DatasetPlan

needed("webdataset")
needed("datasets")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("read") / "out"
    first, second = known_plan().classes
    write(DatasetPlan(classes=[first, second], shard_size=10, only_satisfied=True, budget=8), out)
    return out


@pytest.mark.parametrize(
    "library",
    ["webdataset", pytest.param("loader", marks=pytest.mark.slow), pytest.param("datasets", marks=pytest.mark.slow)],
)
def test_reading(folder, library):
    script = Path(__file__).with_name("reading.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), library, str(folder)],
        capture_output=True, text=True, env=environment, timeout=300, check=False, cwd=folder.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sizes"] == [[4, 4]]
    assert found["classes"] == {"b": 23, "a | rest": 12}
    assert found["numbers"] == {"0": 23, "1": 12}
    assert len({tuple(sample) for sample in found["samples"]}) == 35
    assert found["satisfied"] == 35
