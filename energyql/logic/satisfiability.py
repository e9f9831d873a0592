"""The truth of a query for given values of attributes; errors and warnings if a query is never or always true."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import reduce
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from energyql.errors import (
    ConstantPartWarning,
    Contradiction,
    LimitError,
    QueryWarning,
    TautologyWarning,
    caller_level,
    either,
)
from energyql.language import And, Attribute, Constant, Expr, Interval, Near, Not, Or, Predicate, Weight
from energyql.language.expr import Joined, Kernel, allowed_counts
from energyql.language.rewrite import lower, without_constants
from energyql.logic.diagram import (
    Diagram,
    build_diagram,
    predicate_cells,
    relations_for,
    truth_of,
)
from energyql.logic.nodes import ALWAYS, DEFAULT_MAX_NODES, NEVER
from energyql.vocabulary import AttributeSpec

_MOST_SHOWN = 60
"""Most characters of a part of a query that a message quotes; longer parts are only underlined."""
# Not `warnings.catch_warnings`: it changes the filters of the whole process, so threads would have to take turns.
_NOTES: ContextVar[list[QueryWarning] | None] = ContextVar("tautologies", default=None)
_MOST_PARTS = 3
"""Most warnings about constant parts of one query; the last says how many there are."""
_FREE = Attribute("free")
"""Placeholder for an operand that is true for some samples and false for others."""
Truth = npt.NDArray[np.bool_]
"""Whether a query, or a part of it, is true for each sample, (batch,); (1,) for constants."""


def check_satisfiable(
    expr: Expr, vocabulary: Mapping[str, AttributeSpec], *, query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES, relations: bool = False,
) -> None:  # fmt: skip
    """Check that a bound query can be satisfied; nothing is reported if its diagram needs more than `max_nodes` nodes.

    Args:
        query: the text that `expr` was parsed from, which errors and warnings show; `None` for no text.
        relations: whether the relations of the vocabulary that concern the query have to hold as well.

    Raises:
        Contradiction: nothing satisfies the query; the error says which parts cannot hold together.
        VocabularyError: the text of a relation is not a valid query about attributes of the vocabulary.

    Warns:
        TautologyWarning, ConstantPartWarning: see `report_constants`.
    """
    with suppress(LimitError):
        diagram = build_diagram(expr, vocabulary, max_nodes, relations_for(expr, vocabulary) if relations else [])
        report_constants(expr, diagram, query=query)


def report_constants(expr: Expr, diagram: Diagram, *, query: str | None = None) -> None:
    """Raise an error if a query is never true, and warn if it, or a part of it, is constant.

    If a part is constant only because of a constant part inside it, only the inner one gets a warning. The constants
    TRUE and FALSE get none.

    Args:
        diagram: the decision diagram of the query. Nodes are added to it; if it becomes too large, parts get no
            warnings.
        query: the text that `expr` was parsed from, which errors and warnings show; `None` for no text.

    Raises:
        Contradiction: nothing satisfies the query.

    Warns:
        TautologyWarning: everything satisfies the query.
        ConstantPartWarning: a part is never or always true; at most three, of which the last says how many there are.
    """
    if diagram.root == NEVER:
        raise _contradiction(expr, diagram, query)
    if diagram.root == ALWAYS:
        text = str(expr)
        warn(TautologyWarning(f"{text if len(text) <= 80 else 'the query'} is always true, so it asks for nothing"))
        return
    with suppress(LimitError):  # too large to decide, and nothing is wrong with the query
        causes = list(_constant_parts(expr, diagram))
        for number, cause in enumerate(causes[:_MOST_PARTS], start=1):
            warning = _describe(cause, diagram, query)
            if number == _MOST_PARTS < len(causes):
                more = f"parts of the query that are never or always true: {len(causes)}, of which {number} are shown"
                warning.hint = "\n".join(filter(None, [warning.hint, more]))
            warn(warning)


@contextmanager
def noting_tautologies() -> Iterator[list[QueryWarning]]:
    """Yield a list to which `warn` adds warnings during the block, instead of issuing them; only in this thread."""
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
    """A part of a query, and the place of the node that has it as an operand; `None` for the whole query."""

    part: Expr
    holder: _Place | None


def _constant_parts(expr: Expr, diagram: Diagram) -> Iterator[_Place]:
    """Yield the constant parts of a query in the order of its text, but not those that constant operands explain."""
    stack = [_Place(expr, None)]
    while stack:
        place = stack.pop()
        part = place.part
        stack += [_Place(operand, place) for operand in reversed(part.children)]
        if truth_of(diagram, part) is None or isinstance(part, Constant):
            continue
        if not _decide(part, [truth_of(diagram, operand) for operand in part.children]):
            yield place


def _decide(part: Expr, truths: Sequence[bool | None]) -> bool:
    """Whether a part is constant because of constant operands, and not anyway, as `AT LEAST 0 OF (a, b)` is."""

    def constant(truths: Sequence[bool | None]) -> bool:
        operands: list[Expr] = [_FREE if truth is None else Constant(truth) for truth in truths]
        return isinstance(without_constants(part, operands), Constant)

    return constant(truths) and not constant([None] * len(truths))


def _describe(place: _Place, diagram: Diagram, query: str | None) -> ConstantPartWarning:
    """Warning about a constant part: why it is constant, and which larger parts are constant for this reason."""
    part, holder = place
    truth = truth_of(diagram, part)
    asserted = Not(part, span=part.span) if truth else part
    clash, needed = _clash(asserted, diagram)
    if truth:
        texts = [str(each.operand if isinstance(each, Not) else Not(each)) for each in clash]
        short = all(len(text) <= _MOST_SHOWN for text in texts)
        several = f"one of these {len(clash)} parts" if len(clash) > 1 else "this part"
        message = f"{' or '.join(texts) if short and len(texts) < 6 else several} always holds"
    else:
        message = _reason(clash, diagram, "this part")
    whole, constant = part, truth
    while holder is not None and truth_of(diagram, holder.part) is not None:
        alone = [constant if operand is whole else None for operand in holder.part.children]
        if not _decide(holder.part, alone):
            break
        whole, holder = holder
        constant = truth_of(diagram, whole)
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
    """Whether a constant operand could be left out, such as one of AND that is always true."""
    others = tuple(operand for operand in holder.children if operand is not part)
    if not isinstance(holder, Joined) or not others:
        return False
    rest = others[0] if len(others) == 1 else type(holder)(others)
    operands = [Constant(truth) if operand is part else operand for operand in holder.children]
    return without_constants(holder, operands) == rest


def _contradiction(expr: Expr, diagram: Diagram, query: str | None) -> Contradiction:
    """Error for a query that is never true, in which parts are underlined that cannot all hold."""
    try:
        clash, needed = _clash(expr, diagram)
    except LimitError:
        return Contradiction("the query is always false", query=query)
    if not clash:
        message = "the model's relations contradict one another, so nothing can satisfy a query that they concern"
        return Contradiction(message, hint=f"mend them in its vocabulary.json: {'; '.join(needed)}")
    spans = [part.span for part in clash if part.span is not None]
    return Contradiction(_reason(clash, diagram, "the query"), query=query, spans=spans, hint=_always(needed))


def _always(relations: list[str]) -> str | None:
    product = either('semantics="product"', "--semantics product")
    return f"always: {'; '.join(relations)} ({product} ignores these relations)" if relations else None


def _clash(expr: Expr, diagram: Diagram) -> tuple[list[Expr], list[str]]:
    """Why `expr` is never true: parts of it, and relations as text (if needed), that cannot all hold together."""
    relations = [part for relation in diagram.relations for part in conjuncts(relation)]
    parts = _clashing([*conjuncts(expr), *relations], diagram)
    while len(parts) == 1 and isinstance(parts[0], Weight):  # a weighted contradiction is a contradiction
        parts = _clashing([*conjuncts(parts[0].operand), *relations], diagram)
    return [part for part in parts if part not in relations], [str(part) for part in parts if part in relations]


def conjuncts(expr: Expr) -> list[Expr]:
    """Parts of a query that must all hold if it holds: `a`, `NOT b`, `NOT c` for `a AND NOT (b OR c)`."""
    parts, stack = list[Expr](), [expr]
    while stack:
        opened = _opened(node := stack.pop())
        if opened is None:
            parts.append(node)
        stack.extend(reversed(opened or ()))
    return parts


def _opened(node: Expr) -> Sequence[Expr] | None:
    """The operands of a node, or their negations, if they must all hold whenever the node does; `None` for an OR."""
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
    """Those of `parts`, a contradiction, that cannot all hold; without any one of them, the others can."""

    def conjunction(left: int, right: int) -> int:
        return diagram.conjunction([left, right])

    nodes = [part.evaluate(diagram) for part in parts]
    core: list[int] = []
    together = ALWAYS
    while together != NEVER:
        # The conjunct that completes the first clash is needed, and nothing after it is.
        prefixes = accumulate(nodes, conjunction, initial=together)
        core.append(next(index for index, prefix in enumerate(prefixes, start=-1) if prefix == NEVER))
        together = conjunction(together, nodes[core[-1]])
    return [parts[index] for index in sorted(core)]


def _reason(parts: list[Expr], diagram: Diagram, what: str) -> str:
    """Error message that says why `parts` cannot hold together; of a single part, that it never holds.

    `what`, such as "this part", stands for a single part whose text is too long to quote.
    """
    texts = [str(part) for part in parts]
    short = all(len(text) <= _MOST_SHOWN for text in texts)
    if len(parts) > 1:
        clashing = f"{', '.join(texts[:-1])} and {texts[-1]}" if short else f"these {len(parts)} parts"
        return f"{clashing} cannot {'both' if len(parts) == 2 else 'all'} hold"
    part, text = parts[0], texts[0] if short else what
    if isinstance(part, (Interval, Near)) and not predicate_cells(part, spec := diagram.vocabulary[part.name]):
        return f"{text} holds nothing: {part.name} runs from {spec.low:g} to {spec.high:g} and a point has no width"
    return f"{text} never holds"


def satisfied(expr: Expr, values: Mapping[str, npt.NDArray[Any]], vocabulary: Mapping[str, AttributeSpec]) -> Truth:
    """For each sample, whether a bound query is true, given the values of its attributes; weights make no difference.

    Args:
        values: for every attribute of the query, its value for each sample, (batch,): booleans, names of classes, or
            numbers.
        vocabulary: the attributes, whose tolerances are used for `age = 0.7` without a tolerance.

    Returns:
        Booleans of shape (batch,); of shape (1,) if the query has no attributes.
    """

    def truth(node: Predicate) -> Truth:
        numbers, spec = values[node.name], vocabulary[node.name]
        match node:
            case Interval(low_closed=low_closed, high_closed=high_closed):
                low, high = node.bounds(0.0)
                above = numbers >= low if low_closed else numbers > low
                return np.asarray(above & (numbers <= high if high_closed else numbers < high))
            case Near(value=value, tolerance=tolerance):
                return np.asarray(np.abs(numbers - value) <= (spec.tolerance if tolerance is None else tolerance))
        return np.isin(numbers, predicate_cells(node, spec))

    return expr.evaluate(_Truths(truth))


def combined(expr: Expr, truths: Mapping[str, Truth]) -> Truth:
    """For each sample, whether a query is true; `truths` has the truth of each condition, (batch,), by its text."""
    return expr.evaluate(_Truths(lambda node: truths[str(node)]))


class _Truths(Kernel[Truth]):
    """Evaluator of a query's truth for samples, from a function `truth` for conditions on attributes, (batch,)."""

    def __init__(self, truth: Callable[[Predicate], Truth]) -> None:
        self._truth = truth

    def leaf(self, node: Expr) -> Truth:
        if isinstance(node, Constant):
            return np.array([node.value], bool)
        assert isinstance(node, Predicate)
        return self._truth(node)

    def negation(self, value: Truth) -> Truth:
        return ~value

    def conjunction(self, values: Sequence[Truth]) -> Truth:
        return reduce(np.logical_and, values)

    def disjunction(self, values: Sequence[Truth]) -> Truth:
        return reduce(np.logical_or, values)

    def count(self, quantifier: str, count: int, values: Sequence[Truth]) -> Truth:
        allowed = allowed_counts(quantifier, count, len(values))
        true = np.sum(np.broadcast_arrays(*values), axis=0)
        return np.asarray((allowed.start <= true) & (true < allowed.stop))

    def weighted(self, factor: float, value: Truth) -> Truth:
        return value
