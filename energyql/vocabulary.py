"""Vocabularies: the names, kinds and ranges of a model's attributes."""

from __future__ import annotations

import difflib
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn, TypeVar

from energyql.errors import EnergyQLError, UnknownAttribute, VocabularyError
from energyql.kinds import KINDS, as_number
from energyql.kinds import Kind as Kind

Value = TypeVar("Value")

FORMAT_VERSION = 1
"""Version of the dicts that `Vocabulary.to_dict` returns."""


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute of the pictures of a model, such as "smile" or "hair".

    Args:
        name: the name as it is written in queries; upper and lower case differ.
        kind: "yes/no", "categorical" or "continuous".
        values: the classes of a categorical attribute, in the order of its head's outputs; () for other kinds.
        low, high: the smallest and largest value of a continuous attribute; other kinds ignore them.
        tolerance: half width of the interval in which `name = x` is true, for a continuous attribute.
        description: one line of text for people, without control characters, which a terminal could react to.

    Raises:
        VocabularyError: a field has a wrong type or value, or one that an attribute of this kind cannot have.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    tolerance: float = 0.05
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", check_text(self.name, "the name of an attribute"))
        label = f"attribute {self.name!r}"
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            raise VocabularyError(f"{label}: kind is one of {', '.join(KINDS)}, not {self.kind!r}")
        if isinstance(self.values, str) or not isinstance(self.values, Iterable):
            raise VocabularyError(f"{label}: values must be a list of strings, not {self.values!r}")
        values = tuple(check_text(value, f"{label}: a value") for value in self.values)
        object.__setattr__(self, "values", values)
        noun, has_values = KINDS[self.kind].noun, "values" in KINDS[self.kind].fields
        if (twice := repeated(values)) is not None:
            raise VocabularyError(f"{label}: value {twice!r} is listed twice")
        if has_values and len(values) < 2:
            raise VocabularyError(f"{label}: {noun} needs at least two values, not {len(values)}")
        if values and not has_values:
            raise VocabularyError(f"{label}: {noun} has no values")
        for field in ("low", "high", "tolerance"):
            object.__setattr__(self, field, check_finite(getattr(self, field), f"{label}: {field}"))
        if self.low >= self.high:
            raise VocabularyError(f"{label}: low must be below high, not {self.low:g} and {self.high:g}")
        if self.tolerance <= 0:
            raise VocabularyError(f"{label}: tolerance must be greater than 0, not {self.tolerance:g}")
        check_text(self.description, f"{label}: description", may_be_empty=True)

    def to_dict(self) -> dict[str, Any]:
        """The attribute as a dict for JSON, without fields that its kind lacks and without an empty description."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for field in KINDS[self.kind].fields:
            value = getattr(self, field)
            data[field] = list(value) if isinstance(value, tuple) else value
        if self.description:
            data["description"] = self.description
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttributeSpec:
        """Make an attribute from a dict that `to_dict` returned.

        Raises:
            VocabularyError: a field is missing, unknown or wrong.
        """
        if not isinstance(data, Mapping):
            raise VocabularyError(f"an attribute must be an object with name and kind, not {data!r}")
        if missing := [field for field in ("name", "kind") if field not in data]:
            raise VocabularyError(f"an attribute has no {' and no '.join(missing)}: {dict(data)!r}")
        if unknown := [str(field) for field in data if field not in cls.__match_args__]:
            raise VocabularyError(f"attribute {data['name']!r}: unknown field {', '.join(unknown)}")
        return cls(**data)


class Vocabulary(Mapping[str, AttributeSpec]):
    """The attributes of one model by name, in a fixed order; immutable.

    Args:
        specs: the attributes.
        model: the model's name, for messages; may be empty.
        relations: queries that are true for every picture, such as "sunglasses IMPLIES glasses". They are parsed and
            checked when a query is compiled.
        reads_words: whether any text about pictures in quotes, such as "a person in a hat", is a yes/no attribute too,
            although it is not one of `specs`; see `energyql.attributes.words`.

    Raises:
        VocabularyError: two attributes have the same name, or a relation is no text.
    """

    __slots__ = ("_specs", "model", "reads_words", "relations")

    def __init__(
        self,
        specs: Iterable[AttributeSpec],
        *,
        model: str = "",
        relations: Iterable[str] = (),
        reads_words: bool = False,
    ) -> None:
        self.model = model
        self.reads_words = reads_words
        if isinstance(relations, str) or not isinstance(relations, Iterable):
            raise VocabularyError(f"relations must be a list of queries, not {relations!r}")
        self.relations = tuple(check_text(relation, "a relation") for relation in relations)
        specs = tuple(specs)
        if (name := repeated(spec.name for spec in specs)) is not None:
            raise VocabularyError(f"attribute {name!r} is defined twice")
        self._specs = {spec.name: spec for spec in specs}

    def __getitem__(self, name: str) -> AttributeSpec:
        if self.reads_words and name not in self._specs:
            return AttributeSpec(name, "yes/no")
        return self.listed(name)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def listed(self, name: str) -> AttributeSpec:
        """The attribute called `name`, one of `specs`; with `reads_words`, `vocabulary[name]` takes any text too.

        Raises:
            UnknownAttribute: no attribute has this name.
        """
        if name not in self._specs:
            raise unknown_name(name, self, f"is not an attribute of {self.of_model}")
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Vocabulary):
            return NotImplemented
        # The order counts: it is the order of the heads.
        mine, theirs = ((each.model, each.relations, list(each.values())) for each in (self, other))
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.model, self.relations, tuple(self.values())))

    def __repr__(self) -> str:
        rows = [f"Vocabulary of model {self.model!r}:" if self.model else "Vocabulary:"]
        width = max((len(name) for name in self), default=0)
        for spec in self.values():
            note = f"  # {spec.description}" if spec.description else ""
            rows.append(f"  {spec.name:{width}}  {KINDS[spec.kind].detail(spec)}{note}")
        rows += [f"  always: {relation}" for relation in self.relations]
        return "\n".join(rows)

    @property
    def of_model(self) -> str:
        """Words for the model in messages: "model 'avatars'", or "this model" if `model` is empty."""
        return f"model '{self.model}'" if self.model else "this model"

    def extended(self, specs: Iterable[AttributeSpec] = ()) -> Vocabulary:
        """A new vocabulary with the attributes `specs` added, in which `reads_words` is true."""
        return Vocabulary([*self.values(), *specs], model=self.model, relations=self.relations, reads_words=True)

    def suggest(self, name: str) -> str | None:
        """The attribute name that is most similar to `name`; `None` if none is similar."""
        return closest(name, self)

    def to_dict(self) -> dict[str, Any]:
        """The vocabulary as a dict for JSON, which `from_dict` reads; `reads_words` is left out."""
        attributes = [spec.to_dict() for spec in self.values()]
        data = {"version": FORMAT_VERSION, "model": self.model, "attributes": attributes}
        return data | {"relations": list(self.relations)} if self.relations else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Make a vocabulary from a dict that `to_dict` returned.

        Raises:
            VocabularyError: the version is unknown, or a field is missing or wrong.
        """
        if not isinstance(data, Mapping):
            raise VocabularyError(f"a vocabulary must be an object, not {type(data).__name__}")
        if (version := data.get("version")) != FORMAT_VERSION:
            raise VocabularyError(f"vocabulary version {version!r} is unknown; this energyql reads {FORMAT_VERSION}")
        if not isinstance(attributes := data.get("attributes"), list | tuple):
            raise VocabularyError("a vocabulary needs a list of attributes")
        model = check_text(data.get("model", ""), "the model of a vocabulary", may_be_empty=True)
        return cls(map(AttributeSpec.from_dict, attributes), model=model, relations=data.get("relations", ()))


