"""Who draws the shards: this process, or workers on one or many machines by Ray."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from energyql.dataset.destination import open_destination
from energyql.dataset.manifest import write_shard
from energyql.dataset.plan import DatasetClass, Job
from energyql.dataset.plan_file import PlanSource
from energyql.dataset.records import ShardRecord
from energyql.dataset.shard import PreparedPlan, Told, prepare_plan
from energyql.errors import ArgumentError, EnergyQLError, ModelError
from energyql.models import packaged_models
from energyql.pipeline.model import Model
from energyql.plugins import import_optional
from energyql.progress import Report

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
