"""The command that writes a labelled data set from a plan: `energyql dataset`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import err, out, out_option, print_json
from energyql.dataset.settings import DatasetSettings

if TYPE_CHECKING:
    from energyql.dataset import DatasetPlan
    from energyql.progress import Report

_MOST_BARS = 12
"""Most classes that have a bar each; with more classes, one bar shows the sum."""


@options.with_options(
    "workers", "address", "gpus", "only_satisfied", "budget", "device", record=DatasetSettings
)  # fmt: skip
def dataset(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml")],
    save_to: Annotated[str, out_option()],
    dry_run: bool = False,
    *,
    source: options.CodeSource,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    **settings: Any,
) -> None:
    """Write a balanced, labelled data set from a plan, on one machine or on many.

    The whole plan is checked before anything is written. A few pictures of up to eight classes are drawn first, to
    estimate the cost; with --quiet only for --dry-run. Existing shards are checked and kept.

    Args:
        plan: Classes, counts and settings; see docs/datasets.md.
        save_to: A folder, or an address such as s3://bucket/folder; the same command continues it.
        dry_run: Check the plan, print the estimated cost, write nothing.
    """
    from energyql.dataset.run import DatasetRun, open_job

    job, file = open_job(plan, save_to, DatasetSettings(**settings), source)
    run = DatasetRun(job, file)
    if dry_run:
        cost = run.estimate(progress=not quiet)
        if as_json:
            print_json(vars(cost))
        else:
            out.print(escape(str(cost)))
        return
    with run.alone():
        if not quiet:
            err.print(escape(str(run.estimate(progress=True))))
        with resumable(), _bars(job.plan, run.held, not quiet) as report:
            result = run.write(report)
    if as_json:
        print_json(result.to_dict())
    elif not quiet:
        out.print(escape(f"{result.summary()}. Saved {save_to}"))
    result.check_complete()


@contextmanager
def _bars(plan: DatasetPlan, held: dict[str, int], show: bool) -> Iterator[bool | Report]:
    """Yield a progress function that shows a bar for all pictures, and one for each of 2 to `_MOST_BARS` classes.

    Pictures in `held` are shown as done, but count for neither rate nor time left. Without a terminal, `show` is
    yielded.
    """
    if not show or not err.is_terminal:
        yield show
        return
    counts = {one.name: one.count for one in plan.classes}
    width = min(24, max(map(len, ["all", *counts])))
    columns = (
        TextColumn(f"{{task.description:>{width}.{width}}}"), BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=err) as bars:
        total = bars.add_task("all", total=plan.count, completed=sum(held.values()), rate="")
        tasks: dict[str, TaskID] = {}
        if 1 < len(counts) <= _MOST_BARS:
            for name, count in counts.items():
                tasks[name] = bars.add_task(escape(name), total=count, completed=held[name], rate="")
        done: dict[str, float] = dict(held)

        def report(name: str, fraction: float) -> None:
            done[name] = max(held[name], fraction * counts[name])
            for task, number in ((tasks.get(name), done[name]), (total, sum(done.values()))):
                if task is not None:
                    speed = bars.tasks[bars.task_ids.index(task)].speed
                    bars.update(task, completed=number, rate="" if speed is None else f"{speed:,.1f}/s")

        yield report
