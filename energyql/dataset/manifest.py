"""The files of a data set beside its shards: plan, records of finished shards, index and card.

plan.json            all that decides the bytes of the shards, written first
shards/000000.tar    a shard
parts/000000.*       the record of a shard and its rows of the index, until all shards are finished
manifest.jsonl       the records of all shards and of the other files, a line each
index.parquet        a row for each sample, a row group for each shard
README.md            the data card

The plan, every record and every line of the manifest has a checksum; the manifest has those of the other files. A file
that does not match its checksum is made again from the shards, and a shard that does not match is drawn again.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from energyql.dataset.destination import Destination
from energyql.dataset.shard import (
    ClassRecord,
    FileRecord,
    OnDrawn,
    PreparedPlan,
    ShardRecord,
    identity_mark,
    read_record,
    read_samples,
    sealed,
    sum_records,
)
from energyql.errors import DataError
from energyql.files import fingerprint, parse_json
from energyql.kinds import KINDS
from energyql.language.lexical import shorten
from energyql.plugins import import_optional
from energyql.render.markup import markdown_table
from energyql.sampling.registry import read_record as read_sampler
from energyql.sampling.registry import sampler_text
from energyql.version import __version__

_FACTS = {
    "key": "string", "shard": "string", "class": "string", "class_number": "int32", "query": "string",
    "model": "string", "seed": "uint64", "index": "int64", "energy": "double", "satisfied": "bool", "judge": "string",
    "doubtful": "bool", "status": "string",
}  # fmt: skip
"""Column of the index for a fact of a sample -> its type."""
_HEADER = ("class", "number", "query", "wanted", "pictures", "drawn", "satisfy the query")
"""Header of the table of classes in the data card."""


def arrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ArgumentError: pyarrow is not installed.
    """
    need, hint = "the index of a data set needs pyarrow", 'pip install "pyarrow>=14"'
    return import_optional("pyarrow", need, hint), import_optional("pyarrow.parquet", need, hint)


class Index:
    """The index of a data set, or a part of it: one row for each sample.

    Columns: the facts of each sample; `heads.smile`, `heads.hair=red`, `heads.age.mean` and `heads.age.std`, the
    predictions of the attribute heads; and `judged.smile`, `judged.hair`, the values of the judge. A sample of a model
    that lacks an attribute has null in the columns of that attribute.

    Attributes:
        schema: the columns, a schema of pyarrow.

    Raises:
        ArgumentError: pyarrow is not installed.
    """

    def __init__(self, prepared: PreparedPlan) -> None:
        self._arrow, self._parquet = arrow()
        types = dict(_FACTS)
        for query in prepared.queries:
            judged = set(query.model.judged_names)
            for name, spec in query.model.vocabulary.items():
                for end in KINDS[spec.kind].columns(spec):
                    types[f"heads.{name}{end}"] = "double"
                if name in judged:
                    kind = KINDS[spec.kind].column
                    column = f"judged.{name}"
                    types[column] = kind if types.get(column, kind) == kind else "string"  # kinds of two models
        kinds = {"string": self._arrow.string(), "bool": self._arrow.bool_(), "double": self._arrow.float64()}
        kinds |= {name: getattr(self._arrow, name)() for name in ("int32", "int64", "uint64")}
        self._types = types
        self.schema = self._arrow.schema([(name, kinds[kind]) for name, kind in types.items()])

    def table(self, shard: str, samples: Sequence[Mapping[str, Any]]) -> Any:
        """Return the rows of the samples of one shard, whose file is `shard`, as a table of pyarrow."""
        return self._arrow.Table.from_pylist([self._row(shard, sample) for sample in samples], schema=self.schema)

    def write(self, path: Path, tables: Iterable[Any]) -> None:
        """Write tables to one Parquet file, each as a row group."""
        with self._parquet.ParquetWriter(path, self.schema, compression="zstd") as writer:
            for table in tables:
                writer.write_table(table, row_group_size=max(1, len(table)))

    def read(self, data: bytes) -> Any:
        """Return the table in `data`, the content of a file that `write` has written."""
        return self._parquet.read_table(io.BytesIO(data))

    def tables(self, data: bytes) -> Mapping[str, Callable[[], Any]]:
        """Return file of a shard -> function that reads its table, from `data`, an index that `write` has written."""
        file = self._parquet.ParquetFile(io.BytesIO(data))
        column = file.schema_arrow.get_field_index("shard")
        chunks = [file.metadata.row_group(group).column(column) for group in range(file.num_row_groups)]
        return {chunk.statistics.min: partial(file.read_row_group, group) for group, chunk in enumerate(chunks)}

    def _row(self, shard: str, sample: Mapping[str, Any]) -> dict[str, Any]:
        row = {name: sample[name] for name in _FACTS if name not in ("shard", "energy")}
        row |= {"shard": shard, "energy": float(sample["energy"]) if sample["energy"] is not None else None}
        for name, value in sample["probabilities"].items():
            if isinstance(value, dict):
                row |= {f"heads.{name}={each}": share for each, share in value.items()}
            elif isinstance(value, list):
                row |= {f"heads.{name}.{moment}": number for moment, number in zip(("mean", "std"), value, strict=True)}
            else:
                row[f"heads.{name}"] = value
        for name, value in sample["judged"].items():
            column = f"judged.{name}"
            row[column] = str(value) if self._types[column] == "string" else value
        return row


