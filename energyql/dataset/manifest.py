"""The files of a data set beside its shards: plan, records of finished shards, index and card.

plan.json            all that decides the bytes of the shards, written first
shards/000000.tar    a shard
parts/000000.*       its record and its rows of the index, until all shards are there
manifest.jsonl       the records of all shards, a line each
index.parquet        a row for each sample, a row group for each shard
README.md            the data card
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from energyql.dataset.destination import Destination
from energyql.dataset.shard import PreparedPlan, ShardRecord, Told, sum_records
from energyql.errors import DataError
from energyql.files import fingerprint
from energyql.language.lexical import shorten
from energyql.plugins import import_optional
from energyql.render.markup import markdown_table
from energyql.sampling.record import read_record, sampler_text
from energyql.version import __version__

_PLAIN = {
    "key": "string", "shard": "string", "class": "string", "class_number": "int32", "query": "string",
    "model": "string", "seed": "uint64", "index": "int64", "energy": "double", "satisfied": "bool", "judge": "string",
    "doubtful": "bool", "status": "string",
}  # fmt: skip
_KINDS = {"yes/no": "bool", "categorical": "string", "continuous": "double"}
"""Kind of an attribute -> type of its judged values."""
_HEADER = ("class", "number", "query", "wanted", "pictures", "drawn", "satisfy the query")


def arrow() -> tuple[Any, Any]:
    """Return the modules `pyarrow` and `pyarrow.parquet`.

    Raises:
        ArgumentError: they are not installed.
    """
    need, hint = "the index of a data set needs pyarrow", 'pip install "pyarrow>=14"'
    return import_optional("pyarrow", need, hint), import_optional("pyarrow.parquet", need, hint)


class Index:
    """Writes the index of a data set, or the part of one shard.

    Columns: the facts of each sample; `heads.smile`, `heads.hair=red`, `heads.age.mean` and `heads.age.std`, the
    predictions of the attribute heads; and `judged.smile`, `judged.hair`, the values of the judge. A sample of a model
    without an attribute has null there.
    """

    def __init__(self, prepared: PreparedPlan) -> None:
        self._arrow, self._parquet = arrow()
        types = dict(_PLAIN)
        for query in prepared.queries:
            judged = set(query.model.judged_names)
            for name, spec in query.model.vocabulary.items():
                for column in _columns(name, spec.kind, spec.values):
                    types[column] = "double"
                if name in judged:
                    kind = _KINDS[spec.kind]
                    column = f"judged.{name}"
                    types[column] = kind if types.get(column, kind) == kind else "string"  # models that disagree
        kinds = {"string": self._arrow.string(), "bool": self._arrow.bool_(), "double": self._arrow.float64()}
        kinds |= {name: getattr(self._arrow, name)() for name in ("int32", "int64", "uint64")}
        self._types = types
        self.schema = self._arrow.schema([(name, kinds[kind]) for name, kind in types.items()])

    def write(self, path: Path, shard: str, samples: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows of one shard."""
        rows = [self._row(shard, sample) for sample in samples]
        table = self._arrow.Table.from_pylist(rows, schema=self.schema)
        self._parquet.write_table(table, path, compression="zstd", row_group_size=max(1, len(rows)))

    def join(
        self, path: Path, shards: Iterable[str], parts: Iterator[tuple[str, bytes]], earlier: io.BytesIO | None
    ) -> None:
        """Write the whole index, a row group for each shard that has samples.

        Args:
            path: where to.
            shards: their files, in order.
            parts: the files of some shards with their rows, as `write` writes them, in the same order.
            earlier: an earlier index, with the rows of the others.
        """
        old = None if earlier is None else self._parquet.ParquetFile(earlier)
        groups = {}
        if old is not None:
            column = old.schema_arrow.get_field_index("shard")
            found = [old.metadata.row_group(group).column(column) for group in range(old.num_row_groups)]
            groups = {chunk.statistics.min: group for group, chunk in enumerate(found)}
        name, data = next(parts, ("", b""))
        with self._parquet.ParquetWriter(path, self.schema, compression="zstd") as writer:
            for shard in shards:
                if shard == name:
                    table = self._parquet.read_table(io.BytesIO(data))
                    name, data = next(parts, ("", b""))
                else:
                    assert old is not None, "shards without rows are drawn again"
                    table = old.read_row_group(groups[shard])
                writer.write_table(table, row_group_size=max(1, len(table)))

    def _row(self, shard: str, sample: Mapping[str, Any]) -> dict[str, Any]:
        row = {name: sample[name] for name in _PLAIN if name not in ("shard", "energy")}
        row |= {"shard": shard, "energy": float(sample["energy"]) if sample["energy"] is not None else None}
        for name, value in sample["probabilities"].items():
            if isinstance(value, dict):
                row |= {f"heads.{name}={each}": share for each, share in value.items()}
            elif isinstance(value, list):
                row |= dict(zip(_columns(name, "continuous", ()), value, strict=True))
            else:
                row[f"heads.{name}"] = value
        for name, value in sample["judged"].items():
            column = f"judged.{name}"
            row[column] = str(value) if self._types[column] == "string" else value
        return row


