"""Ctrl-C: what a command prints when it is interrupted, and the exit code 130.

What was finished is kept, and found again by the same command, where the work is done: results in `pipeline.stream`,
steps of trainings in `models.unfinished`, shards in `dataset.run`, answers in `auditing.answers`.
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
