"""The three kinds of attributes (yes/no, categorical, continuous), and all code that differs between kinds.

Other code uses `KINDS[spec.kind]` and does not compare names of kinds. What computes with tensors is in
`energyql.attributes.predictions`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, Literal, Protocol

from energyql.errors import DataError, either

Kind = Literal["yes/no", "categorical", "continuous"]
Cell = bool | str | tuple[float, float]
"""Some of the possible values of an attribute: True or False, one class, or all numbers in an interval (low, high)."""
CellSet = tuple[Cell, ...]
"""A set of values of one attribute, as the cells that it consists of."""

BARE, CLASSES, NUMBERS = "bare", "classes", "numbers"
"""Forms of a condition: the name of an attribute alone (`smile`), a comparison with classes (`hair = red`), or one with
numbers (`age > 60`)."""
MISSING = {"", "na", "n/a", "nan", "none", "null", "?"}
YES, NO = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}
TOLERANCE = 0.05
"""Default tolerance of `=` for a continuous attribute, as a fraction of the width of its range."""
MOST_CLASSES = 100
"""Most different texts in a column of labels from which a categorical attribute is inferred."""
ABSENT = ("absent", "none", "no")
"""Classes that mean that a thing is not in the picture. Where a query has only the name of a categorical attribute,
such as `hat`, the error suggests to exclude such a class: `hat != none`."""
THRESHOLD_DIGITS = 12
"""Thresholds that agree to this many digits count as equal: 0.7 + 0.05 and 0.75 differ in the last bit, and an interval
between them would only hold rounding error."""
_RANGE = re.compile(r"=(?P<low>[-+.\deE]+?)\.\.(?P<high>[-+.\deE]+)")


class Spec(Protocol):
    """What kinds need to know of an attribute; `energyql.vocabulary.AttributeSpec` has it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def values(self) -> tuple[str, ...]: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def tolerance(self) -> float: ...


class Labels:
    """How the values of one kind of attribute are written in a table of labels, and asked of people.

    An entry is what stands in one row of a column. This class is for attributes with classes.
    """

    def domain(self, spec: Spec) -> str:
        """The possible values in a header of a table of labels, after the name: "", "=red|brown" or "=0..100"."""
        return f"={'|'.join(spec.values)}"

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        """Fields of `AttributeSpec` that a text of `domain` states; `None` if it is of another kind."""
        return {"values": tuple(value.strip() for value in text[1:].split("|"))} if "|" in text else None

    def fits(self, entries: Sequence[Any]) -> bool:
        """Whether a column of labels, given by its entries that are not missing, may be of this kind."""
        return any(as_number(entry) is None for entry in entries)

    def infer(self, column: str, entries: Sequence[Any]) -> dict[str, Any]:
        """Infer the fields of `AttributeSpec` that only this kind has from the entries of a column of labels.

        Args:
            column: name of the column, for messages.
            entries: those that are not missing.

        Raises:
            DataError: an entry does not fit the kind, all entries are equal, or there are more than 100 classes.
        """
        values = sorted({as_text(entry) for entry in entries})
        _check_varied(column, values, values)
        if len(values) > MOST_CLASSES:
            hint = "a categorical attribute has a few classes; leave the column out if it is none"
            raise DataError(f"{column} has {len(values)} different texts, such as {values[0]!r}", hint=hint)
        return {"values": tuple(values)}

    def encoder(self, spec: Spec) -> Callable[[Any], float | None]:
        """Function from an entry of a table of labels to a number; `None` if the entry is no value of the attribute.

        The number is 0 or 1, the index of the class, or the value. The entry must not be missing.
        """
        numbers = {value: float(i) for i, value in enumerate(spec.values)}
        return lambda entry: numbers.get(as_text(entry))

    def expected(self, spec: Spec) -> str:
        """Which entries a table of labels may have, in words such as "one of red, brown"."""
        return f"one of {', '.join(spec.values)}"

    def label(self, entry: Any, spec: Spec) -> str | None:
        """An entry of a table of labels in standard spelling, such as "yes" for 1; `None` if it is no valid value."""
        number = self.encoder(spec)(entry)
        return None if number is None else KINDS[spec.kind].classes(spec)[int(number)]

    def asked(self, spec: Spec) -> str:
        """Which answers the labelling page accepts, in words such as "yes or no"."""
        return self.expected(spec)

    def answers(self, spec: Spec) -> list[tuple[str, str]]:
        """Buttons of the labelling page, as (answer, key), such as ("yes", "Y"); from the tenth on, the key is ""."""
        return [(value, str(i) if i < 10 else "") for i, value in enumerate(spec.values, 1)]


