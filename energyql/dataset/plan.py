"""Plans of data sets, and reading of plans from TOML files; error messages show the line of each mistake."""

from __future__ import annotations

import copy
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from energyql.dataset.settings import DatasetSettings
from energyql.errors import ArgumentError, DataError, EnergyQLError, Span, listed
from energyql.files import read_bytes
from energyql.language.lexical import check_name
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.settings import DrawSettings, settings_of, whole_number
from energyql.pipeline.source import ModelSource
from energyql.vocabulary import closest, repeated

if TYPE_CHECKING:
    from energyql.language import Expr
    from energyql.pipeline.model import Model

PictureFormat = Literal["png", "webp", "jpg"]
SETTINGS = settings_of("plan")
"""Names of the settings that a class may have, which are arguments of `energyql.generate`."""
MOST = 2**40
"""Largest number of pictures of a class."""
_RANGES = {"seed": (0, 2**64 - 1), "quality": (1, 100), "shard_size": (1, 100_000), "budget": (1, 100_000)}
"""Name of a whole number in a plan -> its smallest and its largest value."""


@dataclass(frozen=True, kw_only=True)
class DatasetClass:
    """One class of a data set: pictures that satisfy one query.

    Args:
        query: text, or an expression such as `E.smile`.
        count: number of pictures, 1 to 2**40.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        seed: 0 to 2**64 - 1; by default it is computed from the seed of the plan and the name of the class.
        settings: further arguments of `energyql.generate`, such as {"truncation": 0.7}; `SETTINGS` lists the possible
            names.

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
        object.__setattr__(self, "count", whole_number("count", self.count, most=MOST))
        object.__setattr__(self, "settings", dict(self.settings))
        for name in self.settings:
            if name not in SETTINGS:
                raise unknown(name, SETTINGS, "setting of a class")
        self.draw_settings(0 if self.seed is None else self.seed)

    def draw_settings(self, seed: int) -> DrawSettings:
        """Settings with which samples of the class are drawn from `seed`."""
        return DrawSettings(**self.settings, seed=seed)


@dataclass(frozen=True, kw_only=True)
class DatasetPlan:
    """The classes and the format of a data set that `energyql.write_dataset` writes.

    Args:
        classes: at least one, with different names.
        seed: 0 to 2**64 - 1; the seed of each class that has none follows from it. The random numbers of sample i of a
            class depend only on the seed of the class and on i.
        format: file format of the pictures.
        quality: quality of "webp" and "jpg", 1 to 100.
        shard_size: most pictures in a shard, 1 to 100,000. Every class is divided evenly among all shards, so a shard
            may have a few pictures more.
        only_satisfied: whether to keep only pictures that satisfy their query, according to the judge of the model.
        budget: with `only_satisfied`, most samples that are drawn for each picture, 1 to 100,000, on average over the
            pictures of one class in one shard.

    Raises:
        ArgumentError: a value has the wrong type or is out of range, there is no class, or two classes have one name.
    """

    classes: Sequence[DatasetClass]
    seed: int = 0
    format: PictureFormat = "png"
    quality: int = 92
    shard_size: int = 1000
    only_satisfied: bool = False
    budget: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        if not self.classes:
            raise ArgumentError("a plan needs at least one class")
        if (name := repeated([each.name for each in self.classes])) is not None:
            raise ArgumentError(f"two classes have the name {name!r}", hint="give each class a name of its own")
        for name, (least, most) in _RANGES.items():
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least=least, most=most))
        if self.format not in (formats := get_args(PictureFormat)):
            raise ArgumentError(f"there is no format {self.format!r}", hint=f"choose {', '.join(formats)}")
        if not isinstance(self.only_satisfied, bool):
            raise ArgumentError(f"only_satisfied must be true or false, not {self.only_satisfied!r}")

    @property
    def count(self) -> int:
        """Number of pictures of all classes."""
        return sum(each.count for each in self.classes)

    @property
    def shards(self) -> int:
        """Number of shards, the tar archives among which the pictures are divided."""
        return -(-self.count // self.shard_size)

    def seed_of(self, one: DatasetClass) -> int:
        """Return the seed of a class: its own, or a number below 2**48 from the plan's seed and the class's name.

        So two classes do not share random numbers, and adding a class changes no other class.
        """
        if one.seed is not None:
            return one.seed
        return int.from_bytes(hashlib.sha256(f"{self.seed}\n{one.name}".encode()).digest()[:6], "big")

    def positions(self, one: DatasetClass, shard: int) -> range:
        """Return the numbers of the pictures of a class that belong to a shard, out of 0 to `one.count` - 1.

        Each shard (numbered from 0) gets consecutive numbers, and the counts of two shards differ by at most one.
        """
        start, end = (number * one.count // self.shards for number in (shard, shard + 1))
        return range(start, end)

    def candidates(self, one: DatasetClass, shard: int) -> range:
        """Return the numbers of the samples of a class that may be drawn for a shard (numbered from 0).

        There are `budget` for each picture with `only_satisfied`, else one. No sample belongs to two shards.
        """
        positions, each = self.positions(one, shard), self.budget if self.only_satisfied else 1
        return range(positions.start * each, positions.stop * each)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A plan with all that is needed to carry it out.

    Attributes:
        plan: what is drawn.
        out: where it is written: a folder, or an address.
        settings: how it is drawn; the plan has their `only_satisfied` and `budget` already.
        source: code for the models of all classes; its `model` is not used.
    """

    plan: DatasetPlan
    out: str | Path
    settings: DatasetSettings = field(default_factory=DatasetSettings)
    source: ModelSource = field(default_factory=ModelSource)


