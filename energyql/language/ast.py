"""The tree of a query: small immutable nodes, compared and hashed by structure.

Text (`parse`) and Python operators (`E.smile & ~E.hat`) build the same nodes. A node's `span` says which
characters of the text it came from; it takes no part in comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Span(NamedTuple):
    """Half-open range of character offsets into the query text."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Expr:
    """Base of every node."""

    span: Span | None = field(default=None, compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Constant(Expr):
    """`TRUE` or `FALSE`."""

    value: bool


@dataclass(frozen=True, slots=True)
class Attribute(Expr):
    """A yes/no attribute on its own: `smile`."""

    name: str


@dataclass(frozen=True, slots=True)
class OneOf(Expr):
    """A categorical attribute is one of `values` (or none of them): `hair = black`, `hair NOT IN {black, red}`."""

    name: str
    values: tuple[str, ...]
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Interval(Expr):
    """A continuous attribute lies between bounds; `None` is unbounded: `age > 0.6`, `0.2 < age <= 0.4`."""

    name: str
    low: float | None
    high: float | None
    low_closed: bool = False
    high_closed: bool = False


@dataclass(frozen=True, slots=True)
class Near(Expr):
    """A continuous attribute is within `tolerance` of `value`: `age = 0.7 +- 0.05`; `None` is the attribute's own."""

    name: str
    value: float
    tolerance: float | None = None


@dataclass(frozen=True, slots=True)
class Not(Expr):
    operand: Expr


@dataclass(frozen=True, slots=True)
class Weight(Expr):
    """`factor * operand`: multiplies the energy of `operand`."""

    factor: float
    operand: Expr


@dataclass(frozen=True, slots=True)
class And(Expr):
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Xor(Expr):
    """True when an odd number of operands is true."""

    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Or(Expr):
    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Implies(Expr):
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Iff(Expr):
    """Left fold of equivalence over the operands."""

    operands: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Cardinality(Expr):
    """`AT LEAST 2 OF (a, b, c)`; quantifier is AT LEAST, AT MOST, EXACTLY (with count) or ALL, ANY, NONE (count None)."""

    quantifier: str
    count: int | None
    operands: tuple[Expr, ...]
