"""The command that writes a labelled data set from a plan: `energyql dataset`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from energyql.cli import options
from energyql.cli.interruption import resumable
from energyql.cli.options import err, out, out_option, print_json

if TYPE_CHECKING:
    from energyql.dataset import DatasetPlan
    from energyql.progress import Report

_MOST_BARS = 12
"""Most classes that have a bar each; with more classes, one bar shows the sum."""


@options.with_options()
def dataset(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml")],
    save_to: Annotated[str, out_option()],
    workers: Annotated[int, typer.Option(min=1)] = 1,
    address: Annotated[str | None, options.more()] = None,
    gpus: Annotated[float, options.more(min=0)] = 0,
    only_satisfied: Annotated[bool | None, typer.Option("--only-satisfied")] = None,
    budget: Annotated[int | None, options.more(min=1)] = None,
    dry_run: bool = False,
    generator: options.Code = None,
    judge: options.Code = None,
    reader: options.Name = None,
    allow_plugins: options.AllowPlugins = False,
    device: str = "auto",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a balanced, labelled data set from a plan, on one machine or on many.

    The whole plan is checked before anything is written. A few pictures of up to eight classes are drawn first, to
    estimate the cost; with --quiet only for --dry-run. Existing shards are checked and kept.

    Args:
        plan: Classes, counts and settings; see docs/datasets.md.
        save_to: A folder, or an address such as s3://bucket/folder; the same command continues it.
        workers: Processes that draw; more than one needs Ray.
        address: A Ray cluster, such as auto or host:6379; by default this machine.
        gpus: GPUs of each Ray worker; may be a fraction.
        only_satisfied: Replace pictures that the judge rejects.
        budget: Most samples for each picture, with --only-satisfied; by default 10.
        dry_run: Check the plan, print the estimated cost, write nothing.
    """
    from energyql.dataset.plan import Job
    from energyql.dataset.run import DatasetRun, open_plan

    opened, source = open_plan(plan, only_satisfied=only_satisfied, budget=budget)
    job = Job(
        plan=opened, out=save_to, workers=workers, address=address, gpus=gpus,
        device=device, generator=generator, judge=judge, reader=reader, allow_plugins=allow_plugins,
    )  # fmt: skip
    run = DatasetRun(job, source)
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
        with resumable(), _bars(opened, run.held, not quiet) as report:
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
