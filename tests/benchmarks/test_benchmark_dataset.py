"""The benchmark of data sets runs in miniature, and its killed run has the shards of an undisturbed one."""

import json
from pathlib import Path

import pytest
from commanding import command
from needed import needed

needed("fsspec")
from benchmarks import dataset  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kills", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_smoke(tiny, tmp_path, monkeypatch, kills):
    """To kill a run takes seconds; `cli/test_cli_dataset.py` kills commands as well."""
    monkeypatch.chdir(ROOT)  # where the process that is killed starts
    sizes = ["-n", "64", "--timed", "32", "--kills", str(kills), "--pause", "1", "--workers", "1", "--folder"]
    done = command(dataset, *sizes, "--model", str(tiny), "--out", str(tmp_path), resumes=False)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    assert min(data["speeds"].values()) > 0
    assert data["killed"] == {} or (data["killed"]["equal"], data["killed"]["shards"]) == (True, 8)
    assert bool(data["killed"]) == bool(kills)
