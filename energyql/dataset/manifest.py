"""The files of a data set beside its shards: plan, records of finished shards, and what is written when all are there.

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
from collections.abc import Mapping, Sequence
from typing import Any

from energyql.dataset.description import Index, data_card
from energyql.dataset.destination import Destination
from energyql.dataset.records import ShardRecord
from energyql.dataset.shard import PreparedPlan, Told
from energyql.errors import DataError
from energyql.files import fingerprint
from energyql.language.lexical import shorten
from energyql.version import __version__

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
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{PLAN} in {destination.name} is damaged: {error}", hint=hint) from None
        if mark != prepared.fingerprint:
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
                there, here = (shorten(str(value)) for value in (before[name].get(fact), one[fact]))
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
