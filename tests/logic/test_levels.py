import math

import numpy as np
import pytest

from energyql.logic import levels
from energyql.logic.circuit import Circuit, Leaf, LogSumExp, Scaled, ScaledComplement, Sum
from energyql.logic.levels import multiply_out


def leaf(name):
    return Leaf(name, (True,))


def circuit(*nodes):
    return Circuit(nodes, (), {}, "")


def one_by_one(nodes, parts, rows):
    values = []
    for node in nodes:
        match node:
            case Leaf():
                values.append(np.logaddexp.reduce([rows[row] for row in parts[node]]))
            case Sum(children=children):
                values.append(sum(values[child] for child in children))
            case LogSumExp(children=children):
                values.append(np.logaddexp.reduce([values[child] for child in children]))
            case Scaled(factor=factor, child=child):
                values.append(factor * values[child])
    return values[-1]


def by_levels(found, rows):
    table = list(rows)
    for values in found:
        table += [
            np.logaddexp.reduce([sum(times * table[row] for row, times in term.items()) for term in value])
            for value in values
        ]
    return table[-1]


A, B, C, D = map(leaf, "abcd")
CASES = {
    "a leaf": (A,),
    "a leaf of two parts": (C,),
    "sum": (A, B, Sum((0, 1))),
    "a child twice": (A, B, LogSumExp((0, 1)), Sum((2, 2, 0))),
    "choice": (A, B, C, Sum((0, 1)), LogSumExp((2, 3))),
    "scaled leaf": (A, Scaled(2.0, 0)),
    "scaled sum": (A, B, Sum((0, 1)), Scaled(0.5, 2)),
    "scaled choice": (A, B, LogSumExp((0, 1)), Scaled(0.5, 2), Sum((0, 3))),
    "scaled union": (C, Scaled(3.0, 0)),
    "nested": (A, B, Sum((0, 1)), C, LogSumExp((2, 3)), Scaled(0.5, 4), D, Sum((5, 6, 0)), LogSumExp((0, 6)),
               Scaled(3.0, 8), LogSumExp((7, 9, 3))),
}  # fmt: skip
PARTS = {A: [0], B: [1], C: [2, 3], D: [4]}
ROWS = [-0.1, -2.0, -1.0, -3.0, -0.5]


def chain(length):
    """Exactly one of `length` pairs, by counting: every value is used twice."""
    nodes = [leaf("x0"), leaf("y0")]
    one, none = 0, 1
    for i in range(1, length):
        x = len(nodes)
        nodes += [leaf(f"x{i}"), leaf(f"y{i}"), Sum((one, x + 1)), Sum((none, x)), LogSumExp((x + 2, x + 3))]
        nodes.append(Sum((none, x + 1)))
        one, none = x + 4, x + 5
    nodes.append(Sum((one,)))
    return nodes


@pytest.mark.parametrize("most", [1, 2, 128])
@pytest.mark.parametrize("nodes", CASES.values(), ids=CASES)
def test_the_same_value(nodes, most, monkeypatch):
    monkeypatch.setattr(levels, "MOST_TERMS", most)
    found = multiply_out(circuit(*nodes), PARTS, 5)
    assert by_levels(found, ROWS) == pytest.approx(one_by_one(nodes, PARTS, ROWS))
    assert len(found[-1]) == 1


@pytest.mark.parametrize("most", [1, 4, 16, 128])
def test_long_values_are_split(most, monkeypatch):
    monkeypatch.setattr(levels, "MOST_TERMS", most)
    nodes = chain(12)
    parts = {node: [i] for i, node in enumerate(node for node in nodes if isinstance(node, Leaf))}
    rows = -np.random.default_rng(0).random(len(parts))
    found = multiply_out(circuit(*nodes), parts, len(parts))
    assert by_levels(found, rows) == pytest.approx(one_by_one(nodes, parts, rows))
    assert all(len(value) <= max(most, 2) for level in found for value in level)
    assert (len(found) == 1) == (most >= 12)  # terms in all


def test_a_conjunction_of_choices_is_one_level():
    nodes, pairs = [], []
    for i in range(6):
        nodes += [leaf(f"x{i}"), leaf(f"y{i}"), LogSumExp((3 * i, 3 * i + 1))]
        pairs.append(3 * i + 2)
    nodes.append(Sum(tuple(pairs)))
    parts = {node: [i] for i, node in enumerate(node for node in nodes if isinstance(node, Leaf))}
    ((value,),) = multiply_out(circuit(*nodes), parts, 12)
    assert len(value) == math.prod([2] * 6)
    assert all(len(term) == 6 for term in value)


def test_complements_of_weighted_parts_cannot_be_multiplied_out():
    assert multiply_out(circuit(A, B, ScaledComplement(2.0, 0, 1)), PARTS, 5) is None


def test_large_circuits_are_left_alone(monkeypatch):
    monkeypatch.setattr(levels, "MOST_NODES", 3)
    assert multiply_out(circuit(A, B, Sum((0, 1))), PARTS, 5) is not None
    assert multiply_out(circuit(A, B, D, Sum((0, 1, 2))), PARTS, 5) is None
