"""Counts of true operands: `AT LEAST 2 OF (a, b, c)` and its kin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from energyql.errors import ArgumentError
from energyql.language.connectives import Expr, check_operands
from energyql.language.lexical import check_number, shorten, show_number
from energyql.language.node import Kernel, T
from energyql.render.graph import Box


def allowed_counts(quantifier: str, count: int | None, size: int) -> range:
    """Return the numbers of true operands, of `size`, for which a cardinality is true."""
    if count is None:
        least, most = {"ALL": (size, size), "ANY": (1, size), "NONE": (0, 0)}[quantifier]
    else:
        least = 0 if quantifier == "AT MOST" else count
        most = size if quantifier == "AT LEAST" else count
    return range(least, min(most, size) + 1)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Cardinality(Expr):
    """`AT LEAST 2 OF (a, b, c)`; the quantifier is AT LEAST, AT MOST, EXACTLY (with count), ALL, ANY or NONE."""

    quantifier: str
    count: int | None
    operands: tuple[Expr, ...]

    def __post_init__(self) -> None:
        self._set("operands", check_operands(self.head, self.operands, 1))
        self._set("count", self._checked_count())
        self._seal()

    @property
    def head(self) -> str:
        """The words before the operands: `AT LEAST 2 OF`."""
        return f"{self.quantifier} OF" if self.count is None else f"{self.quantifier} {self.count} OF"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        if self.count is not None:
            return kernel.count(self.quantifier, self.count, operands)
        if self.quantifier == "ALL":
            return kernel.conjunction(operands)
        either = kernel.disjunction(operands)
        return either if self.quantifier == "ANY" else kernel.negation(either)

    def _spell(self, operands: Sequence[str]) -> str:
        return f"{self.head} ({', '.join(operands)})"

    def _box(self) -> Box:
        return Box(self.head, f"these {len(self.operands)}")

    def _checked_count(self) -> int | None:
        count, quantifier = self.count, self.quantifier
        if quantifier in ("ALL", "ANY", "NONE"):
            if count is not None:
                raise ArgumentError(f"{quantifier} OF takes no number")
            return None
        if quantifier not in ("AT LEAST", "AT MOST", "EXACTLY"):
            raise ArgumentError(
                f"a quantifier is AT LEAST, AT MOST, EXACTLY, ALL, ANY or NONE, not {shorten(repr(quantifier))}"
            )
        whole = check_number(count, f"the number after {quantifier}")
        if not whole.is_integer() or whole < 0:
            raise ArgumentError(f"{quantifier} needs a whole number that is not negative, not {show_number(whole)}")
        # AT MOST 4 OF (a, b) is merely always true, and a program may well write it for a short list.
        if whole > len(self.operands) and quantifier != "AT MOST":
            given = "only 1 is given" if len(self.operands) == 1 else f"only {len(self.operands)} are given"
            raise ArgumentError(f"{quantifier} {show_number(whole)} can never be true: {given}")
        return int(whole)


Operands = Expr | Iterable[Expr]


def at_least(count: int, *operands: Operands) -> Expr:
    """Return `AT LEAST count OF (...)`: so many of the operands hold, or more.

    This function and the five below take operands as expressions, lists of expressions, or both.

    Raises:
        ArgumentError: `count` is no whole number from 0 up or can never be reached, an operand is no expression, or
            there is none.
    """
    return Cardinality("AT LEAST", count, _flatten(operands))


def at_most(count: int, *operands: Operands) -> Expr:
    """Return `AT MOST count OF (...)`: so many of the operands hold, or fewer. See `at_least`."""
    return Cardinality("AT MOST", count, _flatten(operands))


def exactly(count: int, *operands: Operands) -> Expr:
    """Return `EXACTLY count OF (...)`: so many of the operands hold, and the others do not. See `at_least`."""
    return Cardinality("EXACTLY", count, _flatten(operands))


def all_of(*operands: Operands) -> Expr:
    """Return `ALL OF (...)`: every operand holds. See `at_least`."""
    return Cardinality("ALL", None, _flatten(operands))


def any_of(*operands: Operands) -> Expr:
    """Return `ANY OF (...)`: at least one operand holds. See `at_least`."""
    return Cardinality("ANY", None, _flatten(operands))


def none_of(*operands: Operands) -> Expr:
    """Return `NONE OF (...)`: no operand holds. See `at_least`."""
    return Cardinality("NONE", None, _flatten(operands))


def _flatten(operands: tuple[Operands, ...]) -> tuple[Expr, ...]:
    flat: list[Expr] = []
    for operand in operands:
        if isinstance(operand, Iterable) and not isinstance(operand, (str, bytes, Expr)):
            flat.extend(operand)
        else:
            flat.append(operand)  # Cardinality refuses what is no expression
    return tuple(flat)
