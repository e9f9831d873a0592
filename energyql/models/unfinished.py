"""Trainings that are not finished: what their folders hold of them, and how they are continued. Imports no torch.

A training writes into a hidden folder of the model folder until it has finished all. Each step, such as the labels or
the heads, keeps its results there under its name; `energyql.training.steps` checks that they are those of the same
settings and data, and not damaged. So the same training goes on from there, and its result is the same.
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
RECORD, START = "training.json", "model"
"""In it: the command that continues the training with the steps that are finished, and a folder for the model as it is
before the training, if that is not in the model folder."""
BEFORE_JUDGE = ("second heads", "reader")
"""Steps after which only a judge is missing."""


@dataclass(frozen=True)
class Work:
    """The steps of a training that are finished, and the command that continues it.

    Attributes:
        model: the model folder.
    """

    model: Path

    @property
    def folder(self) -> Path:
        """Holds all that the training has written."""
        return self.model / WORK

    @property
    def record(self) -> dict[str, Any] | None:
        """What `begin` and `step` have recorded; `None` if there is no training, or its record is damaged."""
        try:
            found = read_json(self.folder / RECORD)
        except ModelError:
            return None
        command = found.get("command")
        lists = (found.get("finished"), [found.get("directory")], [command] if isinstance(command, str) else command)
        texts = all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists)
        return found if texts else None

    def begin(self, command: Sequence[str] | str) -> None:
        """Record a training that begins or goes on; of another one, no step counts as finished.

        `command` are the words after `energyql`, or the call in Python.
        """
        command = command if isinstance(command, str) else list(command)
        before = self.record or {}
        finished = before["finished"] if before.get("command") == command else []
        write_json(self.folder / RECORD, {"command": command, "directory": os.getcwd(), "finished": finished})

    @contextmanager
    def step(self, name: str) -> Iterator[Path]:
        """Yield the file or folder of a step, which is finished when the block ends."""
        yield self.folder / name
        record = self.record
        if record is not None and name not in record["finished"]:
            write_json(self.folder / RECORD, record | {"finished": [*record["finished"], name]})

    def restore(self, record: dict[str, Any] | None) -> None:
        """Put an earlier record back, because a training was refused; with none, remove all that was written."""
        if record is None:
            self.remove()
        else:
            write_json(self.folder / RECORD, record)

    def remove(self) -> None:
        """Remove all that was written: the training is finished, or refused."""
        with suppress(OSError):
            (self.folder / RECORD).unlink()  # first, because without it there is no training
        shutil.rmtree(self.folder, ignore_errors=True)

    def kept_steps(self) -> str:
        """Return the names of the steps that are finished, and of those in progress."""
        finished = (self.record or {"finished": []})["finished"]
        with suppress(OSError):
            others = sorted(set(os.listdir(self.folder)) - {RECORD, START, *finished})
            finished = [*finished, *(f"{name} (in part)" for name in others if not name.startswith("."))]
        return ", ".join(finished) or "nothing yet"

    def continuation(self) -> str:
        """Return the command that continues the training."""
        record = self.record
        if record is None or isinstance(record["command"], str):
            return "the same call" if record is None else str(record["command"])
        words, where = shlex.join(["energyql", *record["command"]]), record["directory"]
        return words if where == os.getcwd() else f"cd {shlex.quote(where)} && {words}"


def check_finished(folder: Path) -> None:
    """Check that a folder, which is no model that can be queried, is not that of a training that can be continued.

    Raises:
        ModelError: it is; the message says how to continue.
    """
    work = Work(folder)
    if (record := work.record) is None:
        return
    hint = f"finished and kept: {work.kept_steps()}\nto continue: {work.continuation()}"
    if set(BEFORE_JUDGE) & set(record["finished"]) and "none" not in record["command"]:
        option = "judge=None" if isinstance(record["command"], str) else "--judge none"
        hint += f"\nwith {option} besides, it ends without a judge"
    raise ModelError(f"the training of {folder} is not finished", hint=hint)
