"""The three kinds of attributes (yes/no, categorical, continuous), and all code that differs between kinds.

Other code uses the object of a kind, `KINDS[spec.kind]`, and does not compare names of kinds. Only code that computes
with tensors is elsewhere, in `energyql.attributes.predictions`.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

from energyql.errors import DataError

if TYPE_CHECKING:
    from energyql.vocabulary import AttributeSpec

Kind = Literal["yes/no", "categorical", "continuous"]
Cell = bool | str | tuple[float, float]
"""Some of the possible values of an attribute: True or False, one class, or all numbers in an interval (low, high)."""
CellSet = tuple[Cell, ...]
"""A set of values of one attribute, given by cells: single values such as True or "red", or intervals (low, high). It
has every value that is in one of the cells."""

BARE, CLASSES, NUMBERS = "bare", "classes", "numbers"
"""Forms of a condition: the name of an attribute alone (`smile`), a comparison with classes (`hair = red`), or one with
numbers (`age > 60`)."""
MISSING = {"", "na", "n/a", "nan", "none", "null", "?"}
YES, NO = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}
TOLERANCE = 0.05
"""Default tolerance of `=` for a continuous attribute, as a fraction of the width of the attribute's range."""
MOST_CLASSES = 100
"""Largest number of different texts in a column of labels from which a categorical attribute is inferred."""
ABSENT = ("absent", "none", "no")
"""Classes that mean that a thing is not in the picture. If a query has only the name of a categorical attribute, such
as `hat`, the error message suggests a condition that excludes such a class: `hat != none`."""
THRESHOLD_DIGITS = 12
"""Thresholds that agree to this many digits count as equal: 0.7 + 0.05 and 0.75 differ in the last bit, and an interval
between them would only hold rounding error."""
_RANGE = re.compile(r"=(?P<low>[-+.\deE]+?)\.\.(?P<high>[-+.\deE]+)")


