"""The benchmark counts what it says, on a device that is not there."""

import json

import pytest
from commanding import command

from benchmarks import accelerator
from benchmarks.emulated import MISSING

pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.mark.slow
def test_smoke(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(accelerator, "COMMON", "smile AND NOT glasses")
    done = command(
        accelerator, "--smoke", "--model", str(tiny), "--out", str(tmp_path), "--launch", "10", "--wait", "100"
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert [row["call"] for row in rows] == list(accelerator.SMOKE)
    latents, pictures = rows
    assert 50 < latents["launches"] < latents["operations"]
    assert latents["waits"] <= latents["launches"] / 100  # the random heads of this model need long descents
    assert sum(number for _, number in latents["lines"]["wait"]) <= latents["waits"]
    assert pictures["launches"] > latents["launches"]
    page = (tmp_path / "results.md").read_text()
    expected = (10 * (latents["launches"] + latents["transfers"]) + 100 * latents["waits"]) / 1000
    assert f"| {expected:,.1f} |" in page
    assert "`numerics/linear.py:" in page


def test_wrong_calls(tmp_path):
    done = command(accelerator, "--calls", "nothing", "--out", str(tmp_path))
    assert done.returncode == 2
    assert "unknown" in done.stderr
