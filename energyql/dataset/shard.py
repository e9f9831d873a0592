"""Drawing of shards, each a pure function of plan, models and its number; records of shards, and their cost."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from tempfile import SpooledTemporaryFile
from typing import IO, Any, TypeVar

from PIL import Image

from energyql.dataset.plan import CLASS, DatasetClass, DatasetPlan, Job, Mistake, PlanSource, blamed, refuse
from energyql.errors import DataError, EnergyQLError, IncompleteError, QueryWarning
from energyql.files import parse_json
from energyql.generators.families import module_fingerprint
from energyql.language import as_query, bind
from energyql.logic.satisfiability import noting_tautologies, warn
from energyql.pipeline.checks import accepted, next_round
from energyql.pipeline.draw import STREAM_BATCH, Pipeline, PreparedQuery, pipeline_for
from energyql.pipeline.model import Model, choose_device, load_model
from energyql.pipeline.result import Result
from energyql.pipeline.settings import settings_of

_TYPES = {"int": (int,), "str": (str,), "int | None": (int, type(None))}
"""Annotation of a field of a record -> the types that its JSON value may have."""
Record = TypeVar("Record", bound="FileRecord | ClassRecord")


@dataclass(frozen=True)
class ClassRecord:
    """The pictures of one class in one or several shards.

    Args:
        wanted: number of pictures that the plan asks for.
        rows: number of pictures in the shards.
        drawn: number of samples that were drawn for these pictures.
        satisfied: number of these pictures that satisfy the query according to the judge; `None` if none was judged.
    """

    wanted: int
    rows: int = 0
    drawn: int = 0
    satisfied: int | None = None


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """A file of a data set, as the manifest lists it.

    Args:
        file: name of the file in the data set, such as `shards/000001.tar`.
        size: size of the file in bytes.
        sha256: SHA-256 of its content, hexadecimal.
        mark: the store's own mark of its content (an ETag); "" in a folder, which has none.
    """

    file: str
    size: int
    sha256: str
    mark: str = ""

    def to_json(self, plan: str) -> str:
        """Return one line of the manifest, sealed for the plan with fingerprint `plan`; empty texts are left out."""
        data = {name: value for name, value in asdict(self).items() if value != ""}
        return json.dumps(sealed(data, plan), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, kw_only=True)
class ShardRecord(FileRecord):
    """A finished shard, as the manifest lists it; see `FileRecord` for the fields of its file.

    Args:
        shard: number of the shard.
        rows: number of its samples.
        classes: name of a class -> its pictures in the shard.
        part: SHA-256 of the file with the shard's rows of the index; "" in the manifest, when that file is removed.
    """

    shard: int
    rows: int
    classes: Mapping[str, ClassRecord] = field(default_factory=dict)
    part: str = field(default="", compare=False)


def sealed(data: Mapping[str, Any], plan: str) -> dict[str, Any]:
    """Return JSON values with one more, `check`: a checksum that depends on the values and the plan.

    Args:
        data: the values, by name.
        plan: fingerprint of the plan.
    """
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return {**data, "check": hashlib.sha256(f"{plan}\n{text}".encode()).hexdigest()}


def read_record(line: bytes, plan: str) -> tuple[FileRecord, bool]:
    """Read a line of the manifest, or of the record of one shard.

    Args:
        line: the line.
        plan: fingerprint of the plan.

    Returns:
        The record, and whether it has the seal of this plan. The shards of earlier versions have no seal.

    Raises:
        ValueError, TypeError, KeyError, AttributeError: the line is no record, or has the seal of another plan.
    """
    data = parse_json(line)
    has_seal = data.pop("check", None) is not None
    if "shard" in data:
        classes = {name: _typed(ClassRecord, one) for name, one in data.pop("classes").items()}
        record: FileRecord = _typed(ShardRecord, {**data, "classes": classes})
    else:
        record, has_seal = _typed(FileRecord, data), True
    if has_seal and record.to_json(plan).encode() != line:
        raise ValueError("the seal is broken")
    return record, has_seal


def _typed(kind: type[Record], data: Mapping[str, Any]) -> Record:
    """Return a record of JSON values; raise a `ValueError` or `TypeError` if they do not fit its fields."""
    for each in fields(kind):
        if type(data.get(each.name, each.default)) not in _TYPES.get(str(each.type), (dict,)):
            raise ValueError(f"{each.name} has another type")
    return kind(**data)


def sum_records(name: str, records: Sequence[ShardRecord]) -> ClassRecord:
    """Return the sum of the records of one class over some shards."""
    parts = [record.classes[name] for record in records]
    judged = [part.satisfied for part in parts if part.satisfied is not None]
    return ClassRecord(
        wanted=sum(part.wanted for part in parts),
        rows=sum(part.rows for part in parts),
        drawn=sum(part.drawn for part in parts),
        satisfied=sum(judged) if judged else None,
    )


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the missing shards, from a few pictures of some classes.

    Args:
        pictures: number of missing pictures.
        shards: number of missing shards.
        bytes: size of the missing shards.
        drawn: number of samples to draw.
        seconds: time that one worker takes for all.
        workers: number of workers.
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
        more = f" ({_counted(self.drawn, 'sample')} to draw)" if self.drawn > self.pictures else ""
        hours = f"{_duration(self.seconds)} for one worker"
        if self.workers > 1:
            hours += f", {_duration(self.seconds / min(self.workers, self.shards))} for {self.workers:,}"
        pictures, shards = _counted(self.pictures, "picture"), _counted(self.shards, "shard")
        return f"{pictures}{more} in {shards}, about {_size(self.bytes)}; {hours}"


@dataclass(frozen=True)
class WrittenDataset:
    """A data set that was written.

    Attributes:
        out: the folder or address.
        shards: the record of each shard, in order.
        classes: name of a class -> the sum of its records over all shards.
        kept: number of shards that an earlier run had finished.
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
            IncompleteError: some classes do, because the budget of samples was used up.
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
        pictures, shards = _counted(rows, "picture"), _counted(len(self.shards), "shard")
        line = f"{pictures} in {shards}, {_size(sum(each.size for each in self.shards))}"
        if judged:
            share = sum(one.satisfied or 0 for one in judged) / max(1, sum(one.rows for one in judged))
            line += f"; {share:.1%} satisfy their query, says the judge"
        return f"{line}, {self.kept:,} of the shards from an earlier run" if self.kept else line

    def to_dict(self) -> dict[str, Any]:
        """Return the summary of the data set as JSON values."""
        classes = {name: vars(one) for name, one in self.classes.items()}
        return {"out": self.out, "shards": len(self.shards), "kept": self.kept, "classes": classes} | {
            "bytes": sum(each.size for each in self.shards), "missing": self.missing,
        }  # fmt: skip


