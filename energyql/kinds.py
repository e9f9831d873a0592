"""Kinds of attributes: all that is peculiar to yes/no, categorical and continuous ones, without tensors.

Other code uses the record of a kind, `KINDS[spec.kind]`, and compares no names of kinds. The parts that need tensors
are in `energyql.attributes.predictions`.
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
"""A cell of an attribute: one value of yes/no, a class, or an interval."""
CellSet = tuple[Cell, ...]

BARE, CLASSES, NUMBERS = "bare", "classes", "numbers"
"""Forms of a condition on an attribute: its name alone, a comparison with classes, a comparison with numbers."""
MISSING = {"", "na", "n/a", "nan", "none", "null", "?"}
YES, NO = {"1", "true", "yes", "y", "t"}, {"0", "false", "no", "n", "f"}
TOLERANCE = 0.05
"""Default tolerance of `=` for a continuous attribute, as a share of its range."""
MOST_CLASSES = 100
"""Most different texts in a column from which a categorical attribute is inferred."""
ABSENT = ("absent", "none", "no")
"""Classes that mean that a thing is not in the picture; the name of the attribute alone means any other class."""
THRESHOLD_DIGITS = 12
"""Thresholds that agree to this many digits are one threshold: 0.7 + 0.05 and 0.75 differ in the last bit, and a cell
of that width would only hold rounding error."""
_RANGE = re.compile(r"=(?P<low>[-+.\deE]+?)\.\.(?P<high>[-+.\deE]+)")


class AttributeKind:
    """The functions and facts that depend on the kind of an attribute; the base is for kinds whose values are classes.

    Literals are `energyql.language` predicates of one of the `forms`, and `attribute` is `E[spec.name]`.

    Attributes:
        name: the kind, as `AttributeSpec.kind` and files have it.
        noun: noun for messages.
        fields: fields of `AttributeSpec` that this kind has and others lack.
        forms: forms of the literals that are allowed.
        offered: number of the literals of `instead` in a message.
        reverse: whether drawings show the last value first.
        numeric: whether a value is a number, which is predicted by mean and standard deviation.
        measure: name of the score of a head.
        panel: right-hand panel of a drawn report: "counts", "confusion" or "errors".
        column: type of a column of values in an index of a data set: "bool", "string" or "double".
        heading: heading of the column with `listed` or the description, where attributes are listed by kind.
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
        """Return the values of an attribute, in the order of their numbers; none where they are numbers themselves."""
        return spec.values

    def classes(self, spec: AttributeSpec) -> tuple[str, ...]:
        """Return the names of the values in labels and reports."""
        return spec.values

    def listed(self, spec: AttributeSpec) -> str:
        """Return the values as text for people; empty for yes/no."""
        return ", ".join(spec.values)

    def detail(self, spec: AttributeSpec) -> str:
        """Return the entry of an attribute in the listing of a vocabulary."""
        return self.listed(spec) or self.name

    def domain(self, spec: AttributeSpec) -> str:
        """Return the text after the name of an attribute in the header of a table; see `parse_domain`."""
        return f"={'|'.join(spec.values)}"

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        """Return the fields of an attribute whose `domain` is this text; `None` if it is that of another kind."""
        return {"values": tuple(value.strip() for value in text[1:].split("|"))} if "|" in text else None

    def fits(self, cells: Sequence[Any]) -> bool:
        """Return whether a column of cells, none of them missing, is read as this kind if the kind is not stated."""
        return False

    def infer(self, column: str, cells: Sequence[Any]) -> dict[str, Any]:
        """Return the fields of the attribute that a column of cells, none of them missing, is about.

        Raises:
            DataError: the cells have no or too many different values; the message calls the column `column`.
        """
        values = sorted({as_text(cell) for cell in cells})
        _check_varied(column, values, values)
        if len(values) > MOST_CLASSES:
            raise DataError(
                f"{column} has {len(values)} different texts, such as {values[0]!r} and {values[1]!r}",
                hint="a categorical attribute has a few classes; leave the column out if it is none",
            )
        return {"values": tuple(values)}

    def encoder(self, spec: AttributeSpec) -> Callable[[Any], float | None]:
        """Return the function from a cell, which is not missing, to its number; `None` for no value of the attribute.

        Numbers are 0 and 1 of a yes/no attribute, those of the classes, from 0, and the values of a continuous one.
        """
        numbers = {value: float(i) for i, value in enumerate(spec.values)}
        return lambda cell: numbers.get(as_text(cell))

    def expected(self, spec: AttributeSpec) -> str:
        """Return a description of a valid cell, for messages."""
        return f"one of {', '.join(spec.values)}"

    def label(self, cell: Any, spec: AttributeSpec) -> str | None:
        """Return a cell, which is not missing, as a table of labels has it; `None` for no value of the attribute."""
        number = self.encoder(spec)(cell)
        return None if number is None else self.classes(spec)[int(number)]

    def asked(self, spec: AttributeSpec) -> str:
        """Return a description of a valid answer on the labelling page, for messages."""
        return self.expected(spec)

    def answers(self, spec: AttributeSpec) -> list[tuple[str, str]]:
        """Return the answers on the labelling page, each with its key; none if the answer is a number."""
        return [(value, str(i) if i < 10 else "") for i, value in enumerate(spec.values, 1)]

    def columns(self, spec: AttributeSpec) -> list[str]:
        """Return the ends of the names of the columns of a table with predictions."""
        return [f"={value}" for value in spec.values]

    def cells(self, literal: Any, spec: AttributeSpec) -> CellSet:
        """Return the values for which a literal is true."""
        return tuple(value for value in spec.values if (value in literal.values) != literal.negated)

    def partition(self, mentioned: Sequence[CellSet], spec: AttributeSpec) -> tuple[CellSet, ...]:
        """Split all values into disjoint cell sets, each of which every cell set mentioned holds or excludes."""
        groups: dict[tuple[bool, ...], list[Cell]] = {}
        for value in self.values(spec):
            groups.setdefault(tuple(value in cells for cells in mentioned), []).append(value)
        return tuple(map(tuple, groups.values()))

    def union(self, parts: Iterable[Cell], spec: AttributeSpec) -> CellSet:
        """Return disjoint cells in canonical form: sorted, neighbouring intervals merged."""
        held = set(parts)
        return tuple(value for value in self.values(spec) if value in held)

    def nature(self, spec: AttributeSpec) -> str:
        """Return words after the name of an attribute, for a message about a literal of a form that is not allowed."""
        return f"has {len(spec.values)} values"

    def instead(self, attribute: Any, spec: AttributeSpec, literal: Any) -> list[Any]:
        """Return suggestions in place of a literal of a form that is not allowed."""
        return self.conditions(attribute, spec)

    def example(self, attribute: Any, spec: AttributeSpec) -> Any:
        """Return a query about an attribute."""
        return self.conditions(attribute, spec)[0]

    def conditions(self, attribute: Any, spec: AttributeSpec, shares: Sequence[float] = ()) -> list[Any]:
        """Return a query for each value of an attribute; of a range, at these shares of it."""
        return [attribute.eq(value) for value in spec.values]

    def excluding(self, attribute: Any, values: Sequence[Any]) -> Any:
        """Return a query that excludes some of the values of an attribute."""
        return ~attribute.is_in([str(value) for value in values])

    def changed(self, before: Any, after: Any, spec: AttributeSpec) -> Any:
        """Return for arrays of values whether each changed; numbers, by more than the tolerance."""
        return before != after

    def alike(self, one: Any, other: Any, spec: AttributeSpec) -> Any:
        """Return for arrays of values whether each pair is equal; numbers in the range, up to twice the tolerance."""
        return one == other

    def bins(self, spec: AttributeSpec) -> list[tuple[str, bool | str]]:
        """Return pairs (suffix for titles, value) of the values whose frequencies are measured; none for numbers."""
        return [(f" = {value}", value) for value in spec.values]