class _YesNoLabels(Labels):
    def domain(self, spec: Spec) -> str:
        return ""

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        return None if text else {}

    def fits(self, entries: Sequence[Any]) -> bool:
        return all(as_yes_no(entry) is not None for entry in entries)

    def infer(self, column: str, entries: Sequence[Any]) -> dict[str, Any]:
        return {}

    def encoder(self, spec: Spec) -> Callable[[Any], float | None]:
        return as_yes_no

    def expected(self, spec: Spec) -> str:
        return "0 or 1, true or false, yes or no"

    def asked(self, spec: Spec) -> str:
        return "yes or no"

    def answers(self, spec: Spec) -> list[tuple[str, str]]:
        return [("yes", "Y"), ("no", "N")]


class _NumberLabels(Labels):
    def domain(self, spec: Spec) -> str:
        low, high = (repr(bound).removesuffix(".0") for bound in (spec.low, spec.high))
        return f"={low}..{high}"

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        try:
            if bounds := _RANGE.fullmatch(text):
                low, high = float(bounds["low"]), float(bounds["high"])
                return {"low": low, "high": high, "tolerance": TOLERANCE * abs(high - low) or 1.0}
        except ValueError:
            pass
        return None

    def fits(self, entries: Sequence[Any]) -> bool:
        return all(as_number(entry) is not None for entry in entries)

    def infer(self, column: str, entries: Sequence[Any]) -> dict[str, Any]:
        numbers = [as_number(entry) for entry in entries]
        if None in numbers:
            first = entries[numbers.index(None)]
            hint = "name another kind: " + either('kinds={name: "categorical"}', "--kind name=categorical")
            raise DataError(f"{column}: {first!r} is not a number", hint=hint)
        values = sorted({number for number in numbers if number is not None})
        _check_varied(column, values, sorted(map(as_text, entries)))
        low, high = values[0], values[-1]
        return {"low": low, "high": high, "tolerance": TOLERANCE * (high - low)}

    def encoder(self, spec: Spec) -> Callable[[Any], float | None]:
        return as_number

    def expected(self, spec: Spec) -> str:
        return "a finite number"

    def label(self, entry: Any, spec: Spec) -> str | None:
        number = as_number(entry)
        return None if number is None or not spec.low <= number <= spec.high else f"{number:g}"

    def asked(self, spec: Spec) -> str:
        return f"a number{range_text(spec)}"


class Queries:
    """How queries ask about the values of one kind of attribute.

    A literal is a condition on one attribute, such as `hair = red`; `attribute` is `Attribute(spec.name)`, from which
    queries are built. This class is for attributes with classes.

    Attributes:
        forms: forms of the literals that are allowed: `BARE`, `CLASSES` or `NUMBERS`.
        offered: how many of the conditions of `instead` an error message shows.
    """

    forms: tuple[str, ...] = (CLASSES,)
    offered = 1

    def cells(self, literal: Any, spec: Spec) -> CellSet:
        """The values for which a literal is true: for `hair != red`, all classes except red."""
        return tuple(value for value in spec.values if (value in literal.values) != literal.negated)

    def partition(self, mentioned: Sequence[CellSet], spec: Spec) -> tuple[CellSet, ...]:
        """Split all possible values into as few disjoint sets as the literals of a query allow.

        Args:
            mentioned: for each literal about the attribute, the values for which it is true. Each is true for all
                values in a set of the result, or for none.
        """
        groups: dict[tuple[bool, ...], list[Cell]] = {}
        for value in KINDS[spec.kind].values(spec):
            groups.setdefault(tuple(value in cells for cells in mentioned), []).append(value)
        return tuple(map(tuple, groups.values()))

    def union(self, parts: Iterable[Cell], spec: Spec) -> CellSet:
        """Union of cells that do not overlap; equal sets give equal tuples, sorted and without touching intervals."""
        members = set(parts)
        return tuple(value for value in KINDS[spec.kind].values(spec) if value in members)

    def nature(self, spec: Spec) -> str:
        """Words that follow the attribute's name in the error about a wrong condition: "is yes or no"."""
        return f"has {len(spec.values)} values"

    def instead(self, attribute: Any, spec: Spec, literal: Any) -> list[Any]:
        """Conditions to suggest in place of a literal whose form is not allowed, such as `hair > 2`, the best first."""
        absent = [value for value in spec.values if value in ABSENT and literal.form == BARE]
        return [attribute.ne(value) for value in absent] + self.conditions(attribute, spec)

    def example(self, attribute: Any, spec: Spec) -> Any:
        """One query about the attribute, as an example for users."""
        return self.conditions(attribute, spec)[0]

    def conditions(self, attribute: Any, spec: Spec, shares: Sequence[float] = ()) -> list[Any]:
        """Queries that together ask for each value, one in each query.

        Args:
            shares: positions in the range of a continuous attribute, 0.5 in the middle, each of which gives a query.
        """
        return [attribute.eq(value) for value in spec.values]

    def excluding(self, attribute: Any, values: Sequence[Any]) -> Any:
        """Query that is false for some values of the attribute, and true for the others."""
        return ~attribute.is_in([str(value) for value in values])


