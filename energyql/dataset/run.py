"""Write a data set: check all of it, say what it will cost, draw missing shards here or by Ray, and finish."""

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
from energyql.dataset.shard import Estimate, PreparedPlan, ShardRecord, Told, WrittenDataset, prepare_plan, sum_records
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.files import as_path
from energyql.generators.base import Generator
from energyql.models import packaged_models
from energyql.pipeline.model import Model
from energyql.plugins import import_optional
from energyql.progress import Report, reporting

LEAST_RAY = (2, 56)
"""Earlier versions run code out of the archives that they read, CVE-2026-57516."""
IN_FLIGHT = 2
"""Shards that a worker has: one that it draws and the next."""
ATTEMPTS = 10
"""How often a shard may end its worker."""
Task = tuple[int, ShardRecord | None]
"""The number of a shard, and its record if it was finished before."""
Done = tuple[ShardRecord, bool]
"""The record of a shard, and whether it was there already."""


class Worker:
    """Draws shards; loads the models once, at its first shard.

    Args:
        job: what to draw.
        fingerprint: of the prepared plan, which must be the same here.
        prepared: the prepared plan, if it is at hand.
    """

    def __init__(self, job: Job, fingerprint: str, prepared: PreparedPlan | None = None) -> None:
        self._job, self._fingerprint, self._prepared = job, fingerprint, prepared
        self._destination = open_destination(job.out)

    def shard(self, task: Task, told: Told = lambda name, count: None) -> Done:
        """Check a shard that was finished before, and draw it if it is not there or damaged.

        Raises:
            ModelError: the models are others here.
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
        return write_shard(self._destination, self._prepared, number, told), False


class Tally:
    """Counts the pictures of each class, for the progress."""

    def __init__(self, classes: Sequence[DatasetClass], report: Report) -> None:
        self._counts, self._report = {one.name: one.count for one in classes}, report
        self._done, self._open = dict.fromkeys(self._counts, 0), dict.fromkeys(self._counts, 0)

    def told(self, name: str, count: int) -> None:
        """Count pictures of a shard that is not finished yet."""
        self._open[name] += count
        self._show(name)

    def finished(self, record: ShardRecord) -> None:
        """Count the pictures of a shard."""
        for name, one in record.classes.items():
            self._done[name], self._open[name] = self._done[name] + one.wanted, 0
            self._show(name)

    def _show(self, name: str) -> None:
        self._report(name, (self._done[name] + self._open[name]) / self._counts[name])


def check_ray() -> Any:
    """Return the module `ray`.

    Raises:
        ArgumentError: it is not installed, or too old.
    """
    hint = 'pip install "ray>=2.56"'
    ray = import_optional("ray", "several workers, and workers of a cluster, need Ray", hint)
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < LEAST_RAY:
        least = ".".join(map(str, LEAST_RAY))
        raise ArgumentError(f"Ray {ray.__version__} is too old: at least {least} is needed", hint=hint)
    return ray


def run_here(worker: Worker, tasks: Sequence[Task], told: Told) -> Iterator[Done]:
    """Yield the shards one after the other, drawn by this process."""
    for task in tasks:
        yield worker.shard(task, told)


def run_on_ray(job: Job, fingerprint: str, tasks: Sequence[Task]) -> Iterator[Done]:
    """Yield the shards as workers of Ray finish them. A worker that is lost is started again, and so is its shard.

    Without an address, Ray is started on this machine for as long as this takes.

    Args:
        job: what to draw, and by whom.
        fingerprint: of the prepared plan.
        tasks: the shards.

    Raises:
        EnergyQLError: a worker reports one, or a shard has ended its worker too often.
    """
    ray = check_ray()
    ours = not ray.is_initialized()
    if ours:
        here: dict[str, Any] = {} if job.address else {"num_cpus": job.workers, "include_dashboard": False}
        try:
            ray.init(address=job.address, log_to_driver=False, logging_level="ERROR", **here)
        except Exception as error:  # Ray raises plain ones, too
            message = f"Ray cannot be {'reached' if job.address else 'started'}: {error}"
            raise ArgumentError(message, hint="see to --address, or to the load of this machine") from error
    try:
        most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if most < job.gpus:
            raise ArgumentError(f"no machine of Ray has the GPUs of one worker, {job.gpus:g}", hint="see to --gpus")
        remote = ray.remote(num_cpus=1, num_gpus=job.gpus, max_restarts=-1, max_task_retries=ATTEMPTS)(Worker)
        known = _elsewhere(job)
        actors = [remote.remote(known, fingerprint) for _ in range(min(job.workers, len(tasks)))]
        running: dict[Any, tuple[Any, int]] = {}
        left = iter(tasks)

        def give(actor: Any) -> None:
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
                ray.kill(actor)  # its place is for workers that wait for one: more than fit, or of a lost machine
            yield done
    finally:
        if ours:
            ray.shutdown()


def _elsewhere(job: Job) -> Job:
    """Return the job with absolute paths, for processes with another working directory."""
    known = packaged_models()
    classes = [
        one if isinstance(one.model, Model) or str(one.model) in known
        else replace(one, model=os.path.abspath(one.model))
        for one in job.plan.classes
    ]  # fmt: skip
    out = job.out if "://" in str(job.out) else os.path.abspath(job.out)
    return replace(job, plan=replace(job.plan, classes=classes), out=out)


def _result(ray: Any, ready: Any, shard: int) -> Done:
    """Return what a worker has returned, or raise what it has raised."""
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
"""Pictures of a class that are drawn to see what the data set costs."""
PILOT_CLASSES = 8
"""Classes that are tried; the others are taken to cost as much as these."""
_HEADERS = 3 * 512
"""Bytes that the archive adds to each sample, without padding."""
Value = TypeVar("Value")


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
        self._look(write=False)

    def _look(self, *, write: bool) -> None:
        """See which shards are there, of this plan or of none yet; with `write`, write the plan."""
        begin(self._destination, self.prepared, write=write)
        records = _undisturbed(self._destination, partial(read_records, self._destination, self.prepared))
        self._tasks: list[Task] = [(shard, records.get(shard)) for shard in range(self._job.plan.shards)]

    def alone(self) -> AbstractContextManager[Any]:
        """Return a context manager that keeps other writers away from a folder; see `Destination.alone`."""
        return self._destination.alone()

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
        with self.alone():
            self._look(write=True)  # another run may have written meanwhile
            return self._write(progress)

    def _write(self, progress: bool | Report) -> WrittenDataset:
        job, mark, tasks = self._job, self.prepared.fingerprint, self._tasks
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
        begin(self._destination, self.prepared, write=False)  # without locks, another plan may have come meanwhile
        _undisturbed(self._destination, partial(finish, self._destination, self.prepared, ordered))
        classes = {one.name: sum_records(one.name, ordered) for one in job.plan.classes}
        return WrittenDataset(str(job.out), ordered, classes, kept)


def _undisturbed(destination: Destination, call: Callable[[], Value]) -> Value:
    """Return what a call returns that reads the parts of a data set.

    It is made again where it fails because another run of the plan, which nothing locks out of a store, has finished
    the data set and removed them meanwhile.
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
