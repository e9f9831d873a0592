"""Names, numbers and keywords of the query language: which ones are allowed, and how a query writes them."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from energyql.errors import ArgumentError
from energyql.vocabulary import check_finite, check_text


@cache
def grammar() -> str:
    """Return the grammar of the query language: the text of grammar/query.lark."""
    # Installed, it is in energyql/grammar. Python that is started in a checkout takes the checkout's energyql instead.
    is_installed = find_spec("energyql.grammar") is not None
    folder = files("energyql.grammar") if is_installed else Path(__file__).parents[2] / "grammar"
    return folder.joinpath("query.lark").read_text(encoding="utf-8")


@cache
def keywords() -> frozenset[str]:
    """Return the reserved words of the query language, such as AND, in upper case.

    If the name of an attribute is a reserved word, in upper or lower case, a query writes it in double quotes.
    """
    return frozenset(re.findall(r'^[A-Z]+\.\d: "([A-Z]+)"i END', grammar(), re.MULTILINE))


@cache
def _keyword() -> re.Pattern[str]:
    # The lexer's own way to ignore case: it takes a dotted capital I for an i, unlike `str.upper`.
    return re.compile("|".join(sorted(keywords())), re.IGNORECASE)


class Quoted(str):
    """A name that was written in quotes. If no attribute has this name, it may be a text about pictures."""

    __slots__ = ()


def quote(name: str) -> str:
    """Return a name or value as a query writes it.

    The result is in double quotes if the name is a keyword, has characters such as blanks (`"dark brown"`), or is of
    class `Quoted`.
    """
    if name.isidentifier() and not _keyword().fullmatch(name) and not isinstance(name, Quoted):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_name(value: object, what: str = "a name") -> str:
    """Return `value` in Unicode normal form C if it can be a name; `what` describes it in error messages.

    Raises:
        ArgumentError: `value` is no string, is empty, or contains control characters or line separators.
    """
    return check_text(value, what, ArgumentError)


def check_number(value: object, what: str) -> float:
    """Return `value` as a float; `what` describes it in error messages, as in "a bound".

    Raises:
        ArgumentError: `value` is not a real number, is a truth value, or is not finite.
    """
    return check_finite(value, what, ArgumentError)


def check_positive(value: object, what: str) -> float:
    """Return `value`, a number above 0, as a float; `what` describes it in error messages, as in "a tolerance".

    Raises:
        ArgumentError: `value` is no finite number above 0.
    """
    result = check_number(value, what)
    if result <= 0:
        raise ArgumentError(f"{what} must be greater than 0, not {show_number(result)}")
    return result


def show_number(value: float) -> str:
    """Return the shortest text from which Python reads the same number: "1" for 1.0, "0.1" for 0.1."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def shorten(text: str, limit: int = 40) -> str:
    """Return `text`; if it is longer than `limit` characters it is cut to that length, with "..." at its end."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def plural(count: int, noun: str, several: str = "") -> str:
    """Return a count with its noun, such as "3 pictures" or "1 picture".

    Args:
        count: the count.
        noun: the noun, in the singular.
        several: plural of the noun; by default the noun with an "s".
    """
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"
