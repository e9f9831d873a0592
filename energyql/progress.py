"""Progress of long computations, shown by bars on standard error, by a line in a notebook, or by a user's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

Report = Callable[[str, float], None]
"""Function that is called with the name of a stage, such as "sampling", and the fraction of the stage that is done, in
[0, 1]. An exception that the function raises ends the computation, so a user can cancel it."""
NOTEBOOK_DELAY = 1.0
"""Seconds before the line in a notebook appears: a shorter computation leaves no output in the cell."""


@contextmanager
def reporting(show: bool | Report) -> Iterator[Report]:
    """Yield a function that the block calls with a stage and the fraction done, to show the progress.

    Args:
        show: True to show progress, False to show nothing. On a terminal there is a bar on standard error for each
            stage. In a notebook there is one line, which is removed at the end of the block. If `show` is a function,
            this function is yielded unchanged, and shows progress in its own way.
    """
    if callable(show) or not show:
        yield show or (lambda stage, fraction: None)
        return
    console = Console(stderr=True)
    # The bars of rich need ipywidgets in a notebook, and leave an output there.
    with _notebook_line() if console.is_jupyter else _bars(console) as report:
        yield report


@contextmanager
def _bars(console: Console) -> Iterator[Report]:
    """Yield a function that is called with a stage and the fraction of it that is done, and draws a bar for each stage.

    The bars appear on `console`, the terminal, at the first call of the function.
    """
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
    """Yield a function that is called with a stage and the fraction of it that is done, and shows both in a notebook.

    A line such as "sampling 40%" appears below the cell after one second, and is removed at the end of the block.
    """
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
