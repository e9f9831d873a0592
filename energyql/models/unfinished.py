"""Trainings that are not finished: the folder of their files, and how to continue them. This module imports no torch.

Until a training is finished, it writes into `.training`, a subfolder of the model folder. Each step, such as labelling
or the fit of the heads, writes its results there under the name of the step. If the user starts the same training
again, it continues from these results, and ends with the same model. First `energyql.training.steps` checks that the
results are not damaged, and that settings and data are the same.
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
"""Folder in `WORK` for the files of a new model, until its training ends and they are moved to the model folder."""


@dataclass(frozen=True)
class Work:
    """The folder for the files of a training that is not finished.

    A record in the folder has the command of the training and the names of its finished steps.

    Attributes:
        model: the model folder.
    """

    model: Path

    @property
    def folder(self) -> Path:
        """Folder for all files of the training: `.training` in the model folder."""
        return self.model / WORK

    @property
    def record(self) -> dict[str, Any] | None:
        """Record of the training as a dict; `None` if it is missing or damaged.

        The keys are `command`, `directory` (the working directory of the command) and `finished` (names of steps). The
        command is the list of words after `energyql`, or the text of a call in Python.
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
        """Write the record at the beginning of a training.

        If the folder has the record of an interrupted training with an equal command, the finished steps in that record
        are kept. Otherwise the list of finished steps is empty.

        Args:
            command: the words after `energyql` on the command line, or the text of the call in Python.
        """
        command = command if isinstance(command, str) else list(command)
        before = self.record or {}
        finished = before["finished"] if before.get("command") == command else []
        write_json(self.folder / RECORD, {"command": command, "directory": os.getcwd(), "finished": finished})

    @contextmanager
    def step(self, name: str) -> Iterator[Path]:
        """Yield the path where the block is to write the results of the step `name`, such as "labels".

        After the block, the step is recorded as finished. If the block ends with an error, nothing is recorded.
        """
        yield self.folder / name
        record = self.record
        if record is not None and name not in record["finished"]:
            write_json(self.folder / RECORD, record | {"finished": [*record["finished"], name]})

    def restore(self, record: dict[str, Any] | None) -> None:
        """Undo `begin` after a training ended with an error.

        Args:
            record: the record of the training before the call of `begin`, which is written to the folder again. If
                there was no record (`None`), the folder is removed.
        """
        if record is None:
            self.remove()
        else:
            write_json(self.folder / RECORD, record)

    def remove(self) -> None:
        """Remove the folder with all files of the training, because the training is finished or has failed."""
        with suppress(OSError):
            (self.folder / RECORD).unlink()  # first, because without it there is no training
        shutil.rmtree(self.folder, ignore_errors=True)

    def kept_steps(self) -> str:
        """Return the names of the steps whose results exist, as a text for messages, such as "labels, heads (in part)".

        "(in part)" marks a step that is not finished. Without results the text is "nothing yet".
        """
        finished = (self.record or {"finished": []})["finished"]
        with suppress(OSError):
            others = sorted(set(os.listdir(self.folder)) - {RECORD, START, *finished})
            finished = [*finished, *(f"{name} (in part)" for name in others if not name.startswith("."))]
        return ", ".join(finished) or "nothing yet"

    def continuation(self) -> str:
        """Return how to continue the training, as a text for messages: a command line, or a call in Python.

        Without a record of the command, the text is "the same call".
        """
        record = self.record
        if record is None or isinstance(record["command"], str):
            return "the same call" if record is None else str(record["command"])
        words, where = shlex.join(["energyql", *record["command"]]), record["directory"]
        return words if where == os.getcwd() else f"cd {shlex.quote(where)} && {words}"


def check_finished(folder: Path) -> None:
    """Raise an error that says how to continue the training, if a folder has the files of an interrupted training.

    It is called for a folder that lacks files of a model. If there is no such training, nothing is raised, and the
    caller reports which files are missing.

    Raises:
        ModelError: the folder has the record of a training that is not finished; the hint says how to continue it.
    """
    work = Work(folder)
    if work.record is None:
        return
    hint = f"finished and kept: {work.kept_steps()}\nto continue: {work.continuation()}"
    raise ModelError(f"the training of {folder} is not finished", hint=hint)