class AttributeKind:
    """Everything that depends on the kind of an attribute. There is one object for each of the three kinds.

    The methods of this class do what is right for categorical attributes. Subclasses replace some of the methods.

    In all methods, the argument `spec` is the attribute, and `attribute` is `Attribute(spec.name)`, from which queries
    are built. A literal is a condition on one attribute, such as `hair = red`: a predicate of `energyql.language`. In
    `fits`, `infer`, `encoder`, `expected` and `label`, a cell is an entry of a table of labels. In `cells`, `partition`
    and `union`, a cell is a `Cell`: some of the possible values of an attribute.

    Attributes:
        name: name of the kind: "yes/no", "categorical" or "continuous".
        noun: words for the kind in messages, such as "a yes/no attribute".
        fields: fields of `AttributeSpec` that only attributes of this kind have.
        forms: forms of the literals that are allowed: `BARE`, `CLASSES` or `NUMBERS`.
        offered: how many of the literals that `instead` returns are shown in an error message.
        reverse: whether the drawing of a query's diagram shows the last value first, such as yes before no.
        numeric: whether values are numbers. A prediction is then a mean and a standard deviation.
        measure: name of the score by which the quality of a head is measured.
        panel: right half of the picture that reports the quality of a head: "counts", "confusion" or "errors".
        column: type of a column of values in the index of a data set: "bool", "string" or "double".
        heading: heading, in a list of a model's attributes, of the column with their values and descriptions.
    """

    name: Kind
    noun: str
    fields: tuple[str, ...] = ()
    forms: tuple[str, ...] = (CLASSES,)
    offered = 1
    reverse = False
    numeric = False
    measure = "balanced accuracy"
    panel = "confusion"
    column = "string"
    heading = "values"

    def values(self, spec: AttributeSpec) -> tuple[bool | str, ...]:
        """Return the possible values of an attribute: (False, True), or the classes in the order of the vocabulary.

        The tuple is empty for a continuous attribute.
        """
        return spec.values

    def classes(self, spec: AttributeSpec) -> tuple[str, ...]:
        """Return the names that the values have in labels and reports: "no" and "yes", or the names of the classes.

        The tuple is empty for a continuous attribute.
        """
        return spec.values

    def listed(self, spec: AttributeSpec) -> str:
        """Return the possible values as a text for people, such as "red, brown" or "0 to 100"; "" for yes/no."""
        return ", ".join(spec.values)

    def detail(self, spec: AttributeSpec) -> str:
        """Return the text that follows the name of an attribute in the printed vocabulary: "yes/no", or its values."""
        return self.listed(spec) or self.name

    def domain(self, spec: AttributeSpec) -> str:
        """Return the text that follows the name of an attribute in the header of a table of labels.

        It states the possible values: "" (yes/no), "=red|brown" or "=0..100". `parse_domain` reads it.
        """
        return f"={'|'.join(spec.values)}"

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        """Read a text such as "=red|brown" in the header of a table of labels, which states the possible values.

        Returns:
            Fields of `AttributeSpec` and their values, such as `values` or `low` and `high`. `None` if the text states
            the values of an attribute of another kind.
        """
        return {"values": tuple(value.strip() for value in text[1:].split("|"))} if "|" in text else None

    def fits(self, cells: Sequence[Any]) -> bool:
        """Return whether a column of labels may be of this kind, for a column whose kind the user does not state.

        `cells` are the entries of the column that are not missing.
        """
        return any(as_number(cell) is None for cell in cells)

    def infer(self, column: str, cells: Sequence[Any]) -> dict[str, Any]:
        """Infer the description of an attribute from a column of labels.

        The result has fields of `AttributeSpec` and their values: `values`, or `low`, `high` and `tolerance`. It is {}
        for a yes/no attribute.

        Args:
            column: name of the column, for messages.
            cells: the entries of the column that are not missing.

        Raises:
            DataError: a cell does not fit the kind, or all cells are equal, or there are more than 100 classes.
        """
        values = sorted({as_text(cell) for cell in cells})
        _check_varied(column, values, values)
        if len(values) > MOST_CLASSES:
            hint = "a categorical attribute has a few classes; leave the column out if it is none"
            raise DataError(f"{column} has {len(values)} different texts, such as {values[0]!r}", hint=hint)
        return {"values": tuple(values)}

    def encoder(self, spec: AttributeSpec) -> Callable[[Any], float | None]:
        """Return a function that turns an entry of a table of labels into a number.

        For a yes/no attribute the number is 0 or 1, for a categorical attribute the index of the class, and for a
        continuous attribute its value. The function returns `None` if the entry is no value of the attribute. It must
        not be called with a missing entry.
        """
        numbers = {value: float(i) for i, value in enumerate(spec.values)}
        return lambda cell: numbers.get(as_text(cell))

    def expected(self, spec: AttributeSpec) -> str:
        """Return which entries a table of labels may have, as words for messages, such as "one of red, brown"."""
        return f"one of {', '.join(spec.values)}"

    def label(self, cell: Any, spec: AttributeSpec) -> str | None:
        """Return an entry of a table of labels in standard spelling, such as "yes" for 1 or "true".

        `None` is returned if the entry is no value of the attribute, or is outside its range.

        Args:
            cell: the entry, which is not missing.
            spec: the attribute.
        """
        number = self.encoder(spec)(cell)
        return None if number is None else self.classes(spec)[int(number)]

    def asked(self, spec: AttributeSpec) -> str:
        """Return which answers the labelling page accepts, as words for messages, such as "yes or no"."""
        return self.expected(spec)

    def answers(self, spec: AttributeSpec) -> list[tuple[str, str]]:
        """Return the buttons of the labelling page as pairs (answer, key of the keyboard), such as ("yes", "Y").

        From the tenth button on, the key is "". For a continuous attribute there are no buttons.
        """
        return [(value, str(i) if i < 10 else "") for i, value in enumerate(spec.values, 1)]

    def columns(self, spec: AttributeSpec) -> list[str]:
        """Return the ends of the headers that the attribute's columns have in a table of predictions.

        They are "" (yes/no), "=red" for each class, or ".mean" and ".std".
        """
        return [f"={value}" for value in spec.values]

    def cells(self, literal: Any, spec: AttributeSpec) -> CellSet:
        """Return the values of an attribute for which a condition is true: for `hair != red`, all classes except red.

        Args:
            literal: a condition on the attribute.
            spec: the attribute.
        """
        return tuple(value for value in spec.values if (value in literal.values) != literal.negated)

    def partition(self, mentioned: Sequence[CellSet], spec: AttributeSpec) -> tuple[CellSet, ...]:
        """Split all possible values of an attribute into disjoint sets, as few as the conditions of a query allow.

        Args:
            mentioned: for each literal of the query about the attribute, the values for which it is true. Within a set
                of the result, a literal is true for all values or for none.
            spec: the attribute.
        """
        groups: dict[tuple[bool, ...], list[Cell]] = {}
        for value in self.values(spec):
            groups.setdefault(tuple(value in cells for cells in mentioned), []).append(value)
        return tuple(map(tuple, groups.values()))

    def union(self, parts: Iterable[Cell], spec: AttributeSpec) -> CellSet:
        """Return the union of cells as a sorted tuple of cells, in which intervals that touch are merged.

        Two unions that contain the same values give equal tuples.

        Args:
            parts: cells of the attribute that do not overlap.
            spec: the attribute.
        """
        members = set(parts)
        return tuple(value for value in self.values(spec) if value in members)

    def nature(self, spec: AttributeSpec) -> str:
        """Return words that follow an attribute's name in the message about a wrong condition: "is yes or no"."""
        return f"has {len(spec.values)} values"

    def instead(self, attribute: Any, spec: AttributeSpec, literal: Any) -> list[Any]:
        """Return conditions to suggest in an error message in place of a wrong condition, the best first.

        Args:
            attribute: `Attribute(spec.name)`, from which queries are built.
            spec: the attribute.
            literal: the wrong condition on the attribute, whose form is not allowed for this kind, such as `hair > 2`.
        """
        absent = [value for value in spec.values if value in ABSENT and literal.form == BARE]
        return [attribute.ne(value) for value in absent] + self.conditions(attribute, spec)

    def example(self, attribute: Any, spec: AttributeSpec) -> Any:
        """Return one query about an attribute, as an example for users.

        Args:
            attribute: `Attribute(spec.name)`, from which queries are built.
            spec: the attribute.
        """
        return self.conditions(attribute, spec)[0]

    def conditions(self, attribute: Any, spec: AttributeSpec, shares: Sequence[float] = ()) -> list[Any]:
        """Return queries that together ask for each value of an attribute, one value in each query.

        Args:
            attribute: `Attribute(spec.name)`, from which queries are built.
            spec: the attribute.
            shares: positions in the range of a continuous attribute, each of which gives a query; 0.5 is the middle.
                Other kinds ignore them.
        """
        return [attribute.eq(value) for value in spec.values]

    def excluding(self, attribute: Any, values: Sequence[Any]) -> Any:
        """Return a query that is false for some values of an attribute, and true for the others.

        Args:
            attribute: `Attribute(spec.name)`, from which queries are built.
            values: the values for which the query is false.
        """
        return ~attribute.is_in([str(value) for value in values])

    def changed(self, before: Any, after: Any, spec: AttributeSpec) -> Any:
        """Return for n values of an attribute whether each of them changed, (n,) bool.

        A number counts as changed if it changed by more than the tolerance of the attribute.

        Args:
            before: the values before a change, (n,).
            after: the values after the change, (n,).
            spec: the attribute.
        """
        return before != after

    def alike(self, one: Any, other: Any, spec: AttributeSpec) -> Any:
        """Return for n pairs of values of an attribute whether the two values are equal, (n,) bool.

        Numbers count as equal if they differ by at most twice the tolerance of the attribute. Before the comparison,
        numbers outside the attribute's range are replaced by the nearest end of the range.

        Args:
            one: the first values of the pairs, (n,).
            other: the second values of the pairs, (n,).
            spec: the attribute.
        """
        return one == other

    def bins(self, spec: AttributeSpec) -> list[tuple[str, bool | str]]:
        """Return the values whose frequencies an evaluation measures, as pairs of a text and a value.

        The text follows the attribute's name in a title, as in (" = red", "red"). For a continuous attribute there are
        no pairs.
        """
        return [(f" = {value}", value) for value in spec.values]


