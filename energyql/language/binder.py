"""Binding: a check of the names, kinds and values in a query's tree against the attributes of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from lark.exceptions import LarkError

from energyql.errors import EnergyQLError, KindError, LimitError, Span, Suggestion, UnknownAttribute, either
from energyql.kinds import KINDS, range_text
from energyql.language.expr import Attribute, Expr, Interval, Near, Predicate, predicates
from energyql.language.lexical import Quoted, quote, shorten, show_number
from energyql.language.parser import as_query, text_of, token_span, tokenize
from energyql.vocabulary import AttributeSpec, Vocabulary, closest

MOST_WORDS = 400
"""Most characters of a text about pictures in a query, such as "a person in a hat"."""
_MOST_LISTED = 12
"""Most names or values that one hint of an error lists."""


class _Problem(NamedTuple):
    """A mistake in one predicate, such as `age > 7` where ages run from 0 to 1.

    Attributes:
        hint: advice for the user, as text.
        wrong: the wrong values, which the error underlines; if there are none, it underlines the whole predicate.
        instead: texts of predicates, each of which can replace the wrong predicate (`age > 0.7`).
        values: for a wrong value such as `blak`, the similar value that can replace it, as text of a query (`black`).
    """

    message: str
    hint: str | None = None
    wrong: tuple[str | float, ...] = ()
    instead: tuple[str, ...] = ()
    values: Mapping[str, str] = {}


def bind(expr: Expr, vocabulary: Vocabulary, *, query: str | None = None) -> Expr:
    """Check the names, kinds and values in a query, and return the query with missing tolerances filled in.

    Args:
        expr: the tree of the query.
        vocabulary: the attributes of the model.
        query: the text that `expr` was parsed from, in which errors underline mistakes; by default `str(expr)`.

    Returns:
        The tree. In it, every `age = 0.7` without a tolerance has that of the vocabulary, and names in quotes are of
        class `Quoted` only if they are texts about pictures.

    Raises:
        UnknownAttribute: names are not in the vocabulary; one error reports all of them.
        KindError: an attribute is used against its kind (`smile > 0.5` for a yes/no attribute), or with a value that it
            cannot have; one error reports all mistakes of both kinds.
        LimitError: a text about pictures is longer than 400 characters.
    """
    nodes = predicates(expr)
    unknown = [i for i, node in enumerate(nodes) if node.name not in vocabulary and not is_words(node, vocabulary)]
    if unknown:
        raise _unknown_names(*_shown(expr, query, unknown), vocabulary)
    if long := [node.name for node in nodes if len(node.name) > MOST_WORDS and node.name not in vocabulary]:
        raise LimitError(f"a text has {len(long[0]):,} characters, more than {MOST_WORDS}", hint="say less in one text")
    problems = {index: problem for index, node in enumerate(nodes) if (problem := _check(node, vocabulary[node.name]))}
    if problems:
        raise _wrong_kinds(*_shown(expr, query, problems), problems.values())

    def settled(node: Expr) -> Expr:
        if isinstance(node, Near) and node.tolerance is None:
            return replace(node, tolerance=vocabulary[node.name].tolerance)
        if isinstance(node, Attribute) and isinstance(node.name, Quoted) and node.name in vocabulary:
            return replace(node, name=str(node.name))
        return node

    return expr.map(settled)


def is_words(node: Predicate, vocabulary: Vocabulary) -> bool:
    """Whether a predicate is a text about pictures: in quotes, no attribute's name, and allowed by the vocabulary."""
    return vocabulary.reads_words and isinstance(node.name, Quoted) and node.name not in vocabulary


def _check(node: Predicate, spec: AttributeSpec) -> _Problem | None:
    queries, name = KINDS[spec.kind].queries, quote(spec.name)
    if node.form in queries.forms:
        return _check_range(node, spec) if isinstance(node, (Interval, Near)) else _check_values(node, spec)
    instead = tuple(map(str, queries.instead(Attribute(spec.name), spec, node)[:_MOST_LISTED]))
    hint = f"values of {name}: {_listed(spec.values)}" if spec.values else None
    offered = " or ".join(f"`{text}`" for text in instead[: queries.offered])
    return _Problem(f"{name} {queries.nature(spec)}: write {offered}", hint, instead=instead)


def _check_values(node: Predicate, spec: AttributeSpec) -> _Problem | None:
    wrong = tuple(value for value in getattr(node, "values", ()) if value not in spec.values)
    if not wrong:
        return None
    name = quote(spec.name)
    near = {value: quote(match) for value in wrong if (match := closest(value, spec.values))}
    similar = ", ".join(dict.fromkeys(near.values()))
    hint = f"did you mean {similar}?" if near else f"values of {name}: {_listed(spec.values)}"
    listed = ", ".join(f"'{shorten(value)}'" for value in wrong[:_MOST_LISTED])
    message = f"{listed} {'is not a value' if len(wrong) == 1 else 'are not values'} of {name}"
    return _Problem(message, hint, wrong, values=near)


