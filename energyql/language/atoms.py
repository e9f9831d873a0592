"""Expressions without operands: constants, and what is said of one attribute."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from energyql.errors import ArgumentError
from energyql.language import checks
from energyql.language.connectives import PARENTHESES, Expr, Not
from energyql.language.node import Node

Closed = Literal["both", "left", "right", "none"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Expr):
    """`TRUE` or `FALSE`."""

    value: bool

    def __post_init__(self) -> None:
        if not isinstance(self.value, bool):
            raise ArgumentError(f"a constant is True or False, not {checks.shorten(repr(self.value))}")
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attribute(Expr):
    """A yes/no attribute on its own: `smile`. In Python also the left side of a comparison: `E.age > 0.6`."""

    name: str

    def __post_init__(self) -> None:
        self._set("name", checks.name(self.name, "an attribute name"))
        self._seal()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (str, int, float)):
            raise ArgumentError(
                f"`==` compares the structure of expressions: write .eq({other!r}) for `=` and .ne({other!r}) for `!=`"
            )
        return Node.__eq__(self, other)

    def __hash__(self) -> int:
        return Node.__hash__(self)

    def __lt__(self, bound: object) -> Expr:
        return Interval(self.name, None, self._bound(bound))

    def __le__(self, bound: object) -> Expr:
        return Interval(self.name, None, self._bound(bound), high_closed=True)

    def __gt__(self, bound: object) -> Expr:
        return Interval(self.name, self._bound(bound), None)

    def __ge__(self, bound: object) -> Expr:
        return Interval(self.name, self._bound(bound), None, low_closed=True)

    def _bound(self, bound: object) -> float:
        if isinstance(bound, Expr):
            raise ArgumentError(f"'{checks.shorten(self.name)}' can be compared with a number only", hint=PARENTHESES)
        return checks.number(bound, "a bound")

    def eq(self, value: str | float) -> Expr:
        """`hair = black` for a string; `age = 0.7`, within the attribute's own tolerance, for a number."""
        self._not_truth(value)
        return OneOf(self.name, (value,)) if isinstance(value, str) else Near(self.name, value)

    def ne(self, value: str | float) -> Expr:
        """`hair != black` for a string; `age != 0.7` for a number."""
        self._not_truth(value)
        return OneOf(self.name, (value,), negated=True) if isinstance(value, str) else Not(Near(self.name, value))

    def _not_truth(self, value: object) -> None:
        if isinstance(value, bool):
            raise ArgumentError("a yes/no attribute is an expression by itself: write E.smile or ~E.smile")

    def is_in(self, values: Iterable[str]) -> Expr:
        """`hair IN {black, gray}`."""
        return OneOf(self.name, values)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def not_in(self, values: Iterable[str]) -> Expr:
        """`hair NOT IN {black, gray}`."""
        return OneOf(self.name, values, negated=True)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def is_between(self, low: float, high: float, closed: Closed = "both") -> Expr:
        """`age IN [low, high]`; `closed` says which ends belong: "both", "left", "right" or "none"."""
        if closed not in ("both", "left", "right", "none"):
            raise ArgumentError(f'closed is "both", "left", "right" or "none", not {checks.shorten(repr(closed))}')
        return Interval(
            self.name,
            self._bound(low),
            self._bound(high),
            low_closed=closed in ("both", "left"),
            high_closed=closed in ("both", "right"),
        )

    def near(self, value: float, tolerance: float | None = None) -> Expr:
        """`age = value +- tolerance`; without a tolerance, the attribute's own."""
        return Near(self.name, value, tolerance)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class OneOf(Expr):
    """A categorical attribute is one of `values` (or none of them): `hair = black`, `hair NOT IN {black, red}`."""

    name: str
    values: tuple[str, ...]
    negated: bool = False

    def __post_init__(self) -> None:
        self._set("name", checks.name(self.name, "an attribute name"))
        self._set("values", checks.names(self.values))
        self._set("negated", bool(self.negated))
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interval(Expr):
    """A continuous attribute lies between bounds; `None` is unbounded: `age > 0.6`, `0.2 < age <= 0.4`."""

    name: str
    low: float | None
    high: float | None
    low_closed: bool = False
    high_closed: bool = False

    def __post_init__(self) -> None:
        self._set("name", checks.name(self.name, "an attribute name"))
        low = None if self.low is None else checks.number(self.low, "a bound")
        high = None if self.high is None else checks.number(self.high, "a bound")
        if low is None and high is None:
            raise ArgumentError("an interval needs a bound")
        if low is not None and high is not None and low >= high:
            shown = checks.show_number(low), checks.show_number(high)
            raise ArgumentError(
                f"the interval from {shown[0]} to {shown[1]} is empty",
                hint="write the smaller number first" if low > high else "write `= value +- tolerance` for one value",
            )
        self._set("low", low)
        self._set("high", high)
        self._set("low_closed", bool(self.low_closed) and low is not None)
        self._set("high_closed", bool(self.high_closed) and high is not None)
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Near(Expr):
    """A continuous attribute is within `tolerance` of `value`: `age = 0.7 +- 0.05`; `None` is the attribute's own."""

    name: str
    value: float
    tolerance: float | None = None

    def __post_init__(self) -> None:
        self._set("name", checks.name(self.name, "an attribute name"))
        self._set("value", checks.number(self.value, "a value"))
        if self.tolerance is not None:
            self._set("tolerance", checks.positive(self.tolerance, "a tolerance"))
        self._seal()
