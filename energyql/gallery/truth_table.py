"""Truth tables: all combinations of a few literals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import product
from operator import and_

from energyql.errors import ArgumentError, Contradiction, EnergyQLError, KindError, Span
from energyql.gallery.sections import TruthRow, TruthTable
from energyql.language import Cardinality, Expr, Interval, Not, OneOf, parse
from energyql.pipeline.queries import ListedQuery, check, check_all
from energyql.pipeline.result import Result
from energyql.pipeline.settings import EXACT
from energyql.vocabulary import Vocabulary

MOST_LITERALS = 4
"""Each one more doubles the table; this many make sixteen rows."""
_OPEN, _CLOSE = "ALL OF (", ")"


def split_literals(text: str) -> list[Expr]:
    """Parse literals separated by commas, as on the command line: `smile, hair = red, hair IN {gray, black}`.

    Raises:
        EnergyQLError: a literal is no query; the carets point into `text`.
    """
    try:
        parsed = parse(f"{_OPEN}{text}{_CLOSE}")  # the grammar decides which commas separate
    except EnergyQLError as error:
        shift, last = len(_OPEN), len(text)
        error.query = text
        error.spans = tuple(Span(max(start - shift, 0), min(max(end - shift, 0), last)) for start, end in error.spans)
        raise
    if not isinstance(parsed, Cardinality):  # `a) AND (b`
        raise ArgumentError(f"{text!r} is no list of literals", hint="write them with commas: smile, glasses")
    return [replace(operand, span=None) for operand in parsed.operands]


def check_literals(literals: Sequence[str | Expr], vocabulary: Vocabulary) -> list[Expr]:
    """Return the literals of a truth table as trees.

    Raises:
        ArgumentError: there are none, too many, or one is there twice.
        DataError: some do not fit the model; the message shows all of them.
    """
    if not 1 <= len(literals) <= MOST_LITERALS:
        raise ArgumentError(
            f"a truth table has 1 to {MOST_LITERALS} attributes, not {len(literals)}",
            hint="leave some out: each doubles the table" if literals else 'such as "smile" and "hair = red"',
        )
    entries = [ListedQuery(literal, place=f"attribute {number}") for number, literal in enumerate(literals, start=1)]
    exprs = [checked.expr for checked in check_all(entries, vocabulary, EXACT, source="truth table")]
    for number, expr in enumerate(exprs):
        if expr in exprs[:number]:
            raise ArgumentError(f"{expr} is in the truth table twice", hint="leave one out")
    return exprs


def negated(literal: Expr) -> Expr:
    """Return NOT literal in its shortest form, such as `hair != red` or `age <= 0.6`."""
    if isinstance(literal, Not):
        return literal.operand
    if isinstance(literal, OneOf):
        return replace(literal, negated=not literal.negated)
    if isinstance(literal, Interval) and literal.high is None:
        return Interval(literal.name, None, literal.low, high_closed=not literal.low_closed)
    if isinstance(literal, Interval) and literal.low is None:
        return Interval(literal.name, literal.high, None, low_closed=not literal.high_closed)
    return Not(literal)


def fill_table(
    literals: Sequence[Expr],
    vocabulary: Vocabulary,
    semantics: str,
    draw: Callable[[Expr], Result],
    report: Callable[[float], None],
) -> TruthTable:
    """Draw every combination that is no contradiction under a semantics.

    `report` is called with the fraction of the combinations that are drawn.
    """
    rows = []
    combinations = list(product([True, False], repeat=len(literals)))
    for number, values in enumerate(combinations):
        report(number / len(combinations))
        parts = [part if true else negated(part) for part, true in zip(literals, values, strict=True)]
        query = reduce(and_, parts)
        try:
            check(ListedQuery(query), vocabulary, semantics)
        except (Contradiction, KindError) as error:  # KindError: a negation that lies outside of a range
            rows.append(TruthRow(values, str(query), None, error.message))
        else:
            rows.append(TruthRow(values, str(query), draw(query)))
    return TruthTable(tuple(str(literal) for literal in literals), rows)
