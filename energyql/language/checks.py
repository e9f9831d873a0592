"""What every node checks of its parts: names, numbers and operands."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable
from numbers import Real

from energyql.errors import ArgumentError

MOST_WEIGHT = 1_000_000
"""Of one weight, and of weights within weights multiplied: far from where float32 ends."""


def normalize(name: str) -> str:
    """A name in Unicode normal form C, so that one name typed in two ways is one name."""
    return str(unicodedata.normalize("NFC", name))  # plain: a lexer's token or a NumPy string is a str too


def name(value: object, what: str = "a name") -> str:
    """A name in normal form; raises ArgumentError if it is no text, empty, or holds control characters."""
    if not isinstance(value, str):
        raise ArgumentError(f"{what} must be a string, not {shorten(repr(value))}")
    if not value:
        raise ArgumentError(f"{what} must not be empty")
    for character in value:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise ArgumentError(f"{what} must not hold the control character U+{ord(character):04X}")
    return normalize(value)


def number(value: object, what: str) -> float:
    """A finite float; raises ArgumentError for anything that is no real number, and for truth values."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{what} must be a number, not {shorten(repr(value))}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ArgumentError(f"{what} must be a finite number, not {result:g}")
    return result + 0.0  # one zero: -0.0 becomes 0.0


def positive(value: object, what: str) -> float:
    """A finite float above zero."""
    result = number(value, what)
    if result <= 0:
        raise ArgumentError(f"{what} must be greater than 0, not {show_number(result)}")
    return result


def weight(value: object) -> float:
    """A float above zero, at most `MOST_WEIGHT`."""
    result = positive(value, "a weight")
    if result > MOST_WEIGHT:
        raise ArgumentError(f"a weight must be at most {MOST_WEIGHT:,}, not {show_number(result)}")
    return result


def names(values: object) -> tuple[str, ...]:
    """At least one value of a categorical attribute, in order and without repetitions."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ArgumentError(f"values must be a list of strings, not {shorten(repr(values))}")
    result = tuple(dict.fromkeys(name(value, "a value") for value in values))
    if not result:
        raise ArgumentError("at least one value is needed")
    return result


def show_number(value: float) -> str:
    """The shortest text that reads back as the same float."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def shorten(text: str, limit: int = 40) -> str:
    """`text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