def _columns(name: str, kind: str, values: Sequence[str]) -> list[str]:
    """Return the names of the columns with the predictions of an attribute."""
    if kind == "categorical":
        return [f"heads.{name}={value}" for value in values]
    return [f"heads.{name}.mean", f"heads.{name}.std"] if kind == "continuous" else [f"heads.{name}"]


def data_card(prepared: PreparedPlan, records: Sequence[ShardRecord]) -> str:
    """Return the card as Markdown; its header tells Hugging Face `datasets` which files hold the samples."""
    plan = prepared.plan
    rows, missing, models = [], [], {}
    for number, (one, query) in enumerate(zip(plan.classes, prepared.queries, strict=True)):
        total, known = sum_records(one.name, records), query.provenance
        share = "not judged" if total.satisfied is None else f"{total.satisfied / max(1, total.rows):.2%}"
        text = _code(known["canonical"])
        counts = [f"{count:,}" for count in (total.wanted, total.rows, total.drawn)]
        rows.append([_code(one.name), str(number), text, *counts, share])
        if total.rows < total.wanted:
            missing.append(f"- {_code(one.name)} has {total.rows:,} of {total.wanted:,} pictures")
        models[known["model"]] = known
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
    lines += ["## How it was made", ""]
    for name, known in models.items():
        judge = known["judge"] or "nobody"
        lines.append(f"- model {_code(name)}, judged by: {judge}; SHA-256 of its weights:")
        lines += [f"  - {part} `{mark}`" for part, mark in known["fingerprints"].items()]
    lines += [
        f"- seed {plan.seed}, {len(records):,} shards of about {plan.shard_size:,} pictures, format {plan.format}",
        f"- energyql {__version__}; `plan.json` holds all settings, and the same plan gives the same data set", "",
        "## How to read it", "",
        f"A sample is a picture (`.{plan.format}`), what is known of it (`.json`) and its number of class (`.cls`).",
        "`index.parquet` has a row for each sample; `manifest.jsonl` has the SHA-256 of each shard.", "",
        "```python", "import datasets, webdataset", "", 'rows = datasets.load_dataset(FOLDER, split="train")',
        f'pairs = webdataset.WebDataset(FOLDER + "/shards/{{000000..{len(records) - 1:06d}}}.tar", shardshuffle=False)',
        f'pairs = pairs.decode("pil").to_tuple("{plan.format}", "cls")', "```",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _code(text: str) -> str:
    """Return a text as code in a cell of a table."""
    return f"`{' '.join(text.split())}`".replace("|", "\\|")


PLAN, MANIFEST, INDEX, CARD = "plan.json", "manifest.jsonl", "index.parquet", "README.md"
_PARTS = "parts/"


def shard_name(shard: int) -> str:
    """Return the name of a shard's file."""
    return f"shards/{shard:06d}.tar"


def _part(shard: int, kind: str) -> str:
    return f"{_PARTS}{shard:06d}.{kind}"


def begin(destination: Destination, prepared: PreparedPlan, *, write: bool = True) -> None:
    """Check that a destination is empty or holds this data set, and write the plan into an empty one.

    Raises:
        DataError: it holds a data set of another plan or of other models, or other files.
        ArgumentError: it cannot be written.
    """
    destination.check()
    names = destination.sizes()
    hint = "name another place, or remove what is there"
    if PLAN in names:
        ((_, text),) = destination.read([PLAN])
        try:
            there = json.loads(text)
            theirs, mark = dict(there["plan"]), str(there["fingerprint"])
            theirs["classes"] = [one | {"sampler": read_record(one["sampler"])} for one in theirs["classes"]]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{PLAN} in {destination.name} is damaged: {error}", hint=hint) from None
        if mark != prepared.fingerprint and theirs != prepared.identity:
            what = difference(theirs, prepared.identity)
            raise DataError(f"{destination.name} holds a data set of another plan: {what}", hint=hint)
    elif names:
        raise DataError(f"{destination.name} holds other files, such as {min(names)}", hint=hint)
    elif write:
        plan = {"fingerprint": prepared.fingerprint, "plan": prepared.identity, "energyql": __version__}
        with destination.writing(PLAN) as path:
            path.write_text(json.dumps(plan, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def difference(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Return in words the first thing in which two identities of plans differ."""
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
    destination: Destination, prepared: PreparedPlan, shard: int, told: Told = lambda name, count: None
) -> ShardRecord:
    """Draw a shard and write it, then its rows of the index, then its record."""
    name = shard_name(shard)
    with destination.writing(name) as path:
        with path.open("wb") as file:
            classes, samples = prepared.write_shard(shard, file, told)
        size, digest = path.stat().st_size, fingerprint(path)
    with destination.writing(_part(shard, "parquet")) as path:
        Index(prepared).write(path, name, samples)
    record = ShardRecord(shard, name, size, digest, len(samples), classes, destination.mark(name))
    with destination.writing(_part(shard, "json")) as path:
        path.write_text(record.to_json() + "\n", encoding="utf-8")
    return record


def read_records(destination: Destination) -> dict[int, ShardRecord]:
    """Return the records of shards that were finished, by number; those whose shard or rows are gone are left out."""
    sizes = destination.sizes()
    lines: list[bytes] = []
    if {MANIFEST, INDEX} <= sizes.keys():
        ((_, text),) = destination.read([MANIFEST])
        lines += text.splitlines()
    parts = [name for name in sizes if name.startswith(_PARTS) and name.endswith(".json")]
    lines += [text for _, text in destination.read([name for name in parts if f"{name[:-5]}.parquet" in sizes])]
    found = {}
    for line in lines:
        try:
            record = ShardRecord.from_json(line)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue  # a damaged record: the shard is drawn again
        if sizes.get(record.file) == record.size and record.file == shard_name(record.shard):
            found[record.shard] = record
    return found


def finish(destination: Destination, prepared: PreparedPlan, records: Sequence[ShardRecord]) -> None:
    """Write index, manifest and card of a data set whose shards are all there, and remove the parts."""
    names = destination.sizes()
    parts = [name for name in names if name.startswith(_PARTS)]
    if not parts and {INDEX, MANIFEST, CARD} <= names.keys():
        return
    earlier = None
    if INDEX in names and not {_part(record.shard, "parquet") for record in records} <= names.keys():
        ((_, data),) = destination.read([INDEX])
        earlier = io.BytesIO(data)
    files = {_part(record.shard, "parquet"): record.file for record in records if record.rows}
    with destination.writing(INDEX) as path:
        new = ((files[name], data) for name, data in destination.read([name for name in files if name in names]))
        Index(prepared).join(path, files.values(), new, earlier)
    with destination.writing(MANIFEST) as path:
        path.write_text("".join(f"{record.to_json()}\n" for record in records), encoding="utf-8")
    with destination.writing(CARD) as path:
        path.write_text(data_card(prepared, records), encoding="utf-8")
    destination.remove(parts)
