"""The tree of a query: small immutable nodes, compared and hashed by structure.

Text (`parse`) and Python operators (`E.smile & ~E.hat`) build the same nodes. A node's `span` says which
characters of the text it came from; it takes no part in comparison. Nodes check and normalise what they are given:
names are in Unicode normal form C, `And`, `Or`, `Xor` and `Iff` hold no operand of their own kind.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NoReturn

from energyql.errors import ArgumentError, Span
from energyql.language import checks
from energyql.language.node import MAX_NODES, Node
from energyql.language.printer import to_text
from energyql.language.tree_svg import draw_tree, tree_html

__all__ = [
    "And",
    "Attribute",
    "Cardinality",
    "Constant",
    "Expr",
    "Iff",
    "Implies",
    "Interval",
    "Near",
    "Not",
    "OneOf",
    "Or",
    "Span",
    "Weight",
    "Xor",
]

Closed = Literal["both", "left", "right", "none"]

_NO_TRUTH_VALUE = (
    "an expression has no truth value in Python: write & for `and`, | for `or`, ~ for `not`, "
    ".is_in([...]) for `in`, and .is_between(low, high) for `low < x < high`"
)
_PARENTHESES = "comparisons need parentheses beside & | ^ >> *: write (E.age > 0.6) & E.smile"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Expr(Node):
    """Base of every node.

    Combines with `&` (and), `|` (or), `^` (exclusive or), `~` (not), `>>` (implies), `.iff(other)` and
    `number * expression` (weight). `==` compares structure.
    """

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)

    # NumPy scalars leave `np.float32(2) * expr` and `np.float32(0.2) < expr` to the methods below.
    __array_ufunc__ = None

    def __post_init__(self) -> None:
        raise ArgumentError("Expr is the base of the nodes: build a query with E or parse()")

    def __str__(self) -> str:
        return to_text(self)

    def __repr__(self) -> str:
        return f"parse({to_text(self)!r})"

    def _repr_html_(self) -> str:
        return tree_html(self)

    def _repr_svg_(self) -> str:
        return draw_tree(self, standalone=True)

    def __and__(self, other: object) -> Expr:
        return And((self, _operand(other, "&")))

    def __rand__(self, other: object) -> Expr:
        return And((_operand(other, "&"), self))

    def __or__(self, other: object) -> Expr:
        return Or((self, _operand(other, "|")))

    def __ror__(self, other: object) -> Expr:
        return Or((_operand(other, "|"), self))

    def __xor__(self, other: object) -> Expr:
        return Xor((self, _operand(other, "^")))

    def __rxor__(self, other: object) -> Expr:
        return Xor((_operand(other, "^"), self))

    def __rshift__(self, other: object) -> Expr:
        return Implies(self, _operand(other, ">>"))

    def __rrshift__(self, other: object) -> Expr:
        return Implies(_operand(other, ">>"), self)

    def __invert__(self) -> Expr:
        return Not(self)

    def __mul__(self, factor: object) -> Expr:
        if isinstance(factor, Expr):
            raise ArgumentError("* takes a weight, as in 2 * E.smile: write & for `and`")
        return Weight(factor, self)  # type: ignore[arg-type]  # Weight checks it

    __rmul__ = __mul__

    def implies(self, other: Expr) -> Expr:
        """`self IMPLIES other`, the same as `self >> other`."""
        return Implies(self, _operand(other, "implies"))

    def iff(self, other: Expr) -> Expr:
        """`self IFF other`: both are true or both are false."""
        return Iff((self, _operand(other, "iff")))

    def __bool__(self) -> NoReturn:
        raise ArgumentError(_NO_TRUTH_VALUE)

    def __contains__(self, item: object) -> NoReturn:
        raise ArgumentError("`in` does not work on expressions: write E.hair.is_in([...])")

    def __lt__(self, bound: object) -> Expr:
        return self._compared()

    def __le__(self, bound: object) -> Expr:
        return self._compared()

    def __gt__(self, bound: object) -> Expr:
        return self._compared()

    def __ge__(self, bound: object) -> Expr:
        return self._compared()

    def _compared(self) -> NoReturn:
        raise ArgumentError(
            f"only an attribute can be compared with a number, not `{checks.shorten(str(self))}`", hint=_PARENTHESES
        )


def _operand(value: object, operator: str) -> Expr:
    if isinstance(value, Expr):
        return value
    hint = None
    if isinstance(value, bool):
        hint = "`==` and `!=` compare structure: write .eq(...), .ne(...) or .iff(...); a constant is TRUE or FALSE"
    elif isinstance(value, (int, float)):
        hint = _PARENTHESES
    elif isinstance(value, str):
        hint = "write E.name for an attribute, or parse(text) for a query"
    shown = checks.shorten(repr(value))
    raise ArgumentError(f"{operator} joins expressions, and {shown} is not an expression", hint=hint)


def _operands(node: Expr, values: object, least: int) -> tuple[Expr, ...]:
    kind = type(node)
    if isinstance(values, (str, Node)) or not isinstance(values, Iterable):
        raise ArgumentError(f"{kind.__name__} takes a tuple of expressions, not {checks.shorten(repr(values))}")
    flat: list[Expr] = []
    for value in values:
        operand = _operand(value, kind.__name__)
        if isinstance(operand, (And, Or, Xor, Iff)) and type(operand) is kind:
            flat.extend(operand.operands)
        else:
            flat.append(operand)
    if len(flat) < least:
        raise ArgumentError(f"{kind.__name__} needs at least {least} operand{'s' * (least > 1)}, not {len(flat)}")
    return tuple(flat)


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
            raise ArgumentError(f"'{checks.shorten(self.name)}' can be compared with a number only", hint=_PARENTHESES)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Not(Expr):
    """`NOT operand`."""

    operand: Expr

    def __post_init__(self) -> None:
        _operand(self.operand, "Not")
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Weight(Expr):
    """`factor * operand`: multiplies the energy of `operand`."""

    factor: float
    operand: Expr

    def __post_init__(self) -> None:
        self._set("factor", checks.positive(self.factor, "a weight"))
        _operand(self.operand, "Weight")
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class _Joined(Expr):
    """Two or more operands under one operator; an operand of the same kind is replaced by its own operands."""

    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        self._set("operands", _operands(self, self.operands, 2))
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class And(_Joined):
    """All operands are true."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Xor(_Joined):
    """True when an odd number of operands is true."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Or(_Joined):
    """At least one operand is true."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Implies(Expr):
    """`left IMPLIES right`: false only where left is true and right is not."""

    left: Expr
    right: Expr

    def __post_init__(self) -> None:
        _operand(self.left, "Implies")
        _operand(self.right, "Implies")
        self._seal()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Iff(_Joined):
    """Left fold of equivalence over the operands."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cardinality(Expr):
    """`AT LEAST 2 OF (a, b, c)`; the quantifier is AT LEAST, AT MOST, EXACTLY (with count), ALL, ANY or NONE."""

    quantifier: str
    count: int | None
    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        self._set("operands", _operands(self, self.operands, 1))
        self._set("count", self._checked_count())
        self._seal()

    def _checked_count(self) -> int | None:
        count, quantifier = self.count, self.quantifier
        if quantifier in ("ALL", "ANY", "NONE"):
            if count is not None:
                raise ArgumentError(f"{quantifier} OF takes no number")
            return None
        if quantifier not in ("AT LEAST", "AT MOST", "EXACTLY"):
            raise ArgumentError(
                f"a quantifier is AT LEAST, AT MOST, EXACTLY, ALL, ANY or NONE, not {checks.shorten(repr(quantifier))}"
            )
        whole = checks.number(count, f"the number after {quantifier}")
        if not whole.is_integer() or whole < 0:
            raise ArgumentError(
                f"{quantifier} needs a whole number that is not negative, not {checks.show_number(whole)}"
            )
        if whole > MAX_NODES:
            raise ArgumentError(f"{quantifier} {checks.show_number(whole)} is more than a query can hold")
        # AT MOST 4 OF (a, b) is merely always true, and a program may well write it for a short list.
        if whole > len(self.operands) and quantifier != "AT MOST":
            given = "only 1 is given" if len(self.operands) == 1 else f"only {len(self.operands)} are given"
            raise ArgumentError(f"{quantifier} {checks.show_number(whole)} can never be true: {given}")
        return int(whole)
