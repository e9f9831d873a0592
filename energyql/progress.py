"""Progress of long computations: bars or lines on standard error, a line in a notebook, or a user's function."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from rich.console import Console
from rich.progress import Progress, TaskID

Report = Callable[[str, float], None]
"""Function that is called with the name of a stage, such as "sampling", and the fraction of it that is done, in [0, 1].
An exception that it raises ends the computation, so a user can cancel it."""
NOTEBOOK_DELAY = 1.0
"""Seconds before the line in a notebook appears: a shorter computation leaves no output in the cell."""
LINE_INTERVAL = 10.0
"""Seconds between the lines in a file or a pipe, and before the first one: a shorter computation prints none."""


def quiet(*_: object) -> None:
    """Show no progress, whatever is reported."""


@contextmanager
def reporting(show: bool | Report) -> Iterator[Report]:
    """Yield a function that the block calls with a stage and the fraction done, to show the progress.

    Args:
        show: whether to show progress on standard error: as a bar for each stage on a terminal, as a line about every
            ten seconds in a file or a pipe, as one line that vanishes at the end in a notebook. A function is yielded
            unchanged.
    """
    if callable(show) or not show:
        yield show or quiet
        return
    console = Console(stderr=True)
    if console.is_jupyter:  # where the bars of rich need ipywidgets, and leave an output
        shown: AbstractContextManager[Report] = _notebook_line()
    else:
        shown = _bars(console) if console.is_terminal else nullcontext(_lines(console))
    with shown as report:
        yield report


def _line(stage: str, fraction: float) -> str:
    return f"{stage} {100 * fraction:.0f} %"


def _lines(console: Console) -> Report:
    """Function that prints its arguments as a line, if the last line is `LINE_INTERVAL` old."""
    printed = time.monotonic()

    def report(stage: str, fraction: float) -> None:
        nonlocal printed
        if (now := time.monotonic()) - printed >= LINE_INTERVAL:
            printed = now
            console.print(_line(stage, fraction), markup=False, emoji=False, highlight=False, soft_wrap=True)

    return report


@contextmanager
def _bars(console: Console) -> Iterator[Report]:
    """Yield a function that draws a bar for each stage on a terminal, from its first call on."""
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
    """Yield a function that shows one line below the cell, after `NOTEBOOK_DELAY` and until the block ends."""
    from IPython.display import display

    begun, current = time.monotonic(), ""
    handle = None

    def report(stage: str, fraction: float) -> None:
        nonlocal handle, current
        line = _line(stage, fraction)
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
