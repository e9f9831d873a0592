"""Ctrl-C: what a command prints when it is interrupted, and the exit code 130.

What was finished is kept, and found again by the same command, where the work is done:

- `generate` to a folder: each batch is written by `pipeline.stream.FolderRun._append`, and found by `FolderRun._look`
- `train`, `train-judge`: each step is written and found by `training.steps.StepFile`, in the folder
  `models.unfinished.Work`; `training.target.opening_target` catches Ctrl-C and says how to go on
- `sample`: each picture is a file, written by `labelling.sample.sample_pictures`, which draws the missing ones
- `dataset`: each shard is written by `dataset.manifest.write_shard`, and found by `read_records` there
- `bench`, `evaluate`: each outcome is written by `evaluation.compare.compare`, of every protocol by
  `evaluation.evaluate`, samples by `evaluation.reference`; all three read them too
- `audit`: each answer is written by `auditing.answers.AnswerBook`, which reads it too
- `label`, `teach`: each label is written by `labelling.sheet.LabelSheet`, which reads it too; `teach` keeps pictures by
  `teaching.wall.Wall`, which reads them too

- `download`: each complete file stays in the cache, where `models.hub` finds it
- features of pictures, in a training: what was read is written by `training.feature_store.see`, which reads it too

Where Ctrl-C is caught elsewhere, in `numerics.pool` and `models.fetch`, only threads and connections are ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import typer
from rich.markup import escape

from energyql.cli.options import err


@contextmanager
def interruptible(message: str = "interrupted") -> Iterator[None]:
    """End the command with exit code 130 if Ctrl-C interrupts the block, and print why.

    Args:
        message: text to print if the `KeyboardInterrupt` has none.
    """
    try:
        yield
    except KeyboardInterrupt as interruption:
        err.print(escape(str(interruption) or message))
        raise typer.Exit(130) from None


def resumable() -> AbstractContextManager[None]:
    """`interruptible`, with a message that the same command goes on where it was."""
    return interruptible("interrupted; run the same command again to resume")