class _YesNoQueries(Queries):
    forms, offered = (BARE,), 2

    def cells(self, literal: Any, spec: Spec) -> CellSet:
        return (True,)

    def nature(self, spec: Spec) -> str:
        return "is yes or no"

    def conditions(self, attribute: Any, spec: Spec, shares: Sequence[float] = ()) -> list[Any]:
        return [attribute, ~attribute]

    def excluding(self, attribute: Any, values: Sequence[Any]) -> Any:
        return ~attribute if True in values else attribute


class _NumberQueries(Queries):
    forms = (NUMBERS,)

    def cells(self, literal: Any, spec: Spec) -> CellSet:
        """The interval of values for which a literal is true, as a tuple of one pair; () if it is never true.

        A bound at or beyond an end of the attribute's range becomes infinite, because the normal distribution that a
        head predicts has no bounds: with a range of 0 to 1, `age >= 0` is always true, and `age IN [0, 0.4]` means `age
        < 0.4`.
        """
        low, high = (_threshold(bound, spec) for bound in literal.bounds(spec.tolerance))
        return ((low, high),) if low < high else ()

    def partition(self, mentioned: Sequence[CellSet], spec: Spec) -> tuple[CellSet, ...]:
        inner = {bound for cells in mentioned for cell in cells if isinstance(cell, tuple) for bound in cell}
        return tuple((cell,) for cell in pairwise(sorted(inner | {-math.inf, math.inf})))

    def union(self, parts: Iterable[Cell], spec: Spec) -> CellSet:
        merged: list[tuple[float, float]] = []
        for low, high in sorted(part for part in parts if isinstance(part, tuple)):
            if merged and merged[-1][1] == low:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return tuple(merged)

    def nature(self, spec: Spec) -> str:
        return f"is a number{range_text(spec)}"

    def instead(self, attribute: Any, spec: Spec, literal: Any) -> list[Any]:
        middle = round((spec.low + spec.high) / 2, 6)
        return [attribute > middle if literal.form == BARE else attribute.eq(middle)]

    def example(self, attribute: Any, spec: Spec) -> Any:
        return attribute > (spec.low + spec.high) / 2

    def conditions(self, attribute: Any, spec: Spec, shares: Sequence[float] = ()) -> list[Any]:
        return [attribute.eq(round(spec.low + share * (spec.high - spec.low), 6)) for share in shares]


class AttributeKind:
    """Everything that depends on the kind of an attribute, with one object for each of the three kinds.

    Its own methods say what the values are, and when two are the same. They do what is right for categorical
    attributes; subclasses replace some of them. In all methods, `spec` is the attribute.

    Attributes:
        labels: how values are written in a table of labels.
        queries: how queries ask about values.
        noun: words for the kind in messages, such as "a yes/no attribute".
        fields: fields of `AttributeSpec` that only attributes of this kind have.
        reverse: whether the drawing of a query's diagram shows the last value first, such as yes before no.
        numeric: whether values are numbers, and a prediction a mean and a standard deviation.
        measure: name of the score of a head.
        panel: right half of the picture that reports the quality of a head: "counts", "confusion" or "errors".
        column: type of a column of values in the index of a data set: "bool", "string" or "double".
        heading: heading of the column with values and descriptions in a list of attributes.
    """

    name: Kind
    noun: str
    labels = Labels()
    queries = Queries()
    fields: tuple[str, ...] = ()
    reverse = False
    numeric = False
    measure = "balanced accuracy"
    panel = "confusion"
    column = "string"
    heading = "values"

    def values(self, spec: Spec) -> tuple[bool | str, ...]:
        """The possible values, as queries and predictions have them: (False, True), or the classes; () for numbers."""
        return spec.values

    def classes(self, spec: Spec) -> tuple[str, ...]:
        """The names of the values in labels and reports: "no" and "yes", or the classes; () for numbers."""
        return spec.values

    def listed(self, spec: Spec) -> str:
        """The possible values as a text for people, such as "red, brown" or "0 to 100"; "" for yes/no."""
        return ", ".join(spec.values)

    def detail(self, spec: Spec) -> str:
        """What follows the attribute's name in the printed vocabulary: "yes/no", or its values."""
        return self.listed(spec) or self.name

    def columns(self, spec: Spec) -> list[str]:
        """Ends of the column names in a table of predictions: "", "=red" for each class, or ".mean" and ".std"."""
        return [f"={value}" for value in spec.values]

    def changed(self, before: Any, after: Any, spec: Spec) -> Any:
        """Whether each of n values changed, (n,) bool; a number must change by more than the tolerance."""
        return before != after

    def alike(self, one: Any, other: Any, spec: Spec) -> Any:
        """Whether the two values in each of n pairs are equal, (n,) bool.

        Numbers may differ by twice the tolerance, after those outside the range are set to its nearest end.
        """
        return one == other

    def bins(self, spec: Spec) -> list[tuple[str, bool | str]]:
        """Values whose frequencies an evaluation measures, with the text after the name, such as (" = red", "red")."""
        return [(f" = {value}", value) for value in spec.values]


