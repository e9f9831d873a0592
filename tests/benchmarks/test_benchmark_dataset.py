"""The benchmark of data sets runs in miniature, and its killed run has the shards of an undisturbed one."""

import json
from pathlib import Path

from commanding import command
from needed import needed

needed("fsspec")
from benchmarks import dataset  # noqa: E402

ROOT = Path(__file__).parents[2]


def test_smoke(tiny, tmp_path, monkeypatch):
    """As with `--smoke`, but for one kill in place of two."""
    monkeypatch.chdir(ROOT)  # where the process that is killed starts
    sizes = ["-n", "64", "--timed", "32", "--kills", "1", "--pause", "1", "--workers", "1", "--folder"]
    done = command(dataset, *sizes, "--model", str(tiny), "--out", str(tmp_path), resumes=False)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["killed"]["equal"]
    assert data["killed"]["shards"] == 8
    assert min(data["speeds"].values()) > 0