def _counted(count: float, noun: str, digits: int = 0) -> str:
    number = f"{count:,.{digits}f}"
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return _counted(seconds, "second")
    return _counted(seconds / 60, "minute") if seconds < 5400 else _counted(seconds / 3600, "hour", 1)


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            break
        count /= 1000
    return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.3g} {unit}"


FORMAT = 1
"""Version of the format; it goes up when the same plan gives other bytes."""
_ONE_RUN = ("canonical", "model", "fingerprints", "judge", *settings_of("provenance"))
"""Names of the facts in the provenance of a class that decide its pictures."""
_ENCODERS = {"png": ("PNG", ()), "webp": ("WEBP", ("quality",)), "jpg": ("JPEG", ("quality",))}
"""Format of pictures -> its name in Pillow, and the settings of a plan that are arguments of its encoder."""
_IN_MEMORY = 1 << 28
"""Bytes of compressed pictures that wait in memory for their place in the archive; more wait on the disk."""
_THREADS = 8
"""Number of threads that compress pictures while a GPU draws."""
OnDrawn = Callable[[str, int], None]
"""Function that is called with the name of a class and the number of its pictures that were just drawn."""


@dataclass(frozen=True)
class PreparedPlan:
    """A plan with its queries compiled and its models loaded.

    Args:
        plan: the plan.
        queries: the query of each class, in order.
        warnings: pairs (name of a class, sentence about a part of its query that is never or always true); a class may
            have several.
    """

    plan: DatasetPlan
    queries: Sequence[PreparedQuery]
    warnings: Sequence[tuple[str, str]] = ()

    @cached_property
    def identity(self) -> dict[str, Any]:
        """All that decides the bytes of the shards, as JSON values: format, settings, and the facts of each class."""
        plan = self.plan
        classes = [
            {"name": one.name, "count": one.count, "seed": query.settings.seed, "batch_size": query.settings.batch_size}
            | {name: query.provenance[name] for name in _ONE_RUN if name in query.provenance}
            | {
                "fingerprints": query.provenance["fingerprints"]
                or {"generator": module_fingerprint(query.model.generator)}
            }
            for one, query in zip(plan.classes, self.queries, strict=True)
        ]
        names = ("seed", "format", "quality", "shard_size", "only_satisfied", "budget")
        whole = {"format_of_folder": FORMAT} | {name: getattr(plan, name) for name in names} | {"classes": classes}
        plain: dict[str, Any] = json.loads(json.dumps(whole))
        return plain

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of `identity`, hexadecimal."""
        return identity_mark(self.identity)

    def write_shard(
        self, shard: int, target: IO[bytes], on_drawn: OnDrawn = lambda name, count: None
    ) -> tuple[dict[str, ClassRecord], list[dict[str, Any]]]:
        """Draw a shard and write it as a tar archive in the form of WebDataset.

        Each sample has a picture, a JSON object with its facts (`.json`), and the number of its class (`.cls`). Samples
        of all classes are mixed, in an order that depends on their class, seed and index only.

        Args:
            shard: number of the shard.
            target: a file, open for writing.
            on_drawn: called with the progress.

        Returns:
            Name of a class -> its record in this shard; and the JSON object of each sample, with its `key`, in the
            order of the archive.
        """
        records: dict[str, ClassRecord] = {}
        samples: list[tuple[bytes, int, int, dict[str, Any]]] = []
        with SpooledTemporaryFile(max_size=_IN_MEMORY) as buffer:
            for number, (one, query) in enumerate(zip(self.plan.classes, self.queries, strict=True)):
                drawing = _Drawing(self.plan, one, query, shard)
                for result, pictures in self._compressed(drawing.results(), query):
                    for sample, picture in zip(result.to_dict()["samples"], pictures, strict=True):
                        facts = {"class": one.name, "class_number": number} | _facts(query) | sample
                        place = hashlib.sha256(f"{one.name}\n{query.settings.seed}\n{sample['index']}".encode())
                        samples.append((place.digest(), buffer.tell(), len(picture), facts))
                        buffer.write(picture)
                    on_drawn(one.name, len(result))
                records[one.name] = drawing.record
            samples.sort(key=lambda entry: entry[:2])
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
        """Return a picture as a file in the format of the plan."""
        name, settings = _ENCODERS[self.plan.format]
        buffer = io.BytesIO()
        picture.save(buffer, name, **{setting: getattr(self.plan, setting) for setting in settings})
        return buffer.getvalue()

    def _compressed(self, results: Iterable[Result], query: PreparedQuery) -> Iterator[tuple[Result, Iterable[bytes]]]:
        """Yield results with their pictures compressed; a GPU draws the next result meanwhile."""
        if query.device.type == "cpu":  # no core is free for threads
            yield from ((result, map(self.compress, result.images)) for result in results)
            return
        with ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as threads:
            before: tuple[Result, Iterable[bytes]] | None = None
            for result in results:
                if before is not None:
                    yield before
                before = result, threads.map(self.compress, result.images)
            if before is not None:
                yield before


def identity_mark(identity: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the identity of a plan, hexadecimal; see `PreparedPlan.identity`."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_samples(shard: IO[bytes]) -> list[dict[str, Any]]:
    """Return the JSON object of each sample in an archive, with its `key`, as `PreparedPlan.write_shard` does.

    Args:
        shard: the archive, a file open for reading; its pictures are skipped.

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


