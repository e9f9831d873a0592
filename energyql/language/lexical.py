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
    """The grammar of the query language: the text of grammar/query.lark."""
    # Installed, it is in energyql/grammar. Python that is started in a checkout takes the checkout's energyql instead.
    is_installed = find_spec("energyql.grammar") is not None
    folder = files("energyql.grammar") if is_installed else Path(__file__).parents[2] / "grammar"
    return folder.joinpath("query.lark").read_text(encoding="utf-8")


@cache
def keywords() -> frozenset[str]:
    """The reserved words of the query language, such as AND, in upper case; as names, in any case, they need quotes."""
    return frozenset(re.findall(r'^[A-Z]+\.\d: "([A-Z]+)"i END', grammar(), re.MULTILINE))


@cache
def _keyword() -> re.Pattern[str]:
    # The lexer's own way to ignore case: it takes a dotted capital I for an i, unlike `str.upper`.
    return re.compile("|".join(sorted(keywords())), re.IGNORECASE)


class Quoted(str):
    """A name that was written in quotes. If no attribute has this name, it may be a text about pictures."""

    __slots__ = ()


def quote(name: str) -> str:
    """A name or value as a query writes it: in quotes if it is a keyword, is `Quoted`, or has signs such as blanks."""
    if name.isidentifier() and not _keyword().fullmatch(name) and not isinstance(name, Quoted):
        return name
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def check_name(value: object, what: str = "a name") -> str:
    """Check that a value can be a name, and return it in Unicode's normal form NFC; `what` names it in errors.

    Raises:
        ArgumentError: it is no string, is empty, or contains control characters or line separators.
    """
    return check_text(value, what, ArgumentError)


def check_number(value: object, what: str) -> float:
    """Check that a value is a finite number, and no truth value; `what`, as in "a bound", names it in errors."""
    return check_finite(value, what, ArgumentError)


def check_positive(value: object, what: str) -> float:
    """Check that a value is a finite number above 0; `what`, as in "a tolerance", names it in errors."""
    result = check_number(value, what)
    if result <= 0:
        raise ArgumentError(f"{what} must be greater than 0, not {show_number(result)}")
    return result


def show_number(value: float) -> str:
    """The shortest text from which Python reads the same number: "1" for 1.0, "0.1" for 0.1."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e16 else repr(value)


def shorten(text: str, limit: int = 40) -> str:
    """Cut a text that is longer than `limit` characters to that length, with "..." at its end."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def plural(count: int, noun: str, several: str = "") -> str:
    """A count with its noun, such as "3 pictures" or "1 picture"; `several` is a plural that does not end in -s."""
    return f"{count:,} {noun if count == 1 else several or f'{noun}s'}"