class _YesNo(AttributeKind):
    """Attributes that are true or false for a picture."""

    name, noun, forms, offered, reverse = "yes/no", "a yes/no attribute", (BARE,), 2, True
    panel, column, heading = "counts", "bool", "meaning"

    def values(self, spec: AttributeSpec) -> tuple[bool | str, ...]:
        return False, True

    def classes(self, spec: AttributeSpec) -> tuple[str, ...]:
        return "no", "yes"

    def domain(self, spec: AttributeSpec) -> str:
        return ""

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        return None if text else {}

    def fits(self, cells: Sequence[Any]) -> bool:
        return all(as_yes_no(cell) is not None for cell in cells)

    def infer(self, column: str, cells: Sequence[Any]) -> dict[str, Any]:
        return {}

    def encoder(self, spec: AttributeSpec) -> Callable[[Any], float | None]:
        return as_yes_no

    def expected(self, spec: AttributeSpec) -> str:
        return "0 or 1, true or false, yes or no"

    def asked(self, spec: AttributeSpec) -> str:
        return "yes or no"

    def answers(self, spec: AttributeSpec) -> list[tuple[str, str]]:
        return [("yes", "Y"), ("no", "N")]

    def columns(self, spec: AttributeSpec) -> list[str]:
        return [""]

    def cells(self, literal: Any, spec: AttributeSpec) -> CellSet:
        return (True,)

    def nature(self, spec: AttributeSpec) -> str:
        return "is yes or no"

    def conditions(self, attribute: Any, spec: AttributeSpec, shares: Sequence[float] = ()) -> list[Any]:
        return [attribute, ~attribute]

    def excluding(self, attribute: Any, values: Sequence[Any]) -> Any:
        return ~attribute if True in values else attribute

    def bins(self, spec: AttributeSpec) -> list[tuple[str, bool | str]]:
        return [("", True)]


