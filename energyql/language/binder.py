"""Binding: checks of a parsed tree against the vocabulary of a model."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from lark.exceptions import LarkError

from energyql.errors import EnergyQLError, KindError, Span, Suggestion, UnknownAttribute
from energyql.kinds import KINDS, range_text
from energyql.language.expr import Attribute, Expr, Interval, Near, OneOf, Predicate, predicates
from energyql.language.lexical import quote, shorten, show_number
from energyql.language.parser import parse, text_of, token_span, tokenize
from energyql.vocabulary import AttributeSpec, Vocabulary, closest

_MOST_LISTED = 12
"""Most names or values that one hint lists."""


class _Problem(NamedTuple):
    """One mistake: its message, a hint, and the values to underline within the predicate (none: all of it).

    `instead` holds suggested predicates, and `values` maps a wrong value to the suggested one.
    """

    message: str
    hint: str | None = None
    wrong: tuple[str | float, ...] = ()
    instead: tuple[str, ...] = ()
    values: Mapping[str, str] = {}


def bind(expr: Expr, vocabulary: Vocabulary, *, query: str | None = None) -> Expr:
    """Check every name, kind, value and range of a query, and fill in the tolerances of the model.

    Args:
        expr: the tree.
        vocabulary: the attributes of the model.
        query: the text that the spans of `expr` point into, for the drawing of errors. Without it an error is drawn
            over `str(expr)`.

    Returns:
        The tree with the tolerance of every `attribute = number` filled in.

    Raises:
        UnknownAttribute: names that the model does not have, all of them at once.
        KindError: attributes used against their kind or with values they cannot have, all of them at once.
    """
    nodes = predicates(expr)
    unknown = [index for index, node in enumerate(nodes) if node.name not in vocabulary]
    if unknown:
        raise _unknown_names(expr, nodes, unknown, vocabulary, query)
    problems = {index: problem for index, node in enumerate(nodes) if (problem := _check(node, vocabulary[node.name]))}
    if problems:
        raise _wrong_kinds(expr, problems, query)
    return expr.map(
        lambda node: (
            replace(node, tolerance=vocabulary[node.name].tolerance)
            if isinstance(node, Near) and node.tolerance is None
            else node
        )
    )


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
    hint = (
        f"did you mean {', '.join(dict.fromkeys(near.values()))}?"
        if near
        else f"values of {name}: {_listed(spec.values)}"
    )
    shown = ", ".join(f"'{shorten(value)}'" for value in wrong[:_MOST_LISTED])
    message = f"{shown} {'is not a value' if len(wrong) == 1 else 'are not values'} of {name}"
    return _Problem(message, hint, wrong, values=near)


def _check_range(node: Interval | Near, spec: AttributeSpec) -> _Problem | None:
    name = quote(spec.name)
    numbers = (node.value,) if isinstance(node, Near) else (node.low, node.high)
    outside = tuple(x for x in numbers if x is not None and not spec.low <= x <= spec.high)
    if outside:
        shown = " and ".join(show_number(x) for x in outside)
        verb = "is" if len(outside) == 1 else "are"
        return _Problem(f"{shown} {verb} out of range: {name} runs{range_text(spec)}", wrong=outside)
    if isinstance(node, Interval) and node.low == spec.high and not node.low_closed:
        return _Problem(f"{name} is never above {show_number(spec.high)}: it runs{range_text(spec)}")
    if isinstance(node, Interval) and node.high == spec.low and not node.high_closed:
        return _Problem(f"{name} is never below {show_number(spec.low)}: it runs{range_text(spec)}")
    return None


def _unknown_names(
    expr: Expr, nodes_in_query: Sequence[Predicate], unknown: list[int], vocabulary: Vocabulary, query: str | None
) -> UnknownAttribute:
    nodes, text = [nodes_in_query[index] for index in unknown], query
    names = list(dict.fromkeys(node.name for node in nodes))
    query, spans = _locate(expr, query, dict.fromkeys(unknown))
    hints = _unknown_hints(nodes, names, vocabulary)
    if len(names) > 1 and query is not None and len(query) > 100:  # some may lie beyond the window that is drawn
        hints.append(f"also unknown: {_listed(names[1:])}")
    message = f"'{shorten(names[0])}' is not an attribute of {vocabulary.of_model}"
    error = UnknownAttribute(message, query=query, spans=spans, hint="\n".join(hints), names=names)
    error.suggestions = tuple(_suggested_names(nodes, vocabulary, text))
    return error


def _suggested_names(nodes: Iterable[Predicate], vocabulary: Vocabulary, query: str | None) -> Iterator[Suggestion]:
    """Yield a known attribute for each unknown one; for a name that is a value, the predicate with its attribute."""
    for node in nodes:
        owner = next((spec.name for spec in vocabulary.values() if node.name in spec.values), None)
        match = vocabulary.suggest(node.name)
        if query is None or node.span is None:
            continue
        if owner is not None and isinstance(node, Attribute):
            yield Suggestion(node.span, f"{quote(owner)} = {quote(node.name)}")
        elif owner is None and match:
            yield from (Suggestion(span, quote(match)) for span in _parts(query, node.span, None))


def _unknown_hints(nodes: list[Predicate], names: list[str], vocabulary: Vocabulary) -> list[str]:
    for node in nodes:
        if isinstance(node, OneOf) and len(node.values) == 1:
            (value,) = node.values
            if value in vocabulary and node.name in vocabulary[value].values:  # black = hair
                sign = "!=" if node.negated else "="
                return [f"write the attribute first: `{quote(value)} {sign} {quote(node.name)}`"]
    hints: list[str] = []
    lost = False
    matches: dict[str, str] = {}
    for name in names[:_MOST_LISTED]:
        owner = next((spec.name for spec in vocabulary.values() if name in spec.values), None)
        if owner is not None:
            hints.append(f"'{shorten(name)}' is a value of {quote(owner)}: write `{quote(owner)} = {quote(name)}`")
        elif match := vocabulary.suggest(name):
            matches[name] = quote(match)
        else:
            lost = True
    if len(matches) == len(names):
        return [f"did you mean {', '.join(dict.fromkeys(matches.values()))}?"]
    hints += [f"did you mean {match} for '{shorten(name)}'?" for name, match in matches.items()]
    return [*hints, f"attributes: {_listed(vocabulary) or 'none'}"] if lost else hints


def _wrong_kinds(expr: Expr, problems: dict[int, _Problem], query: str | None) -> KindError:
    messages = list(dict.fromkeys(problem.message for problem in problems.values()))
    hints = list(dict.fromkeys(problem.hint for problem in problems.values() if problem.hint))
    more = f"; and {len(messages) - 3} more" if len(messages) > 3 else ""
    text, spans = _locate(expr, query, {index: problem.wrong for index, problem in problems.items()})
    error = KindError("; ".join(messages[:3]) + more, query=text, spans=spans, hint="\n".join(hints[:3]) or None)
    if query is not None:
        nodes = predicates(expr)
        error.suggestions = tuple(
            suggestion for index, problem in problems.items() for suggestion in _instead(nodes[index], problem, query)
        )
    return error


def _instead(node: Predicate, problem: _Problem, query: str) -> Iterator[Suggestion]:
    """Yield suggestions in place of a predicate, or of its wrong values."""
    if node.span is None:
        return
    for text in problem.instead:
        yield Suggestion(node.span, text)
    for value, match in problem.values.items():
        yield from (Suggestion(span, match) for span in _parts(query, node.span, (value,)))


def _locate(
    expr: Expr, query: str | None, wrong: Mapping[int, Collection[str | float] | None]
) -> tuple[str | None, list[Span]]:
    """Return the text to draw, or `None` if it is too long, and the spans of the mistakes in it.

    `wrong` maps the index of a predicate to its wrong values: none for the whole predicate, `None` for its name.
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
    """Return the spans of the name (`wrong` is `None`) or of the wrong values in a predicate.

    A node has only the span of the whole predicate; it is tokenized again here, because only errors need the parts.
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
