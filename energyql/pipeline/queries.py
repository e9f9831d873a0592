"""Lists of queries, checked before any of them is sampled: all that is wrong is said at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from energyql.energy.rule import SEMANTICS, EnergyRule, compile_energy_rule
from energyql.errors import ArgumentError, DataError, EnergyQLError
from energyql.language import Expr, as_query, bind
from energyql.language.checks import shorten
from energyql.logic.tautology import noting_tautologies
from energyql.vocabulary import Vocabulary

MOST_BYTES = 1 << 20
"""Largest file of queries."""


@dataclass(frozen=True, slots=True)
class Question:
    """A query as somebody wrote it.

    Args:
        query: text or tree.
        title: what to call it; may be empty.
        place: where it stands, for messages: "line 3", "query 3".
    """

    query: str | Expr
    title: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Checked:
    """A query that fits the model.

    Args:
        title: what to call it; may be empty.
        place: where it stood, for messages.
        text: as it was written.
        expr: its tree, as written; `str(expr)` is its canonical text.
        bound: the tree that `bind` returned.
        rule: its compiled energy.
    """

    title: str
    place: str
    text: str
    expr: Expr
    bound: Expr
    rule: EnergyRule

    @property
    def name(self) -> str:
        """What a message calls it: "line 3 (Elder)"."""
        return f"{self.place or 'a query'} ({self.title or shorten(str(self.expr), 60)})"


def read_queries(path: Path) -> list[Question]:
    """Read a file: a query a line, or `title: query`. Empty lines and comments (`# ...`) are left out.

    A title ends at the first colon outside double quotes. No query has such a colon, so the two cannot be confused.

    Raises:
        DataError: the file cannot be read, is too large, or holds no query.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path} is not text in UTF-8") from None
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} is larger than {MOST_BYTES >> 20} MiB")
    questions = []
    for number, line in enumerate(text.splitlines(), start=1):
        title, query = split_line(line)
        if query or title:
            questions.append(Question(query, title, f"line {number}"))
    if not questions:
        raise DataError(f"{path} holds no query", hint="write one a line, such as: smile AND NOT hat")
    return questions


def split_line(line: str) -> tuple[str, str]:
    """Title and query of a line, without its comment; either may be empty."""
    colon, end, quoted, position = -1, len(line), False, 0
    while position < len(line):
        character = line[position]
        if quoted and character == "\\":
            position += 1  # whatever is escaped does not end the quotation
        elif character == '"':
            quoted = not quoted
        elif not quoted and character == "#":
            end = position
            break
        elif not quoted and character == ":" and colon < 0:
            colon = position
        position += 1
    return line[: max(colon, 0)].strip(), line[colon + 1 : end].strip()


def as_questions(queries: str | Expr | Iterable[object] | Mapping[str, object]) -> list[Question]:
    """Queries as Python programs hold them: a list of queries or of pairs (title, query), or a dict from titles."""
    if isinstance(queries, (str, Expr)):
        queries = [queries]
    pairs: Iterable[object] = queries.items() if isinstance(queries, Mapping) else queries
    questions = []
    for number, item in enumerate(pairs, start=1):
        if isinstance(item, Question):
            questions.append(item)
            continue
        title, query = item if isinstance(item, tuple) and len(item) == 2 else ("", item)
        questions.append(Question(query, str(title), f"query {number}"))  # type: ignore[arg-type]  # checked below
    return questions


def check_semantics(name: str) -> str:
    """The name of a semantics, checked apart from the queries: it would be wrong for all of them.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name not in SEMANTICS:
        raise ArgumentError(f"no semantics is called {name!r}", hint=f"choose one of {', '.join(SEMANTICS)}")
    return name


def check(question: Question, vocabulary: Vocabulary, semantics: str) -> Checked:
    """Parse, bind and compile one query.

    Raises:
        EnergyQLError: it is wrong, contradictory or too large.
    """
    expr, text = as_query(question.query)
    bound = bind(expr, vocabulary, query=text)
    with noting_tautologies():  # sampling says so as well, and once is enough
        rule = compile_energy_rule(bound, vocabulary, semantics, query=text)
    return Checked(question.title, question.place, text, expr, bound, rule)


def check_all(
    questions: Iterable[Question], vocabulary: Vocabulary, semantics: str, *, source: str = ""
) -> list[Checked]:
    """Check every query before any is sampled.

    Args:
        source: the file they come from, for the message.

    Raises:
        DataError: some are wrong; the message shows each of them, with its place and carets.
    """
    checked: list[Checked] = []
    wrong: list[str] = []
    for question in questions:
        try:
            checked.append(check(question, vocabulary, semantics))
        except EnergyQLError as error:
            name = f" ({question.title})" if question.title else ""
            wrong.append(f"{question.place}{name}: {error.render()}")
    if wrong:
        count = "one query is" if len(wrong) == 1 else f"{len(wrong)} queries are"
        raise DataError("\n\n".join([f"{source or 'the list'}: {count} wrong", *wrong]))
    return checked


def repetition(new: Checked, earlier: Iterable[tuple[int, Checked]]) -> int | None:
    """The number of the first earlier query that means the same, however it is spelled."""
    for number, old in earlier:
        if old.expr == new.expr or old.rule == new.rule:
            return number
    return None