def unknown(name: object, vocabulary: Sequence[str], what: str) -> ArgumentError:
    """Error for an unknown name; its hint is the most similar possible name, else all possible names.

    Args:
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
"""Keys that may be in a class, or above all classes, as the defaults of every class."""
_OWN = ("name", "query", "count", "seed", *_DEFAULTS)
"""All keys that a class may have."""
WHOLE = tuple(each.name for each in fields(DatasetPlan) if each.name != "classes")
"""Keys of the whole plan, which stand above all classes."""
_TEXT = (
    r"""\"{3}(?:[^"\\]+|\\.|"{1,2}(?!"))*"{3,5}(?!")|'{3}.*?'{3,5}(?!')"""
    r"""|(?!"{3})"(?:[^"\\\n]|\\.)*"|(?!'{3})'[^'\n]*'"""
)
_PIECE = re.compile(rf"""{_TEXT}|[][{{}}\n]|\#[^\n]*|[^][{{}}\#"'\n]+""", re.DOTALL)
"""Part of a value: a text, a bracket, a comment, the end of a line, or anything between these."""
_NAME = r"""(?:[\w-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')"""
_KEY = rf"{_NAME}(?:[ \t]*\.[ \t]*{_NAME})*"
_HEADER = rf"\[[ \t]*{_KEY}[ \t]*\]|\[\[[ \t]*{_KEY}[ \t]*\]\]"
_LINE = re.compile(rf"[ \t]*(?:({_HEADER})|({_KEY})[ \t]*=[ \t]*)")
"""Header of a table, or key of an entry up to its value."""
_DECODE_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
Path_ = tuple[str | int, ...]
"""Keys and positions that lead to a value in a plan: ("seed",), or ("class", 2, "query") in the third class."""


@dataclass(frozen=True)
class Mistake:
    """One mistake in a plan, at the entry or table `path`.

    Args:
        at_key: whether the last key of `path` is wrong, and not its value.
    """

    path: Path_
    error: EnergyQLError
    at_key: bool = False


@dataclass(frozen=True)
class PlanSource:
    """Name and content of the file of a plan, so that messages can show the wrong lines.

    Args:
        text: content of the file; `None` for a plan that was made in Python.
    """

    name: str = "the plan"
    text: str | None = None

    @cached_property
    def places(self) -> Mapping[Path_, tuple[Span, Span]]:
        """Path of each table and entry -> spans of its key and of its value in the text, as character offsets."""
        return {} if self.text is None else _locate(self.text)

    def show(self, mistake: Mistake) -> str:
        """Message about a mistake, with the wrong lines of the file and carets under the wrong part.

        For a plan that was made in Python, it begins with the place in words, such as "class 3, query".
        """
        path, error = mistake.path, copy.copy(mistake.error)
        place = ", ".join([f"class {int(path[1]) + 1}", *map(str, path[2:])]) if path[1:] else ""
        if self.text is None:
            return f"{place}: {error.quoted()}"
        own = path
        while path and path not in self.places:
            path = path[:-1]
        key, value = self.places.get(path, (Span(0, 0), Span(0, 0)))
        spans: Sequence[Span] = [key if mistake.at_key else value]
        if error.query and error.spans and path == own:
            start = self.text.find(error.query, value.start, value.end)
            if start >= 0:  # else the text has escapes, and the carets mark all of it
                spans = [Span(start + span.start, start + span.end) for span in error.spans]
        error.query, error.spans = self.text, tuple(spans)
        more = "" if path == own or not place else f", {place}"
        return f"line {error.line}{more}: {error.quoted()}"


def refuse(mistakes: Sequence[Mistake], source: PlanSource) -> None:
    """Raise one `DataError` that shows the mistakes of a plan, as many as there is room for, if there are any."""
    if mistakes:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        first = f"{source.name} has {count}, and nothing was written"
        raise DataError(listed(first, [source.show(mistake) for mistake in mistakes]))


def blamed(error: EnergyQLError, keys: Sequence[str], otherwise: str) -> str:
    """Key of a plan that an error is about: the first of `keys` in the error's message, else `otherwise`."""
    match = re.search(rf"\b(?:{'|'.join(keys)})\b", error.message)
    return (match and match[0]) or otherwise


