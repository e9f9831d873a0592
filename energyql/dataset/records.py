"""What is known of the shards of a data set: what those that are there hold, and what those that are missing cost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from energyql.errors import IncompleteError


@dataclass(frozen=True)
class ClassRecord:
    """The pictures of one class in a shard.

    Args:
        wanted: how many the plan asks for.
        rows: how many there are.
        drawn: how many samples were drawn for them.
        satisfied: how many of the rows satisfy the query according to the judge; `None` where nobody judged.
    """

    wanted: int
    rows: int = 0
    drawn: int = 0
    satisfied: int | None = None


@dataclass(frozen=True)
class ShardRecord:
    """A finished shard, as the manifest lists it.

    Args:
        shard: its number.
        file: its name in the data set.
        size: of it, in bytes.
        sha256: of its bytes, hexadecimal.
        rows: number of its samples.
        classes: by name.
        mark: what the store says of the bytes (an ETag); "" where the destination has no such thing.
    """

    shard: int
    file: str
    size: int
    sha256: str
    rows: int
    classes: Mapping[str, ClassRecord] = field(default_factory=dict)
    mark: str = ""

    def to_json(self) -> str:
        """Return one line of the manifest."""
        return json.dumps(asdict(self), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> ShardRecord:
        """Read a line of the manifest.

        Raises:
            ValueError, TypeError, KeyError: it is something else.
        """
        data = json.loads(line)
        classes = {name: ClassRecord(**one) for name, one in data.pop("classes").items()}
        return cls(classes=classes, **data)


def sum_records(name: str, records: Sequence[ShardRecord]) -> ClassRecord:
    """Return the record of one class in all shards."""
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
        pictures, shards = _counted(rows, "picture"), _counted(len(self.shards), "shard")
        line = f"{pictures} in {shards}, {_size(sum(each.size for each in self.shards))}"
        if judged:
            share = sum(one.satisfied or 0 for one in judged) / max(1, sum(one.rows for one in judged))
            line += f"; {share:.1%} satisfy their query, says the judge"
        return f"{line}, {self.kept:,} of the shards from an earlier run" if self.kept else line

    def to_dict(self) -> dict[str, Any]:
        """Return what was written as JSON values."""
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
