"""The way to write queries in Python: `E.smile & ~E.glasses`, `at_least(2, E.glasses, E.beard, E.hat)`."""

from __future__ import annotations

from collections.abc import Iterable

from energyql.errors import ArgumentError
from energyql.language.ast import Attribute, Cardinality, Constant, Expr
from energyql.language.checks import shorten

TRUE = Constant(True)
"""The query that every sample satisfies."""
FALSE = Constant(False)
"""The query that no sample satisfies."""


class Namespace:
    """Every attribute, by name: `E.smile` or, for any name whatever, `E["5 o'clock shadow"]`.

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

    def __getitem__(self, name: str) -> Attribute:
        if not isinstance(name, str):
            raise ArgumentError(f"E[...] takes the name of an attribute, not {shorten(repr(name))}")
        return Attribute(name)

    def __repr__(self) -> str:
        return "E"

    def __reduce__(self) -> str:
        return "E"  # pickle and copy look this name up in the module: there is one E


E = Namespace()
"""All attributes by their names; see `Namespace`."""

Operands = Expr | Iterable[Expr]


def at_least(count: int, *operands: Operands) -> Expr:
    """`AT LEAST count OF (...)`: at least so many of the operands hold.

    Args:
        count: a whole number, 0 or more.
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: `count` is none such or can never be reached, an operand is no expression, or there is none.
    """
    return Cardinality("AT LEAST", count, _flatten(operands))


def at_most(count: int, *operands: Operands) -> Expr:
    """`AT MOST count OF (...)`: no more than so many of the operands hold.

    Args:
        count: a whole number, 0 or more.
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: `count` is none such or can never be reached, an operand is no expression, or there is none.
    """
    return Cardinality("AT MOST", count, _flatten(operands))


def exactly(count: int, *operands: Operands) -> Expr:
    """`EXACTLY count OF (...)`: so many of the operands hold, and the others do not.

    Args:
        count: a whole number, 0 or more.
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: `count` is none such or can never be reached, an operand is no expression, or there is none.
    """
    return Cardinality("EXACTLY", count, _flatten(operands))


def all_of(*operands: Operands) -> Expr:
    """`ALL OF (...)`: every operand holds.

    Args:
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: an operand is no expression, or there is none.
    """
    return Cardinality("ALL", None, _flatten(operands))


def any_of(*operands: Operands) -> Expr:
    """`ANY OF (...)`: at least one operand holds.

    Args:
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: an operand is no expression, or there is none.
    """
    return Cardinality("ANY", None, _flatten(operands))


def none_of(*operands: Operands) -> Expr:
    """`NONE OF (...)`: no operand holds.

    Args:
        operands: expressions, lists of them, or both.

    Raises:
        ArgumentError: an operand is no expression, or there is none.
    """
    return Cardinality("NONE", None, _flatten(operands))


def _flatten(operands: tuple[Operands, ...]) -> tuple[Expr, ...]:
    flat: list[Expr] = []
    for operand in operands:
        if isinstance(operand, Iterable) and not isinstance(operand, (str, bytes, Expr)):
            flat.extend(operand)
        else:
            flat.append(operand)  # Cardinality refuses what is no expression
    return tuple(flat)
