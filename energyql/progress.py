"""Progress of long computations: a bar on standard error, a line in a notebook, or a function of the caller."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

Report = Callable[[str, float], None]
"""Function of the name of a stage and the fraction of the stage that is done, in [0, 1]. An exception that it raises
ends the computation, so a caller can cancel."""
NOTEBOOK_DELAY = 1.0
"""Seconds before the line in a notebook appears: a shorter computation leaves no output in the cell."""


@contextmanager
def reporting(show: bool | Report) -> Iterator[Report]:
    """Yield a function that reports the progress of the block.

    In a notebook one line in the output of the cell shows the stage, and is emptied in the end.

    Args:
        show: whether to draw a bar for each stage on standard error; or a function, which is yielded itself.
    """
    if callable(show):
        yield show
        return
    if not show:
        yield lambda stage, fraction: None
        return
    console = Console(stderr=True)
    if console.is_jupyter:  # the bars of rich need ipywidgets there, and leave an output
        with _notebook_line() as line:
            yield line
        return
    with ExitStack() as stack:
        bars, tasks = Progress(console=console), dict[str, TaskID]()

        def report(stage: str, fraction: float) -> None:
            if not tasks:
                stack.enter_context(bars)  # only now: started without a bar, it prints an empty line
            if stage not in tasks:
                tasks[stage] = bars.add_task(f"{stage:>9}", total=1.0)
            bars.update(tasks[stage], completed=fraction)

        yield report


@contextmanager
def _notebook_line() -> Iterator[Report]:
    """Yield a function that shows the progress in the output of a notebook's cell; the output is emptied in the end."""
    from IPython.display import display

    begun, current = time.monotonic(), ""
    handle = None

    def report(stage: str, fraction: float) -> None:
        nonlocal handle, current
        line = f"{stage} {fraction:.0%}"
        if line == current or time.monotonic() - begun < NOTEBOOK_DELAY:
            return
        current, content = line, {"text/plain": line}
        if handle is None:
            handle = display(content, raw=True, display_id=True)
        else:
            handle.update(content, raw=True)

    try:
        yield report
    finally:
        if handle is not None:
            handle.update({}, raw=True)
