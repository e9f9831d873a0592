"""Expressions without operands: constants, and conditions on one attribute; and `E`, which makes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Literal

from energyql.errors import ArgumentError
from energyql.language.connectives import PARENTHESES, Expr, Not
from energyql.language.lexical import check_name, check_number, check_positive, quote, shorten, show_number
from energyql.language.node import Node
from energyql.vocabulary import Vocabulary, unknown_name

Closed = Literal["both", "left", "right", "none"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Constant(Expr):
    """`TRUE` or `FALSE`."""

    value: bool

    def __post_init__(self) -> None:
        if not isinstance(self.value, bool):
            raise ArgumentError(f"a constant is True or False, not {shorten(repr(self.value))}")
        self._seal()

    def _spell(self, operands: Sequence[str]) -> str:
        return "TRUE" if self.value else "FALSE"


TRUE = Constant(True)
"""The query that every sample satisfies."""
FALSE = Constant(False)
"""The query that no sample satisfies."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Predicate(Expr):
    """A condition on the attribute `name`."""

    name: str

    def __post_init__(self) -> None:
        self._set("name", check_name(self.name, "an attribute name"))
        self._check()
        self._seal()

    def _check(self) -> None:
        """Check and normalise the fields of the kind of predicate."""


def predicates(expr: Expr) -> list[Predicate]:
    """Return the predicates of a query, in the order of its text."""
    return [node for node in expr.walk() if isinstance(node, Predicate)]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attribute(Predicate):
    """A yes/no attribute on its own: `smile`. In Python also the left side of a comparison: `E.age > 0.6`."""

    def _spell(self, operands: Sequence[str]) -> str:
        return quote(self.name)

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
            raise ArgumentError(f"'{shorten(self.name)}' can be compared with a number only", hint=PARENTHESES)
        return check_number(bound, "a bound")

    def eq(self, value: str | float) -> Expr:
        """`hair = black` for a string; `age = 0.7`, within the attribute's own tolerance, for a number."""
        if isinstance(value, bool):
            raise ArgumentError("a yes/no attribute is an expression by itself: write E.smile or ~E.smile")
        if isinstance(value, Iterable) and not isinstance(value, str):
            raise ArgumentError("one value is needed, not several", hint="write .is_in([...]) or .not_in([...])")
        return OneOf(self.name, (value,)) if isinstance(value, str) else Near(self.name, value)

    def ne(self, value: str | float) -> Expr:
        """`hair != black` for a string; `age != 0.7` for a number."""
        return self.not_in([value]) if isinstance(value, str) else Not(self.eq(value))

    def is_in(self, values: Iterable[str]) -> Expr:
        """`hair IN {black, gray}`."""
        return OneOf(self.name, values)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def not_in(self, values: Iterable[str]) -> Expr:
        """`hair NOT IN {black, gray}`."""
        return OneOf(self.name, values, negated=True)  # type: ignore[arg-type]  # OneOf makes it a tuple

    def is_between(self, low: float, high: float, closed: Closed = "both") -> Expr:
        """`age IN [low, high]`; the ends that belong to it are `closed`: "both", "left", "right" or "none"."""
        if closed not in ("both", "left", "right", "none"):
            raise ArgumentError(f'closed is "both", "left", "right" or "none", not {shorten(repr(closed))}')
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
class OneOf(Predicate):
    """A categorical attribute is one of `values` (or none of them): `hair = black`, `hair NOT IN {black, red}`."""

    values: tuple[str, ...]
    negated: bool = False

    def _check(self) -> None:
        if isinstance(self.values, str) or not isinstance(self.values, Iterable):
            raise ArgumentError(f"values must be a list of strings, not {shorten(repr(self.values))}")
        given = tuple(self.values)
        number = next((value for value in given if isinstance(value, Real)), None)
        if number is not None:
            hint = "numbers lie in a range: write .is_between(low, high)"
            raise ArgumentError(f"a value must be a string, not {shorten(repr(number))}", hint=hint)
        values = tuple(dict.fromkeys(check_name(value, "a value") for value in given))
        if not values:
            raise ArgumentError("at least one value is needed")
        self._set("values", values)
        self._set("negated", bool(self.negated))

    def _spell(self, operands: Sequence[str]) -> str:
        if len(self.values) == 1:
            return f"{quote(self.name)} {'!=' if self.negated else '='} {quote(self.values[0])}"
        return f"{quote(self.name)} {'NOT IN' if self.negated else 'IN'} {{{', '.join(map(quote, self.values))}}}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Interval(Predicate):
    """A continuous attribute lies between bounds; `None` is unbounded: `age > 0.6`, `0.2 < age <= 0.4`."""

    low: float | None
    high: float | None
    low_closed: bool = False
    high_closed: bool = False

    def _check(self) -> None:
        low = None if self.low is None else check_number(self.low, "a bound")
        high = None if self.high is None else check_number(self.high, "a bound")
        if low is None and high is None:
            raise ArgumentError("an interval needs a bound")
        if low is not None and high is not None and low >= high:
            shown = show_number(low), show_number(high)
            raise ArgumentError(
                f"the interval from {shown[0]} to {shown[1]} is empty",
                hint="write the smaller number first" if low > high else "write `= value +- tolerance` for one value",
            )
        self._set("low", low)
        self._set("high", high)
        self._set("low_closed", bool(self.low_closed) and low is not None)
        self._set("high_closed", bool(self.high_closed) and high is not None)

    def _spell(self, operands: Sequence[str]) -> str:
        name = quote(self.name)
        above, below = "<=" if self.low_closed else "<", "<=" if self.high_closed else "<"
        if self.low is None:
            return f"{name} {below} {show_number(self.high or 0.0)}"
        if self.high is None:
            return f"{name} {'>=' if self.low_closed else '>'} {show_number(self.low)}"
        return f"{show_number(self.low)} {above} {name} {below} {show_number(self.high)}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Near(Predicate):
    """A continuous attribute is within `tolerance` of `value`: `age = 0.7 +- 0.05`; `None` is the attribute's own."""

    value: float
    tolerance: float | None = None

    def _check(self) -> None:
        self._set("value", check_number(self.value, "a value"))
        if self.tolerance is not None:
            self._set("tolerance", check_positive(self.tolerance, "a tolerance"))

    def _spell(self, operands: Sequence[str]) -> str:
        return self._with_sign("=")

    def _spell_negated(self) -> str:
        return self._with_sign("!=")

    def _with_sign(self, sign: str) -> str:
        tolerance = "" if self.tolerance is None else f" +- {show_number(self.tolerance)}"
        return f"{quote(self.name)} {sign} {show_number(self.value)}{tolerance}"


