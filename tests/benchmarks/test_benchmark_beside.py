"""The benchmark beside other programs, at its smallest: it runs, and leaves no busy loop behind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import beside


def test_busy_loops_end(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def popen(*arguments: object) -> subprocess.Popen[bytes]:
        begun.append(real(*arguments))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(beside.subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt), beside.busy(2):
        assert [loop.poll() for loop in begun] == [None, None]
        raise KeyboardInterrupt
    assert len(begun) == 2
    assert all(loop.poll() is not None for loop in begun)


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.beside", "--smoke", "--out", str(tmp_path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, encoding="utf-8", timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["setting"], row["loops"]) for row in rows] == [
        ("before", 0), ("now", 0), ("before", 1), ("now", 1),
    ]  # fmt: skip
    assert all(row["seconds"] and min(row["seconds"]) > 0 for row in rows)
    assert "times idle" in (tmp_path / "results.md").read_text(encoding="utf-8")
