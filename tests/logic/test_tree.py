import pytest

from energyql.language.ast import And, Attribute, Cardinality, Implies, Not, Or, Weight
from energyql.logic.tree import allowed_counts, balanced, children, fold, postorder

A, B, C = Attribute("a"), Attribute("b"), Attribute("c")


def test_children_are_the_operands():
    assert children(A) == ()
    assert children(Not(A)) == (A,)
    assert children(Weight(2.0, A)) == (A,)
    assert children(Implies(A, B)) == (A, B)
    assert children(Cardinality("ANY", None, (A, B))) == (A, B)


def test_operands_come_first_and_from_left_to_right():
    query = And((Or((A, B)), Not(C)))
    assert postorder(query) == [A, B, Or((A, B)), C, Not(C), query]


def test_fold_passes_results_in_order():
    def shown(node, operands):
        return getattr(node, "name", type(node).__name__) + (f"({' '.join(operands)})" if operands else "")

    assert fold(And((Or((A, B)), Not(C), A)), shown) == "And(Or(a b) Not(c) a)"


def test_a_chain_of_nots_needs_no_deep_stack():
    query = A
    for _ in range(190):
        query = Not(query)
    assert fold(query, lambda node, operands: 1 + sum(operands)) == 191


@pytest.mark.parametrize("size", range(1, 9))
def test_balanced_keeps_the_order(size):
    assert balanced([str(i) for i in range(size)], str.__add__) == "01234567"[:size]


@pytest.mark.parametrize(
    ("quantifier", "count", "expected"),
    [
        ("AT LEAST", 2, [2, 3]),
        ("AT MOST", 1, [0, 1]),
        ("AT MOST", 9, [0, 1, 2, 3]),
        ("EXACTLY", 0, [0]),
        ("EXACTLY", 3, [3]),
        ("ALL", None, [3]),
        ("ANY", None, [1, 2, 3]),
        ("NONE", None, [0]),
    ],
)
def test_allowed_counts(quantifier, count, expected):
    assert list(allowed_counts(Cardinality(quantifier, count, (A, B, C)))) == expected
