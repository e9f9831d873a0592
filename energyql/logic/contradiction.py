"""Says why nothing can satisfy a query: the smallest group of its conjuncts that already clash."""

from __future__ import annotations

from collections.abc import Sequence

from energyql.errors import Contradiction, LimitError
from energyql.language.ast import And, Cardinality, Constant, Expr, Implies, Interval, Near, Not, OneOf, Or, Weight
from energyql.logic.cells import predicate_cells
from energyql.logic.diagram import FALSE, TRUE, Diagram
from energyql.logic.tree import Predicate, postorder
from energyql.vocabulary import AttributeSpec

_MOST_SHOWN = 60
"""Longest conjunct that is quoted in a message; the carets show longer ones."""


def contradiction(
    expr: Expr, diagram: Diagram, *, query: str | None = None, known: Sequence[Expr] = ()
) -> Contradiction:
    """The error for a query that is always false, with the spans of the parts that clash.

    Args:
        expr: the query.
        diagram: the diagram it was built in.
        query: its text, for drawing carets.
        known: those parts of it that are the model's relations and not the user's.
    """
    try:
        parts = _clashing(expr, diagram)
        while len(parts) == 1 and isinstance(parts[0], Weight):  # a weighted contradiction is a contradiction
            parts = _clashing(parts[0].operand, diagram)
    except LimitError:
        return Contradiction("the query is always false", query=query)
    relations = {part for relation in known for part in conjuncts(relation)}
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
    # One part alone is no contradiction by itself, as `_reason` would say of it.
    reason = f"{_quoted(asked[0])} cannot hold" if len(asked) == 1 else _reason(asked, diagram)
    hint = f'always: {"; ".join(needed)} (semantics="product" asks all the same)'
    return Contradiction(reason, query=query, spans=spans, hint=hint)


def conjuncts(expr: Expr) -> list[Expr]:
    """The parts that all have to hold for `expr` to hold: ANDs are opened, also those that a NOT hides."""
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


def _opened(node: Expr) -> list[Expr] | None:
    if isinstance(node, And) or (isinstance(node, Cardinality) and node.quantifier == "ALL"):
        return list(node.operands)
    if isinstance(node, Cardinality) and node.quantifier == "NONE":
        return [_negation(operand) for operand in node.operands]
    if isinstance(node, Weight) and node.factor == 1:
        return [node.operand]
    if isinstance(node, Not):
        inner = node.operand
        if isinstance(inner, Or) or (isinstance(inner, Cardinality) and inner.quantifier == "ANY"):
            return [_negation(operand) for operand in inner.operands]
        if isinstance(inner, Not):
            return [inner.operand]
        if isinstance(inner, Implies):
            return [inner.left, _negation(inner.right)]
    return None


def _negation(operand: Expr) -> Expr:
    return Not(operand, span=operand.span)


def _clashing(expr: Expr, diagram: Diagram) -> list[Expr]:
    """Conjuncts of a false `expr` that are false together, none of which can be left out, in the order of the text."""
    parts = conjuncts(expr)
    nodes = [diagram.build(part) for part in parts]
    kept: list[int] = []
    together, end = TRUE, len(parts)
    while together != FALSE:
        # The conjunct that completes the first clash is needed, and nothing after it is.
        prefix = together
        for index in range(end):
            prefix = diagram.conjunction([prefix, nodes[index]])
            if prefix == FALSE:
                end = index
                break
        kept.append(end)
        together = diagram.conjunction([together, nodes[end]])
    return [parts[index] for index in sorted(kept)]


def _reason(parts: list[Expr], diagram: Diagram) -> str:
    names = list(dict.fromkeys(node.name for part in parts for node in postorder(part) if isinstance(node, Predicate)))
    if len(parts) == 1:
        return _reason_for_one(parts[0], names, diagram)
    texts = [str(part) for part in parts]
    if len(names) == 1:
        spec = diagram.vocabulary[names[0]]
        phrases = [phrase for phrase in (_phrase(part, spec) for part in parts) if phrase is not None]
        if len(phrases) == len(parts):
            both = "both " if spec.kind == "categorical" and len(parts) == 2 else ""
            return f"{names[0]} cannot be {both}{_listed(phrases)}"
    if any(len(text) > _MOST_SHOWN for text in texts):
        return f"these {len(parts)} parts cannot all hold"
    return f"{_listed(texts)} cannot {'both' if len(parts) == 2 else 'all'} hold"


def _reason_for_one(part: Expr, names: list[str], diagram: Diagram) -> str:
    text = _quoted(part)
    if isinstance(part, Constant):
        return "FALSE never holds"
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
    """What a literal asks of its attribute, after "cannot be"; None where that would not read well."""
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