class ByAttribute(dict[str, Value]):
    """A dict by attribute name that raises `UnknownAttribute` for a missing key; its hint is a similar key, or all."""

    def __missing__(self, name: object) -> NoReturn:
        raise unknown_name(name, self, "is none of the attributes here")


def unknown_name(name: object, names: Iterable[str], fault: str) -> UnknownAttribute:
    """Error about a name that is not among `names`, with a similar one, or all, as hint; the caller raises it.

    Args:
        fault: rest of the message after the unknown name, such as "is not an attribute of this model".
    """
    text, listed = str(name), ", ".join(names)
    near = closest(text, names)
    hint = f"did you mean {near}?" if near else f"attributes: {listed[:197]}{'...' if len(listed) > 197 else ''}"
    short = text if len(text) <= 40 else f"{text[:37]}..."
    return UnknownAttribute(f"'{short}' {fault}", hint=hint, names=[text])


def closest(name: str, names: Iterable[str]) -> str | None:
    """The most similar of `names`, compared without regard to case, blanks, `-` and `_`; `None` if none is similar."""
    plain: dict[str, str] = {}
    for candidate in names:
        plain.setdefault(_plain(candidate), candidate)
    matches = difflib.get_close_matches(_plain(name)[:200], plain, n=1, cutoff=0.6)
    return plain[matches[0]] if matches else None


def in_order(names: Collection[str], vocabulary: Mapping[str, AttributeSpec]) -> list[str]:
    """Attribute names in the order of a vocabulary; names that are not in it come last, sorted."""
    return [name for name in vocabulary if name in names] + sorted(name for name in names if name not in vocabulary)


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs more than once; `None` if all are different."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


def check_text(
    value: object, what: str, error: type[EnergyQLError] = VocabularyError, *, may_be_empty: bool = False
) -> str:
    """Check that a value is a text without control characters, and return it in Unicode's normal form NFC.

    Args:
        what: what the value is, for messages, such as "the name of an attribute".
        error: class of the error that is raised otherwise.
    """
    if not isinstance(value, str):
        raise error(f"{what} must be a string, not {value!r:.40}")
    if not value and not may_be_empty:
        raise error(f"{what} must not be empty")
    for character in value:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise error(f"{what} must not hold the control character U+{ord(character):04X}")
    return str(unicodedata.normalize("NFC", value))  # plain: a NumPy string is a str too


def check_finite(value: object, what: str, error: type[EnergyQLError] = VocabularyError) -> float:
    """Check that a value is a finite number, and no truth value, and return it as a float.

    Args:
        what: what the value is, for messages, such as "a bound".
        error: class of the error that is raised otherwise.
    """
    number = as_number(value) if isinstance(value, Real) and not isinstance(value, bool) else None
    if number is None:
        large = isinstance(value, int) and value.bit_length() > 10_000  # Python refuses to write so many digits
        shown = "a number that is too large" if large else f"{value!r:.40}"
        raise error(f"{what} must be a finite number, not {shown}")
    return number + 0.0  # one zero: -0.0 becomes 0.0
