"""Trainings that are not finished: their folders, and how they are continued. This module imports no torch.

Until a training is finished, it writes into a hidden folder of the model folder. Each step, such as the labels or the
heads, writes its results there under its name; `energyql.training.steps` checks that they are not damaged, and are of
the same settings and data. So the same training can continue from them, with the same final result.
"""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from energyql.errors import ModelError
from energyql.files import read_json, write_json

WORK = ".training"
"""Subfolder of a model folder for a training that is not finished."""
RECORD = "training.json"
"""File in `WORK` with the command that continues the training, and the names of the steps that are finished."""
START = "model"
"""Folder in `WORK` for the model before the training, if that is not in the model folder."""
BEFORE_JUDGE = ("second heads", "reader")
"""Names of steps after which only the judge is missing."""


@dataclass(frozen=True)
class Work:
    """The folder of a training that is not finished, with its record.

    Attributes:
        model: the model folder.
    """

    model: Path

    @property
    def folder(self) -> Path:
        """Folder for all files of the training."""
        return self.model / WORK

    @property
    def record(self) -> dict[str, Any] | None:
        """Record of the training: `command`, `directory` and `finished`; `None` if it is missing or damaged."""
        try:
            record = read_json(self.folder / RECORD)
        except ModelError:
            return None
        command = record.get("command")
        lists = (record.get("finished"), [record.get("directory")], [command] if isinstance(command, str) else command)
        texts = all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists)
        return record if texts else None

    def begin(self, command: Sequence[str] | str) -> None:
        """Write the record at the beginning of a training; steps stay finished only if the last one had this command.

        Args:
            command: the words after `energyql`, or the text of the call in Python.
        """
        command = command if isinstance(command, str) else list(command)
        before = self.record or {}
        finished = before["finished"] if before.get("command") == command else []
        write_json(self.folder / RECORD, {"command": command, "directory": os.getcwd(), "finished": finished})

    @contextmanager
    def step(self, name: str) -> Iterator[Path]:
        """Yield the path for the results of a step, and record the step as finished if the block ends without error."""
        yield self.folder / name
        record = self.record
        if record is not None and name not in record["finished"]:
            write_json(self.folder / RECORD, record | {"finished": [*record["finished"], name]})

    def restore(self, record: dict[str, Any] | None) -> None:
        """Write an earlier record again, after a training was refused; with `None`, remove the folder."""
        if record is None:
            self.remove()
        else:
            write_json(self.folder / RECORD, record)

    def remove(self) -> None:
        """Remove the folder, after the training is finished or refused."""
        with suppress(OSError):
            (self.folder / RECORD).unlink()  # first, because without it there is no training
        shutil.rmtree(self.folder, ignore_errors=True)

    def kept_steps(self) -> str:
        """Return the names of the steps that are finished or begun, as a text for messages."""
        finished = (self.record or {"finished": []})["finished"]
        with suppress(OSError):
            others = sorted(set(os.listdir(self.folder)) - {RECORD, START, *finished})
            finished = [*finished, *(f"{name} (in part)" for name in others if not name.startswith("."))]
        return ", ".join(finished) or "nothing yet"

    def continuation(self) -> str:
        """Return the command line, or the call in Python, that continues the training."""
        record = self.record
        if record is None or isinstance(record["command"], str):
            return "the same call" if record is None else str(record["command"])
        words, where = shlex.join(["energyql", *record["command"]]), record["directory"]
        return words if where == os.getcwd() else f"cd {shlex.quote(where)} && {words}"


def check_finished(folder: Path) -> None:
    """Check that a folder without a complete model does not hold a training that is not finished.

    Raises:
        ModelError: it does; the hint says how to continue.
    """
    work = Work(folder)
    if (record := work.record) is None:
        return
    hint = f"finished and kept: {work.kept_steps()}\nto continue: {work.continuation()}"
    if set(BEFORE_JUDGE) & set(record["finished"]) and "none" not in record["command"]:
        option = "judge=None" if isinstance(record["command"], str) else "--judge none"
        hint += f"\nwith {option} besides, it ends without a judge"
    raise ModelError(f"the training of {folder} is not finished", hint=hint)