def _check_range(node: Interval | Near, spec: AttributeSpec) -> _Problem | None:
    name = quote(spec.name)
    numbers = (node.value,) if isinstance(node, Near) else (node.low, node.high)
    outside = tuple(x for x in numbers if x is not None and not spec.low <= x <= spec.high)
    if outside:
        bounds = " and ".join(show_number(x) for x in outside)
        verb = "is" if len(outside) == 1 else "are"
        return _Problem(f"{bounds} {verb} out of range: {name} runs{range_text(spec)}", wrong=outside)
    return None


def _unknown_names(query: str | None, nodes: Sequence[Predicate], vocabulary: Vocabulary) -> UnknownAttribute:
    names = list(dict.fromkeys(node.name for node in nodes))
    listed = names[:_MOST_LISTED]
    owners = {value: quote(spec.name) for spec in vocabulary.values() for value in spec.values}
    matches = {name: quote(match) for name in listed if name not in owners and (match := vocabulary.suggest(name))}
    of_values = {name: f"{owners[name]} = {quote(name)}" for name in listed if name in owners}
    hints = [f"'{shorten(name)}' is a value of {owners[name]}: write `{text}`" for name, text in of_values.items()]
    if matches:
        hints.append(f"did you mean {', '.join(dict.fromkeys(matches.values()))}?")
    if len(of_values) + len(matches) < len(names):
        hints.append(f"attributes: {_listed(vocabulary) or 'none'}")
    if vocabulary.reads_words:
        hints.append('a text that a reader of pictures reads is in quotes, and stands alone: "a person in a hat"')
    elif any(isinstance(node.name, Quoted) for node in nodes):
        option = either("reader=", "--reader")
        hints.append(f"to read words off pictures, give {vocabulary.of_model} a reader: {option}")
    spans = [span for node in nodes for span in _spans(query, node, None)]
    message = f"'{shorten(names[0])}' is not an attribute of {vocabulary.of_model}"
    error = UnknownAttribute(message, query=query, spans=spans, hint="\n".join(hints), names=names)
    suggestions: list[Suggestion] = []
    for node in nodes:
        if node.name in of_values and isinstance(node, Attribute):
            suggestions += (Suggestion(span, of_values[node.name]) for span in _spans(query, node))
        elif node.name in matches:
            suggestions += (Suggestion(span, matches[node.name]) for span in _spans(query, node, None))
    error.suggestions = tuple(suggestions)
    return error


def _wrong_kinds(query: str | None, nodes: Sequence[Predicate], problems: Collection[_Problem]) -> KindError:
    messages = list(dict.fromkeys(problem.message for problem in problems))
    hints = list(dict.fromkeys(problem.hint for problem in problems if problem.hint))
    more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
    pairs = list(zip(nodes, problems, strict=True))
    spans = [span for node, problem in pairs for span in _spans(query, node, problem.wrong)]
    error = KindError("; ".join(messages[:3]) + more, query=query, spans=spans, hint="\n".join(hints[:3]) or None)
    suggestions: list[Suggestion] = []
    for node, problem in pairs:
        suggestions += (Suggestion(span, text) for text in problem.instead for span in _spans(query, node))
        for value, match in problem.values.items():
            suggestions += (Suggestion(span, match) for span in _spans(query, node, (value,)))
    error.suggestions = tuple(suggestions)
    return error


def _shown(expr: Expr, query: str | None, wrong: Iterable[int]) -> tuple[str | None, list[Predicate]]:
    """Text of a query that an error shows (`None` if it is too long), and the `wrong` predicates with spans in it."""
    if query is None:
        with suppress(EnergyQLError):  # too long to be parsed again: the message has to do
            expr, query = as_query(expr)
    nodes = predicates(expr)
    return query, [nodes[index] for index in wrong]


def _spans(query: str | None, node: Predicate, wrong: Collection[str | float] | None = ()) -> list[Span]:
    """Spans of the `wrong` values in a predicate, or of its attribute name for `None`; else of the whole predicate.

    The predicate is tokenized again, because the tree has no spans of its parts.
    """
    if query is None or node.span is None:
        return []
    start, end = node.span
    try:
        tokens = tokenize(query[start:end])
        names = [token for token in tokens if token.type in ("NAME", "QUOTED")]
        if wrong is None:
            parts = names[:1]
        else:  # in `hair = hair` the first is the attribute, the second the value
            parts = [token for token in names[1:] if text_of(token) in wrong]
            parts += [token for token in tokens if token.type == "NUMBER" and float(token) in wrong]
    except (LarkError, EnergyQLError):  # `query` is not the text that this tree came from
        return [node.span]
    return [Span(start + first, start + last) for first, last in map(token_span, parts)] or [node.span]


def _listed(names: Iterable[str]) -> str:
    quoted = [quote(name) for name in names]
    more = f" and {len(quoted) - _MOST_LISTED} more" if len(quoted) > _MOST_LISTED else ""
    return ", ".join(quoted[:_MOST_LISTED]) + more
