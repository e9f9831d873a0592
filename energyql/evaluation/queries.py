"""The queries of a comparison, checked before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from energyql.errors import DataError
from energyql.evaluation.contenders import Contender
from energyql.language import Expr
from energyql.pipeline.queries import Checked, Question, check_all, read_queries
from energyql.vocabulary import Vocabulary

SUFFIXES = (".txt", ".queries")
"""What the name of a file of queries ends in, so that a mistyped one is not taken for a query."""


def read_questions(
    arguments: Sequence[str | Expr], vocabulary: Vocabulary, contenders: Iterable[Contender]
) -> list[Checked]:
    """Queries, or files of queries, that every contender can sample.

    Args:
        arguments: each a query, or a path that ends in one of `SUFFIXES` or that exists.
        vocabulary: of the model.
        contenders: by whose semantics the queries are compiled, besides `exact`, which the oracle needs.

    Raises:
        DataError: a file cannot be read, some queries are wrong, or one comes twice; the message shows all of them.
    """
    questions: list[Question] = []
    for number, argument in enumerate(arguments, start=1):
        if isinstance(argument, str) and is_file(argument):
            questions += read_queries(Path(argument))
        else:
            questions.append(Question(argument, place=f"query {number}"))
    checked = check_all(questions, vocabulary, "exact")
    for semantics in {one.semantics for one in contenders} - {"exact"}:
        check_all(questions, vocabulary, semantics)
    texts: dict[str, Checked] = {}
    for one in checked:
        if (first := texts.setdefault(str(one.expr), one)) is not one:
            raise DataError(f"{one.name} is the same as {first.name}", hint="leave one of them out")
    return checked


def is_file(text: str) -> bool:
    """Whether a text on the command line names a file rather than being a query."""
    if text.endswith(SUFFIXES):
        return True
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or with characters that none may have
        return False
