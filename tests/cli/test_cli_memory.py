"""Commands in less memory than they need: one message, never a stack trace, and no crash."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import COMMANDS

from energyql.numerics import memory

TESTS = Path(__file__).parents[1]
LIMITS = (6, 13, 20, 33, 45)
"""Mebibytes beyond what importing the library takes: too little for most commands, and once a crash for many."""
SAID = ("there is not enough memory", "allocate memory")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has limits and sizes in /proc")


@pytest.mark.slow
def test_every_command_under_a_limit(tiny, tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "cli.limited", str(tiny), str(tmp_path), *map(str, LIMITS)],
        capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    rows = [line.split("\t") for line in run.stdout.splitlines()]
    assert len(rows) == len(COMMANDS) * len(LIMITS)
    failed = [row for row in rows if row[2] != "0"]
    assert [row for row in failed if row[2] not in ("1", "9", "10")] == []
    assert [row for row in failed if not any(words in row[3] for words in SAID)] == []
    assert {row[0] for row in failed} == set(COMMANDS), "every command met its limit"


def test_room_is_checked_only_below_a_limit(monkeypatch):
    memory.check_room()
    assert not memory.nearly_ended()
    size = memory._size("VmSize")
    assert memory._size("VmPeak") >= size > 10 << 20
    monkeypatch.setattr(memory, "limit", lambda: size + memory.MARGIN // 2)
    with pytest.raises(MemoryError):
        memory.check_room()
    assert memory.nearly_ended()
    monkeypatch.setattr(memory, "limit", lambda: memory._size("VmPeak") + 2 * memory.MARGIN)
    memory.check_room()
    assert not memory.nearly_ended()
