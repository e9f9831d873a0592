"""The files of a data set beside its shards: plan, records of shards, index, card and manifest, all with checksums.

docs/datasets.md lists them, and docs/decisions/datasets.md says what is checked and made again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from energyql import __version__
from energyql.attributes.predictions import table_columns
from energyql.dataset.destination import Destination
from energyql.dataset.shard import (
    FileRecord,
    OnDrawn,
    PreparedPlan,
    ShardRecord,
    read_record,
    read_samples,
    sealed,
    sum_records,
)
from energyql.errors import EARLIER, DataError
from energyql.files import fingerprint, json_digest, parse_json
from energyql.kinds import KINDS
from energyql.language.lexical import shorten
from energyql.pipeline.model import changed_parts
from energyql.pipeline.result_folder import is_of_earlier_version
from energyql.plugins import import_optional
from energyql.render.pages import page_templates
from energyql.sampling.registry import sampler_text

_FACTS = {
    "key": "string", "shard": "string", "class": "string", "class_number": "int32", "query": "string",
    "model": "string", "seed": "uint64", "index": "int64", "energy": "double", "satisfied": "bool", "judge": "string",
    "doubtful": "bool", "status": "string",
}  # fmt: skip
"""Column of the index -> its type, for the columns of every model, whose values are from the JSON of a sample."""
_CARD = page_templates("energyql.dataset")
_CARD.filters |= {"number": "{:,}".format, "code": lambda text: f"`{' '.join(text.split())}`".replace("|", "\\|")}
Value = TypeVar("Value")


def arrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`; an `ArgumentError` if pyarrow is not installed."""
    need, hint = "the index of a data set needs pyarrow", 'pip install "pyarrow>=14"'
    return import_optional("pyarrow", need, hint), import_optional("pyarrow.parquet", need, hint)


