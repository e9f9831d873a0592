"""Drawing of shards (the tar archives of a data set), records of their contents, and estimates of time and size.

The bytes of a shard depend only on the plan, the models and the number of the shard.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from itertools import chain, pairwise
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np
from PIL import Image
from rich.filesize import decimal

from energyql.dataset.plan import CLASS, WHOLE, DatasetPlan, Job, Mistake, PlanSource, blamed, refuse
from energyql.errors import DataError, EnergyQLError, IncompleteError, QueryWarning
from energyql.files import json_digest, parse_json
from energyql.generators.families import module_fingerprint
from energyql.language import as_query, bind
from energyql.language.lexical import plural
from energyql.logic.satisfiability import noting_tautologies, warn
from energyql.numerics.pool import always_in_pool
from energyql.pipeline.calibrate import calibrate
from energyql.pipeline.checks import next_round, satisfying_positions
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.plan import Plan, plan_query
from energyql.pipeline.provenance import of_run
from energyql.pipeline.render import STREAM_BATCH
from energyql.pipeline.result import Result
from energyql.pipeline.run import check_judged, draw, stream_batches
from energyql.pipeline.session import Session, open_session
from energyql.sampling import Status


@dataclass(frozen=True)
class ClassRecord:
    """Counts of the pictures of one class, in one shard or summed over several.

    Args:
        wanted: pictures that the plan asks for.
        rows: pictures that are in the shards.
        drawn: samples that were drawn, including samples that the judge rejected.
        satisfied: pictures in the shards that satisfy the query according to the judge; `None` if none was judged. A
            sample of which the verifier (networks that decide which pictures are kept) accepted no picture does not
            count.
    """

    wanted: int
    rows: int = 0
    drawn: int = 0
    satisfied: int | None = None

    def __add__(self, other: ClassRecord) -> ClassRecord:
        judged = [one.satisfied for one in (self, other) if one.satisfied is not None]
        counts = (self.wanted + other.wanted, self.rows + other.rows, self.drawn + other.drawn)
        return ClassRecord(*counts, sum(judged) if judged else None)


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of a data set, as a line of `manifest.jsonl` describes it.

    Args:
        sha256: SHA-256 of the content, hexadecimal.
        mark: ETag of the file, a text with which an object store identifies the content; "" in a folder.
    """

    file: str
    size: int
    sha256: str
    mark: str = ""

    def to_json(self, plan: str) -> str:
        """Line of the manifest: a JSON object of the fields that are not "", with a checksum as in `sealed`."""
        data = {name: value for name, value in asdict(self).items() if value != ""}
        return json.dumps(sealed(data, plan), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class ShardRecord(FileRecord):
    """A finished shard: the record of its archive, and counts of its samples.

    Args:
        shard: number of the shard, from 0.
        classes: counts of each class, by name.
        part: SHA-256 of the temporary file with the shard's rows of the index; "" in the manifest, which is written
            when these rows are in `index.parquet`.
    """

    shard: int
    rows: int
    classes: Mapping[str, ClassRecord] = field(default_factory=dict)
    part: str = field(default="", compare=False)


def sealed(data: Mapping[str, Any], plan: str) -> dict[str, Any]:
    """Return `data` with a checksum, `check`, which shows later whether it is damaged or belongs to another plan.

    Args:
        plan: fingerprint of the plan.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return {**data, "check": hashlib.sha256(f"{plan}\n{text}".encode()).hexdigest()}


def read_record(line: bytes, plan: str) -> FileRecord:
    """Read a record from a line of the manifest, or from the temporary file with the record of one shard.

    Args:
        plan: fingerprint of the plan.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the line is no record, is damaged, or belongs to another plan.
    """
    data = parse_json(line)
    del data["check"]
    if "shard" in data:
        data["classes"] = {name: ClassRecord(**one) for name, one in data["classes"].items()}
    record = (ShardRecord if "shard" in data else FileRecord)(**data)
    if record.to_json(plan).encode() != line:
        raise ValueError("the checksum is wrong")
    return record


def sum_records(name: str, records: Sequence[ShardRecord]) -> ClassRecord:
    """Counts of the class called `name`, summed over shards."""
    return sum((record.classes[name] for record in records), ClassRecord(0))


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the shards that are still missing; a few pictures of some classes were drawn to measure it.

    Args:
        bytes: size of all missing shards together.
        drawn: samples to draw, including samples that the judge will reject.
        seconds: time in which one worker would draw all missing shards.
        workers: with several, `str` of the estimate also has the time that they all need together.
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
        more = f" ({plural(self.drawn, 'sample')} to draw)" if self.drawn > self.pictures else ""
        hours = f"{_duration(self.seconds)} for one worker"
        if self.workers > 1:
            hours += f", {_duration(self.seconds / min(self.workers, self.shards))} for {self.workers:,}"
        pictures, shards = plural(self.pictures, "picture"), plural(self.shards, "shard")
        return f"{pictures}{more} in {shards}, about {decimal(self.bytes)}; {hours}"


@dataclass(frozen=True)
class WrittenDataset:
    """Counts of what is in a data set, after it was written.

    Attributes:
        out: folder or address of the data set.
        shards: record of each shard, in the order of their numbers.
        classes: name of a class -> counts of its pictures in all shards.
        kept: number of shards that an earlier run had written, and that were not drawn again.
    """

    out: str
    shards: Sequence[ShardRecord]
    classes: Mapping[str, ClassRecord]
    kept: int

    @property
    def missing(self) -> dict[str, int]:
        """Name of each incomplete class -> number of pictures that it lacks."""
        return {name: one.wanted - one.rows for name, one in self.classes.items() if one.rows < one.wanted}

    def check_complete(self) -> None:
        """Check that no class lacks pictures.

        Raises:
            IncompleteError: the judge rejected too many of the samples that `DatasetPlan.budget` allows.
        """
        parts = [f"{name!r} lacks {count:,} of {self.classes[name].wanted:,}" for name, count in self.missing.items()]
        if parts:
            hint = "the judge accepted too few samples: raise the budget and write to another place, or ask for less"
            raise IncompleteError(f"{self.out} is incomplete: {'; '.join(parts)}", hint=hint)

    def summary(self) -> str:
        """One line: pictures, shards, size, and the percentage of judged pictures that satisfy their query."""
        total = sum(self.classes.values(), ClassRecord(0))
        judged = sum(one.rows for one in self.classes.values() if one.satisfied is not None)
        pictures, shards = plural(total.rows, "picture"), plural(len(self.shards), "shard")
        line = f"{pictures} in {shards}, {decimal(sum(each.size for each in self.shards))}"
        if total.satisfied is not None:
            line += f"; {total.satisfied / max(1, judged):.1%} satisfy their query, says the judge"
        return f"{line}, {self.kept:,} of the shards from an earlier run" if self.kept else line

    def to_dict(self) -> dict[str, Any]:
        """JSON values: "out", "shards", "kept" and "bytes"; by class "classes" (counts) and "missing" (pictures)."""
        classes, size = {name: vars(one) for name, one in self.classes.items()}, sum(each.size for each in self.shards)
        counts = {"out": self.out, "shards": len(self.shards), "kept": self.kept, "classes": classes, "bytes": size}
        return counts | {"missing": self.missing}


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=min(max(1, round(seconds)), _LONGEST)))


_LONGEST = 10**12
"""Largest number of seconds that an estimate states, about 30,000 years; `timedelta` has a limit."""
FORMAT = 1
"""Version number of the files of a data set, raised when the same plan gives other bytes."""
_ENCODERS = {"png": ("PNG", ()), "webp": ("WEBP", ("quality",)), "jpg": ("JPEG", ("quality",))}
"""Format of pictures -> its name in Pillow, and the settings of a plan that its encoder takes."""
_SHARED = {"query": "canonical", "model": "model", "seed": "seed", "judge": "judge"}
"""Values in the JSON of a sample that all samples of a class share: name in the JSON -> name in the provenance."""
_IN_MEMORY = 1 << 28
"""Bytes of compressed pictures of a shard that are collected in memory; beyond it, on the disk."""
_THREADS = 8
"""Number of threads that compress pictures while a GPU draws."""
OnDrawn = Callable[[str, int], None]
"""Called with the name of a class and the number of its pictures that were just drawn."""


@dataclass(frozen=True)
class PreparedPlan:
    """A plan with its compiled queries, each of which holds its loaded model.

    Args:
        queries: the compiled query of each class, in the order of `plan.classes`.
        warnings: pairs (class, sentence about a part of its query that is never or always true).
    """

    plan: DatasetPlan
    queries: Sequence[Plan]
    warnings: Sequence[tuple[str, str]] = ()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything on which the bytes of the shards depend, as JSON values: format, plan, and what draws each class.

        Two runs with equal identities write equal shards, on a CPU or if `batch_size` is a number.
        """
        plan = self.plan
        whole: dict[str, Any] = {"format_of_folder": FORMAT} | {name: getattr(plan, name) for name in WHOLE}
        whole["classes"] = []
        for one, query in zip(plan.classes, self.queries, strict=True):
            settings, facts = query.settings, query.provenance
            entry = {"name": one.name, "count": one.count, "seed": settings.seed, "batch_size": settings.batch_size}
            entry |= of_run(facts)
            entry["fingerprints"] = facts["fingerprints"] or {"generator": module_fingerprint(query.model.generator)}
            whole["classes"].append(entry)
        return dict(json.loads(json.dumps(whole)))

    @cached_property
    def _calibrated(self) -> dict[int, Plan]:
        """The plan of each class from which a picture was drawn, by its number, after its pilot run."""
        return {}

    def _ready(self, number: int) -> Plan:
        if number not in self._calibrated:
            end = self.plan.candidates(self.plan.classes[number], self.plan.shards - 1).stop
            self._calibrated[number] = calibrate(self.queries[number], end=end)
        return self._calibrated[number]

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, hexadecimal; runs with the same fingerprint write the same shards."""
        return json_digest(self.identity)

    def write_shard(
        self, shard: int, path: Path, on_drawn: OnDrawn = lambda name, count: None
    ) -> tuple[dict[str, ClassRecord], list[dict[str, Any]]]:
        """Draw a shard (numbered from 0) and write it as a tar archive in the format of WebDataset.

        Each sample is three files: the picture, a JSON object with all that is recorded about the sample (`.json`), and
        the number of the class (`.cls`). The order of samples, by a hash of class, seed and index, mixes the classes.

        Returns:
            Counts of each class in this shard, by name; and the JSON object of each sample in the order of the archive,
            with one more value, `key`, the name of the sample in the archive.
        """
        records: dict[str, ClassRecord] = {}
        samples: list[tuple[bytes, int, int, dict[str, Any]]] = []
        # A worker has one thread, and its shards must have the same bytes.
        with always_in_pool(), SpooledTemporaryFile(max_size=_IN_MEMORY) as buffer, path.open("wb") as target:
            for number, (one, query) in enumerate(zip(self.plan.classes, self.queries, strict=True)):
                record = ClassRecord(len(self.plan.positions(one, shard)))
                shared = {"class": one.name, "class_number": number}
                facts: Mapping[str, Any] = query.provenance
                shared |= {name: facts[fact] for name, fact in _SHARED.items()}
                for result, drawn, pictures in self._compressed(self._draw(number, shard), query):
                    rows = result.to_dict()["samples"]
                    for sample, picture in zip(rows, pictures, strict=True):
                        if sample["status"] == Status.NOT_ACCEPTED.name:
                            sample["satisfied"] = False
                        place = hashlib.sha256(f"{one.name}\n{query.settings.seed}\n{sample['index']}".encode())
                        samples.append((place.digest(), buffer.tell(), len(picture), shared | sample))
                        buffer.write(picture)
                    satisfied = None if result.satisfied is None else sum(row["satisfied"] for row in rows)
                    record += ClassRecord(0, len(result), drawn, satisfied)
                    on_drawn(one.name, len(result))
                records[one.name] = record
            samples.sort(key=lambda entry: entry[:2])
            # tarfile gets a file object, because it does not notice a full disk if it opens a path itself.
            with tarfile.open(fileobj=target, mode="w|", format=tarfile.USTAR_FORMAT, bufsize=1 << 18) as archive:
                for row, (_, start, size, facts) in enumerate(samples):
                    key = f"{shard:06d}-{row:05d}"
                    buffer.seek(start)
                    _add(archive, f"{key}.{self.plan.format}", buffer.read(size))
                    text = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
                    _add(archive, f"{key}.json", text.encode())
                    _add(archive, f"{key}.cls", str(facts["class_number"]).encode())
        return records, [{"key": f"{shard:06d}-{row:05d}"} | sample[-1] for row, sample in enumerate(samples)]

    def compress(self, picture: Image.Image) -> bytes:
        """Content of a file with a picture in the format of the plan, such as PNG."""
        name, settings = _ENCODERS[self.plan.format]
        buffer = io.BytesIO()
        picture.save(buffer, name, **{setting: getattr(self.plan, setting) for setting in settings})
        return buffer.getvalue()

    def _draw(self, number: int, shard: int) -> Iterator[tuple[Result, int]]:
        """Yield results of a class for a shard, each with the number of samples drawn for it, refused ones included."""
        one = self.plan.classes[number]
        count, candidates = len(self.plan.positions(one, shard)), self.plan.candidates(one, shard)
        if not count:
            return
        query = self._ready(number)
        if not self.plan.only_satisfied:
            for result in stream_batches(query, count, first=candidates.start, progress=False):
                yield result, len(result)
            return
        rows = drawn = 0
        while rows < count and drawn < len(candidates):
            tried = min(STREAM_BATCH, len(candidates) - drawn, next_round(count, rows, drawn))
            batch = draw(query, tried, first=candidates.start + drawn, progress=False)
            batch = batch[np.flatnonzero([status != Status.NOT_ACCEPTED for status in batch.status])]
            result = batch[satisfying_positions(batch, count - rows)]
            rows, drawn = rows + len(result), drawn + tried
            yield result, tried

    def _compressed(
        self, batches: Iterable[tuple[Result, int]], query: Plan
    ) -> Iterator[tuple[Result, int, Iterable[bytes]]]:
        """Add the compressed pictures to each batch; on a GPU, threads compress them while the next batch is drawn."""
        if query.device.type == "cpu":  # no core is free for threads
            yield from ((*batch, map(self.compress, batch[0].images)) for batch in batches)
            return
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            begun = ((*batch, threads.map(self.compress, batch[0].images)) for batch in batches)
            yield from (one for one, _ in pairwise(chain(begun, [None])) if one is not None)


def read_samples(shard: IO[bytes]) -> list[dict[str, Any]]:
    """JSON object of each sample in an open shard, as `PreparedPlan.write_shard` returned them; pictures are skipped.

    Raises:
        DataError: the file is no shard, or damaged.
    """
    samples = []
    try:
        with tarfile.open(fileobj=shard, mode="r:") as archive:
            for member in archive:
                key, _, kind = member.name.rpartition(".")
                if kind == "json" and (file := archive.extractfile(member)) is not None:
                    samples.append({"key": key} | parse_json(file.read()))
    except (tarfile.TarError, ValueError, TypeError) as error:
        raise DataError(f"a shard cannot be read: {error}", hint="the same command draws it again") from error
    return samples


def prepare_plan(job: Job, source: PlanSource) -> PreparedPlan:
    """Load the models of a plan and compile its queries.

    Raises:
        ArgumentError: this machine has no such device.
        DataError: a model, a query or a setting is wrong; the message shows as many mistakes as there is room for.

    Warns:
        QueryWarning: the query of a class, or a part of it, is always or never true.
    """
    plan, target = job.plan, choose_device(job.settings.device)
    models: dict[str, Session | None] = {}
    mistakes: list[Mistake] = []
    queries: list[Plan] = []
    warnings: list[tuple[str, QueryWarning]] = []

    @contextmanager
    def collecting(number: int, key: str, settings: Sequence[str] = ()) -> Iterator[None]:
        """Add an error of the block to `mistakes`, with the entry of the plan that is wrong, unless the entry has one.

        The entry is `query` if the error marks a part of its text, else the first of `settings` in its message, else
        `key`. If the class lacks it, the entry of that name above all classes is taken.
        """
        try:
            yield
        except EnergyQLError as error:
            name = "query" if error.spans else blamed(error, settings, key)
            own, place = (CLASS, number, name), (name,)
            path = place if own not in source.places and place in source.places else own
            if all(mistake.path != path for mistake in mistakes):
                mistakes.append(Mistake(path, error))

    for number, one in enumerate(plan.classes):
        key = str(one.model) if not isinstance(one.model, Model) else f"model {id(one.model)}"
        if key not in models:
            models[key] = None
            with collecting(number, "model"):
                opened = one.model if isinstance(one.model, Model) else replace(job.source, model=one.model)
                models[key] = open_session(opened, str(target))
        if (session := models[key]) is None:
            continue
        with collecting(number, "query"):
            expr, text = as_query(one.query)
            bind(expr, session.model.vocabulary, query=text)
        with collecting(number, "query", list(one.settings)), noting_tautologies() as notes:
            query = plan_query(session, one.query, one.draw_settings(plan.seed_of(one)))
            if plan.only_satisfied:
                check_judged(query)
            queries.append(query)
        warnings += [(one.name, note) for note in notes]
    refuse(mistakes, source)
    prepared = PreparedPlan(plan, queries, [(name, note.message) for name, note in warnings])
    for name, note in warnings:
        note.message = f"class {name!r}: {note.message}"
        warn(note)
    return prepared


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to an archive, without time and owner, so that equal shards have equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
