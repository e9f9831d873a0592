import pytest

from energyql.language import And, Attribute, Cardinality, Constant, Iff, Implies, Not, Or, Weight, Xor, parse
from energyql.language.rewrite import definition, fold_constants, lower

A, B, C = Attribute("smile"), Attribute("hat"), Attribute("beard")

FOLDED = [
    (Xor((A, Constant(True), B)), Not(Xor((A, B)))),
    (Xor((A, Constant(True), Constant(True))), A),
    (Iff((Constant(False), A, Constant(False), B)), Iff((A, B))),
    (And((Constant(False), Constant(True))), Constant(False)),
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


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("a IMPLIES b", "NOT a OR b"),
        ("a XOR b", "a AND NOT b OR NOT a AND b"),
        ("a IFF b", "a AND b OR NOT a AND NOT b"),
        ("ALL OF (a, b)", "a AND b"),
        ("ANY OF (a, b)", "a OR b"),
        ("NONE OF (a, b)", "NOT (a OR b)"),
    ],
)
def test_derived_connectives_are_lowered(query, expected):
    assert lower(parse(query)) == parse(expected)
    assert lower(parse(query)).span == (0, len(query))


@pytest.mark.parametrize("query", ["a", "TRUE", "NOT a", "a AND b", "a OR b", "2 * a", "AT MOST 1 OF (a, b)"])
def test_other_nodes_stay_as_they_are(query):
    expr = parse(query)
    assert lower(expr) is expr


def test_operands_keep_their_spans():
    lowered = lower(parse("a IMPLIES NOT b"))
    assert [node.span for node in lowered.walk()] == [(0, 15), (0, 1), (0, 1), (10, 15), (14, 15)]


def test_a_definition_in_words():
    assert definition(Implies(A, And((B, C)))) == "NOT left OR right"