class _Drawing:
    """The drawing of one class of one shard; `record` counts the pictures so far."""

    def __init__(self, plan: DatasetPlan, one: DatasetClass, query: PreparedQuery, shard: int) -> None:
        self._plan, self._query = plan, query
        self._candidates = plan.candidates(one, shard)
        self.record = ClassRecord(len(plan.positions(one, shard)))

    def results(self) -> Iterator[Result]:
        """Yield the samples in batches until `record` has as many as are wanted.

        With `only_satisfied` the rejected samples are left out, and the last candidate ends the drawing.
        """
        wanted, first = self.record.wanted, self._candidates.start
        if not self._plan.only_satisfied:
            for result in self._query.stream(wanted, first=first, progress=False) if wanted else ():
                yield self._counted(result, len(result))
            return
        while self.record.rows < wanted and self.record.drawn < len(self._candidates):
            left = len(self._candidates) - self.record.drawn
            count = min(STREAM_BATCH, left, next_round(wanted, self.record.rows, self.record.drawn))
            batch = self._query.run(count, first=first + self.record.drawn, progress=False)
            yield self._counted(batch[accepted(batch, wanted - self.record.rows)], count)

    def _counted(self, result: Result, drawn: int) -> Result:
        """Return `result`, and add it to the record; `drawn` samples were drawn for it."""
        before, holds = self.record, result.satisfied
        satisfied = None if holds is None else int(holds.sum()) + (before.satisfied or 0)
        self.record = ClassRecord(before.wanted, before.rows + len(result), before.drawn + drawn, satisfied)
        return result


