"""Write a data set: check all of it, say what it will cost, draw the shards that are missing, and finish."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from energyql.attributes.labels import ImageLabeller
from energyql.dataset.description import arrow
from energyql.dataset.destination import open_destination
from energyql.dataset.engine import Tally, Task, Worker, check_ray, run_here, run_on_ray
from energyql.dataset.manifest import begin, finish, read_records
from energyql.dataset.plan import DatasetPlan, Job
from energyql.dataset.plan_file import PlanSource, read_plan
from energyql.dataset.records import Estimate, ShardRecord, WrittenDataset, sum_records
from energyql.dataset.shard import prepare_plan
from energyql.errors import ArgumentError
from energyql.files import as_path
from energyql.generators.base import Generator
from energyql.progress import Report, reporting

PILOT = 16
"""Pictures of a class that are drawn to see what the data set costs."""
PILOT_CLASSES = 8
"""Classes that are tried; the others are taken to cost as much as these."""
_HEADERS = 3 * 512
"""Bytes that the archive adds to each sample, without padding."""


def open_plan(
    plan: str | Path | DatasetPlan, *, only_satisfied: bool | None = None, budget: int | None = None
) -> tuple[DatasetPlan, PlanSource]:
    """Return a plan, read from a file if it is none yet, and its source; arguments take the place of its entries.

    Raises:
        DataError: the file is no plan.
        ArgumentError: a budget is given for a plan that draws nothing again, or is out of range.
    """
    source = PlanSource()
    if not isinstance(plan, DatasetPlan):
        plan, source = read_plan(as_path(plan))
    chosen: dict[str, Any] = {"only_satisfied": only_satisfied, "budget": budget}
    plan = replace(plan, **{name: value for name, value in chosen.items() if value is not None})
    if budget is not None and not plan.only_satisfied:
        raise ArgumentError("a budget is for pictures that are drawn again", hint="add only_satisfied")
    return plan, source


class DatasetRun:
    """A plan that was checked against its models and its destination; nothing is written before `write`.

    Args:
        job: the plan, the place and the workers.
        source: where the plan was read, for messages.

    Attributes:
        prepared: the plan with its queries compiled.

    Raises:
        EnergyQLError: as for `write_dataset`.
    """

    def __init__(self, job: Job, source: PlanSource) -> None:
        arrow()
        if job.on_ray:
            check_ray()
        self._job, self._destination = job, open_destination(job.out)
        self.prepared = prepare_plan(job, source)
        begin(self._destination, self.prepared, write=False)
        records = read_records(self._destination)
        self._tasks: list[Task] = [(shard, records.get(shard)) for shard in range(job.plan.shards)]

    @property
    def held(self) -> dict[str, int]:
        """Pictures of each class in the shards of earlier runs."""
        records = [record for _, record in self._tasks if record is not None]
        return {one.name: sum(record.classes[one.name].wanted for record in records) for one in self._job.plan.classes}

    def estimate(self, progress: bool | Report = False) -> Estimate:
        """Draw a few pictures of each class and return what the missing shards will cost."""
        plan, missing = self._job.plan, [shard for shard, record in self._tasks if record is None]
        pairs = list(zip(plan.classes, self.prepared.queries, strict=True))
        pairs = pairs[:: -(-len(pairs) // PILOT_CLASSES)] if missing else []
        wanted = {one.name: sum(len(plan.positions(one, shard)) for shard in missing) for one in plan.classes}
        total, tried = sum(wanted.values()), 0
        seconds = size = drawn = 0.0
        with reporting(progress) as report:
            for number, (one, query) in enumerate(pairs, start=1):
                query.run(2, progress=False)  # what is only done once does not count
                started = time.perf_counter()
                result = query.run(min(PILOT, one.count), progress=False)
                pictures = [self.prepared.compress(picture) for picture in result.images]
                each = (time.perf_counter() - started) / len(result)
                texts = [len(str(sample)) for sample in result.to_dict()["samples"]]
                share = 1.0 if result.satisfied is None or not plan.only_satisfied else result.satisfied.mean()
                more = min(plan.budget, 1 / share) if share else plan.budget
                tried += wanted[one.name]
                drawn += wanted[one.name] * more
                seconds += wanted[one.name] * more * each
                size += wanted[one.name] * (_HEADERS + 768 + (sum(map(len, pictures)) + sum(texts)) / len(result))
                report("pilot", number / len(pairs))
        scale, workers = total / max(1, tried), self._job.workers
        return Estimate(total, len(missing), round(size * scale), round(drawn * scale), seconds * scale, workers)

    def write(self, progress: bool | Report = True) -> WrittenDataset:
        """Draw the shards that are missing and finish the data set; see `write_dataset`."""
        job, mark, tasks = self._job, self.prepared.fingerprint, self._tasks
        begin(self._destination, self.prepared)
        records: dict[int, ShardRecord] = {}
        kept = 0
        with reporting(progress) as report:
            tally = Tally(job.plan.classes, report)
            if job.on_ray:
                done = run_on_ray(job, mark, tasks)
            else:
                done = run_here(Worker(job, mark, self.prepared), tasks, tally.told)
            for record, there in done:
                records[record.shard] = record
                kept += there
                tally.finished(record)
        ordered = [records[shard] for shard in sorted(records)]
        finish(self._destination, self.prepared, ordered)
        classes = {one.name: sum_records(one.name, ordered) for one in job.plan.classes}
        return WrittenDataset(str(job.out), ordered, classes, kept)


def write_dataset(
    plan: str | Path | DatasetPlan,
    out: str | Path,
    *,
    only_satisfied: bool | None = None,
    budget: int | None = None,
    workers: int = 1,
    address: str | None = None,
    gpus: float = 0,
    device: str = "auto",
    generator: Generator | str | None = None,
    judge: ImageLabeller | str | None = None,
    allow_plugins: bool = False,
    progress: bool | Report = True,
) -> WrittenDataset:
    """Write a labelled data set: classes of pictures that satisfy their queries, in shards of WebDataset.

    The whole plan is checked before anything is written. A shard depends only on plan, models, seed and its number,
    and is written completely or not at all. So the same call continues after any interruption: existing shards are
    checked and kept. Needs pyarrow; a store needs its library (s3fs, gcsfs), and several workers need Ray.

    Args:
        plan: a TOML file (docs/datasets.md), or the same as an object.
        out: a folder, or an address that fsspec knows, such as `s3://bucket/folder`: empty, or with the beginning of
            this data set.
        only_satisfied: replaces the value of the plan.
        budget: replaces the value of the plan.
        workers: number of processes, by Ray where it is more than 1.
        address: of a Ray cluster; without one, several workers run on this machine.
        gpus: of each worker; may be a fraction.
        device: as for `generate`, of each worker.
        generator: as for `load_model`, for every model of the plan.
        judge: the same.
        allow_plugins: the same.
        progress: show bars, or a function that is called with the name of a class and the fraction of it that is done.

    Returns:
        What was written; `missing` says which classes lack pictures because the budget ended.

    Raises:
        DataError: the plan has mistakes, all of which are shown; or `out` holds something else.
        ArgumentError: `out` cannot be written or does not answer, a library is missing, or an argument is wrong.
    """
    opened, source = open_plan(plan, only_satisfied=only_satisfied, budget=budget)
    job = Job(
        plan=opened, out=out, workers=workers, address=address, gpus=gpus,
        device=device, generator=generator, judge=judge, allow_plugins=allow_plugins,
    )  # fmt: skip
    return DatasetRun(job, source).write(progress)
