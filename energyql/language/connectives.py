"""Expressions and what joins them: NOT, AND, OR, XOR, IMPLIES, IFF, weights and counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn

from energyql.errors import ArgumentError, Span
from energyql.language import checks
from energyql.language.node import MAX_NODES, Node
from energyql.language.printer import to_text
from energyql.language.tree_svg import draw_tree, tree_html

_NO_TRUTH_VALUE = (
    "an expression has no truth value in Python: write & for `and`, | for `or`, ~ for `not`, "
    ".is_in([...]) for `in`, and .is_between(low, high) for `low < x < high`"
)
PARENTHESES = "comparisons need parentheses beside & | ^ >> *: write (E.age > 0.6) & E.smile"


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
            f"only an attribute can be compared with a number, not `{checks.shorten(str(self))}`", hint=PARENTHESES
        )


def _operand(value: object, operator: str) -> Expr:
    if isinstance(value, Expr):
        return value
    hint = None
    if isinstance(value, bool):
        hint = "`==` and `!=` compare structure: write .eq(...), .ne(...) or .iff(...); a constant is TRUE or FALSE"
    elif isinstance(value, (int, float)):
        hint = PARENTHESES
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
        self._set("factor", checks.weight(self.factor))
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
