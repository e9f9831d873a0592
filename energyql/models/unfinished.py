"""Trainings that are not finished: the folder of their files, and how to continue them. This module imports no torch.

Until a training is finished, each step, such as labelling or the fit of the heads, writes its results into `.training`,
a subfolder of the model folder. The same training, started again, continues from them and ends with the same model,
after `energyql.training.steps` has checked that the results are whole, and that settings and data are the same.
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
"""Subfolder of a model folder that holds the files of a training until it is finished."""
RECORD = "training.json"
"""File in `WORK` with the command that continues the training, and the names of the steps that are finished."""
START = "model"
"""Folder in `WORK` for the files of a new model, until they are moved to the model folder."""


@dataclass(frozen=True)
class Work:
    """The folder for the files of a training that is not finished, with a record of its command and finished steps."""

    model: Path

    @property
    def folder(self) -> Path:
        """Folder for all files of the training: `.training` in the model folder."""
        return self.model / WORK

    @property
    def record(self) -> dict[str, Any] | None:
        """Record of the training; `None` if it is missing or damaged.

        Its keys are `command` (the words after `energyql` as a list, or the text of a call in Python), `directory` (the
        working directory of the command) and `finished` (names of steps).
        """
        try:
            record = read_json(self.folder / RECORD)
        except ModelError:
            return None
        command = record.get("command")
        lists = (record.get("finished"), [record.get("directory")], [command] if isinstance(command, str) else command)
        right = all(isinstance(texts, list) and all(isinstance(text, str) for text in texts) for texts in lists)
        return record if right else None

    def begin(self, command: Sequence[str] | str) -> None:
        """Write the record at the beginning of a training; finished steps of the same command are kept."""
        command = command if isinstance(command, str) else list(command)
        before = self.record or {}
        finished = before["finished"] if before.get("command") == command else []
        write_json(self.folder / RECORD, {"command": command, "directory": os.getcwd(), "finished": finished})

    @contextmanager
    def step(self, name: str) -> Iterator[Path]:
        """Yield the path for the results of the step `name`, which is finished if the block ends without an error."""
        yield self.folder / name
        record = self.record
        if record is not None and name not in record["finished"]:
            write_json(self.folder / RECORD, record | {"finished": [*record["finished"], name]})

    def restore(self, record: dict[str, Any] | None) -> None:
        """Undo `begin` after an error: write the earlier record again, or remove the folder if there was none."""
        if record is None:
            self.remove()
        else:
            write_json(self.folder / RECORD, record)

    def remove(self) -> None:
        """Remove the folder with all files of the training."""
        with suppress(OSError):
            (self.folder / RECORD).unlink()  # first, because without it there is no training
        shutil.rmtree(self.folder, ignore_errors=True)

    def kept_steps(self) -> str:
        """Steps whose results exist, for messages, such as "labels, heads (in part)" if the latter is not finished."""
        finished = (self.record or {"finished": []})["finished"]
        with suppress(OSError):
            others = sorted(set(os.listdir(self.folder)) - {RECORD, START, *finished})
            finished = [*finished, *(f"{name} (in part)" for name in others if not name.startswith("."))]
        return ", ".join(finished) or "nothing yet"

    def continuation(self) -> str:
        """How to continue the training: a command line or a call in Python; "the same call" without a record."""
        record = self.record
        if record is None or isinstance(record["command"], str):
            return "the same call" if record is None else str(record["command"])
        words, where = shlex.join(["energyql", *record["command"]]), record["directory"]
        return words if where == os.getcwd() else f"cd {shlex.quote(where)} && {words}"


def check_finished(folder: Path) -> None:
    """Raise a `ModelError` that says how to continue, if a folder has the record of an interrupted training."""
    work = Work(folder)
    if work.record is None:
        return
    hint = f"finished and kept: {work.kept_steps()}\nto continue: {work.continuation()}"
    raise ModelError(f"the training of {folder} is not finished", hint=hint)
