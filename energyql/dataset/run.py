"""Write a data set: check the plan, estimate the cost, draw missing shards in this process or by Ray, and finish."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from energyql.attributes.labels import ImageLabeller
from energyql.dataset.destination import Destination, open_destination
from energyql.dataset.manifest import arrow, begin, finish, read_records, write_shard
from energyql.dataset.plan import DatasetClass, DatasetPlan, Job, PlanSource, read_plan
from energyql.dataset.shard import (
    Estimate,
    OnDrawn,
    PreparedPlan,
    ShardRecord,
    WrittenDataset,
    prepare_plan,
    sum_records,
)
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.files import as_path
from energyql.generators.base import Generator
from energyql.models import packaged_models
from energyql.pipeline.model import Model
from energyql.plugins import import_optional
from energyql.progress import Report, reporting

LEAST_RAY = (2, 56)
"""Least version of Ray: earlier ones run code in the archives that they read, CVE-2026-57516."""
IN_FLIGHT = 2
"""Number of shards that are assigned to a worker: the one that it draws, and the next."""
ATTEMPTS = 10
"""How often a shard is tried again after the end of its worker."""
Task = tuple[int, ShardRecord | None]
"""The number of a shard, and its record if an earlier run has finished it."""
Done = tuple[ShardRecord, bool]
"""The record of a shard, and whether an earlier run has finished it."""


class Worker:
    """A process that draws shards; it loads the models at the first shard that it draws.

    Args:
        job: the plan and its destination.
        fingerprint: fingerprint of the plan, as the process that started the worker has prepared it.
        prepared: the prepared plan; by default the worker prepares it.
    """

    def __init__(self, job: Job, fingerprint: str, prepared: PreparedPlan | None = None) -> None:
        self._job, self._fingerprint, self._prepared = job, fingerprint, prepared
        self._destination = open_destination(job.out)

    def shard(self, task: Task, on_drawn: OnDrawn = lambda name, count: None) -> Done:
        """Draw a shard, unless an earlier run has written it and it is undamaged.

        Raises:
            ModelError: the models of this machine differ from those of the process that started the worker.
            EnergyQLError: the shard cannot be drawn or written.
        """
        number, record = task
        if record is not None and self._destination.holds(record.file, record.sha256, record.mark):
            return record, True
        if self._prepared is None:
            self._prepared = prepare_plan(self._job, PlanSource())
            if self._prepared.fingerprint != self._fingerprint:
                raise ModelError(
                    "a worker has other models than the process that started it",
                    hint="copy the same model folders to all machines, or keep them on a file system that all share",
                )
        return write_shard(self._destination, self._prepared, number, on_drawn), False


class Tally:
    """Count of the pictures of each class, for the progress.

    Args:
        classes: the classes of the plan.
        report: called with the name of a class and the fraction of its pictures that are done.
    """

    def __init__(self, classes: Sequence[DatasetClass], report: Report) -> None:
        self._counts, self._report = {one.name: one.count for one in classes}, report
        self._done, self._open = dict.fromkeys(self._counts, 0), dict.fromkeys(self._counts, 0)

    def count_drawn(self, name: str, count: int) -> None:
        """Count pictures of a class in an unfinished shard."""
        self._open[name] += count
        self._show(name)

    def count_shard(self, record: ShardRecord) -> None:
        """Count the pictures of a finished shard, instead of what `count_drawn` has counted since the last one."""
        for name, one in record.classes.items():
            self._done[name], self._open[name] = self._done[name] + one.wanted, 0
            self._show(name)

    def _show(self, name: str) -> None:
        self._report(name, (self._done[name] + self._open[name]) / self._counts[name])


def check_ray() -> Any:
    """Return the module `ray`.

    Raises:
        ArgumentError: Ray is not installed, or too old.
    """
    hint = 'pip install "ray>=2.56"'
    ray = import_optional("ray", "several workers, and workers of a cluster, need Ray", hint)
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < LEAST_RAY:
        least = ".".join(map(str, LEAST_RAY))
        raise ArgumentError(f"Ray {ray.__version__} is too old: at least {least} is needed", hint=hint)
    return ray


def run_here(worker: Worker, tasks: Sequence[Task], on_drawn: OnDrawn) -> Iterator[Done]:
    """Yield the records of shards, drawn in order by this process."""
    for task in tasks:
        yield worker.shard(task, on_drawn)


def run_on_ray(job: Job, fingerprint: str, tasks: Sequence[Task]) -> Iterator[Done]:
    """Yield the records of shards as workers of Ray finish them.

    A worker that ends early is started again and draws its shard again. Without an address, Ray runs on this machine
    until the last shard is drawn.

    Args:
        job: the plan, its destination and the workers.
        fingerprint: fingerprint of the prepared plan.
        tasks: the shards.

    Raises:
        ArgumentError: Ray cannot be started or reached, or no machine has the GPUs of one worker.
        EnergyQLError: a worker raised this error, or a shard has ended its worker too often.
    """
    ray = check_ray()
    ours = not ray.is_initialized()
    if ours:
        here: dict[str, Any] = {} if job.address else {"num_cpus": job.workers, "include_dashboard": False}
        try:
            ray.init(address=job.address, log_to_driver=False, logging_level="ERROR", **here)
        except Exception as error:  # Ray raises errors of many classes
            message = f"Ray cannot be {'reached' if job.address else 'started'}: {error}"
            raise ArgumentError(message, hint="see to --address, or to the load of this machine") from error
    try:
        most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if most < job.gpus:
            raise ArgumentError(f"no machine of Ray has the GPUs of one worker, {job.gpus:g}", hint="see to --gpus")
        remote = ray.remote(num_cpus=1, num_gpus=job.gpus, max_restarts=-1, max_task_retries=ATTEMPTS)(Worker)
        portable = _portable(job)
        actors = [remote.remote(portable, fingerprint) for _ in range(min(job.workers, len(tasks)))]
        running: dict[Any, tuple[Any, int]] = {}
        left = iter(tasks)

        def give(actor: Any) -> None:
            """Assign the next shard, if there is one, to a worker."""
            for task in islice(left, 1):
                running[actor.shard.remote(task)] = actor, task[0]

        for _ in range(IN_FLIGHT):
            for actor in actors:
                give(actor)
        while running:
            (ready, *_), _ = ray.wait(list(running))
            actor, shard = running.pop(ready)
            give(actor)
            done = _result(ray, ready, shard)
            if all(other is not actor for other, _ in running.values()):
                ray.kill(actor)  # frees its place for a worker that waits to be started
            yield done
    finally:
        if ours:
            ray.shutdown()


def _portable(job: Job) -> Job:
    """Return the job with absolute paths, for processes that may have another working directory."""
    packaged = packaged_models()
    classes = [
        one if isinstance(one.model, Model) or str(one.model) in packaged
        else replace(one, model=os.path.abspath(one.model))
        for one in job.plan.classes
    ]  # fmt: skip
    out = job.out if "://" in str(job.out) else os.path.abspath(job.out)
    return replace(job, plan=replace(job.plan, classes=classes), out=out)


def _result(ray: Any, ready: Any, shard: int) -> Done:
    """Return what a worker has returned for a shard.

    Args:
        ray: the module.
        ready: Ray's reference to the value.
        shard: number of the shard, for messages.

    Raises:
        EnergyQLError: the worker raised it, could not be started, or has ended too often.
    """
    try:
        done: Done = ray.get(ready)
        return done
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EnergyQLError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        if "creation task" in str(error):
            raise EnergyQLError(
                f"no worker can be started: {str(error).strip().splitlines()[-1]}",
                hint="install what is missing on all machines; modules of your own lie in the working directory",
            ) from error
        raise EnergyQLError(
            f"shard {shard} has ended its worker {ATTEMPTS + 1} times: {str(error).splitlines()[0]}",
            hint="is there enough memory? The same command continues, with fewer workers if there is not",
        ) from error


PILOT = 16
"""Number of pictures that are drawn of a class to estimate the cost of the data set."""
PILOT_CLASSES = 8
"""Largest number of classes that are drawn for the estimate; the cost of the others is assumed to be the same."""
_HEADERS = 3 * 512
"""Bytes that the archive adds to each sample, without padding."""
Value = TypeVar("Value")


def open_plan(
    plan: str | Path | DatasetPlan, *, only_satisfied: bool | None = None, budget: int | None = None
) -> tuple[DatasetPlan, PlanSource]:
    """Return a plan and its source.

    Args:
        plan: a plan, or the path of its file.
        only_satisfied: replaces the value of the plan, unless it is `None`.
        budget: replaces the value of the plan, unless it is `None`.

    Raises:
        DataError: the file is no plan.
        ArgumentError: `budget` is out of range, or given for a plan without `only_satisfied`.
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
        job: the plan, the destination and the workers.
        source: the file of the plan, for messages.

    Attributes:
        prepared: the plan with its queries compiled.

    Raises:
        DataError: the plan has mistakes, or the destination holds something else.
        ArgumentError: the destination cannot be written, or a library is missing.
    """

    def __init__(self, job: Job, source: PlanSource) -> None:
        arrow()
        if job.on_ray:
            check_ray()
        self._job, self._destination = job, open_destination(job.out)
        self.prepared = prepare_plan(job, source)
        self._look(write=False)

    def _look(self, *, write: bool) -> None:
        """Read which shards are finished; with `write`, write the plan first unless it is there.

        Raises:
            DataError: the destination holds another data set, or other files.
        """
        begin(self._destination, self.prepared, write=write)
        records = _undisturbed(self._destination, partial(read_records, self._destination, self.prepared))
        self._tasks: list[Task] = [(shard, records.get(shard)) for shard in range(self._job.plan.shards)]

    def alone(self) -> AbstractContextManager[Any]:
        """Return a context manager that keeps other writers away; see `Destination.alone`."""
        return self._destination.alone()

    @property
    def held(self) -> dict[str, int]:
        """Name of a class -> number of pictures that the plan asks for in its finished shards."""
        records = [record for _, record in self._tasks if record is not None]
        return {one.name: sum(record.classes[one.name].wanted for record in records) for one in self._job.plan.classes}

    def estimate(self, progress: bool | Report = False) -> Estimate:
        """Draw a few pictures of up to `PILOT_CLASSES` classes, and return the estimated cost of the missing shards."""
        plan, missing = self._job.plan, [shard for shard, record in self._tasks if record is None]
        pairs = list(zip(plan.classes, self.prepared.queries, strict=True))
        pairs = pairs[:: -(-len(pairs) // PILOT_CLASSES)] if missing else []
        counts = {one.name: sum(len(plan.positions(one, shard)) for shard in missing) for one in plan.classes}
        total, tried = sum(counts.values()), 0
        seconds = size = samples = 0.0
        with reporting(progress) as report:
            for number, (one, query) in enumerate(pairs, start=1):
                query.run(2, progress=False)  # so that work of the first call is not measured
                started = time.perf_counter()
                result = query.run(min(PILOT, one.count), progress=False)
                pictures = [self.prepared.compress(picture) for picture in result.images]
                each = (time.perf_counter() - started) / len(result)
                texts = [len(str(sample)) for sample in result.to_dict()["samples"]]
                share = 1.0 if result.satisfied is None or not plan.only_satisfied else result.satisfied.mean()
                more = min(plan.budget, 1 / share) if share else plan.budget
                tried += counts[one.name]
                samples += counts[one.name] * more
                seconds += counts[one.name] * more * each
                size += counts[one.name] * (_HEADERS + 768 + (sum(map(len, pictures)) + sum(texts)) / len(result))
                report("pilot", number / len(pairs))
        scale, workers = total / max(1, tried), self._job.workers
        return Estimate(total, len(missing), round(size * scale), round(samples * scale), seconds * scale, workers)

    def write(self, progress: bool | Report = True) -> WrittenDataset:
        """Draw the missing shards and finish the data set; see `write_dataset`."""
        with self.alone():
            self._look(write=True)  # another run may have written shards meanwhile
            return self._write(progress)

    def _write(self, progress: bool | Report) -> WrittenDataset:
        job, mark, tasks = self._job, self.prepared.fingerprint, self._tasks
        records: dict[int, ShardRecord] = {}
        old = 0
        with reporting(progress) as report:
            tally = Tally(job.plan.classes, report)
            if job.on_ray:
                done = run_on_ray(job, mark, tasks)
            else:
                done = run_here(Worker(job, mark, self.prepared), tasks, tally.count_drawn)
            for record, is_old in done:
                records[record.shard] = record
                old += is_old
                tally.count_shard(record)
        ordered = [records[shard] for shard in sorted(records)]
        begin(
            self._destination, self.prepared, write=False
        )  # without locks, a run of another plan may have written meanwhile
        _undisturbed(self._destination, partial(finish, self._destination, self.prepared, ordered))
        classes = {one.name: sum_records(one.name, ordered) for one in job.plan.classes}
        return WrittenDataset(str(job.out), ordered, classes, old)


def _undisturbed(destination: Destination, call: Callable[[], Value]) -> Value:
    """Return what `call`, a function that reads the parts of a data set, returns.

    A store has no locks: another run of the plan may finish the data set and remove the parts meanwhile. If `call`
    fails and files have come or gone, it is called again.
    """
    while True:
        before = destination.sizes().keys()
        try:
            return call()
        except EnergyQLError:
            if destination.sizes().keys() == before:
                raise


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
        plan: a TOML file (docs/datasets.md), or a `DatasetPlan`.
        out: a folder, or an address that fsspec can open, such as `s3://bucket/folder`: empty, or with a part of this
            data set.
        only_satisfied: replaces the value of the plan.
        budget: replaces the value of the plan.
        workers: number of processes; more than 1 need Ray.
        address: address of a Ray cluster; without one, several workers run on this machine.
        gpus: number of GPUs of each worker; may be a fraction.
        device: device of each worker, such as "cpu" or "cuda"; "auto" is a GPU if there is one.
        generator: argument of `load_model`, for every model of the plan.
        judge: argument of `load_model`, for every model of the plan.
        allow_plugins: argument of `load_model`, for every model of the plan.
        progress: whether to show bars; or a function of the name of a class and the fraction of it that is done.

    Returns:
        The record of the data set; its `missing` holds the classes that lack pictures, because the budget ended.

    Raises:
        DataError: the plan has mistakes, all of which are shown; or `out` holds something else.
        ArgumentError: `out` cannot be written or does not respond, a library is missing, or an argument is wrong.
    """
    opened, source = open_plan(plan, only_satisfied=only_satisfied, budget=budget)
    job = Job(
        plan=opened, out=out, workers=workers, address=address, gpus=gpus,
        device=device, generator=generator, judge=judge, allow_plugins=allow_plugins,
    )  # fmt: skip
    return DatasetRun(job, source).write(progress)