def prepare_plan(job: Job, source: PlanSource) -> PreparedPlan:
    """Load the models of a plan and compile its queries.

    Args:
        job: the plan, the device, and the code that may be imported.
        source: the file of the plan, for messages.

    Raises:
        DataError: a model, a query or a setting is wrong; the message shows as many mistakes as there is room for.

    Warns:
        QueryWarning: the query of a class, or a part of it, is always or never true.
    """
    plan, target = job.plan, choose_device(job.device)
    code: dict[str, Any] = {name: getattr(job, name) for name in ("generator", "judge", "allow_plugins")}
    models: dict[str, Pipeline | EnergyQLError] = {}
    mistakes: list[Mistake] = []
    queries: list[PreparedQuery] = []
    noted: list[tuple[DatasetClass, QueryWarning]] = []
    for number, one in enumerate(plan.classes):
        key = str(one.model) if not isinstance(one.model, Model) else f"model {id(one.model)}"
        if key not in models:
            try:
                opened = one.model
                if any(code.values()) and not isinstance(opened, Model):
                    opened = load_model(opened, target, **code)
                models[key] = pipeline_for(opened, str(target))
            except EnergyQLError as error:
                models[key] = error
                mistakes.append(Mistake(_place(source, number, "model"), error))
        if isinstance(pipeline := models[key], EnergyQLError):
            continue
        try:
            with noting_tautologies() as notes:
                query = pipeline.prepare(one.query, one.draw_settings(plan.seed_of(one)))
            noted += [(one, note) for note in notes]
            if plan.only_satisfied:
                query.check_judged()
            queries.append(query)
        except EnergyQLError as error:
            setting = "query" if error.spans else blamed(error, list(one.settings), "query")
            mistakes.append(Mistake(_place(source, number, setting), error))
            if setting != "query":  # then the query was not checked yet
                mistakes += _query_mistakes(one, number, pipeline.model)
    refuse(mistakes, source)
    warnings = [(one.name, note.message) for one, note in noted]
    for one, note in noted:
        note.message = f"class {one.name!r}: {note.message}"
        warn(note)
    return PreparedPlan(plan, queries, warnings)


def _query_mistakes(one: DatasetClass, number: int, model: Model) -> list[Mistake]:
    """Return the mistakes in the query of class `number`: one or none."""
    try:
        expr, text = as_query(one.query)
        bind(expr, model.vocabulary, query=text)
    except EnergyQLError as error:
        return [Mistake((CLASS, number, "query"), error)]
    return []


def _place(source: PlanSource, number: int, key: str) -> tuple[str | int, ...]:
    """Return the path of a key of class `number`: in the class, or before all classes if only that is in the file."""
    own = (CLASS, number, key)
    return (key,) if own not in source.places and (key,) in source.places else own


def _facts(query: PreparedQuery) -> dict[str, Any]:
    """Return the facts that all samples of a class share."""
    provenance = query.provenance
    names = {"query": "canonical", "model": "model", "seed": "seed", "judge": "judge"}
    return {name: provenance[fact] for name, fact in names.items()}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    """Add a file to an archive without time and owner, so that equal shards have equal bytes."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
