"""Progress of long computations: a bar on standard error, a line in a notebook, or a function of the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

Report = Callable[[str, float], None]
"""Called with the name of a stage and the fraction of it that is done, in [0, 1]. An exception that it raises ends the
computation, so a caller can cancel."""
NOTEBOOK_DELAY = 1.0
"""Seconds before the line in a notebook appears: what takes less time leaves no output in the cell."""


@contextmanager
def reporting(show: bool | Report) -> Iterator[Report]:
    """Yield a function that draws a bar of each stage on standard error, or nothing; a function is yielded as it is.

    In a notebook one line of the cell's output shows the stage, and is empty at the end.
    """
    if callable(show):
        yield show
        return
    if not show:
        yield lambda stage, fraction: None
        return
    console = Console(stderr=True)
    if console.is_jupyter:  # where the bars of rich need ipywidgets and leave an output
        with _notebook_line() as line:
            yield line
        return
    with ExitStack() as stack:
        bars, tasks = Progress(console=console), dict[str, TaskID]()

        def report(stage: str, fraction: float) -> None:
            if not tasks:
                stack.enter_context(bars)  # only now: without a bar it leaves an empty line, such as before an error
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{stage:>9}", total=1.0)
            bars.update(tasks[stage], completed=fraction)

        yield report


@contextmanager
def _notebook_line() -> Iterator[Report]:
    from IPython.display import display

    begun, shown = time.monotonic(), ""
    handle = None

    def report(stage: str, fraction: float) -> None:
        nonlocal handle, shown
        line = f"{stage} {fraction:.0%}"
        if line == shown or time.monotonic() - begun < NOTEBOOK_DELAY:
            return
        shown, content = line, {"text/plain": line}
        if handle is None:
            handle = display(content, raw=True, display_id=True)
        else:
            handle.update(content, raw=True)

    try:
        yield report
    finally:
        if handle is not None:
            handle.update({}, raw=True)