class _Categorical(AttributeKind):
    """Attributes with one of several classes."""

    name, noun, fields = "categorical", "a categorical attribute", ("values",)


class _Continuous(AttributeKind):
    """Attributes that are numbers within a range."""

    name, noun, fields = "continuous", "a continuous attribute", ("low", "high", "tolerance")
    forms, numeric, measure, panel, column, heading = (NUMBERS,), True, "R2", "errors", "double", "range"

    def listed(self, spec: AttributeSpec) -> str:
        return f"{spec.low:g} to {spec.high:g}"

    def detail(self, spec: AttributeSpec) -> str:
        return f"{self.listed(spec)}, = means +- {spec.tolerance:g}"

    def domain(self, spec: AttributeSpec) -> str:
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

    def fits(self, cells: Sequence[Any]) -> bool:
        return all(as_number(cell) is not None for cell in cells)

    def infer(self, column: str, cells: Sequence[Any]) -> dict[str, Any]:
        numbers = [as_number(cell) for cell in cells]
        if None in numbers:
            first = cells[numbers.index(None)]
            raise DataError(f"{column}: {first!r} is not a number", hint="other kinds are --kind name=categorical")
        values = sorted({number for number in numbers if number is not None})
        _check_varied(column, values, sorted(map(as_text, cells)))
        low, high = values[0], values[-1]
        return {"low": low, "high": high, "tolerance": TOLERANCE * (high - low)}

    def encoder(self, spec: AttributeSpec) -> Callable[[Any], float | None]:
        return as_number

    def expected(self, spec: AttributeSpec) -> str:
        return "a finite number"

    def label(self, cell: Any, spec: AttributeSpec) -> str | None:
        number = as_number(cell)
        return None if number is None or not spec.low <= number <= spec.high else f"{number:g}"

    def asked(self, spec: AttributeSpec) -> str:
        return f"a number{range_text(spec)}"

    def columns(self, spec: AttributeSpec) -> list[str]:
        return [".mean", ".std"]

    def cells(self, literal: Any, spec: AttributeSpec) -> CellSet:
        """Return the interval of values for which a literal is true, as a tuple of one pair; () if it is never true.

        `literal` is a condition on the attribute `spec`, such as `age > 60`.

        A continuous head predicts a normal distribution, which has no bounds, while the attribute has a range. A bound
        at or beyond an end of the range is replaced by infinity, so that probability beyond the range counts too. If
        the range of `age` is 0 to 1, `age >= 0` is always true, `age < 0` never, and `age IN [0, 0.4]` means
        `age < 0.4`.
        """
        low, high = (_threshold(bound, spec) for bound in literal.bounds(spec.tolerance))
        return ((low, high),) if low < high else ()

    def partition(self, mentioned: Sequence[CellSet], spec: AttributeSpec) -> tuple[CellSet, ...]:
        inner = {bound for cells in mentioned for cell in cells if isinstance(cell, tuple) for bound in cell}
        return tuple((cell,) for cell in pairwise(sorted(inner | {-math.inf, math.inf})))

    def union(self, parts: Iterable[Cell], spec: AttributeSpec) -> CellSet:
        merged: list[tuple[float, float]] = []
        for low, high in sorted(part for part in parts if isinstance(part, tuple)):
            if merged and merged[-1][1] == low:
                merged[-1] = (merged[-1][0], high)
            else:
                merged.append((low, high))
        return tuple(merged)

    def nature(self, spec: AttributeSpec) -> str:
        return f"is a number{range_text(spec)}"

    def instead(self, attribute: Any, spec: AttributeSpec, literal: Any) -> list[Any]:
        middle = round((spec.low + spec.high) / 2, 6)
        return [attribute > middle if literal.form == BARE else attribute.eq(middle)]

    def example(self, attribute: Any, spec: AttributeSpec) -> Any:
        return attribute > (spec.low + spec.high) / 2

    def conditions(self, attribute: Any, spec: AttributeSpec, shares: Sequence[float] = ()) -> list[Any]:
        return [attribute.eq(round(spec.low + share * (spec.high - spec.low), 6)) for share in shares]

    def changed(self, before: Any, after: Any, spec: AttributeSpec) -> Any:
        return abs(after - before) > spec.tolerance

    def alike(self, one: Any, other: Any, spec: AttributeSpec) -> Any:
        return abs(one.clip(spec.low, spec.high) - other.clip(spec.low, spec.high)) <= 2 * spec.tolerance


