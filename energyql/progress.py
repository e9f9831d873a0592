"""Progress of long computations: a bar on standard error, or a function of the caller."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

Report = Callable[[str, float], None]
"""Called with the name of a stage and the fraction of it that is done, in [0, 1]. An exception that it raises ends the
computation, so a caller can cancel."""


@contextmanager
def reporting(show: bool | Report) -> Iterator[Report]:
    """Yield a function that draws a bar of each stage on standard error, or nothing; a function is yielded as it is."""
    if callable(show):
        yield show
        return
    if not show:
        yield lambda stage, fraction: None
        return
    with Progress(console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, fraction: float) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{stage:>9}", total=1.0)
            bars.update(tasks[stage], completed=fraction)

        yield report
