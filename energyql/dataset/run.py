"""Write a data set: check the plan, estimate the cost, draw missing shards here or on Ray, and write the index."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from energyql.attributes.labels import labeller_name
from energyql.dataset.destination import Destination, open_destination
from energyql.dataset.manifest import arrow, begin, finish, read_records, write_shard
from energyql.dataset.plan import DatasetPlan, Job, PlanSource, read_plan
from energyql.dataset.settings import DatasetOptions, DatasetSettings
from energyql.dataset.shard import (
    Estimate,
    OnDrawn,
    PreparedPlan,
    ShardRecord,
    WrittenDataset,
    prepare_plan,
    sum_records,
)
from energyql.errors import ArgumentError, EnergyQLError, ModelError, either
from energyql.files import as_path
from energyql.models import packaged_models
from energyql.pipeline.calibrate import calibrate
from energyql.pipeline.model import Model
from energyql.pipeline.run import draw
from energyql.pipeline.source import CodeOptions, ModelSource
from energyql.plugins import import_optional
from energyql.progress import Report, reporting

if TYPE_CHECKING:
    from typing_extensions import Unpack

IN_FLIGHT = 2
"""Number of shards that a worker is given at a time: the shard that it draws, and the next one."""
ATTEMPTS = 10
"""Number of further attempts at a shard whose worker ended early, for example for lack of memory."""
Task = tuple[int, ShardRecord | None]
"""Number of a shard, and the record of the shard if an earlier run has written it."""
Done = tuple[ShardRecord, bool]
"""Record of a shard, and whether an earlier run has written the shard."""


class Worker:
    """A worker that draws and writes shards, in this process or in a process of Ray.

    Args:
        fingerprint: `PreparedPlan.fingerprint` in the process that started the worker. A worker that loads other
            models, whose fingerprint differs, would draw other pictures.
        prepared: `None` if the worker must load the models, which it does for its first shard.
    """

    def __init__(self, job: Job, fingerprint: str, prepared: PreparedPlan | None = None) -> None:
        self._job, self._fingerprint, self._prepared = job, fingerprint, prepared
        self._destination = open_destination(job.out)

    def shard(self, task: Task, on_drawn: OnDrawn = lambda name, count: None) -> Done:
        """Draw and write a shard, unless an earlier run has written it and it is undamaged.

        Raises:
            ModelError: the worker has other models than the process that started it.
            EnergyQLError: the shard cannot be drawn or written.
        """
        number, record = task
        if record is not None and self._destination.holds(record):
            return record, True
        if self._prepared is None:
            self._prepared = prepare_plan(self._job, PlanSource())
            if self._prepared.fingerprint != self._fingerprint:
                hint = "copy the same model folders to all machines, or keep them on a file system that all share"
                raise ModelError("a worker has other models than the process that started it", hint=hint)
        return write_shard(self._destination, self._prepared, number, on_drawn), False


def check_ray() -> Any:
    """Return the module `ray`; an `ArgumentError` if it is not installed, or older than 2.56."""
    hint = 'pip install "ray>=2.56"'  # earlier versions run code in the archives that they read, CVE-2026-57516
    ray = import_optional("ray", "several workers, and workers of a cluster, need Ray", hint)
    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < (2, 56):
        raise ArgumentError(f"Ray {ray.__version__} is too old: at least 2.56 is needed", hint=hint)
    return ray


def run_on_ray(job: Job, fingerprint: str, tasks: Sequence[Task]) -> Iterator[Done]:
    """Draw and write shards by Ray workers; yield the record of each shard when it is finished.

    A worker that ends early is started again, and its shard is drawn again. If this process has not connected to Ray
    yet, it connects to the cluster at the `address` of the settings, or starts Ray on this machine, and disconnects
    after the last shard.

    Raises:
        ArgumentError: Ray cannot be started or reached, or no machine has the GPUs of one worker.
        EnergyQLError: a worker raised the error, or ended early `ATTEMPTS` + 1 times at one shard.
    """
    ray = check_ray()
    ours = not ray.is_initialized()
    if ours:
        here: dict[str, Any] = (
            {} if job.settings.address else {"num_cpus": job.settings.workers, "include_dashboard": False}
        )
        try:
            ray.init(address=job.settings.address, log_to_driver=False, logging_level="ERROR", **here)
        except Exception as error:  # Ray raises errors of many classes
            hint = f"see to {either('address', '--address')}, or to the load of this machine"
            message = f"Ray cannot be {'reached' if job.settings.address else 'started'}: {error}"
            raise ArgumentError(message, hint=hint) from error
    try:
        most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
        if most < (gpus := job.settings.gpus):
            hint = f"see to {either('gpus', '--gpus')}"
            raise ArgumentError(f"no machine of Ray has the GPUs of one worker, {gpus:g}", hint=hint)
        remote = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=ATTEMPTS)(Worker)
        portable = _portable(job)
        actors = [remote.remote(portable, fingerprint) for _ in range(min(job.settings.workers, len(tasks)))]
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
                ray.kill(actor)  # frees its place for a worker that waits to be started
            yield done
    finally:
        if ours:
            ray.shutdown()


def _portable(job: Job) -> Job:
    """Copy of the job, with absolute paths, for workers that may have another working directory.

    A judge that is code gets its name as its attribute `identity`, because a worker may not have its source.
    """
    if callable(judge := job.source.judge):
        with suppress(AttributeError, TypeError):  # of a bound method, or an object without attributes
            judge.identity = labeller_name(judge)  # type: ignore[attr-defined]
    packaged = packaged_models()
    classes = [
        one if isinstance(one.model, Model) or str(one.model) in packaged
        else replace(one, model=os.path.abspath(one.model))
        for one in job.plan.classes
    ]  # fmt: skip
    out = job.out if "://" in str(job.out) else os.path.abspath(job.out)
    return replace(job, plan=replace(job.plan, classes=classes), out=out)


def _result(ray: Any, ready: Any, shard: int) -> Done:
    """Result of `Worker.shard` in a process of Ray; an `EnergyQLError` if the worker ended or lacked memory."""
    hint = "is there enough memory? The same command continues, with fewer workers if there is not"
    try:
        return cast(Done, ray.get(ready))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EnergyQLError):
            raise error.cause from None
        if isinstance(error.cause, MemoryError):
            raise EnergyQLError(f"a worker has not enough memory for shard {shard}", hint=hint) from None
        raise
    except ray.exceptions.RayError as error:
        first, *_, last = str(error).strip().splitlines() * 2
        message = f"shard {shard} has ended its worker {ATTEMPTS + 1} times: {first}"
        if "creation task" in str(error):
            message = f"no worker can be started: {last}"
            hint = "install what is missing on all machines; modules of your own lie in the working directory"
        raise EnergyQLError(message, hint=hint) from error


PILOT = 16
"""Largest number of pictures of a class that are drawn to estimate the cost of the data set."""
PILOT_CLASSES = 8
"""Largest number of classes that are drawn for the estimate; the other classes are assumed to cost the same."""
_HEADERS = 3 * 512
"""Size in bytes of the headers of the three files of a sample in a tar archive."""
Value = TypeVar("Value")


def open_job(
    plan: str | Path | DatasetPlan, out: str | Path, settings: DatasetSettings, source: ModelSource
) -> tuple[Job, PlanSource]:
    """Return a job, and the file of its plan, for messages; the plan is read if `plan` is a path.

    Raises:
        DataError: the file cannot be read, or is no plan.
        ArgumentError: `budget` is out of range, or given although `only_satisfied` of the plan is False.
    """
    file = PlanSource()
    if not isinstance(plan, DatasetPlan):
        plan, file = read_plan(as_path(plan))
    chosen: dict[str, Any] = {"only_satisfied": settings.only_satisfied, "budget": settings.budget}
    plan = replace(plan, **{name: value for name, value in chosen.items() if value is not None})
    if settings.budget is not None and not plan.only_satisfied:
        raise ArgumentError("a budget is for pictures that are drawn again", hint="add only_satisfied")
    return Job(plan=plan, out=out, settings=settings, source=source), file


class DatasetRun:
    """A plan that was checked together with its models and its destination. Only the method `write` writes files.

    Attributes:
        prepared: the plan with its models loaded and its queries compiled.

    Raises:
        DataError: the plan has mistakes, or the destination has another data set or other files.
        ArgumentError: the destination cannot be written, a library is missing, or there is no such device.
    """

    def __init__(self, job: Job, source: PlanSource) -> None:
        arrow()
        if job.settings.on_ray:
            check_ray()
        self._job, self._destination = job, open_destination(job.out)
        self.prepared = prepare_plan(job, source)
        self._look(write=False)

    def _look(self, *, write: bool) -> None:
        """Read which shards are finished; with `write`, first write `plan.json` if it is missing or damaged."""
        begin(self._destination, self.prepared, write=write)
        records = _undisturbed(self._destination, partial(read_records, self._destination, self.prepared))
        self._tasks: list[Task] = [(shard, records.get(shard)) for shard in range(self._job.plan.shards)]

    def alone(self) -> AbstractContextManager[Any]:
        """Lock the destination against other processes, if it is a folder: see `Destination.alone`."""
        return self._destination.alone()

    @property
    def held(self) -> dict[str, int]:
        """Number of pictures of each class that the finished shards have according to the plan."""
        records = [record for _, record in self._tasks if record is not None]
        return {one.name: sum(record.classes[one.name].wanted for record in records) for one in self._job.plan.classes}

    def estimate(self, progress: bool | Report = False) -> Estimate:
        """Estimated cost of the missing shards; a few pictures of some classes are drawn to measure it."""
        plan, missing = self._job.plan, [shard for shard, record in self._tasks if record is None]
        pairs = list(zip(plan.classes, self.prepared.queries, strict=True))
        pairs = pairs[:: -(-len(pairs) // PILOT_CLASSES)] if missing else []
        counts = {one.name: sum(len(plan.positions(one, shard)) for shard in missing) for one in plan.classes}
        total, tried = sum(counts.values()), sum(counts[one.name] for one, _ in pairs)
        seconds = size = samples = 0.0
        with reporting(progress) as report:
            for number, (one, query) in enumerate(pairs, start=1):
                query = calibrate(query, end=PILOT)
                draw(query, 2, progress=False)  # so that work of the first call is not measured
                started = time.perf_counter()
                result = draw(query, min(PILOT, one.count), progress=False)
                pictures = [self.prepared.compress(picture) for picture in result.images]
                each = (time.perf_counter() - started) / len(result)
                texts = [str(sample) for sample in result.to_dict()["samples"]]
                share = 1.0 if result.satisfied is None or not plan.only_satisfied else result.satisfied.mean()
                count, more = counts[one.name], min(plan.budget, 1 / share) if share else plan.budget
                samples += count * more
                seconds += count * more * each
                size += count * (_HEADERS + 768 + sum(map(len, [*pictures, *texts])) / len(result))
                report("pilot", number / len(pairs))
        scale, workers = total / max(1, tried), self._job.settings.workers
        return Estimate(total, len(missing), round(size * scale), round(samples * scale), seconds * scale, workers)

    def write(self, progress: bool | Report = True) -> WrittenDataset:
        """Draw the missing shards; then write the index, the card and the manifest. For `progress` see `write_dataset`.

        Raises:
            EnergyQLError: a file cannot be drawn or written, or a worker ended too often.
        """
        with self.alone():
            self._look(write=True)  # another run may have written shards meanwhile
            with reporting(progress) as report:
                records, old = self._draw(report)
            begin(self._destination, self.prepared, write=False)  # without locks, a run of another plan may have begun
            _undisturbed(self._destination, partial(finish, self._destination, self.prepared, records))
        classes = {one.name: sum_records(one.name, records) for one in self._job.plan.classes}
        return WrittenDataset(str(self._job.out), records, classes, old)

    def _draw(self, report: Report) -> tuple[list[ShardRecord], int]:
        """Draw the missing and damaged shards; return all records in order, and the number of shards that were kept."""
        counts = {one.name: one.count for one in self._job.plan.classes}
        finished, begun = Counter[str](), Counter[str]()

        def on_drawn(name: str, count: int) -> None:
            begun[name] += count
            report(name, (finished[name] + begun[name]) / counts[name])

        job, mark = self._job, self.prepared.fingerprint
        if job.settings.on_ray:
            shards = run_on_ray(job, mark, self._tasks)
        else:
            worker = Worker(job, mark, self.prepared)
            shards = (worker.shard(task, on_drawn) for task in self._tasks)
        done: list[Done] = []
        for record, is_old in shards:
            done.append((record, is_old))
            for name, one in record.classes.items():
                finished[name], begun[name] = finished[name] + one.wanted, 0
                on_drawn(name, 0)
        records = sorted((record for record, _ in done), key=lambda record: record.shard)
        return records, sum(is_old for _, is_old in done)


def _undisturbed(destination: Destination, call: Callable[[], Value]) -> Value:
    """Return `call()`; repeat it where it fails while another process changes the files, for stores have no locks."""
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
    progress: bool | Report = True,
    **options: Unpack[DatasetOptions],
) -> WrittenDataset:
    """Write a labelled data set: classes of pictures that satisfy their queries, in shards of WebDataset.

    The whole plan is checked before anything is written. A shard depends only on the plan, the models and the number of
    the shard, and is written completely or not at all. So the same call continues after any interruption: undamaged
    shards of an earlier call are kept. The function needs pyarrow; a store needs its library (s3fs, gcsfs), and several
    workers need Ray.

    Args:
        plan: a TOML file (docs/datasets.md), or a `DatasetPlan`.
        out: a folder, or an address that fsspec can open, such as `s3://bucket/folder`. It must be empty, or have the
            files of an earlier run of the same plan.
        progress: whether to show bars; or a function that is called with the name of a class and the fraction of the
            pictures of this class that is done.
        options: fields of `DatasetSettings` by name, such as `workers` or `only_satisfied`; and `generator`, `judge`,
            `reader` and `allow_plugins` for the models of all classes, see `ModelSource`.

    Returns:
        Counts of what is in the data set. The property `missing` names the classes that lack pictures, because the
        judge rejected too many of the samples that `budget` allows.

    Raises:
        DataError: the plan has mistakes, which the message lists; or `out` has another data set or other files.
        ArgumentError: `out` cannot be written or does not respond, a library is missing, or an argument is wrong.
        EnergyQLError: a shard cannot be drawn, or its worker ended early too often.
    """
    given: dict[str, Any] = dict(options)
    code = {name: given.pop(name) for name in CodeOptions.__annotations__ if name in given}
    job, file = open_job(plan, out, DatasetSettings(**given), ModelSource(**code))
    return DatasetRun(job, file).write(progress)
