import pytest

from energyql.errors import LimitError
from energyql.language import And, Attribute, Cardinality, Iff, Interval, Not, Or, Weight, Xor
from energyql.logic.diagram import Diagram
from energyql.logic.nodes import ALWAYS, NEVER
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary([AttributeSpec(f"a{i}", "yes/no") for i in range(600)])
A = [Attribute(f"a{i}") for i in range(600)]


def root(expr, **settings):
    diagram = Diagram(expr, VOCABULARY, **settings)
    return diagram, diagram.root


def test_a_literal_has_one_node():
    diagram, node = root(A[0])
    assert diagram.nodes.children[node] == (NEVER, ALWAYS)
    assert diagram.negation(node) == Not(A[0]).evaluate(diagram)


def test_equal_functions_share_a_node():
    query = Or((And((A[0], A[1])), And((A[1], A[0]))))
    diagram, node = root(query)
    assert node == And((A[1], A[0])).evaluate(diagram)


def test_a_redundant_question_is_dropped():
    diagram, node = root(Or((And((A[0], A[1])), And((Not(A[0]), A[1])))))
    assert node == A[1].evaluate(diagram)


@pytest.mark.parametrize("order", ["vocabulary", "occurrence"])
def test_both_orders_find_constants(order):
    assert root(And((A[0], Not(A[0]))), order=order)[1] == NEVER
    assert root(Or((A[0], Not(A[0]))), order=order)[1] == ALWAYS


def test_digests_name_functions_across_queries():
    first, one = root(And((A[0], Not(Or((A[1], A[2]))))))
    second, two = root(And((Not(A[2]), A[0], Not(A[1]), Or((A[5], Not(A[5]))))))
    assert first.digest(one) == second.digest(two)
    assert first.digest(one) != first.digest(first.negation(one))


def test_weighted_parts_are_ordered_by_content():
    first, one = root(Or((Weight(2.0, A[3]), Weight(3.0, A[1]))))
    second, two = root(Or((Weight(3.0, A[1]), Weight(2.0, A[3]))))
    assert first.digest(one) == second.digest(two)


@pytest.mark.parametrize("count", [1, 10, 19])
def test_counting_twenty_is_small(count):
    diagram, _ = root(Cardinality("AT LEAST", count, tuple(A[:20])))
    assert len(diagram.nodes.levels) < 500


def test_six_hundred_attributes_need_no_deep_stack():
    for query in [And(tuple(A)), Or(tuple(reversed(A))), Xor(tuple(A)), Cardinality("EXACTLY", 2, tuple(A))]:
        diagram, node = root(query)
        assert node not in (NEVER, ALWAYS)
        diagram.digest(node)


def test_deep_trees_need_no_deep_stack():
    query = A[0]
    for i in range(1, 60):
        query = Not(Or((A[i % 7], Iff((query, A[i % 5])))))
    root(query)


def test_nodes_of_many_branches_count_for_more():
    spec = Vocabulary([AttributeSpec("age", "continuous"), AttributeSpec("height", "continuous")])
    tenths = [i / 100 for i in range(1, 60)]
    query = Xor(tuple(And((Interval("age", low, None), Interval("height", low, None))) for low in tenths))
    with pytest.raises(LimitError, match="more than 500 nodes"):
        Diagram(query, spec, max_nodes=500)
    assert 500 < len(Diagram(query, spec).nodes.children) < 5000