class _YesNo(AttributeKind):
    name, noun, reverse = "yes/no", "a yes/no attribute", True
    labels, queries = _YesNoLabels(), _YesNoQueries()
    panel, column, heading = "counts", "bool", "meaning"

    def values(self, spec: Spec) -> tuple[bool | str, ...]:
        return False, True

    def classes(self, spec: Spec) -> tuple[str, ...]:
        return "no", "yes"

    def columns(self, spec: Spec) -> list[str]:
        return [""]

    def bins(self, spec: Spec) -> list[tuple[str, bool | str]]:
        return [("", True)]


class _Categorical(AttributeKind):
    name, noun, fields = "categorical", "a categorical attribute", ("values",)


class _Continuous(AttributeKind):
    name, noun, fields = "continuous", "a continuous attribute", ("low", "high", "tolerance")
    labels, queries = _NumberLabels(), _NumberQueries()
    numeric, measure, panel, column, heading = True, "R2", "errors", "double", "range"

    def listed(self, spec: Spec) -> str:
        return f"{spec.low:g} to {spec.high:g}"

    def detail(self, spec: Spec) -> str:
        return f"{self.listed(spec)}, = means +- {spec.tolerance:g}"

    def columns(self, spec: Spec) -> list[str]:
        return [".mean", ".std"]

    def changed(self, before: Any, after: Any, spec: Spec) -> Any:
        return abs(after - before) > spec.tolerance

    def alike(self, one: Any, other: Any, spec: Spec) -> Any:
        return abs(one.clip(spec.low, spec.high) - other.clip(spec.low, spec.high)) <= 2 * spec.tolerance


KINDS: dict[str, AttributeKind] = {kind.name: kind for kind in (_YesNo(), _Categorical(), _Continuous())}
"""Name of a kind -> its object."""


def range_text(spec: Spec) -> str:
    """Range of a continuous attribute, such as " from 0 to 100"; "" if only a table of predictions is known."""
    return "" if spec.high == sys.float_info.max else f" from {spec.low:g} to {spec.high:g}"


def is_missing(entry: Any) -> bool:
    """Whether an entry of a table has no value: `None`, NaN, an empty text, or a text such as "NA" or "?"."""
    if entry is None or (isinstance(entry, str) and entry.strip().lower() in MISSING):
        return True
    return isinstance(entry, float) and math.isnan(entry)


def lacks_value(entry: Any, spec: Spec) -> bool:
    """Whether a label is missing; a text such as "none" is not if a class of the attribute has this name."""
    return is_missing(entry) and not (isinstance(entry, str) and as_text(entry) in spec.values)


def as_yes_no(entry: Any) -> float | None:
    """1 for an entry of a table that means yes (True, 1, "yes"), 0 for no, `None` for any other."""
    if isinstance(entry, str):
        text = entry.strip().lower()
        entry = 1 if text in YES else 0 if text in NO else as_number(text)
    return float(entry) if isinstance(entry, Real) and entry in (0, 1) else None


def as_number(entry: Any) -> float | None:
    """An entry of a table, a number or a text, as a number; `None` if it is no number, or not finite."""
    try:
        number = float(entry.strip() if isinstance(entry, str) else entry)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_text(entry: Any) -> str:
    """An entry of a table as a text without blanks around it; a float has at most 6 digits, as in "2" for 2.0."""
    if isinstance(entry, str):
        return entry.strip()
    return f"{entry:g}" if isinstance(entry, float) else str(entry)


def _check_varied(column: str, values: Sequence[Any], texts: Sequence[str]) -> None:
    if len(values) < 2:
        hint = f"label pictures of another value too, or name the other columns: {either('only=[...]', '--only')}"
        raise DataError(f"{column}: all values are {texts[0]!r}, so there is nothing to learn", hint=hint)


def _threshold(value: float, spec: Spec) -> float:
    value = float(f"{value:.{THRESHOLD_DIGITS}g}") + 0.0  # + 0.0 turns -0.0 into 0.0
    if value <= spec.low:
        return -math.inf
    return math.inf if value >= spec.high else value