class Namespace:
    """All attributes by name: `E.smile` or, for a name of any kind, `E["5 o'clock shadow"]`.

    Names that begin with an underscore need brackets, since Python and its tools look such names up on every object.
    """

    __slots__ = ()

    # Without these two, Python would try E[0], E[1], ... for `for x in E` and `x in E`.
    __iter__ = None
    __contains__ = None

    def __getattr__(self, name: str) -> Attribute:
        if name.startswith("_"):
            raise AttributeError(f"E has no {name!r}: write E[{name!r}] for an attribute of that name")
        return Attribute(name)

    def __setattr__(self, name: str, value: object) -> None:
        if not name.startswith("_"):
            raise AttributeError(f"{name!r} cannot be set: write E.{name}.eq({shorten(repr(value))}) for `=`")
        object.__setattr__(self, name, value)

    def __getitem__(self, name: str) -> Attribute:
        if not isinstance(name, str):
            raise ArgumentError(f"E[...] takes the name of an attribute, not {shorten(repr(name))}")
        return Attribute(name)

    def __repr__(self) -> str:
        return "E"

    def __reduce__(self) -> str:
        return "E"  # the name in this module by which pickle and copy find the one E


class ModelNamespace(Namespace):
    """The attributes of one model by name: like `E`, with completion of names, and unknown ones refused at once.

    Args:
        vocabulary: the attributes.
    """

    __slots__ = ("_vocabulary",)

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary

    def __getattr__(self, name: str) -> Attribute:
        return self[Namespace.__getattr__(self, name).name]

    def __getitem__(self, name: str) -> Attribute:
        attribute = Namespace.__getitem__(self, name)
        if attribute.name not in self._vocabulary:
            fault = f"is not an attribute of {self._vocabulary.of_model}"
            raise unknown_name(attribute.name, self._vocabulary, fault)
        return attribute

    def __dir__(self) -> list[str]:
        return [name for name in self._vocabulary if name.isidentifier() and not name.startswith("_")]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self._vocabulary)

    def __repr__(self) -> str:
        return f"E of {self._vocabulary.of_model}"

    def __reduce__(self) -> tuple[type[ModelNamespace], tuple[Vocabulary]]:  # type: ignore[override]
        return ModelNamespace, (self._vocabulary,)


E = Namespace()
"""All attributes by their names; see `Namespace`."""
