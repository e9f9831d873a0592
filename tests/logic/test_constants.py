import pytest

from energyql.language.ast import And, Attribute, Cardinality, Constant, Iff, Implies, Not, Or, Weight, Xor
from energyql.logic.constants import fold_constants

A, B, C = Attribute("smile"), Attribute("hat"), Attribute("beard")

FOLDED = [
    (And((A, Constant(True))), A),
    (Or((A, Constant(True))), Constant(True)),
    (Or((A, Constant(False), B)), Or((A, B))),
    (Xor((A, Constant(True))), Not(A)),
    (Iff((A, Constant(False))), Not(A)),
    (Implies(A, Constant(False)), Not(A)),
    (Implies(Constant(True), A), A),
    (Implies(Constant(False), A), Constant(True)),
    (Not(Not(Constant(True))), Constant(True)),
    (Weight(2.0, Constant(True)), Constant(True)),
    (Cardinality("AT LEAST", 2, (A, B, C, Constant(True))), Cardinality("AT LEAST", 1, (A, B, C))),
    (Cardinality("AT MOST", 1, (A, B, Constant(True))), Cardinality("AT MOST", 0, (A, B))),
    (Cardinality("ANY", None, (A, Constant(True))), Constant(True)),
    (Cardinality("ALL", None, (A, B, Constant(True))), Cardinality("ALL", None, (A, B))),
]


@pytest.mark.parametrize(("query", "expected"), FOLDED)
def test_constants_are_folded(query, expected):
    assert fold_constants(query) == expected


def test_a_tree_without_constants_stays_as_written():
    query = Not(Not(And((A, A, Or((B, Not(B)))))))
    assert fold_constants(query) == query