class _YesNo(AttributeKind):
    """Attributes that a picture has or does not have."""

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

    def instead(self, attribute: Any, spec: AttributeSpec, literal: Any) -> list[Any]:
        absent = [value for value in spec.values if value in ABSENT and literal.form == BARE]
        return [attribute.ne(value) for value in absent] + self.conditions(attribute, spec)

    def fits(self, cells: Sequence[Any]) -> bool:
        return any(as_number(cell) is None for cell in cells)


class _Continuous(AttributeKind):
    """Attributes that are numbers of a range."""

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
            raise DataError(
                f"{column}: {cells[numbers.index(None)]!r} is not a number",
                hint="correct it, or give another kind: --kind name=categorical",
            )
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
        """Return the interval in which a literal is true.

        A continuous head predicts a normal, which is unbounded, while the attribute has a range. Mass that the normal
        puts beyond an end of the range belongs to the outermost cell: a bound at or beyond an end is no bound at all.
        So with `age` in 0..1, `age >= 0` is always true, `age < 0` never, and `age IN [0, 0.4]` is `age < 0.4`.
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
"""The record of each kind, by its name."""


def range_text(spec: AttributeSpec) -> str:
    """Return the range of a continuous attribute as words after its name; empty if it has no range, as in a table."""
    return "" if spec.high == sys.float_info.max else f" from {spec.low:g} to {spec.high:g}"


def is_missing(cell: Any) -> bool:
    """Return whether a cell is empty: `None`, NaN, or a text such as "NA"."""
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return True
    return isinstance(cell, float) and math.isnan(cell)


def as_yes_no(cell: Any) -> float | None:
    """Return 1 or 0 for a cell that says yes or no, else `None`."""
    if isinstance(cell, str):
        text = cell.strip().lower()
        cell = 1 if text in YES else 0 if text in NO else as_number(text)
    return float(cell) if isinstance(cell, Real) and cell in (0, 1) else None


def as_number(cell: Any) -> float | None:
    """Return the finite number in a cell, else `None`."""
    try:
        number = float(cell.strip() if isinstance(cell, str) else cell)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_text(cell: Any) -> str:
    """Return a cell as text, without spaces around it."""
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
