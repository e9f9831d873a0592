"""A benchmark as a command, in this process: another one would import torch once more."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest

from benchmarks.common import run_command


@dataclass(frozen=True)
class Done:
    """How a command ended, and what it printed."""

    returncode: int
    stdout: str
    stderr: str


def command(benchmark: ModuleType, *arguments: str, resumes: bool = True) -> Done:
    """Run `python -m benchmarks.NAME ARGUMENTS`."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", [benchmark.__name__, *arguments])
        with pytest.raises(SystemExit) as end:
            run_command(benchmark.main, resumes=resumes)
    return Done(int(end.value.code or 0), out.getvalue(), err.getvalue())
