"""Cells: the sets of values of an attribute that a query distinguishes.

A *cell set* is a plain tuple, so that data can travel from here to the attribute heads without either side
importing the other:

    yes/no       the truths it holds          (False,)  (True,)  (False, True)
    categorical  the classes it holds         ("black", "gray")           in the vocabulary's order
    continuous   disjoint intervals, sorted   ((-inf, 0.2), (0.8, inf))

The empty tuple holds no value. Under a continuous density a single point has probability zero, so `<` and `<=`
draw the same boundary, and an interval without width is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from energyql.language import Attribute, Expr, Interval, Near, OneOf, Predicate, predicates
from energyql.vocabulary import AttributeSpec

Cell = bool | str | tuple[float, float]
CellSet = tuple[Cell, ...]

# Thresholds that agree to this many digits are one threshold: 0.7 + 0.05 and 0.75 differ in the last bit, and a cell
# of that width would only hold rounding error.
THRESHOLD_DIGITS = 12


def predicate_cells(predicate: Predicate, spec: AttributeSpec) -> CellSet:
    """Return the values for which a predicate is true.

    A continuous head predicts a normal, which is unbounded, while the attribute has a range. Mass that the normal
    puts beyond an end of the range belongs to the outermost cell: a bound at or beyond an end is no bound at all.
    So with `age` in 0..1, `age >= 0` is always true, `age < 0` never, and `age IN [0, 0.4]` is `age < 0.4`.
    """
    if isinstance(predicate, Attribute):
        return (True,)
    if isinstance(predicate, OneOf):
        return tuple(value for value in spec.values if (value in predicate.values) != predicate.negated)
    if isinstance(predicate, Near):
        tolerance = spec.tolerance if predicate.tolerance is None else predicate.tolerance
        low, high = predicate.value - tolerance, predicate.value + tolerance
    else:
        assert isinstance(predicate, Interval)
        low = -math.inf if predicate.low is None else predicate.low
        high = math.inf if predicate.high is None else predicate.high
    low, high = _threshold(low, spec), _threshold(high, spec)
    return ((low, high),) if low < high else ()


def _threshold(value: float, spec: AttributeSpec) -> float:
    value = float(f"{value:.{THRESHOLD_DIGITS}g}") + 0.0  # + 0.0 turns -0.0 into 0.0
    if value <= spec.low:
        return -math.inf
    return math.inf if value >= spec.high else value


def partition(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> dict[str, tuple[CellSet, ...]]:
    """Split the range of every attribute in `expr` into the cells that the query distinguishes.

    Returns:
        For each name, in the vocabulary's order, disjoint cell sets that together hold every value. Classes that no
        predicate separates share a cell.
    """
    mentioned: dict[str, list[CellSet]] = {}
    for node in predicates(expr):
        mentioned.setdefault(node.name, []).append(predicate_cells(node, vocabulary[node.name]))
    return {name: _split(vocabulary[name], mentioned[name]) for name in vocabulary if name in mentioned}


def _split(spec: AttributeSpec, mentioned: list[CellSet]) -> tuple[CellSet, ...]:
    if spec.kind == "yes/no":
        return ((False,), (True,))
    if spec.kind == "categorical":
        groups: dict[tuple[bool, ...], list[str]] = {}
        for value in spec.values:
            groups.setdefault(tuple(value in cells for cells in mentioned), []).append(value)
        return tuple(tuple(group) for group in groups.values())
    inner = {bound for cells in mentioned for cell in cells if isinstance(cell, tuple) for bound in cell}
    bounds = sorted(inner | {-math.inf, math.inf})
    return tuple(((low, high),) for low, high in pairwise(bounds))


def holds(cells: CellSet, atom: CellSet) -> bool:
    """Return whether `cells` holds all of `atom`, one of the cells that `partition` made from it and others."""
    first = atom[0]
    if isinstance(first, tuple):
        return any(cell[0] <= first[0] and first[1] <= cell[1] for cell in cells if isinstance(cell, tuple))
    return first in cells


def union(atoms: Iterable[CellSet], spec: AttributeSpec) -> CellSet:
    """Return the union of disjoint cell sets in canonical form: sorted, neighbouring intervals merged."""
    parts = {part for atom in atoms for part in atom}
    if spec.kind == "yes/no":
        return tuple(truth for truth in (False, True) if truth in parts)
    if spec.kind == "categorical":
        return tuple(value for value in spec.values if value in parts)
    merged: list[tuple[float, float]] = []
    for low, high in sorted(part for part in parts if isinstance(part, tuple)):
        if merged and merged[-1][1] == low:
            merged[-1] = (merged[-1][0], high)
        else:
            merged.append((low, high))
    return tuple(merged)