def data_card(prepared: PreparedPlan, records: Sequence[ShardRecord]) -> str:
    """Return the data card as Markdown.

    Its header holds the names of the files with samples, for Hugging Face `datasets`.
    """
    plan = prepared.plan
    rows, missing, models = [], [], {}
    for number, (one, query) in enumerate(zip(plan.classes, prepared.queries, strict=True)):
        total, provenance = sum_records(one.name, records), query.provenance
        share = "not judged" if total.satisfied is None else f"{total.satisfied / max(1, total.rows):.2%}"
        text = _code(provenance["canonical"])
        counts = [f"{count:,}" for count in (total.wanted, total.rows, total.drawn)]
        rows.append([_code(one.name), str(number), text, *counts, share])
        if total.rows < total.wanted:
            missing.append(f"- {_code(one.name)} has {total.rows:,} of {total.wanted:,} pictures")
        models[provenance["model"]] = provenance
    count = sum(record.rows for record in records)
    lines = [
        "---", "configs:", "- config_name: default", "  data_files: shards/*.tar", "tags:", "- synthetic", "---", "",
        f"# {count:,} generated pictures, {len(plan.classes):,} {'classes' if len(plan.classes) > 1 else 'class'}", "",
        "No picture shows a real person or place: all are drawn by a generator. A class holds the pictures that were",
        "drawn for its query; whether one satisfies it is the verdict of a judge, a program that can be wrong.", "",
        *markdown_table(_HEADER, rows), "",
    ]  # fmt: skip
    if missing:
        lines += [
            f"The data set is incomplete: of at most {plan.budget:,} samples for each picture, too few were accepted.",
            "", *missing, "",
        ]  # fmt: skip
    if prepared.warnings:
        lines += ["Of some queries, all or a part is always or never true:", ""]
        lines += [*(f"- {_code(name)}: {warning}" for name, warning in prepared.warnings), ""]
    lines += ["## How it was made", ""]
    for name, provenance in models.items():
        judge = provenance["judge"] or "nobody"
        lines.append(f"- model {_code(name)}, judged by: {judge}; SHA-256 of its weights:")
        lines += [f"  - {part} `{mark}`" for part, mark in provenance["fingerprints"].items()]
    lines += [
        f"- seed {plan.seed}, {len(records):,} shards of about {plan.shard_size:,} pictures, format {plan.format}",
        f"- energyql {__version__}; `plan.json` holds all settings, and the same plan gives the same data set", "",
        "## How to read it", "",
        f"A sample is a picture (`.{plan.format}`), what is known of it (`.json`) and its number of class (`.cls`).",
        "`index.parquet` has a row for each sample; `manifest.jsonl` has the SHA-256 of each file.", "",
        "```python", "import datasets, webdataset", "", 'rows = datasets.load_dataset(FOLDER, split="train")',
        f'pairs = webdataset.WebDataset(FOLDER + "/shards/{{000000..{len(records) - 1:06d}}}.tar", shardshuffle=False)',
        f'pairs = pairs.decode("pil").to_tuple("{plan.format}", "cls")', "```",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Return a text as code, for a cell of a Markdown table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


PLAN, MANIFEST, INDEX, CARD = "plan.json", "manifest.jsonl", "index.parquet", "README.md"
_PARTS = "parts/"


def shard_name(shard: int) -> str:
    """Return the name of the file of a shard, by its number."""
    return f"shards/{shard:06d}.tar"


def _part(shard: int, kind: str) -> str:
    """Return the name of a shard's part: its record (kind "json") or its rows of the index ("parquet")."""
    return f"{_PARTS}{shard:06d}.{kind}"


def begin(destination: Destination, prepared: PreparedPlan, *, write: bool = True) -> None:
    """Check that a destination is empty or holds this data set; with `write`, write the plan if missing or damaged.

    Raises:
        DataError: the destination holds a data set of another plan or of other models, or other files.
        ArgumentError: the destination cannot be written.
    """
    destination.check()
    names = destination.sizes()
    if names and _check_plan(destination, prepared, names):
        return
    if write:
        _write_text(destination, PLAN, _plan_text(prepared, __version__))


def _plan_text(prepared: PreparedPlan, version: Any) -> str:
    plan = {"fingerprint": prepared.fingerprint, "plan": prepared.identity, "energyql": version}
    return json.dumps(sealed(plan, prepared.fingerprint), indent=2, ensure_ascii=False) + "\n"


def _check_plan(destination: Destination, prepared: PreparedPlan, names: Collection[str]) -> bool:
    """Check that a destination that is not empty holds this data set.

    Returns:
        Whether the plan there is undamaged and in the form of this version.

    Raises:
        DataError: the destination holds something else; or its plan is damaged, and no file has the seal of this plan.
    """
    hint = "name another place, or remove what is there"
    there: Any = None
    if PLAN in names:
        ((_, text),) = destination.read([PLAN])
        with suppress(ValueError, RecursionError):
            there = parse_json(text)
            if isinstance(there, dict) and text == _plan_text(prepared, there.get("energyql")).encode():
                return True
    theirs: Any
    mark, theirs = (there.get("fingerprint"), there.get("plan")) if isinstance(there, dict) else (None, None)
    is_whole = isinstance(theirs, dict) and mark == identity_mark(theirs)
    with suppress(LookupError, TypeError, ValueError):  # they have another form
        theirs = theirs | {"classes": [one | {"sampler": read_sampler(one["sampler"])} for one in theirs["classes"]]}
    if is_whole and mark != prepared.fingerprint and theirs != prepared.identity:
        what = "its fingerprint is another"
        with suppress(LookupError, TypeError, AttributeError):  # the classes have another form
            what = difference(theirs, prepared.identity)
        raise DataError(f"{destination.name} holds a data set of another plan: {what}", hint=hint)
    if mark == prepared.fingerprint or theirs == prepared.identity:
        return False
    if not any(has_seal for _, has_seal in _listed(destination, prepared, names)):
        if PLAN in names:
            raise DataError(f"{PLAN} in {destination.name} is damaged", hint=f"bring back a copy of it, or {hint}")
        raise DataError(f"{destination.name} holds other files, such as {min(names)}", hint=hint)
    return False


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return the first difference between two identities of plans, in words.

    Args:
        theirs: the identity at the destination; see `PreparedPlan.identity`.
        ours: the identity of the plan to write.
    """
    for name in sorted({*theirs, *ours} - {"classes"}):
        if theirs.get(name) != ours.get(name):
            return f"{name} {shorten(repr(theirs.get(name)))}, not {shorten(repr(ours.get(name)))}"
    before, now = ({one["name"]: one for one in plan.get("classes", ())} for plan in (theirs, ours))
    if list(before) != list(now):
        return f"classes {shorten(', '.join(before))}, not {shorten(', '.join(now))}"
    for name, one in now.items():
        for fact in one:
            if before[name].get(fact) != one[fact]:
                if fact == "fingerprints":
                    return f"class {name!r} was drawn by another training of model {one['model']!r}"
                what = "query" if fact == "canonical" else fact
                there, here = (shorten(sampler_text(value)) for value in (before[name].get(fact), one[fact]))
                return f"the {what} of class {name!r} was {there}, not {here}"
    return "its fingerprint is another"


def write_shard(
    destination: Destination, prepared: PreparedPlan, shard: int, on_drawn: OnDrawn = lambda name, count: None
) -> ShardRecord:
    """Draw and write a shard, then its rows of the index, then its record, which is returned.

    Args:
        destination: the destination.
        prepared: the plan.
        shard: number of the shard.
        on_drawn: called with the progress.

    Raises:
        EnergyQLError: the shard cannot be drawn or written.
    """
    index = Index(prepared)
    classes: Mapping[str, ClassRecord] = {}
    samples: Sequence[Mapping[str, Any]] = ()

    def draw(path: Path) -> None:
        nonlocal classes, samples
        with path.open("wb") as file:
            classes, samples = prepared.write_shard(shard, file, on_drawn)

    archive = _write(destination, shard_name(shard), draw)
    table = index.table(archive.file, samples)
    part = _write(destination, _part(shard, "parquet"), lambda path: index.write(path, [table]))
    record = ShardRecord(
        file=archive.file, size=archive.size, sha256=archive.sha256, mark=destination.mark(archive.file),
        shard=shard, rows=len(samples), classes=classes, part=part.sha256,
    )  # fmt: skip
    _write_text(destination, _part(shard, "json"), record.to_json(prepared.fingerprint) + "\n")
    return record


def _write(destination: Destination, name: str, write: Callable[[Path], object]) -> FileRecord:
    """Write file `name` by `write(path)`, and return its record."""
    with destination.writing(name) as path:
        write(path)
        return FileRecord(file=name, size=path.stat().st_size, sha256=fingerprint(path))


def _write_text(destination: Destination, name: str, text: str) -> FileRecord:
    return _write(destination, name, lambda path: path.write_bytes(text.encode()))


def _listed(
    destination: Destination, prepared: PreparedPlan, names: Collection[str]
) -> Iterator[tuple[FileRecord, bool]]:
    """Yield the undamaged records in the manifest and the parts, and whether each has the seal of this plan.

    Args:
        destination: the destination.
        prepared: the plan.
        names: names of the files there; others are not read.
    """
    for _, text in destination.read([name for name in names if name == MANIFEST or _is_record(name)]):
        for line in text.splitlines():
            with suppress(ValueError, KeyError, TypeError, AttributeError):
                yield read_record(line, prepared.fingerprint)


def _is_record(name: str) -> bool:
    return name.startswith(_PARTS) and name.endswith(".json")


def read_records(destination: Destination, prepared: PreparedPlan) -> dict[int, ShardRecord]:
    """Return number -> record of the finished shards whose files are there with the right size."""
    sizes, plan = destination.sizes(), prepared.plan
    records = {}
    for record, _ in _listed(destination, prepared, sizes):
        if not isinstance(record, ShardRecord) or not 0 <= record.shard < plan.shards:
            continue
        counts = {one.name: len(plan.positions(one, record.shard)) for one in plan.classes}
        if (
            record.file == shard_name(record.shard)
            and sizes.get(record.file) == record.size
            and {name: one.wanted for name, one in record.classes.items()} == counts
        ):
            records[record.shard] = record
    return records


def finish(destination: Destination, prepared: PreparedPlan, records: Sequence[ShardRecord]) -> None:
    """Write index, data card and manifest of a data set, and remove the parts.

    Files that are there and match the manifest stay.

    Args:
        destination: the destination.
        prepared: the plan.
        records: the records of all shards, in order.

    Raises:
        ArgumentError, DataError: a file cannot be written or read.
    """
    sizes = destination.sizes()
    listed = {record.file: record for record, _ in _listed(destination, prepared, {MANIFEST} & sizes.keys())}
    intact = {
        name: record
        for name in (INDEX, CARD)
        if (record := listed.get(name)) is not None
        and sizes.get(name) == record.size
        and destination.holds(name, record.sha256, record.mark)
    }
    same = all(listed.get(record.file) == record for record in records)
    index, card = (intact.get(name) if same else None for name in (INDEX, CARD))
    if index is None:
        tables = _tables(destination, prepared, records, listed if INDEX in intact else {})
        index = _write(destination, INDEX, lambda path: Index(prepared).write(path, tables))
    card = card or _write_text(destination, CARD, data_card(prepared, records))
    ((_, plan),) = destination.read([PLAN])
    others = [FileRecord(file=PLAN, size=len(plan), sha256=hashlib.sha256(plan).hexdigest()), index, card]
    lines: list[FileRecord] = [replace(record, part="") for record in records]
    lines += [replace(record, mark=destination.mark(record.file)) for record in others]
    text = "".join(f"{record.to_json(prepared.fingerprint)}\n" for record in lines)
    if MANIFEST not in sizes or [text.encode()] != [there for _, there in destination.read([MANIFEST])]:
        _write_text(destination, MANIFEST, text)
    destination.remove([name for name in sizes if name.startswith(_PARTS)])


def _tables(
    destination: Destination, prepared: PreparedPlan, records: Sequence[ShardRecord], listed: Mapping[str, FileRecord]
) -> Iterator[Any]:
    """Yield the rows of each shard that has samples: of its part, else of the earlier index, else of the shard itself.

    Args:
        destination: the destination.
        prepared: the plan.
        records: the records of all shards.
        listed: file -> record of the shards in the earlier index; empty if there is no such index.
    """
    index = Index(prepared)
    names = destination.sizes().keys()
    filled = [record for record in records if record.rows]
    of_parts = {record.file: name for record in filled if (name := _part(record.shard, "parquet")) in names}
    parts = destination.read(of_parts.values())
    earlier: Mapping[str, Callable[[], Any]] = {}
    if listed and any(record.file not in of_parts for record in filled):
        ((_, data),) = destination.read([INDEX])
        earlier = index.tables(data)
    for record in filled:
        part = next(parts)[1] if record.file in of_parts else b""
        if hashlib.sha256(part).hexdigest() == record.part:
            yield index.read(part)
        elif record.file in earlier and listed.get(record.file) == record:
            yield earlier[record.file]()
        else:
            yield index.table(record.file, destination.reading(record.file, read_samples))
