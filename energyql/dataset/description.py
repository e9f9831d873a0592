"""What describes a data set: its index, a Parquet table with a row for each sample, and its card for people."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from energyql.dataset.records import ShardRecord, sum_records
from energyql.dataset.shard import PreparedPlan
from energyql.plugins import import_optional
from energyql.render.markup import markdown_table
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
