"""Queries that nothing satisfies, with the reason, and queries that everything satisfies."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from energyql.errors import Contradiction, LimitError, TautologyWarning, caller_level
from energyql.language import And, Expr, Interval, Near, Not, OneOf, Or, Weight, predicates
from energyql.language.rewrite import lower
from energyql.logic.diagram import ALWAYS, DEFAULT_MAX_NODES, NEVER, Diagram, QueryDiagram, build_diagram, relations_for
from energyql.logic.nodes import predicate_cells
from energyql.vocabulary import AttributeSpec

_MOST_SHOWN = 60
"""Longest conjunct that is quoted in a message; the carets show longer ones."""
# Not `warnings.catch_warnings`: it changes the filters of the whole process, so threads would have to take turns.
_NOTES: ContextVar[list[str] | None] = ContextVar("tautologies", default=None)


def check_satisfiable(
    expr: Expr,
    vocabulary: Mapping[str, AttributeSpec],
    *,
    query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES,
    relations: bool = False,
) -> None:
    """Check that a bound query can be satisfied, by its decision diagram; no circuit is compiled.

    The arguments, errors and the warning are those of `compile_query`.
    """
    groups = relations_for(expr, vocabulary) if relations else []
    report_constant(expr, build_diagram(expr, vocabulary, max_nodes, groups), query=query)


def report_constant(expr: Expr, diagram: QueryDiagram, *, query: str | None = None) -> None:
    """Raise `Contradiction` for a query that is always false, and warn of one that is always true.

    `diagram` is that of the query; `query` is its text.
    """
    if diagram.root == NEVER:
        raise _contradiction(expr, diagram, query, diagram.relations)
    if diagram.root == ALWAYS:
        text = str(expr)
        warn_tautology(f"{text if len(text) <= 80 else 'the query'} is always true, so it asks for nothing")


@contextmanager
def noting_tautologies() -> Iterator[list[str]]:
    """Collect the messages of tautologies in this thread; no `TautologyWarning` leaves the block."""
    notes: list[str] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def warn_tautology(message: str) -> None:
    """Warn, or add to the notes of `noting_tautologies`."""
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(TautologyWarning(message), stacklevel=caller_level())
    else:
        notes.append(message)


def _contradiction(expr: Expr, diagram: Diagram, query: str | None, known: Sequence[Expr]) -> Contradiction:
    """The error of `report_constant`, with the spans of the parts that clash."""
    relations = [part for relation in known for part in conjuncts(relation)]
    try:
        parts = _clashing([*conjuncts(expr), *relations], diagram)
        while len(parts) == 1 and isinstance(parts[0], Weight):  # a weighted contradiction is a contradiction
            parts = _clashing([*conjuncts(parts[0].operand), *relations], diagram)
    except LimitError:
        return Contradiction("the query is always false", query=query)
    needed = [str(part) for part in parts if part in relations]
    asked = [part for part in parts if part not in relations]
    spans = [part.span for part in asked if part.span is not None]
    if not needed:
        return Contradiction(_reason(asked, diagram), query=query, spans=spans)
    if not asked:
        return Contradiction(
            "the model's relations contradict one another, so nothing can satisfy a query that they concern",
            hint=f"mend them in its vocabulary.json: {'; '.join(needed)}",
        )
    # One part alone is no contradiction without the relations, so the message of `_reason` would be wrong.
    reason = f"{_quoted(asked[0])} cannot hold" if len(asked) == 1 else _reason(asked, diagram)
    hint = f'always: {"; ".join(needed)} (semantics="product" ignores these relations)'
    return Contradiction(reason, query=query, spans=spans, hint=hint)


def conjuncts(expr: Expr) -> list[Expr]:
    """Return the parts that all have to hold for `expr` to hold: ANDs are opened, also those under a NOT."""
    found: list[Expr] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        opened = _opened(node)
        if opened is None:
            found.append(node)
        else:
            stack.extend(reversed(opened))
    return found


def _opened(node: Expr) -> Sequence[Expr] | None:
    """The conjuncts of a node, if there are several; a derived connective is opened where they are its operands."""
    if isinstance(node, Weight):
        return [node.operand] if node.factor == 1 else None
    negated = isinstance(node, Not)
    inner = node.operand if isinstance(node, Not) else node
    if negated and isinstance(inner, Not):
        return [inner.operand]
    lowered = lower(inner)
    if isinstance(lowered, Not):  # NONE OF is NOT of an OR
        negated, lowered = not negated, lowered.operand
    if not isinstance(lowered, Or if negated else And):
        return None
    own = {id(part) for part in inner.walk()}
    if not all(id(part.operand if isinstance(part, Not) else part) in own for part in lowered.children):
        return None  # the sides of an XOR stand nowhere in the text
    return [Not(part, span=part.span) for part in lowered.children] if negated else lowered.children


def _clashing(parts: list[Expr], diagram: Diagram) -> list[Expr]:
    """Conjuncts that are false together, none of which can be left out, in the order of the text."""
    nodes = [part.evaluate(diagram) for part in parts]
    kept: list[int] = []
    together, end = ALWAYS, len(parts)
    while together != NEVER:
        # The conjunct that completes the first clash is needed, and nothing after it is.
        prefix = together
        for index in range(end):
            prefix = diagram.conjunction([prefix, nodes[index]])
            if prefix == NEVER:
                end = index
                break
        kept.append(end)
        together = diagram.conjunction([together, nodes[end]])
    return [parts[index] for index in sorted(kept)]


def _reason(parts: list[Expr], diagram: Diagram) -> str:
    names = list(dict.fromkeys(node.name for part in parts for node in predicates(part)))
    if len(parts) == 1:
        return _reason_for_one(parts[0], names, diagram)
    texts = [str(part) for part in parts]
    if len(names) == 1:
        spec = diagram.vocabulary[names[0]]
        phrases = [phrase for phrase in (_phrase(part, spec) for part in parts) if phrase is not None]
        if len(phrases) == len(parts):
            both = "both " if isinstance(parts[0], OneOf) and len(parts) == 2 else ""
            return f"{names[0]} cannot be {both}{_listed(phrases)}"
    if any(len(text) > _MOST_SHOWN for text in texts):
        return f"these {len(parts)} parts cannot all hold"
    return f"{_listed(texts)} cannot {'both' if len(parts) == 2 else 'all'} hold"


def _reason_for_one(part: Expr, names: list[str], diagram: Diagram) -> str:
    text = _quoted(part)
    if isinstance(part, (Interval, Near)) and not predicate_cells(part, diagram.vocabulary[part.name]):
        spec = diagram.vocabulary[part.name]
        return f"{text} holds nothing: {part.name} runs from {spec.low:g} to {spec.high:g} and a point has no width"
    if not names:
        return f"{text} never holds"
    return f"{text} is false for every value of {_listed(names)}" if len(names) < 6 else f"{text} is always false"


def _quoted(part: Expr) -> str:
    text = str(part)
    return text if len(text) <= _MOST_SHOWN else "the query"


def _phrase(part: Expr, spec: AttributeSpec) -> str | None:
    """The condition of a literal, to follow "cannot be"; None where there is no good phrase."""
    if isinstance(part, OneOf) and not part.negated:
        return part.values[0] if len(part.values) == 1 else f"one of {', '.join(part.values)}"
    if isinstance(part, Near):
        tolerance = spec.tolerance if part.tolerance is None else part.tolerance
        return f"within {tolerance:g} of {part.value:g}"
    negated = isinstance(part, Not)
    bounds = part.operand if isinstance(part, Not) else part
    if not isinstance(bounds, Interval):
        return None
    low, high = bounds.low, bounds.high
    if low is not None and high is not None:
        return None if negated else f"between {low:g} and {high:g}"
    above = (low is not None) != negated
    return f"{'above' if above else 'below'} {low if low is not None else high:g}"


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
