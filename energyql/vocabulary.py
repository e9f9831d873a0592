"""Vocabularies: the names, kinds and ranges of a model's attributes."""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NoReturn, TypeVar

from energyql.errors import UnknownAttribute, VocabularyError
from energyql.kinds import KINDS
from energyql.kinds import Kind as Kind

Value = TypeVar("Value")

FORMAT_VERSION = 1
"""Version of the JSON shape that `Vocabulary.to_dict` writes."""


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute.

    Args:
        name: as written in queries, case-sensitive.
        kind: "yes/no", "categorical" or "continuous".
        values: the classes of a categorical attribute, in the order of its head's logits.
        low, high: the range of a continuous attribute.
        tolerance: of a continuous attribute: `=` holds within this distance.
        description: one line of text, without control characters, which would command a terminal.

    Raises:
        VocabularyError: a field does not fit the others.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    tolerance: float = 0.05
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", _text(self.name, "the name of an attribute"))
        label = f"attribute {self.name!r}"
        if not isinstance(self.kind, str) or self.kind not in KINDS:
            *others, last = (f'"{name}"' for name in KINDS)
            raise VocabularyError(f"{label}: kind is {', '.join(others)} or {last}, not {self.kind!r}")
        if isinstance(self.values, str) or not isinstance(self.values, Iterable):
            raise VocabularyError(f"{label}: values must be a list of strings, not {self.values!r}")
        values = tuple(_text(value, f"{label}: a value") for value in self.values)
        object.__setattr__(self, "values", values)
        if "values" in KINDS[self.kind].fields:
            if (twice := repeated(values)) is not None:
                raise VocabularyError(f"{label}: value {twice!r} is listed twice")
            if len(values) < 2:
                noun = KINDS[self.kind].noun
                raise VocabularyError(f"{label}: {noun} needs at least two values, not {len(values)}")
        elif values:
            nouns = [kind.noun for kind in KINDS.values() if "values" in kind.fields]
            raise VocabularyError(f"{label}: only {' or '.join(nouns)} has values")
        for field in ("low", "high", "tolerance"):
            object.__setattr__(self, field, _number(getattr(self, field), f"{label}: {field}"))
        if self.low >= self.high:
            raise VocabularyError(f"{label}: low must be below high, not {self.low:g} and {self.high:g}")
        if self.tolerance <= 0:
            raise VocabularyError(f"{label}: tolerance must be greater than 0, not {self.tolerance:g}")
        if not isinstance(self.description, str):
            raise VocabularyError(f"{label}: description must be a string, not {self.description!r}")
        _check_characters(self.description, f"{label}: description")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of this kind as JSON values, for `from_dict`."""
        data: dict[str, Any] = {"name": self.name, "kind": self.kind}
        for field in KINDS[self.kind].fields:
            value = getattr(self, field)
            data[field] = list(value) if isinstance(value, tuple) else value
        if self.description:
            data["description"] = self.description
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> AttributeSpec:
        """Read an attribute from the values of `to_dict`.

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
        model: the model's name, for messages.
        relations: queries that hold in every picture, such as "sunglasses IMPLIES glasses"; parsed when a query needs
            them, see `energyql.logic.diagram`.

    Raises:
        VocabularyError: two attributes have one name, or a relation is no text.
    """

    __slots__ = ("_specs", "model", "relations")

    def __init__(self, specs: Iterable[AttributeSpec], *, model: str = "", relations: Iterable[str] = ()) -> None:
        self.model = model
        if not isinstance(specs, Iterable):
            raise VocabularyError(f"a vocabulary is made of several AttributeSpec, not {specs!r}")
        if isinstance(relations, str) or not isinstance(relations, Iterable):
            raise VocabularyError(f"relations must be a list of queries, not {relations!r}")
        self.relations = tuple(_text(relation, "a relation") for relation in relations)
        self._specs: dict[str, AttributeSpec] = {}
        for spec in specs:
            if not isinstance(spec, AttributeSpec):
                raise VocabularyError(f"a vocabulary is made of AttributeSpec, not {spec!r}")
            if spec.name in self._specs:
                raise VocabularyError(f"attribute {spec.name!r} is defined twice")
            self._specs[spec.name] = spec

    def __getitem__(self, name: str) -> AttributeSpec:
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
        """The model in the words of a message: "model 'avatars'", or "this model" where no name is known."""
        return f"model '{self.model}'" if self.model else "this model"

    def suggest(self, name: str) -> str | None:
        """Return the attribute with the most similar name, or None."""
        return closest(name, self)

    def to_dict(self) -> dict[str, Any]:
        """Return the vocabulary as JSON values, for `from_dict`."""
        data = {
            "version": FORMAT_VERSION,
            "model": self.model,
            "attributes": [spec.to_dict() for spec in self.values()],
        }
        return data | {"relations": list(self.relations)} if self.relations else data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Vocabulary:
        """Read a vocabulary from the values of `to_dict`.

        Raises:
            VocabularyError: the version is unknown, or a field is missing or wrong.
        """
        if not isinstance(data, Mapping):
            raise VocabularyError(f"a vocabulary must be an object, not {type(data).__name__}")
        version = data.get("version")
        if version != FORMAT_VERSION:
            raise VocabularyError(
                f"vocabulary version {version!r} is unknown: this energyql reads version {FORMAT_VERSION}",
                hint="a newer energyql may read it" if isinstance(version, int) and version > FORMAT_VERSION else None,
            )
        attributes, model = data.get("attributes"), data.get("model", "")
        if isinstance(attributes, (str, Mapping)) or not isinstance(attributes, Iterable):
            raise VocabularyError("a vocabulary needs a list of attributes")
        if not isinstance(model, str):
            raise VocabularyError(f"the model of a vocabulary must be a string, not {model!r}")
        _check_characters(model, "the model of a vocabulary")
        specs = (AttributeSpec.from_dict(entry) for entry in attributes)
        return cls(specs, model=model, relations=data.get("relations", ()))


class ByAttribute(dict[str, Value]):
    """A dict by attribute that names the attributes which it has where it lacks one."""

    def __missing__(self, name: object) -> NoReturn:
        raise unknown_name(name, self, "is none of the attributes here")


def unknown_name(name: object, known: Iterable[str], fault: str) -> UnknownAttribute:
    """Return the error of a name that is none of the `known` attributes; `fault` says so, after the name."""
    text, names = str(name), ", ".join(known)
    near = closest(text, known)
    hint = f"did you mean {near}?" if near else f"attributes: {names[:197]}{'...' if len(names) > 197 else ''}"
    shown = text if len(text) <= 40 else f"{text[:37]}..."
    return UnknownAttribute(f"'{shown}' {fault}", hint=hint, names=[text])


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the most similar of the `known` names, ignoring case, blanks, `-` and `_`; None if none is similar."""
    plain: dict[str, str] = {}
    for candidate in known:
        plain.setdefault(_plain(candidate), candidate)
    matches = difflib.get_close_matches(_plain(name)[:200], plain, n=1, cutoff=0.6)
    return plain[matches[0]] if matches else None


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that has occurred before it; `None` if all are different."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _plain(name: str) -> str:
    return name.casefold().replace(" ", "").replace("_", "").replace("-", "")


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value:
        raise VocabularyError(f"{what} must be a string that is not empty, not {value!r}")
    # The same rule as for names in queries: a name that no query can spell would be a dead attribute.
    _check_characters(value, what)
    return str(unicodedata.normalize("NFC", value))


def _check_characters(text: str, what: str) -> None:
    for character in text:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise VocabularyError(f"{what} must not hold the control character U+{ord(character):04X}: {text!r}")


def _number(value: object, what: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
    except OverflowError:  # a whole number or a fraction beyond every float
        raise VocabularyError(f"{what} is too large a number") from None
    if not math.isfinite(number):
        raise VocabularyError(f"{what} must be a finite number, not {value!r}")
    return number + 0.0
