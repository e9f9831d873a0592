"""Queries that nothing or everything satisfies, and parts of queries that are never or always true."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import NamedTuple

from energyql.errors import ConstantPartWarning, Contradiction, LimitError, QueryWarning, TautologyWarning, caller_level
from energyql.language import And, Attribute, Constant, Expr, Interval, Near, Not, OneOf, Or, Weight, predicates
from energyql.language.expr import Joined
from energyql.language.rewrite import lower, without_constants
from energyql.logic.diagram import ALWAYS, DEFAULT_MAX_NODES, NEVER, Diagram, QueryDiagram, build_diagram, relations_for
from energyql.logic.nodes import predicate_cells
from energyql.vocabulary import AttributeSpec

_MOST_SHOWN = 60
"""Most characters of a conjunct that is quoted in a message; the carets show longer ones."""
# Not `warnings.catch_warnings`: it changes the filters of the whole process, so threads would have to take turns.
_NOTES: ContextVar[list[QueryWarning] | None] = ContextVar("tautologies", default=None)
_MOST_PARTS = 3
"""Most parts of one query that get warnings; further parts are only counted."""
_FREE = Attribute("free")
"""Placeholder for a part that may be true or false."""


def check_satisfiable(
    expr: Expr,
    vocabulary: Mapping[str, AttributeSpec],
    *,
    query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES,
    relations: bool = False,
) -> None:
    """Check that a bound query can be satisfied, by its decision diagram; no circuit is compiled.

    The arguments, errors and warnings are those of `compile_query`.
    """
    groups = relations_for(expr, vocabulary) if relations else []
    diagram = build_diagram(expr, vocabulary, max_nodes, groups)
    report_constant(expr, diagram, query=query)
    report_constant_parts(expr, diagram, query=query)


def report_constant(expr: Expr, diagram: QueryDiagram, *, query: str | None = None) -> None:
    """Raise `Contradiction` for a query that is always false, and warn of one that is always true.

    `diagram` is that of the query; `query` is its text.
    """
    if diagram.root == NEVER:
        raise _contradiction(expr, diagram, query)
    if diagram.root == ALWAYS:
        text = str(expr)
        warn(TautologyWarning(f"{text if len(text) <= 80 else 'the query'} is always true, so it asks for nothing"))


def report_constant_parts(expr: Expr, diagram: QueryDiagram, *, query: str | None = None) -> None:
    """Warn of the parts of a query that are never or always true, if the query is neither.

    Each cause gets one warning: about the smallest constant part, not about larger parts that are constant because of
    it. The constants TRUE and FALSE get none.

    Args:
        expr: the query.
        diagram: diagram of the query, complete: the rest of its limits is used here.
        query: the text of the query.

    Warns:
        ConstantPartWarning: one for each cause, at most three; the third has the number of further causes.
    """
    if diagram.root in (NEVER, ALWAYS):
        return
    with suppress(LimitError):  # too large to decide, and nothing is wrong with the query
        causes = list(_constant_parts(expr, diagram))
        for number, cause in enumerate(causes[:_MOST_PARTS], start=1):
            warning = _describe(cause, diagram, query)
            if number == _MOST_PARTS < len(causes):
                more = f"parts of the query that are never or always true: {len(causes)}, of which {number} are shown"
                warning.hint = more if warning.hint is None else f"{warning.hint}\n{more}"
            warn(warning)


@contextmanager
def noting_tautologies() -> Iterator[list[QueryWarning]]:
    """Collect the warnings about constant queries and parts in this thread, instead of issuing them."""
    notes: list[QueryWarning] = []
    token = _NOTES.set(notes)
    try:
        yield notes
    finally:
        _NOTES.reset(token)


def warn(warning: QueryWarning) -> None:
    """Issue a warning, or add it to the list of `noting_tautologies`."""
    notes = _NOTES.get()
    if notes is None:
        warnings.warn(warning, stacklevel=caller_level())
    else:
        notes.append(warning)


class _Place(NamedTuple):
    """A part of a query, and the place of the part that holds it."""

    part: Expr
    holder: _Place | None


def _constant_parts(expr: Expr, diagram: QueryDiagram) -> Iterator[_Place]:
    """Yield the parts that are constant by themselves, and not only because an operand is, in the order of the text."""
    stack = [_Place(expr, None)]
    while stack:
        place = stack.pop()
        part = place.part
        stack += [_Place(operand, place) for operand in reversed(part.children)]
        if diagram.constant(part) is None or isinstance(part, Constant):
            continue
        if not _decide(part, [diagram.constant(operand) for operand in part.children]):
            yield place


def _decide(part: Expr, truths: Sequence[bool | None]) -> bool:
    """Return whether a part is constant for the `truths` of its operands, whatever the operands with `None` are."""

    def constant(truths: Sequence[bool | None]) -> bool:
        operands: list[Expr] = [_FREE if truth is None else Constant(truth) for truth in truths]
        return isinstance(without_constants(part, operands), Constant)

    return constant(truths) and not constant([None] * len(truths))


def _describe(place: _Place, diagram: QueryDiagram, query: str | None) -> ConstantPartWarning:
    """Return the warning about a constant part: why it is constant, and its effect on the parts that contain it."""
    part, holder = place
    truth = diagram.constant(part)
    asserted = Not(part, span=part.span) if truth else part
    clash, needed = _clash(asserted, diagram)
    if truth:
        texts = [str(each.operand if isinstance(each, Not) else Not(each)) for each in clash]
        short = all(len(text) <= _MOST_SHOWN for text in texts)
        several = f"one of these {len(clash)} parts" if len(clash) > 1 else "this part"
        message = f"{' or '.join(texts) if short and len(texts) < 6 else several} always holds"
    else:
        message = _reason(clash, diagram, needed, "this part")
    whole, constant = part, truth
    while holder is not None and diagram.constant(holder.part) is not None:
        alone = [constant if operand is whole else None for operand in holder.part.children]
        if not _decide(holder.part, alone):
            break
        whole, holder = holder
        constant = diagram.constant(whole)
    name, follows = "this part", ""
    if whole is not part or len(clash) < len(conjuncts(asserted)):
        text = str(whole)
        name = f"`{text}`" if len(text) <= 2 * _MOST_SHOWN else "a larger part"
        follows = f"is {'always' if constant else 'never'} true"
    if holder is not None and constant is not None and _changes_nothing(whole, constant, holder.part):
        follows += f"{' and ' * bool(follows)}changes nothing"
    if follows:
        message += f", so {name} {follows}"
    spans = [each.span for each in clash if each.span is not None]
    return ConstantPartWarning(message, query=query, spans=spans, hint=_always(needed))


def _changes_nothing(part: Expr, truth: bool, holder: Expr) -> bool:
    """Return whether a constant operand has no effect: in AND if it is always true, in OR if it is never true."""
    others = tuple(operand for operand in holder.children if operand is not part)
    if not isinstance(holder, Joined) or not others:
        return False
    rest = others[0] if len(others) == 1 else type(holder)(others)
    operands = [Constant(truth) if operand is part else operand for operand in holder.children]
    return without_constants(holder, operands) == rest


def _contradiction(expr: Expr, diagram: QueryDiagram, query: str | None) -> Contradiction:
    """Return the error of `report_constant`, with the spans of the parts that clash."""
    try:
        clash, needed = _clash(expr, diagram)
    except LimitError:
        return Contradiction("the query is always false", query=query)
    if not clash:
        return Contradiction(
            "the model's relations contradict one another, so nothing can satisfy a query that they concern",
            hint=f"mend them in its vocabulary.json: {'; '.join(needed)}",
        )
    spans = [part.span for part in clash if part.span is not None]
    return Contradiction(_reason(clash, diagram, needed, "the query"), query=query, spans=spans, hint=_always(needed))


def _always(relations: list[str]) -> str | None:
    return f'always: {"; ".join(relations)} (semantics="product" ignores these relations)' if relations else None


def _clash(expr: Expr, diagram: QueryDiagram) -> tuple[list[Expr], list[str]]:
    """Return the clashing conjuncts of an expression that is never true, and the relations with which they clash."""
    relations = [part for relation in diagram.relations for part in conjuncts(relation)]
    parts = _clashing([*conjuncts(expr), *relations], diagram)
    while len(parts) == 1 and isinstance(parts[0], Weight):  # a weighted contradiction is a contradiction
        parts = _clashing([*conjuncts(parts[0].operand), *relations], diagram)
    return [part for part in parts if part not in relations], [str(part) for part in parts if part in relations]


def conjuncts(expr: Expr) -> list[Expr]:
    """Return the parts that all have to hold for `expr` to hold: ANDs are opened, also those under a NOT."""
    parts: list[Expr] = []
    stack = [expr]
    while stack:
        node = stack.pop()
        opened = _opened(node)
        if opened is None:
            parts.append(node)
        else:
            stack.extend(reversed(opened))
    return parts


def _opened(node: Expr) -> Sequence[Expr] | None:
    """Return the conjuncts of a node, or `None` if it has none that are parts of the text; double NOT is opened."""
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
    """Return a minimal set of conjuncts that are false together, in the order of the text."""
    nodes = [part.evaluate(diagram) for part in parts]
    core: list[int] = []
    together, end = ALWAYS, len(parts)
    while together != NEVER:
        # The conjunct that completes the first clash is needed, and nothing after it is.
        prefix = together
        for index in range(end):
            prefix = diagram.conjunction([prefix, nodes[index]])
            if prefix == NEVER:
                end = index
                break
        core.append(end)
        together = diagram.conjunction([together, nodes[end]])
    return [parts[index] for index in sorted(core)]


def _reason(parts: list[Expr], diagram: Diagram, relations: list[str], what: str) -> str:
    """Return why parts clash with `relations`; `what` is the name of a part whose text is too long to be quoted."""
    names = list(dict.fromkeys(node.name for part in parts for node in predicates(part)))
    if len(parts) == 1:
        # One part alone is no contradiction without the relations.
        text = _quoted(parts[0], what)
        return f"{text} cannot hold" if relations else _reason_for_one(parts[0], text, names, diagram)
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


def _reason_for_one(part: Expr, text: str, names: list[str], diagram: Diagram) -> str:
    if isinstance(part, (Interval, Near)) and not predicate_cells(part, diagram.vocabulary[part.name]):
        spec = diagram.vocabulary[part.name]
        return f"{text} holds nothing: {part.name} runs from {spec.low:g} to {spec.high:g} and a point has no width"
    if not names:
        return f"{text} never holds"
    return f"{text} is false for every value of {_listed(names)}" if len(names) < 6 else f"{text} is always false"


def _quoted(part: Expr, what: str) -> str:
    text = str(part)
    return text if len(text) <= _MOST_SHOWN else what


def _phrase(part: Expr, spec: AttributeSpec) -> str | None:
    """Return the condition of a literal as words after "cannot be"; `None` if there is no good phrase."""
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
