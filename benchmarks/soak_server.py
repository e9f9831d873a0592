"""A studio in a process of its own, and its memory."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

from energyql.errors import EnergyQLError


class StudioProcess:
    """`energyql studio` on a free port of the loopback, while the block lasts."""

    def __init__(self, model: str) -> None:
        command = [sys.executable, "-m", "energyql", "studio", "--model", model, "--port", "0", "--device", "cpu"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.port = self._read_port()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:  # which closes its pipe
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def resident(self) -> float:
        """Its resident memory, in bytes; 0 after its end. Linux only."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return 0.0
        found = re.search(r"VmRSS:\s+(\d+)", text)
        return 1024.0 * int(found[1]) if found else 0.0

    def _read_port(self) -> int:
        assert self._process.stdout is not None  # it is a pipe
        for line in self._process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:(\d+)/", line):
                return int(found[1])
        raise EnergyQLError("the studio did not start", hint="energyql studio says why")