class Index:
    """The index of a data set, or of one shard: a table with one row for each sample.

    Some columns exist for every model, such as `key` and `query`; `prompt` exists if a class has a list of prompts.
    Others have the predictions of attribute heads, such as `heads.smile`, `heads.hair=red` and `heads.age.std`, and the
    values that the judge reads off pictures, such as `judged.hair`. They are null where the model of a sample lacks the
    attribute.
    """

    def __init__(self, prepared: PreparedPlan) -> None:
        self._arrow, self._parquet = arrow()
        types = dict(_FACTS)
        if any(query.mixture is not None for query in prepared.queries):
            types["prompt"] = "string"
        for query in prepared.queries:
            for name, spec in query.model.vocabulary.items():
                types |= {f"heads.{name}{end}": "double" for end in KINDS[spec.kind].columns(spec)}
                if name in query.model.judged_names:
                    column, kind = f"judged.{name}", KINDS[spec.kind].column
                    types[column] = kind if types.get(column, kind) == kind else "string"  # kinds differ by model
        self._types = types
        self.schema = self._arrow.schema([(name, self._arrow.type_for_alias(kind)) for name, kind in types.items()])

    def table(self, shard: str, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Rows of one shard as a table of pyarrow, from the JSON objects of its samples with their `key`.

        Args:
            shard: name of the shard's file.
        """
        return self._arrow.Table.from_pylist([self._row(shard, sample) for sample in samples], schema=self.schema)

    def write(self, path: Path, tables: Iterable[Any]) -> None:
        """Write tables to one Parquet file, each table as one row group (a block that can be read alone)."""
        with self._parquet.ParquetWriter(path, self.schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))

    def read(self, data: bytes) -> Any:
        """Rows in the content of a Parquet file that `write` wrote, as a table of pyarrow."""
        return self._parquet.ParquetFile(io.BytesIO(data)).read()

    def _row(self, shard: str, sample: Mapping[str, Any]) -> dict[str, Any]:
        energy = sample["energy"]  # JSON has infinity as text
        row = {**sample, "shard": shard, "energy": None if energy is None else float(energy)}
        for name, value in sample["probabilities"].items():
            row |= table_columns(f"heads.{name}", value)
        for name, value in sample["judged"].items():
            column = f"judged.{name}"
            row[column] = str(value) if self._types[column] == "string" else value
        return row


def data_card(prepared: PreparedPlan, records: Sequence[ShardRecord]) -> str:
    """The data card, `README.md`, whose header lets Hugging Face `datasets` load the samples."""
    names, facts = [one.name for one in prepared.plan.classes], [query.provenance for query in prepared.queries]
    totals = [sum_records(name, records) for name in names]
    return _CARD.get_template("card.md").render(
        plan=prepared.plan, warnings=prepared.warnings, version=__version__, shards=len(records),
        pictures=sum(record.rows for record in records), models={each["model"]: each for each in facts},
        classes=list(zip(names, [each["canonical"] for each in facts], totals, strict=True)),
        incomplete=any(total.rows < total.wanted for total in totals),
    )  # fmt: skip


PLAN, MANIFEST, INDEX, CARD = "plan.json", "manifest.jsonl", "index.parquet", "README.md"
_PARTS = "parts/"
"""Folder of temporary files with the record and the index rows of each shard; removed when all shards are finished."""


def shard_name(shard: int) -> str:
    """File of a shard, such as `shards/000001.tar`."""
    return f"shards/{shard:06d}.tar"


def _part(shard: int, kind: str) -> str:
    """Temporary file of a shard, for its record (kind "json") or its rows of the index (kind "parquet")."""
    return f"{_PARTS}{shard:06d}.{kind}"


def begin(destination: Destination, prepared: PreparedPlan, *, write: bool = True) -> None:
    """Check that a destination is empty, or has a data set of the same plan and models.

    Args:
        write: whether to write `plan.json` if it is missing or damaged.

    Raises:
        DataError: the destination has a data set of another plan or of other models, or other files.
        ArgumentError: the destination cannot be written.
    """
    destination.check()
    names = destination.sizes()
    if not (names and _check_plan(destination, prepared, names)) and write:
        _write_text(destination, PLAN, _plan_text(prepared, __version__))


def _plan_text(prepared: PreparedPlan, version: Any) -> str:
    plan = {"fingerprint": prepared.fingerprint, "plan": prepared.identity, "energyql": version}
    return json.dumps(sealed(plan, prepared.fingerprint), indent=2, ensure_ascii=False) + "\n"


def _check_plan(destination: Destination, prepared: PreparedPlan, names: Collection[str]) -> bool:
    """Whether `plan.json` is there as this version writes it; a `DataError` if the files are not of this plan."""
    hint = "name another place, or remove what is there"
    there: Any = None
    if PLAN in names:
        ((_, text),) = destination.read([PLAN])
        with suppress(ValueError, RecursionError):
            there = parse_json(text)
            if isinstance(there, dict) and text == _plan_text(prepared, there.get("energyql")).encode():
                return True
        if set(names) == {PLAN} and _plan_text(prepared, __version__).encode().startswith(text):
            return False  # the file is first, and some stores keep a file whose upload was interrupted
    theirs = there.get("plan") if isinstance(there, dict) else None
    if theirs == prepared.identity:
        return False
    if isinstance(theirs, dict) and there.get("fingerprint") == json_digest(theirs):
        with suppress(LookupError, TypeError, AttributeError):  # the classes have another form
            if is_of_earlier_version(theirs["classes"][0]):
                raise DataError(f"{destination.name} holds a data set that {EARLIER}", hint=hint)
        what = "its fingerprint is another"
        with suppress(LookupError, TypeError, AttributeError, StopIteration):  # the classes have another form
            what = difference(theirs, prepared.identity)
        raise DataError(f"{destination.name} holds a data set of another plan: {what}", hint=hint)
    if not any(_listed(destination, prepared, names)):
        if PLAN in names:
            raise DataError(f"{PLAN} in {destination.name} is damaged", hint=f"bring back a copy of it, or {hint}")
        raise DataError(f"{destination.name} holds other files, such as {min(names)}", hint=hint)
    return False


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """First difference between two identities of plans (`PreparedPlan.identity`), such as "seed 1, not 2".

    Raises:
        LookupError, TypeError, AttributeError, StopIteration: `theirs` is no identity, or the plans do not differ.
    """
    for name, value in ours.items():
        if name != "classes" and theirs.get(name) != value:
            return f"{name} {shorten(repr(theirs.get(name)))}, not {shorten(repr(value))}"
    before, now = ({one["name"]: one for one in plan["classes"]} for plan in (theirs, ours))
    if list(before) != list(now):
        return f"classes {shorten(', '.join(before))}, not {shorten(', '.join(now))}"
    facts = ((name, fact) for name, one in now.items() for fact in one if before[name].get(fact) != one[fact])
    name, fact = next(facts)
    if fact == "fingerprints":
        parts = changed_parts(before[name][fact], now[name][fact])
        return f"class {name!r} was drawn by another training of model {now[name]['model']!r} (changed: {parts})"
    there, here = (shorten(sampler_text(one[name].get(fact))) for one in (before, now))
    return f"the {'query' if fact == 'canonical' else fact} of class {name!r} was {there}, not {here}"


def write_shard(
    destination: Destination, prepared: PreparedPlan, shard: int, on_drawn: OnDrawn = lambda name, count: None
) -> ShardRecord:
    """Draw a shard; write it, then its rows of the index to `parts/`, and at last its record to `parts/`."""
    index, name = Index(prepared), shard_name(shard)
    archive, (classes, samples) = _write(destination, name, lambda path: prepared.write_shard(shard, path, on_drawn))
    table = index.table(name, samples)
    part, _ = _write(destination, _part(shard, "parquet"), lambda path: index.write(path, [table]))
    facts = asdict(archive) | {"mark": destination.mark(name)}
    record = ShardRecord(**facts, shard=shard, rows=len(samples), classes=classes, part=part.sha256)
    _write_text(destination, _part(shard, "json"), record.to_json(prepared.fingerprint) + "\n")
    return record


def _write(destination: Destination, name: str, write: Callable[[Path], Value]) -> tuple[FileRecord, Value]:
    """Write a file by `write(temporary path)`; return the record of the file, and the result of `write`."""
    with destination.writing(name) as path:
        value = write(path)
        return FileRecord(file=name, size=path.stat().st_size, sha256=fingerprint(path)), value


def _write_text(destination: Destination, name: str, text: str) -> FileRecord:
    return _write(destination, name, lambda path: path.write_bytes(text.encode()))[0]


def _listed(destination: Destination, prepared: PreparedPlan, names: Collection[str]) -> Iterator[FileRecord]:
    """Yield the records in the manifest and in `parts/`, without those that are damaged or of another plan."""
    read = [name for name in names if name == MANIFEST or (name.startswith(_PARTS) and name.endswith(".json"))]
    for _, text in destination.read(read):
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                yield read_record(line, prepared.fingerprint)


def read_records(destination: Destination, prepared: PreparedPlan) -> dict[int, ShardRecord]:
    """Number -> record of each finished shard, whose record fits the plan, and whose file has the recorded size."""
    sizes, plan = destination.sizes(), prepared.plan
    records = {}
    for record in _listed(destination, prepared, sizes):
        if not isinstance(record, ShardRecord) or not 0 <= record.shard < plan.shards:
            continue
        counts = {one.name: len(plan.positions(one, record.shard)) for one in plan.classes}
        wanted, there = {name: one.wanted for name, one in record.classes.items()}, sizes.get(record.file)
        if record.file == shard_name(record.shard) and there == record.size and wanted == counts:
            records[record.shard] = record
    return records


def finish(destination: Destination, prepared: PreparedPlan, records: Sequence[ShardRecord]) -> None:
    """Write the index, the data card and the manifest of a data set, and remove the files in `parts/`.

    Index and card stay if both match the manifest of an earlier run, and no shard was drawn again since then. A
    manifest that would be the same is not written.

    Args:
        records: the records of all shards, in order.

    Raises:
        ArgumentError, DataError: a file cannot be written or read.
    """
    sizes = destination.sizes()
    by_file = {record.file: record for record in _listed(destination, prepared, {MANIFEST} & sizes.keys())}
    others = [by_file[name] for name in (INDEX, CARD) if name in by_file]
    unchanged = len(others) == 2 and all(by_file.get(record.file) == record for record in records)
    if not unchanged or not all(sizes.get(each.file) == each.size and destination.holds(each) for each in others):
        tables = _tables(destination, prepared, records)
        index, _ = _write(destination, INDEX, lambda path: Index(prepared).write(path, tables))
        others = [index, _write_text(destination, CARD, data_card(prepared, records))]
    ((_, plan),) = destination.read([PLAN])
    others.insert(0, FileRecord(file=PLAN, size=len(plan), sha256=hashlib.sha256(plan).hexdigest()))
    lines: list[FileRecord] = [replace(record, part="") for record in records]
    lines += [replace(record, mark=destination.mark(record.file)) for record in others]
    text = "".join(f"{record.to_json(prepared.fingerprint)}\n" for record in lines)
    if MANIFEST not in sizes or [text.encode()] != [there for _, there in destination.read([MANIFEST])]:
        _write_text(destination, MANIFEST, text)
    destination.remove([name for name in sizes if name.startswith(_PARTS)])


def _tables(destination: Destination, prepared: PreparedPlan, records: Sequence[ShardRecord]) -> Iterator[Any]:
    """Yield the index rows of each shard with samples, from its file in `parts/`, or else from the shard itself."""
    index, names = Index(prepared), destination.sizes().keys()
    filled = {_part(record.shard, "parquet"): record for record in records if record.rows}
    parts = destination.read([name for name in filled if name in names])
    for name, record in filled.items():
        part = next(parts)[1] if name in names else b""
        if hashlib.sha256(part).hexdigest() == record.part:
            yield index.read(part)
        else:
            yield index.table(record.file, destination.reading(record.file, read_samples))
