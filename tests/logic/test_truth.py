import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

sys.path.append(str(Path(__file__).parents[1] / "energy"))  # where pytest puts it only if it collects that folder
from formulas import VOCABULARY, BruteForce, formulas, with_weights

from energyql.language import TRUE, Attribute, Constant, E, Interval, Near, Weight, Xor, bind, parse
from energyql.logic.satisfiability import satisfied

CENTRES = np.array([0.1, 0.3, 0.5, 0.7, 0.9])


def decided(worlds):
    """Values of attributes from the indices that `BruteForce` counts worlds by."""
    values = {}
    for name, index in worlds.items():
        spec = VOCABULARY[name]
        if spec.kind == "yes/no":
            values[name] = index == 1
        else:
            values[name] = CENTRES[index] if spec.kind == "continuous" else np.array(spec.values)[index]
    return values


def agree(expr):
    # To the reference, a weighted part has a truth of its own.
    reference = BruteForce(expr.map(lambda node: node.operand if isinstance(node, Weight) else node))
    truth = satisfied(expr, decided(reference.world), VOCABULARY)
    assert truth.dtype == bool
    assert np.array_equal(np.broadcast_to(truth, (reference.count,)), reference.table[:, 0])


@settings(deadline=None)
@given(formulas)
def test_every_world_of_random_formulas(expr):
    agree(expr)


@settings(deadline=None)
@given(with_weights)
def test_weights_do_not_matter(expr):
    agree(expr)


VALUES = {
    "smile": np.array([True, True, False, False]),
    "hat": np.array([True, False, True, False]),
    "hair": np.array(["black", "red", "gray", "red"]),
    "age": np.array([0.2, 0.4, 0.6, 0.8]),
}


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (Interval("age", 0.4, None), "0011"),
        (Interval("age", 0.4, None, low_closed=True), "0111"),
        (Interval("age", None, 0.6, high_closed=True), "1110"),
        (Interval("age", 0.2, 0.8, low_closed=True), "1110"),
        (Near("age", 0.5, 0.15), "0110"),
        (Near("age", 0.62), "0010"),
        (Xor((TRUE, E.smile)), "0011"),
    ],
    ids=str,
)
def test_by_hand(expr, expected):
    assert "".join(str(int(value)) for value in satisfied(expr, VALUES, VOCABULARY)) == expected


@pytest.mark.parametrize("value", [True, False])
def test_a_constant_is_one_value(value):
    truth = satisfied(Constant(value), {}, {})
    assert truth.tolist() == [value]
    assert truth.dtype == bool


def test_no_rows():
    empty = {"smile": np.zeros(0, bool), "age": np.zeros(0)}
    query = bind(parse("AT LEAST 1 OF (smile, age > 0.5, FALSE)"), VOCABULARY)
    assert satisfied(query, empty, VOCABULARY).shape == (0,)


def test_a_missing_attribute_is_an_error():
    with pytest.raises(KeyError, match="beard"):
        satisfied(Attribute("beard"), VALUES, VOCABULARY)
