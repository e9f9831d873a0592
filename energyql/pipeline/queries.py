"""Lists of queries, all checked before any of them is sampled, so that one error shows every mistake."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import DataError, EnergyQLError, QueryWarning, listed
from energyql.files import read_bytes
from energyql.language import Expr, as_query, bind
from energyql.language.lexical import shorten
from energyql.logic.satisfiability import noting_tautologies
from energyql.pipeline.settings import EXACT
from energyql.vocabulary import Vocabulary

MOST_BYTES = 1 << 20
"""Largest size of a file of queries, in bytes."""
SUFFIXES = (".txt", ".queries")
"""Suffixes of files of queries. A text that ends in one is a path, even if no such file exists."""


@dataclass(frozen=True, slots=True)
class ListedQuery:
    """An entry of a list of queries, before any check.

    Args:
        query: text or tree.
        title: a name for people; may be empty.
        place: position in the list, for messages: "line 3", "query 3".
    """

    query: str | Expr
    title: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class CheckedQuery:
    """A query that fits the model's vocabulary.

    Args:
        title: a name for people; may be empty.
        place: position in its list, for messages.
        text: the query as written.
        expr: its tree as written; `str(expr)` is its canonical text.
        bound: the tree that `bind` returned.
        rule: its compiled energy.
        warnings: a `TautologyWarning` where the query is always true; one `ConstantPartWarning` for each part that is
            never or always true.
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
        """Place and title for a message, such as "line 3 (Elder)"."""
        return f"{self.place or 'a query'} ({self.title or shorten(str(self.expr), 60)})"

    def means_the_same(self, other: CheckedQuery) -> bool:
        """Return whether both have equal trees or equal compiled rules."""
        return self.expr == other.expr or self.rule == other.rule


def read_queries(path: Path) -> list[ListedQuery]:
    """Read a file with one query a line, or `title: query`. Empty lines and comments (`# ...`) are left out.

    A title ends at the first colon outside double quotes, which may enclose it: `"12:30": smile`. A query has no such
    colon, so the two cannot be confused. An empty title (`: smile`) is none.

    Raises:
        DataError: the file cannot be read, is too large, or holds no query.
    """
    try:
        text = read_bytes(path, MOST_BYTES, DataError).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8", hint="save it as text in UTF-8") from None
    entries = []
    for number, line in enumerate(text.splitlines(), start=1):
        title, query = split_line(line)
        if query or title:
            entries.append(ListedQuery(query, title, f"line {number}"))
    if not entries:
        raise DataError(f"{path} holds no query", hint="write one a line, such as: smile AND NOT hat")
    return entries


def split_line(line: str) -> tuple[str, str]:
    """Return the title and the query of a line, without its comment; either may be empty."""
    colon, end, quoted, position = -1, len(line), False, 0
    while position < len(line):
        character = line[position]
        if quoted and character == "\\":
            position += 1  # an escaped character does not end the quotation
        elif character == '"':
            quoted = not quoted
        elif not quoted and character == "#":
            end = position
            break
        elif not quoted and character == ":" and colon < 0:
            colon = position
        position += 1
    title = line[: max(colon, 0)].strip()
    if len(title) > 1 and title[0] == title[-1] == '"' and '"' not in title[1:-1]:  # they held a colon, or #
        title = title[1:-1]
    return title, line[colon + 1 : end].strip()


def list_queries(queries: str | Expr | Iterable[object] | Mapping[str, object]) -> list[ListedQuery]:
    """Return the entries of a query, of a list of queries or of pairs (title, query), or of a dict by title."""
    if isinstance(queries, (str, Expr)):
        queries = [queries]
    items: Iterable[object] = queries.items() if isinstance(queries, Mapping) else queries
    entries = []
    for number, item in enumerate(items, start=1):
        if isinstance(item, ListedQuery):
            entries.append(item)
            continue
        title, query = item if isinstance(item, tuple) and len(item) == 2 else ("", item)
        entries.append(ListedQuery(query, str(title), f"query {number}"))  # type: ignore[arg-type]  # checked below
    return entries


def check(entry: ListedQuery, vocabulary: Vocabulary, semantics: str) -> CheckedQuery:
    """Parse, bind and compile one query.

    Raises:
        EnergyQLError: it is wrong, contradictory or too large.
    """
    expr, text = as_query(entry.query)
    bound = bind(expr, vocabulary, query=text)
    with noting_tautologies() as notes:  # sampling warns as well, and once is enough
        rule = compile_energy_rule(bound, vocabulary, semantics, query=text)
    return CheckedQuery(entry.title, entry.place, text, expr, bound, rule, tuple(notes))


def check_all(
    entries: Iterable[ListedQuery], vocabulary: Vocabulary, semantics: str, *, source: str = ""
) -> list[CheckedQuery]:
    """Check every query before any is sampled; `source` is the file they come from, for the message.

    Raises:
        DataError: some are wrong; the message shows them, as many as there is room for.
        EnergyQLError: the only query of no file is wrong.
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
            wrong.append(f"{entry.place}{name}: {error.render()}")
    if wrong:
        count = "one query is" if len(wrong) == 1 else f"{len(wrong)} queries are"
        raise DataError(listed(f"{source or 'the list'}: {count} wrong", wrong))
    return checked


def check_arguments(
    arguments: Sequence[str | Expr], vocabulary: Vocabulary, semantics: Iterable[str]
) -> list[CheckedQuery]:
    """Check queries and files of queries: each argument is a query, or a path that ends in a suffix or that exists.

    Every query must compile under each of the `semantics`; those that are returned are compiled under `exact`.

    Raises:
        DataError: a file cannot be read, some queries are wrong, or one comes twice; the message shows all of them.
    """
    entries: list[ListedQuery] = []
    for number, argument in enumerate(arguments, start=1):
        if isinstance(argument, str) and (argument.endswith(SUFFIXES) or os.path.isfile(argument)):
            entries += read_queries(Path(argument))
        else:
            entries.append(ListedQuery(argument, place=f"query {number}"))
    checked = check_all(entries, vocabulary, EXACT)
    for name in set(semantics) - {EXACT}:
        check_all(entries, vocabulary, name)
    texts: dict[str, CheckedQuery] = {}
    for one in checked:
        if (first := texts.setdefault(str(one.expr), one)) is not one:
            raise DataError(f"{one.name} is the same as {first.name}", hint="leave one of them out")
    return checked
