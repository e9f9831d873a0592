"""Write a data set: check all of it, say what it will cost, draw the shards that are missing, and finish."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from energyql.attributes.labels import ImageLabeller
from energyql.dataset import ClassRecord, DatasetPlan, ShardRecord
from energyql.dataset.description import arrow, sum_records
from energyql.dataset.destination import open_destination
from energyql.dataset.engine import Job, Tally, Task, Worker, check_ray, run_here, run_on_ray
from energyql.dataset.manifest import begin, finish, read_records
from energyql.dataset.plan_file import PlanSource, read_plan
from energyql.dataset.shard import prepare_plan
from energyql.errors import ArgumentError, IncompleteError
from energyql.generators.base import Generator
from energyql.pipeline.settings import finite_number, whole_number
from energyql.progress import Report, reporting

PILOT = 16
"""Pictures of a class that are drawn to see what the data set costs."""
PILOT_CLASSES = 8
"""Classes that are tried; the others are taken to cost as much as these."""
MOST_WORKERS = 100_000
_HEADERS = 3 * 512
"""Bytes that the archive adds to each sample, without padding."""


@dataclass(frozen=True)
class Estimate:
    """What the shards that are missing will cost, from a pilot of each class.

    Args:
        pictures: their number.
        shards: in so many shards.
        bytes: of the shards.
        drawn: samples to draw for them.
        seconds: for one worker.
        workers: among whom they are divided.
    """

    pictures: int
    shards: int
    bytes: int
    drawn: int
    seconds: float
    workers: int

    def __str__(self) -> str:
        if not self.shards:
            return "all shards are there"
        more = f" ({self.drawn:,} samples to draw)" if self.drawn > self.pictures else ""
        hours = f"{_duration(self.seconds)} for one worker"
        if self.workers > 1:
            hours += f", {_duration(self.seconds / min(self.workers, self.shards))} for {self.workers:,}"
        return f"{self.pictures:,} pictures{more} in {_shards(self.shards)}, about {_size(self.bytes)}; {hours}"


@dataclass(frozen=True)
class WrittenDataset:
    """A data set that was written.

    Attributes:
        out: where.
        shards: the record of each shard, in order.
        classes: the sum over all shards, by class.
        kept: number of shards that were there already.
    """

    out: str
    shards: Sequence[ShardRecord]
    classes: Mapping[str, ClassRecord]
    kept: int

    @property
    def missing(self) -> dict[str, int]:
        """Number of pictures that each class lacks; classes that are complete are left out."""
        return {name: one.wanted - one.rows for name, one in self.classes.items() if one.rows < one.wanted}

    def check_complete(self) -> None:
        """Check that no class lacks pictures.

        Raises:
            IncompleteError: some do, because the budget ended.
        """
        if self.missing:
            parts = [
                f"{name!r} lacks {count:,} of {self.classes[name].wanted:,}" for name, count in self.missing.items()
            ]
            raise IncompleteError(
                f"{self.out} is incomplete: {'; '.join(parts)}",
                hint="the judge accepted too few samples: raise the budget and write to another place, or ask for less",
            )

    def summary(self) -> str:
        """Return one line: pictures, shards, bytes, and how many satisfy their query."""
        rows = sum(one.rows for one in self.classes.values())
        judged = [one for one in self.classes.values() if one.satisfied is not None]
        line = f"{rows:,} pictures in {_shards(len(self.shards))}, {_size(sum(each.size for each in self.shards))}"
        if judged:
            share = sum(one.satisfied or 0 for one in judged) / max(1, sum(one.rows for one in judged))
            line += f"; {share:.1%} satisfy their query, says the judge"
        return f"{line}; {self.kept:,} of them there before" if self.kept else line

    def to_dict(self) -> dict[str, Any]:
        """Return what was written as JSON values."""
        classes = {name: vars(one) for name, one in self.classes.items()}
        return {"out": self.out, "shards": len(self.shards), "kept": self.kept, "classes": classes} | {
            "bytes": sum(each.size for each in self.shards), "missing": self.missing,
        }  # fmt: skip


class DatasetRun:
    """A plan that was checked against its models and its destination; nothing is written before `write`.

    See `write_dataset` for the arguments and errors.
    """

    def __init__(
        self,
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
    ) -> None:
        self.workers, self._address = whole_number("workers", workers, most=MOST_WORKERS), address
        self._gpus = finite_number("gpus", gpus)
        source: PlanSource | None = None
        name = "the plan"
        if not isinstance(plan, DatasetPlan):
            name = str(plan)
            plan, source = read_plan(Path(plan))
        chosen: dict[str, Any] = {"only_satisfied": only_satisfied, "budget": budget}
        plan = replace(plan, **{word: value for word, value in chosen.items() if value is not None})
        if budget is not None and not plan.only_satisfied:
            raise ArgumentError("a budget is for pictures that are drawn again", hint="add only_satisfied")
        if self._gpus and not self._on_ray:
            raise ArgumentError(
                "gpus are shares of the workers of Ray, and one worker is this process",
                hint="name its device instead (device=, --device), or give workers or an address",
            )
        arrow()
        if self._on_ray:
            check_ray()
        self._destination = open_destination(out)
        self._job = Job(plan, str(out), device, generator, judge, allow_plugins)
        self.prepared = prepare_plan(
            plan, device=device, generator=generator, judge=judge, allow_plugins=allow_plugins, name=name, source=source
        )
        begin(self._destination, self.prepared, write=False)
        records = read_records(self._destination)
        self._tasks: list[Task] = [(shard, records.get(shard)) for shard in range(plan.shards)]

    @property
    def plan(self) -> DatasetPlan:
        """The plan."""
        return self.prepared.plan

    @property
    def _on_ray(self) -> bool:
        return self.workers > 1 or self._address is not None

    def estimate(self, progress: bool | Report = False) -> Estimate:
        """Draw a few pictures of each class and return what the missing shards will cost."""
        plan, missing = self.plan, [shard for shard, record in self._tasks if record is None]
        pairs = list(zip(plan.classes, self.prepared.queries, strict=True))
        step = -(-len(pairs) // PILOT_CLASSES)
        wanted = {one.name: sum(len(plan.positions(one, shard)) for shard in missing) for one in plan.classes}
        total, tried = sum(wanted.values()), 0
        seconds = size = drawn = 0.0
        with reporting(progress) as report:
            for number, (one, query) in enumerate(pairs[::step] if missing else ()):
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
                report("pilot", (number + 1) * step / len(pairs))
        scale = total / max(1, tried)
        return Estimate(total, len(missing), round(size * scale), round(drawn * scale), seconds * scale, self.workers)

    def write(self, progress: bool | Report = True) -> WrittenDataset:
        """Draw the shards that are missing and finish the data set; see `write_dataset`."""
        begin(self._destination, self.prepared)
        records: dict[int, ShardRecord] = {}
        kept = 0
        with reporting(progress) as report:
            tally = Tally(self.plan.classes, report)
            tasks = iter(self._tasks)
            if self._on_ray:
                settings: dict[str, Any] = {"workers": self.workers, "address": self._address, "gpus": self._gpus}
                done = run_on_ray(self._job, self.prepared.fingerprint, tasks, **settings)
            else:
                done = run_here(Worker(self._job, self.prepared.fingerprint, self.prepared), tasks, tally.told)
            for record, there in done:
                records[record.shard] = record
                kept += there
                tally.finished(record)
        ordered = [records[shard] for shard in sorted(records)]
        finish(self._destination, self.prepared, ordered)
        classes = {one.name: sum_records(one.name, ordered) for one in self.plan.classes}
        return WrittenDataset(self._job.out, ordered, classes, kept)


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

    All of the plan is checked before anything is written. A shard depends on plan, models, seed and its number alone,
    and appears as a whole, so that the same call continues after any interruption: shards that are there are checked
    and kept. Needs pyarrow; a store needs its library (s3fs, gcsfs), and several workers need Ray.

    Args:
        plan: a TOML file (docs/datasets.md), or the same as an object.
        out: a folder, or an address that fsspec knows, such as `s3://bucket/folder`: empty, or with the beginning of
            this data set.
        only_satisfied: takes the place of that of the plan.
        budget: takes the place of that of the plan.
        workers: number of processes, by Ray where it is more than 1.
        address: of a Ray cluster; without one, several workers run on this machine.
        gpus: of each worker, which may be a fraction.
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
    return DatasetRun(
        plan, out, only_satisfied=only_satisfied, budget=budget, workers=workers, address=address, gpus=gpus,
        device=device, generator=generator, judge=judge, allow_plugins=allow_plugins,
    ).write(progress)  # fmt: skip


def _shards(count: int) -> str:
    return "1 shard" if count == 1 else f"{count:,} shards"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:,.1f} hours"


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"
