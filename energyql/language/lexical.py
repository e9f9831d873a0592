"""Names, numbers and keywords of the query language: which are allowed, and how they are written."""

from __future__ import annotations

import math
import re
import unicodedata
from functools import cache
from importlib.resources import files
from numbers import Real

from energyql.errors import ArgumentError, EnergyQLError

MAX_WEIGHT = 1_000_000
"""Largest weight, and largest product of weights within weights: far from the end of float32."""


@cache
def grammar() -> str:
    """Return the text of grammar/query.lark.

    Raises:
        EnergyQLError: the grammar is not installed.
    """
    try:
        return files("energyql.grammar").joinpath("query.lark").read_text(encoding="utf-8")
    except (ModuleNotFoundError, FileNotFoundError):
        raise EnergyQLError(
            "the query grammar is not installed",
            hint="in a checkout of the repository, run `pip install -e .` first",
        ) from None


@cache
def keywords() -> frozenset[str]:
    """Return the words that the grammar reserves, in upper case.

    In a query they are no attribute names, in any case of their letters, unless they stand in double quotes.
    """
    return frozenset(re.findall(r'^[A-Z]+\.\d: "([A-Z]+)"i END', grammar(), re.MULTILINE))


@cache
def _keyword() -> re.Pattern[str]:
    # The lexer's own way to ignore case: it takes a dotted capital I for an i, unlike `str.upper`.
    return re.compile("|".join(sorted(keywords())), re.IGNORECASE)


def quote(name: str) -> str:
    """Return a name or value as it is written in a query: in double quotes where it needs them."""
    if name.isidentifier() and not _keyword().fullmatch(name):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def normalize(name: str) -> str:
    """Return a name in Unicode normal form C, so that one name typed in two ways is one name."""
    return str(unicodedata.normalize("NFC", name))  # plain: a lexer's token or a NumPy string is a str too


def check_name(value: object, what: str = "a name") -> str:
    """Return a name in normal form.

    Raises:
        ArgumentError: `value` is not text, is empty, or holds control characters.
    """
    if not isinstance(value, str):
        raise ArgumentError(f"{what} must be a string, not {shorten(repr(value))}")
    if not value:
        raise ArgumentError(f"{what} must not be empty")
    for character in value:
        if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}:
            raise ArgumentError(f"{what} must not hold the control character U+{ord(character):04X}")
    return normalize(value)


def check_number(value: object, what: str) -> float:
    """Return a number as float; `what` is its name in messages.

    Raises:
        ArgumentError: `value` is not a real number, is a truth value, or is not finite.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ArgumentError(f"{what} must be a number, not {shorten(repr(value))}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ArgumentError(f"{what} must be a finite number, not {result:g}")
    return result + 0.0  # one zero: -0.0 becomes 0.0


def check_positive(value: object, what: str) -> float:
    """Return a finite float above zero."""
    result = check_number(value, what)
    if result <= 0:
        raise ArgumentError(f"{what} must be greater than 0, not {show_number(result)}")
    return result


def check_weight(value: object) -> float:
    """Return a float above zero, at most `MAX_WEIGHT`."""
    result = check_positive(value, "a weight")
    if result > MAX_WEIGHT:
        raise ArgumentError(f"a weight must be at most {MAX_WEIGHT:,}, not {show_number(result)}")
    return result


def show_number(value: float) -> str:
    """Return the shortest text that reads back as the same float."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def shorten(text: str, limit: int = 40) -> str:
    """Return `text`, cut to `limit` characters."""
    return text if len(text) <= limit else text[: limit - 3] + "..."
