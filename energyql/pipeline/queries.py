"""Lists of queries. All queries are checked before samples of the first are drawn, so one error shows all mistakes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import DataError, EnergyQLError, QueryWarning, listed
from energyql.files import read_bytes
from energyql.language import Expr, as_query, bind
from energyql.language.lexical import shorten
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.settings import EXACT, several
from energyql.vocabulary import Vocabulary

MOST_BYTES = 1 << 20
"""Largest size of a file of queries, in bytes."""
SUFFIXES = (".txt", ".queries")
"""Suffixes of files of queries. A text that ends in one of them is the name of a file, even if there is no such file.
"""
_MARK = re.compile(r'"(?:\\.|[^"\\])*"?|[#:]', re.DOTALL)
"""A text in double quotes, where a backslash escapes; or "#", the start of a comment; or a colon."""


@dataclass(frozen=True, slots=True)
class ListedQuery:
    """An entry of a list of queries, before any check.

    Args:
        title: a name for people, such as "Elder"; may be empty.
        place: position for messages: "line 3" in a file, else "query 3"; "" if unknown.
    """

    query: str | Expr
    title: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query of a list that fits the model's vocabulary, compiled; title and place as in `ListedQuery`.

    Args:
        text: the query as the user wrote it.
        expr: the parsed text; `str(expr)` is the canonical text.
        bound: `expr` after `bind`, so that `age = 30` has the tolerance of the attribute.
        rule: the energy of the query as a function of predictions.
        warnings: a `TautologyWarning`, or a `ConstantPartWarning` for each part that is never or always true.
    """

    title: str
    place: str
    text: str
    expr: Expr
    bound: Expr
    rule: EnergyRule
    warnings: tuple[QueryWarning, ...] = ()

    @property
    def name(self) -> str:
        """Place and title for a message, such as "line 3 (Elder)", or the query in place of a title."""
        return f"{self.place or 'a query'} ({self.title or shorten(str(self.expr), 60)})"

    def means_the_same(self, other: CheckedQuery) -> bool:
        """Whether both have equal expressions, or equal compiled energies."""
        return self.expr == other.expr or self.rule == other.rule


def read_queries(path: Path) -> list[ListedQuery]:
    """Read a file whose lines are `query` or `title: query`. Empty lines and comments (`# ...`) are left out.

    A title ends at the first colon outside double quotes. A title that contains a colon is written in quotes, as in
    `"12:30": smile`. A query contains no colon outside quotes. An empty title (`: smile`) is the same as no title.

    Raises:
        DataError: the file cannot be read, is too large, or holds no query.
    """
    try:
        text = read_bytes(path, MOST_BYTES, DataError).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8", hint="save it as text in UTF-8") from None
    pairs = enumerate(map(split_line, text.splitlines()), start=1)
    entries = [ListedQuery(query, title, f"line {number}") for number, (title, query) in pairs if query or title]
    if not entries:
        raise DataError(f"{path} holds no query", hint="write one a line, such as: smile AND NOT hat")
    return entries


def split_line(line: str) -> tuple[str, str]:
    """Return the title and the query of a line such as `Elder: age > 60  # comment`.

    The title is "" if the line has none. An empty line, or a line with only a comment, gives two empty texts.
    """
    colon, end = -1, len(line)
    for mark in _MARK.finditer(line):
        if mark[0] == "#":
            end = mark.start()
            break
        if mark[0] == ":" and colon < 0:
            colon = mark.start()
    title = line[: max(colon, 0)].strip()
    if len(title) > 1 and title[0] == title[-1] == '"' and '"' not in title[1:-1]:  # they held a colon, or #
        title = title[1:-1]
    return title, line[colon + 1 : end].strip()


def list_queries(queries: str | Expr | Iterable[object] | Mapping[str, object]) -> list[ListedQuery]:
    """Return a list of one query, of a dict from title to query, or of queries and pairs (title, query).

    Items that are `ListedQuery` objects pass through unchanged.
    """
    items = queries.items() if isinstance(queries, Mapping) else several(queries, (str, Expr))
    entries = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, ListedQuery):
            entries.append(item)
            continue
        title, query = item if isinstance(item, tuple) and len(item) == 2 else ("", item)
        entries.append(ListedQuery(query, str(title), f"query {number}"))  # checked by `check`
    return entries


def check(entry: ListedQuery, vocabulary: Vocabulary, semantics: str) -> CheckedQuery:
    """Parse one query, check its attributes, and compile it; a wrong query raises an `EnergyQLError`."""
    expr, text = as_query(entry.query)
    bound = bind(expr, vocabulary, query=text)
    with noting_tautologies() as notes:  # sampling warns as well, and once is enough
        rule = compile_energy_rule(bound, vocabulary, semantics, query=text)
    return CheckedQuery(entry.title, entry.place, text, expr, bound, rule, tuple(notes))


def check_all(
    entries: Iterable[ListedQuery], vocabulary: Vocabulary, semantics: str, *, source: str = ""
) -> list[CheckedQuery]:
    """Check every query with `check`, so that one error shows the mistakes of all.

    Args:
        source: the file of the queries, for messages; "" without a file.

    Raises:
        EnergyQLError: a single query without a `source` is wrong: its own error, such as an `UnknownAttribute`.
        DataError: otherwise, with the error of each wrong query, as far as there is room.
    """
    checked: list[CheckedQuery] = []
    wrong: list[str] = []
    entries = list(entries)
    for entry in entries:
        try:
            checked.append(check(entry, vocabulary, semantics))
        except EnergyQLError as error:
            if len(entries) == 1 and not source:
                raise
            name = f" ({entry.title})" if entry.title else ""
            wrong.append(f"{entry.place}{name}: {error.quoted()}")
    if wrong:
        count = "one query is" if len(wrong) == 1 else f"{len(wrong)} queries are"
        raise DataError(listed(f"{source or 'the list'}: {count} wrong", wrong))
    return checked


def check_arguments(
    arguments: Sequence[str | Expr], vocabulary: Vocabulary, semantics: Iterable[str]
) -> list[CheckedQuery]:
    """Check the queries that the arguments of a command contain or name, and return them compiled under "exact".

    Args:
        arguments: queries, and files of queries: texts that end in ".txt" or ".queries", or that are names of files.
        semantics: further semantics under which every query must compile.

    Raises:
        EnergyQLError: there is one query in all, and it is wrong.
        DataError: one of several queries is wrong or two are equal, or a file cannot be read.
    """
    entries: list[ListedQuery] = []
    for number, argument in enumerate(arguments, start=1):
        if isinstance(argument, str) and (argument.endswith(SUFFIXES) or os.path.isfile(argument)):
            entries += read_queries(Path(argument))
        else:
            entries.append(ListedQuery(argument, place=f"query {number}"))
    checked, *_ = [check_all(entries, vocabulary, name) for name in (EXACT, *{*semantics} - {EXACT})]
    texts: dict[str, CheckedQuery] = {}
    for one in checked:
        if (first := texts.setdefault(str(one.expr), one)) is not one:
            raise DataError(f"{one.name} is the same as {first.name}", hint="leave one of them out")
    return checked