KINDS: dict[str, AttributeKind] = {kind.name: kind for kind in (_YesNo(), _Categorical(), _Continuous())}
"""Name of a kind -> its object."""


def range_text(spec: AttributeSpec) -> str:
    """Return the range of a continuous attribute as words that follow its name, such as " from 0 to 100".

    The text is empty if the attribute has no bounds, because it is only known from the columns of a table of
    predictions.
    """
    return "" if spec.high == sys.float_info.max else f" from {spec.low:g} to {spec.high:g}"


def is_missing(cell: Any) -> bool:
    """Return whether a cell of a table has no value: `None`, NaN, an empty text, or a text such as "NA" or "?"."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return True
    return isinstance(cell, float) and math.isnan(cell)


def lacks_value(cell: Any, spec: AttributeSpec) -> bool:
    """Return whether a label of the attribute `spec` is missing.

    A text such as "none" is missing, see `is_missing`, unless a class of the attribute has this name.
    """
    return is_missing(cell) and not (isinstance(cell, str) and as_text(cell) in spec.values)


def as_yes_no(cell: Any) -> float | None:
    """Return 1 for a cell of a table that means yes (True, 1, "yes"), 0 for no, and `None` for any other cell."""
    if isinstance(cell, str):
        text = cell.strip().lower()
        cell = 1 if text in YES else 0 if text in NO else as_number(text)
    return float(cell) if isinstance(cell, Real) and cell in (0, 1) else None


def as_number(cell: Any) -> float | None:
    """Return a cell of a table, a number or a text, as a number; `None` if it is no number, or not finite."""
    try:
        number = float(cell.strip() if isinstance(cell, str) else cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_text(cell: Any) -> str:
    """Return a cell of a table as a text without blanks around it; a float has at most 6 digits, as in "2" for 2.0."""
    if isinstance(cell, str):
        return cell.strip()
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def _check_varied(column: str, values: Sequence[Any], texts: Sequence[str]) -> None:
    if len(values) < 2:
        hint = "label pictures of another value too, or name the other columns with --only"
        raise DataError(f"{column}: all values are {texts[0]!r}, so there is nothing to learn", hint=hint)


def _threshold(value: float, spec: AttributeSpec) -> float:
    value = float(f"{value:.{THRESHOLD_DIGITS}g}") + 0.0  # + 0.0 turns -0.0 into 0.0
    if value <= spec.low:
        return -math.inf
    return math.inf if value >= spec.high else value