def read_plan(path: Path) -> tuple[DatasetPlan, PlanSource]:
    """Read a plan from a TOML file, without parsing the queries or loading the models.

    Returns:
        The plan; and name and content of the file, for messages about mistakes that are found later.

    Raises:
        DataError: the file cannot be read or is not a plan; the message shows the mistakes with their lines and carets.
    """
    try:
        text = read_bytes(path, MOST_BYTES, DataError).decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8") from None
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _not_toml(path, text, error) from None
    source = PlanSource(str(path), text)
    mistakes = _unknown_entries((), data, (CLASS, *WHOLE, *_DEFAULTS), "entry of a plan")
    entries = data.pop(CLASS, None)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        empty = ArgumentError("a plan has no class", hint="write each as [[class]] with a name, a query and a count")
        entries, mistakes = [], [*mistakes, Mistake((CLASS,), empty)]
    classes = [one for number, entry in enumerate(entries) if (one := _read_class(number, entry, data, mistakes))]
    refuse(mistakes, source)
    whole = {name: value for name, value in data.items() if name in WHOLE}
    try:
        return DatasetPlan(classes=classes, **whole), source
    except EnergyQLError as error:
        place: Path_ = (blamed(error, [*whole, CLASS], CLASS),)
        names = [one.name for one in classes]
        if (name := repeated(names)) is not None:
            place = (CLASS, names.index(name, names.index(name) + 1), "name")
        refuse([Mistake(place, error)], source)
        raise


def _read_class(
    number: int, entry: dict[str, Any], before: dict[str, Any], mistakes: list[Mistake]
) -> DatasetClass | None:
    """Make a class from its table and the defaults in `before`; if that fails, add to `mistakes` and return `None`."""
    place: Path_ = (CLASS, number)
    mistakes += _unknown_entries(place, entry, _OWN, "entry of a class")
    absent = [name for name in ("name", "query", "count") if name not in entry]
    for name in absent:
        mistakes += [Mistake(place, ArgumentError(f"the class has no {name}", hint=f"add a line {name} = ..."))]
    if absent:
        return None
    values = {name: value for name, value in before.items() if name in _DEFAULTS} | entry
    own = {name: values[name] for name in _OWN if name in values and name not in SETTINGS}
    settings = {name: values[name] for name in SETTINGS if name in values}
    try:
        return DatasetClass(**own, settings=settings)
    except EnergyQLError as error:
        key = blamed(error, [*own, *settings], "query")
        mistakes.append(Mistake((*place, key) if key in entry else (key,), error))
        return None


def _unknown_entries(place: Path_, table: dict[str, Any], vocabulary: Sequence[str], what: str) -> list[Mistake]:
    """Return mistakes about the keys of a table of the plan that are not in `vocabulary`."""
    names = [name for name in table if name not in vocabulary]
    return [Mistake((*place, name), unknown(name, vocabulary, what), at_key=True) for name in names]


def _not_toml(path: Path, text: str, error: Exception) -> DataError:
    """Error for a plan that is not TOML, with a caret at the place that the message of the parser names."""
    message, hint = str(error), "see https://toml.io; a text stands in quotes, and each class begins with [[class]]"
    match = _DECODE_PLACE.search(message)
    if match is None:
        return DataError(f"{path} is not TOML: {message}", hint=hint)
    at = len(text)
    if match[1]:
        at = sum(len(line) + 1 for line in text.split("\n")[: int(match[1]) - 1]) + int(match[2]) - 1
    line = match[1] or text.count("\n") + 1
    summary = f"{path}, line {line}, is not TOML: {message[: match.start()]}"
    return DataError(summary, query=text, spans=[(at, at)], hint=hint)


def _locate(text: str) -> dict[Path_, tuple[Span, Span]]:
    """Spans of key and value of the tables and entries in a valid TOML text; for a table, both are its header.

    Entries inside a value, such as {a = 1}, are left out.
    """
    places: dict[Path_, tuple[Span, Span]] = {}
    lengths = Counter[Path_]()  # number of tables so far, by the path of their list
    table: Path_ = ()
    line = 0
    while line < len(text):
        end = line
        if match := _LINE.match(text, line):
            header, key = match.groups()
            end = match.end() if header else _end_of_value(text, match.end())
            path = () if header else table
            data = tomllib.loads(header or f"{key} = 0")  # nested as the names in the key
            while isinstance(data, dict) and data:
                ((name, data),) = data.items()
                path = (*path, name)
                if header and (data == [{}] or path in lengths):
                    lengths[path] += data == [{}]
                    path = (*path, lengths[path] - 1)
            if header:
                table = path
            spans = Span(*match.span(1 if header else 2)), Span(match.start(1) if header else match.end(), end)
            for length in range(1, len(path) + 1):
                places.setdefault(path[:length], spans)
        line = text.find("\n", end) + 1 or len(text)
    return places


def _end_of_value(text: str, start: int) -> int:
    """Offset of the end of the value, possibly of several lines, that begins at `start` in a valid TOML text."""
    depth, end, at = 0, start, start
    while (piece := _PIECE.match(text, at)) and (depth or piece[0][0] not in "#\n"):
        depth += (piece[0] in "[{") - (piece[0] in "]}")
        at = piece.end()
        if piece[0][0] != "#" and (content := piece[0].rstrip()):
            end = piece.start() + len(content)
    return end
