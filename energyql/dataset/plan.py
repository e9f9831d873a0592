"""Plans of data sets: classes and format, destination and workers; read from TOML with the place of each mistake."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from energyql.errors import ArgumentError, DataError, EnergyQLError, Span, listed
from energyql.files import read_bytes
from energyql.language import Expr
from energyql.language.lexical import check_name, shorten
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DrawSettings, finite_number, settings_of, whole_number
from energyql.vocabulary import closest, repeated

if TYPE_CHECKING:
    from energyql.attributes.labels import ImageLabeller
    from energyql.generators.base import Generator
    from energyql.pipeline.model import Model

PictureFormat = Literal["png", "webp", "jpg"]
SETTINGS = settings_of("plan")
"""Names of the settings that a class may have, which are arguments of `energyql.generate`."""
MOST = 2**40
"""Largest number of pictures of a data set."""
MOST_IN_SHARD = 100_000
"""Largest number of pictures of a shard."""
MOST_WORKERS = 100_000
"""Largest number of workers."""


@dataclass(frozen=True, kw_only=True)
class DatasetClass:
    """One class of a data set: pictures that satisfy one query.

    Args:
        name: name of the class.
        query: text or expression.
        count: number of pictures.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        seed: seed of its samples, 0 to 2**64 - 1; by default a number that follows from the seed of the plan and the
            name.
        settings: arguments of `energyql.generate` by name; the names are `SETTINGS`.

    Raises:
        ArgumentError: a value has the wrong type or is out of range.
    """

    name: str
    query: str | Expr
    count: int
    model: str | Path | Model = DEFAULT_MODEL
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_name(self.name, "the name of a class"))
        if not isinstance(self.query, str | Expr):
            raise ArgumentError(f"a query is a string or an expression, not {shorten(repr(self.query))}")
        object.__setattr__(self, "count", whole_number("count", self.count, most=MOST))
        if isinstance(self.model, bool | int | float | list | Mapping):
            raise ArgumentError(f"a model is a name or the path of a folder, not {shorten(repr(self.model))}")
        for name in self.settings:
            if name not in SETTINGS:
                raise unknown(name, SETTINGS, "setting of a class")
        self.draw_settings(0 if self.seed is None else self.seed)

    def draw_settings(self, seed: int) -> DrawSettings:
        """Return the settings with which the class is drawn.

        Raises:
            ArgumentError: a setting has the wrong type or is out of range.
        """
        return DrawSettings(**self.settings, seed=seed)


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """A data set: its classes and its format. `energyql.write_dataset` writes it.

    Args:
        classes: at least one, with different names.
        seed: 0 to 2**64 - 1. Sample i of a class depends on the seed of the class and on i alone.
        format: format of the pictures: "png", "webp" or "jpg".
        quality: quality of "webp" and "jpg", 1 to 100.
        shard_size: approximate number of pictures of a shard; every shard has its share of every class.
        only_satisfied: whether to keep only pictures that satisfy their query, according to the judge of the model.
        budget: with `only_satisfied`, the largest number of samples that are drawn for each picture of a class.

    Raises:
        ArgumentError: a value has the wrong type or is out of range, or two classes have one name.
    """

    classes: Sequence[DatasetClass]
    seed: int = 0
    format: PictureFormat = "png"
    quality: int = 92
    shard_size: int = 1000
    only_satisfied: bool = False
    budget: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes) if isinstance(self.classes, Iterable) else ())
        if not self.classes or not all(isinstance(each, DatasetClass) for each in self.classes):
            raise ArgumentError("classes must be a list of DatasetClass, at least one")
        if (twice := repeated([each.name for each in self.classes])) is not None:
            raise ArgumentError(f"two classes have the name {twice!r}", hint="give each class a name of its own")
        for name, least, most in (
            ("seed", 0, 2**64 - 1),
            ("quality", 1, 100),
            ("shard_size", 1, MOST_IN_SHARD),
            ("budget", 1, 100_000),
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least, most=most))
        if self.format not in get_args(PictureFormat):
            raise ArgumentError(
                f"there is no format {self.format!r}", hint=f"choose {', '.join(get_args(PictureFormat))}"
            )
        if not isinstance(self.only_satisfied, bool):
            raise ArgumentError(f"only_satisfied must be true or false, not {self.only_satisfied!r}")

    @property
    def count(self) -> int:
        """Number of pictures of all classes."""
        return sum(each.count for each in self.classes)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.count // self.shard_size)

    def seed_of(self, one: DatasetClass) -> int:
        """Return the seed of a class: its own, or one below 2**48 that follows from the seed of the plan and the name.

        So classes do not share random numbers, and a class stays the same when another one is added.
        """
        if one.seed is not None:
            return one.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}\n{one.name}".encode()).digest()[:6], "big")

    def positions(self, one: DatasetClass, shard: int) -> range:
        """Return the positions of a shard's pictures in a class, whose pictures have the positions 0 to `count` - 1.

        All shards have the same number of pictures of a class, or one more.
        """
        start, end = (number * one.count // self.shards for number in (shard, shard + 1))
        return range(start, end)

    def candidates(self, one: DatasetClass, shard: int) -> range:
        """Return the numbers of the samples of a class that may be drawn for a shard; no two shards share one."""
        positions, each = self.positions(one, shard), self.budget if self.only_satisfied else 1
        return range(positions.start * each, positions.stop * each)


@dataclass(frozen=True, kw_only=True)
class Job:
    """All arguments of `energyql.write_dataset`: a plan, its destination, and the workers that draw it.

    Args:
        plan: the plan.
        out: a folder, or an address of a store.
        workers: number of processes.
        address: address of a Ray cluster; `None` for this machine.
        gpus: number of GPUs of each worker of Ray, may be a fraction.
        device: device of each worker; see `energyql.load_model`.
        generator, judge, allow_plugins: arguments of `energyql.load_model` for every model of the plan.

    Raises:
        ArgumentError: a number is out of range, or `gpus` are given without Ray.
    """

    plan: DatasetPlan
    out: str | Path
    workers: int = 1
    address: str | None = None
    gpus: float = 0
    device: str = "auto"
    generator: Generator | str | None = None
    judge: ImageLabeller | str | None = None
    allow_plugins: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "workers", whole_number("workers", self.workers, most=MOST_WORKERS))
        if finite_number("gpus", self.gpus, least=0) and not self.on_ray:
            raise ArgumentError(
                "gpus are shares of the workers of Ray, and one worker is this process",
                hint="name its device instead (device=, --device), or give workers or an address",
            )

    @property
    def on_ray(self) -> bool:
        """Whether workers of Ray draw the shards, instead of this process."""
        return self.workers > 1 or self.address is not None


def unknown(name: object, vocabulary: Sequence[str], what: str) -> ArgumentError:
    """Return the error for a name that is not in the vocabulary.

    Args:
        name: the wrong name.
        vocabulary: the possible names.
        what: the kind of thing that is named, such as "entry of a class".
    """
    guess = closest(str(name), vocabulary)
    hint = f"did you mean {guess}?" if guess else f"known: {', '.join(vocabulary)}"
    return ArgumentError(f"there is no {what} {name!r}", hint=hint)


tomllib: Any = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
MOST_BYTES = 1 << 24
"""Size of the largest plan that is read, in bytes."""
CLASS = "class"
_DEFAULTS = ("model", *SETTINGS)
"""Keys that may stand in a class, or before all classes as a default."""
_OWN = ("name", "query", "count", "seed", *_DEFAULTS)
"""Keys of a class."""
_WHOLE = ("seed", "format", "quality", "shard_size", "only_satisfied", "budget")
_STRING = re.compile(r"""\"{3}(?:[^\\]|\\.)*?"{3,5}|'{3}.*?'{3,5}|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""", re.DOTALL)
_BLANK = re.compile(r"(?:\s|#[^\n]*)*")
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_PLAIN = re.compile(r"[^,\]}#\n]+")
_DECODE_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
Path_ = tuple[str | int, ...]
"""Place of a value in a plan: keys, and positions in lists."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a plan.

    Args:
        path: its place, such as ("class", 2, "query").
        error: the error.
        at_key: whether the key at that place is wrong, instead of its value.
    """

    path: Path_
    error: EnergyQLError
    at_key: bool = False


@dataclass(frozen=True)
class PlanSource:
    """The file of a plan, so that messages can show its lines.

    Args:
        name: path of the file.
        text: content of the file; `None` for a plan that was no file.
        places: path of an entry -> the spans of its key and of its value in the text.
    """

    name: str = "the plan"
    text: str | None = None
    places: Mapping[Path_, tuple[Span, Span]] = field(default_factory=dict)

    def show(self, mistake: Mistake) -> str:
        """Return a mistake in words, with the wrong lines of the plan and carets; without a text, with the place."""
        path = mistake.path
        if self.text is None:
            return f"{_where(path)}: {mistake.error.render()}"
        while path and path not in self.places:
            path = path[:-1]
        key, value = self.places.get(path, (Span(0, 0), Span(0, 0)))
        error = copy.copy(mistake.error)
        spans: Sequence[Span] = [key if mistake.at_key else value]
        if error.query and error.spans and path == mistake.path:
            start = self.text.find(error.query, value.start, value.end)
            if start >= 0:  # else the text has escapes, and the carets mark all of it
                spans = [Span(start + span.start, start + span.end) for span in error.spans]
        error.query, error.spans = self.text, tuple(spans)
        return f"line {error.line}: {error.render()}"


def refuse(mistakes: Sequence[Mistake], source: PlanSource) -> None:
    """Raise one error for all mistakes of a plan, which shows as many as there is room for; return if there are none.

    Raises:
        DataError: there is a mistake.
    """
    if mistakes:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        first = f"{source.name} has {count}, and nothing was written"
        raise DataError(listed(first, [source.show(mistake) for mistake in mistakes]))


def blamed(error: EnergyQLError, keys: Sequence[str], otherwise: str) -> str:
    """Return the key that the message of an error names first, or `otherwise` if it names no key."""
    match = re.compile(r"\b(?:" + "|".join(keys) + r")\b").search(error.message) if keys else None
    return match.group() if match else otherwise


def read_plan(path: Path) -> tuple[DatasetPlan, PlanSource]:
    """Read a plan from a TOML file; its queries are not parsed, its models not loaded.

    Returns:
        The plan, and its file for messages.

    Raises:
        DataError: the file cannot be read or is not a plan; the message shows the mistakes with their lines and carets.
    """
    try:
        text = read_bytes(path, MOST_BYTES, DataError).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8", hint="save it as text in UTF-8") from None
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_toml(path, text, error) from None
    source = PlanSource(str(path), text, _Places(text).spans)
    defaults = {name: data[name] for name in _DEFAULTS if name in data}
    mistakes = _unknown_keys((), data, (CLASS, *_WHOLE, *_DEFAULTS), "entry of a plan")
    entries = data.get(CLASS)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        empty = ArgumentError("a plan has no class", hint="write each as [[class]] with a name, a query and a count")
        refuse([*mistakes, Mistake((CLASS,), empty)], source)
    classes = [_read_class(number, entry, defaults, mistakes) for number, entry in enumerate(entries or [])]
    refuse(mistakes, source)
    whole = {name: data[name] for name in _WHOLE if name in data}
    try:
        return DatasetPlan(classes=[each for each in classes if each is not None], **whole), source
    except EnergyQLError as error:
        names = [entry["name"] for entry in entries or []]
        twice = next((k for k, name in enumerate(names) if name in names[:k]), None)
        place: Path_ = (blamed(error, list(whole), CLASS),)
        refuse([Mistake(place if twice is None else (CLASS, twice, "name"), error)], source)
        raise


def _read_class(
    number: int, entry: dict[str, Any], defaults: dict[str, Any], mistakes: list[Mistake]
) -> DatasetClass | None:
    """Return a class of a plan; `None` if it has mistakes, which are added to `mistakes`.

    Args:
        number: position of the class, from 0.
        entry: the table of the class.
        defaults: entries before all classes, for those that the class has not.
        mistakes: list that gets the mistakes.
    """
    place: Path_ = (CLASS, number)
    mistakes += _unknown_keys(place, entry, _OWN, "entry of a class")
    absent = [
        Mistake(place, ArgumentError(f"the class has no {name}", hint=f"add a line {name} = ..."))
        for name in ("name", "query", "count")
        if name not in entry
    ]
    mistakes += absent
    if absent:
        return None
    settings = {name: value for name, value in (defaults | entry).items() if name in SETTINGS}
    own = {name: entry.get(name, defaults.get(name)) for name in ("name", "query", "count", "seed", "model")}
    try:
        return DatasetClass(**{name: value for name, value in own.items() if value is not None}, settings=settings)
    except EnergyQLError as error:
        key = blamed(error, [*own, *settings], "query")
        mistakes.append(Mistake((key,) if key in defaults and key not in entry else (*place, key), error))
        return None


def _unknown_keys(place: Path_, table: Mapping[str, Any], vocabulary: Sequence[str], what: str) -> list[Mistake]:
    return [
        Mistake((*place, name), unknown(name, vocabulary, what), at_key=True)
        for name in table
        if name not in vocabulary
    ]


def _where(path: Path_) -> str:
    """Return a place in words, such as "class 3, query", for a plan without a text."""
    if path[:1] == (CLASS,) and len(path) > 1:
        return ", ".join([f"class {int(path[1]) + 1}", *map(str, path[2:])])
    return ", ".join(map(str, path)) or "the plan"


def _not_toml(path: Path, text: str, error: Exception) -> DataError:
    """Return the error for a text that is not TOML, with a caret at the place that the parser names."""
    message, hint = str(error), "see https://toml.io; a text stands in quotes, and each class begins with [[class]]"
    match = _DECODE_PLACE.search(message)
    if match is None:
        return DataError(f"{path} is not TOML: {message}", hint=hint)
    at = len(text)
    if match[1]:
        at = sum(len(line) + 1 for line in text.split("\n")[: int(match[1]) - 1]) + int(match[2]) - 1
    summary = f"{path}, line {match[1] or text.count(chr(10)) + 1}, is not TOML: {message[: match.start()]}"
    return DataError(summary, query=text, spans=[(at, at)], hint=hint)


@dataclass
class _Places:
    """The places of all keys and values in a text that is valid TOML.

    Attributes:
        at: position up to which the text is read.
        spans: path of an entry -> the spans of its key and of its value.
    """

    text: str
    at: int = 0
    spans: dict[Path_, tuple[Span, Span]] = field(default_factory=dict)
    _lengths: dict[Path_, int] = field(default_factory=dict)
    """Path of a list of tables -> number of its tables so far."""

    def __post_init__(self) -> None:
        table: Path_ = ()
        while self._skip():
            if not self.text.startswith("[", self.at):
                self._pair(table)
                continue
            start, many = self.at, self.text.startswith("[[", self.at)
            self.at += 1 + many
            table = self._resolved(keys := self._keys())
            if many:
                table = (*self._resolved(keys[:-1]), keys[-1])
                self._lengths[table] = length = self._lengths.get(table, 0) + 1
                table = (*table, length - 1)
            self._skip()
            self.at += 1 + many
            self.spans[table] = (Span(start, self.at), Span(start, self.at))

    def _skip(self) -> bool:
        """Skip blanks, line breaks and comments; return whether text is left."""
        blank = _BLANK.match(self.text, self.at)
        self.at = blank.end() if blank else self.at
        return self.at < len(self.text)

    def _resolved(self, keys: Path_) -> Path_:
        """Return the path of a table: after the key of a list of tables stands the position of its last table."""
        path: Path_ = ()
        for key in keys:
            path = (*path, key)
            if path in self._lengths:
                path = (*path, self._lengths[path] - 1)
        return path

    def _keys(self) -> Path_:
        """Read keys that are joined by dots."""
        keys: list[str | int] = []
        while True:
            self._skip()
            match = _STRING.match(self.text, self.at) or _NAME.match(self.text, self.at)
            assert match is not None, "the text is TOML"
            keys.append(tomllib.loads(f"key = {match[0]}")["key"] if match[0][0] in "\"'" else match[0])
            end = self.at = match.end()
            self._skip()
            if not self.text.startswith(".", self.at):
                self.at = end
                return tuple(keys)
            self.at += 1

    def _pair(self, table: Path_) -> None:
        """Read a key, the equals sign and the value in a table."""
        start = self.at
        path = (*table, *self._keys())
        key = Span(start, self.at)
        self._skip()
        self.at += 1  # the equals sign
        self.spans[path] = (key, self._value(path))

    def _value(self, path: Path_) -> Span:
        """Read the value of an entry, and return its span."""
        self._skip()
        start, sign = self.at, self.text[self.at]
        if sign in "[{":
            self.at += 1
            number = 0
            while self._skip() and self.text[self.at] not in "]}":
                if self.text[self.at] == ",":
                    self.at += 1
                elif sign == "{":
                    self._pair(path)
                else:
                    value = self._value((*path, number))
                    self.spans[*path, number] = (value, value)
                    number += 1
            self.at += 1
            return Span(start, self.at)
        match = _STRING.match(self.text, start) or _PLAIN.match(self.text, start)
        assert match is not None, "the text is TOML"
        self.at = match.end()
        return Span(start, start + len(match[0].rstrip()))
