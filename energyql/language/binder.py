"""Binding: a check of the names, kinds and values in a query's tree against the attributes of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from lark.exceptions import LarkError

from energyql.errors import EnergyQLError, KindError, LimitError, Span, Suggestion, UnknownAttribute
from energyql.kinds import KINDS, range_text
from energyql.language.expr import Attribute, Expr, Interval, Near, Predicate, predicates
from energyql.language.lexical import Quoted, quote, shorten, show_number
from energyql.language.parser import parse, text_of, token_span, tokenize
from energyql.vocabulary import AttributeSpec, Vocabulary, closest

MOST_WORDS = 400
"""Most characters of a text about pictures in a query, such as "a person in a hat"."""
_MOST_LISTED = 12
"""Most names or values that one hint of an error lists."""


class _Problem(NamedTuple):
    """A mistake in one predicate, such as `age > 7` where ages run from 0 to 1.

    Attributes:
        message: what is wrong.
        hint: advice for the user, as text; `None` for no advice.
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
        query: the text that `expr` was parsed from. Errors show this text with the mistakes underlined. By default
            errors show `str(expr)`.

    Returns:
        The tree of the query. In it, every `age = 0.7` that was written without a tolerance has the tolerance that the
        vocabulary gives for the attribute. Names in quotes are of class `Quoted` if they are texts about pictures, and
        plain if the vocabulary lists them.

    Raises:
        UnknownAttribute: the query has names that are not in the vocabulary; one error reports all of these names.
        KindError: an attribute is used against its kind (`smile > 0.5` for a yes/no attribute), or with a value that it
            cannot have; one error reports all mistakes of both kinds.
    """
    nodes = predicates(expr)
    unknown = [i for i, node in enumerate(nodes) if node.name not in vocabulary and not is_words(node, vocabulary)]
    if unknown:
        raise _unknown_names(expr, unknown, vocabulary, query)
    if long := [node.name for node in nodes if len(node.name) > MOST_WORDS and node.name not in vocabulary]:
        raise LimitError(f"a text has {len(long[0]):,} characters, more than {MOST_WORDS}", hint="say less in one text")
    problems = {index: problem for index, node in enumerate(nodes) if (problem := _check(node, vocabulary[node.name]))}
    if problems:
        raise _wrong_kinds(expr, problems, query)

    def settled(node: Expr) -> Expr:
        if isinstance(node, Near) and node.tolerance is None:
            return replace(node, tolerance=vocabulary[node.name].tolerance)
        if isinstance(node, Attribute) and isinstance(node.name, Quoted) and node.name in vocabulary:
            return replace(node, name=str(node.name))
        return node

    return expr.map(settled)


def is_words(node: Predicate, vocabulary: Vocabulary) -> bool:
    """Return whether a predicate is a text about pictures, such as `"a person in a hat"`.

    It is such a text if the vocabulary allows them, the name is in quotes, and no attribute has this name.
    """
    return vocabulary.reads_words and isinstance(node.name, Quoted) and node.name not in vocabulary


def _check(node: Predicate, spec: AttributeSpec) -> _Problem | None:
    kind, name = KINDS[spec.kind], quote(spec.name)
    if node.form in kind.forms:
        return _check_range(node, spec) if isinstance(node, (Interval, Near)) else _check_values(node, spec)
    instead = tuple(map(str, kind.instead(Attribute(spec.name), spec, node)[:_MOST_LISTED]))
    hint = f"values of {name}: {_listed(spec.values)}" if spec.values else None
    offered = " or ".join(f"`{text}`" for text in instead[: kind.offered])
    return _Problem(f"{name} {kind.nature(spec)}: write {offered}", hint, instead=instead)


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


def _unknown_names(expr: Expr, unknown: list[int], vocabulary: Vocabulary, query: str | None) -> UnknownAttribute:
    nodes = predicates(expr)
    names = list(dict.fromkeys(nodes[index].name for index in unknown))
    owners = {value: quote(spec.name) for spec in vocabulary.values() for value in spec.values}
    matches = {name: quote(match) for name in names[:_MOST_LISTED] if (match := vocabulary.suggest(name))}
    hints, similar = [], []
    for name in names[:_MOST_LISTED]:
        if name in owners:
            hints.append(f"'{shorten(name)}' is a value of {owners[name]}: write `{owners[name]} = {quote(name)}`")
        elif name in matches:
            similar.append(matches[name])
    if similar:
        hints.append(f"did you mean {', '.join(dict.fromkeys(similar))}?")
    if len(hints) + len(similar) - bool(similar) < len(names):
        hints.append(f"attributes: {_listed(vocabulary) or 'none'}")
    if vocabulary.reads_words:
        hints.append('a text that a reader of pictures reads is in quotes, and stands alone: "a person in a hat"')
    elif any(isinstance(nodes[index].name, Quoted) for index in unknown):
        hints.append(f"to read words off pictures, give {vocabulary.of_model} a reader: --reader, in Python reader=")
    text, spans = _locate(expr, query, dict.fromkeys(unknown))
    message = f"'{shorten(names[0])}' is not an attribute of {vocabulary.of_model}"
    error = UnknownAttribute(message, query=text, spans=spans, hint="\n".join(hints), names=names)
    suggestions: list[Suggestion] = []
    for node in (nodes[index] for index in unknown):
        if query is None or node.span is None:
            continue
        if node.name in owners and isinstance(node, Attribute):
            suggestions.append(Suggestion(node.span, f"{owners[node.name]} = {quote(node.name)}"))
        elif node.name not in owners and node.name in matches:
            suggestions += (Suggestion(span, matches[node.name]) for span in _parts(query, node.span, None))
    error.suggestions = tuple(suggestions)
    return error


def _wrong_kinds(expr: Expr, problems: dict[int, _Problem], query: str | None) -> KindError:
    messages = list(dict.fromkeys(problem.message for problem in problems.values()))
    hints = list(dict.fromkeys(problem.hint for problem in problems.values() if problem.hint))
    more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
    text, spans = _locate(expr, query, {index: problem.wrong for index, problem in problems.items()})
    error = KindError("; ".join(messages[:3]) + more, query=text, spans=spans, hint="\n".join(hints[:3]) or None)
    suggestions: list[Suggestion] = []
    nodes = predicates(expr)
    for index, problem in problems.items():
        place = nodes[index].span
        if query is not None and place is not None:
            suggestions += (Suggestion(place, text) for text in problem.instead)
            for value, match in problem.values.items():
                suggestions += (Suggestion(span, match) for span in _parts(query, place, (value,)))
    error.suggestions = tuple(suggestions)
    return error


def _locate(
    expr: Expr, query: str | None, wrong: Mapping[int, Collection[str | float] | None]
) -> tuple[str | None, list[Span]]:
    """Return the text of a query that an error shows, and the spans of the mistakes in this text.

    The result is `None` and an empty list if `query` is `None` and the printed tree is too long to be parsed.

    Args:
        expr: the tree of the query.
        query: the text that `expr` was parsed from; `None` to print `expr` and use the printed text.
        wrong: the wrong predicates, by their index in `predicates(expr)`. For each of them, the wrong values, which are
            underlined. If there are no values, the whole predicate is underlined. `None` underlines the attribute name.
    """
    if query is None:
        query = str(expr)
        try:
            expr = parse(query)
        except EnergyQLError:  # too long to be parsed again: the message has to do
            return None, []
    nodes = predicates(expr)
    spans: list[Span] = []
    for index, values in wrong.items():
        span = nodes[index].span
        if span is not None:
            spans.extend(_parts(query, span, values) or [span])
    return query, spans


def _parts(query: str, span: Span, wrong: Collection[str | float] | None) -> list[Span]:
    """Return the spans of the wrong values in one predicate, or the span of its attribute name if `wrong` is `None`.

    The text of the predicate is tokenized again here, because a node of the tree has the span of the whole predicate
    only.

    Args:
        query: the text of the whole query.
        span: the characters of the predicate in `query`.
        wrong: the wrong values of the predicate; `None` to find the attribute name.

    Returns:
        Spans in `query`; none if the characters at `span` do not form a predicate.
    """
    try:
        tokens = tokenize(query[span.start : span.end])
        names = [token for token in tokens if token.type in ("NAME", "QUOTED")]
        if wrong is None:
            parts = names[:1]
        else:  # in `hair = hair` the first is the attribute, the second the value
            parts = [token for token in names[1:] if text_of(token) in wrong]
            parts += [token for token in tokens if token.type == "NUMBER" and float(token) in wrong]
    except (LarkError, EnergyQLError):  # `query` is not the text that this tree came from
        return []
    return [Span(span.start + start, span.start + end) for start, end in map(token_span, parts)]


def _listed(names: Iterable[str]) -> str:
    quoted = [quote(name) for name in names]
    more = f" and {len(quoted) - _MOST_LISTED} more" if len(quoted) > _MOST_LISTED else ""
    return ", ".join(quoted[:_MOST_LISTED]) + more
