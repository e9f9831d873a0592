import random
import subprocess
import sys

import pytest
from faces import BEARD, GLASSES, HAT, SMILE, VOCABULARY, A

from energyql.errors import LimitError
from energyql.language import (
    And,
    Cardinality,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
)
from energyql.logic.circuit import Leaf, LogSumExp, Scaled, ScaledComplement, Sum, compile_query

HEADLINE = And((SMILE, Not(Or((GLASSES, BEARD)))))


def test_the_headline_query_is_a_sum_of_three_leaves():
    circuit = compile_query(HEADLINE, VOCABULARY)
    leaves = (Leaf("smile", (True,)), Leaf("glasses", (False,)), Leaf("beard", (False,)))
    assert circuit.nodes == (*leaves, Sum((0, 1, 2)))
    assert circuit.leaves == leaves
    assert circuit.attributes == ("smile", "glasses", "beard")


def test_an_or_chooses_between_exclusive_branches():
    assert compile_query(Or((SMILE, HAT)), VOCABULARY).nodes == (
        Leaf("smile", (True,)),
        Leaf("smile", (False,)),
        Leaf("hat", (True,)),
        Sum((1, 2)),
        LogSumExp((0, 3)),
    )


def test_cells_that_lead_to_the_same_are_one_leaf():
    query = And((Or((OneOf("hair", ("red",)), OneOf("hair", ("black",)))), Not(Near("age", 0.5, 0.1))))
    assert compile_query(query, VOCABULARY).nodes[:2] == (
        Leaf("hair", ("black", "red")),
        Leaf("age", ((float("-inf"), 0.4), (0.6, float("inf")))),
    )


def test_weighted_conjuncts_are_scaled_terms():
    circuit = compile_query(And((Weight(2.0, SMILE), Weight(0.5, HAT))), VOCABULARY)
    assert {type(node) for node in circuit.nodes} == {Leaf, Scaled, Sum}
    assert {node.factor for node in circuit.nodes if isinstance(node, Scaled)} == {2.0, 0.5}


def test_a_negated_weight_knows_its_complement():
    circuit = compile_query(Not(Weight(2.0, Or((SMILE, HAT)))), VOCABULARY)
    last = circuit.nodes[-1]
    assert isinstance(last, ScaledComplement)
    below = circuit.nodes[last.children[1]]
    assert isinstance(below, Sum)
    assert [circuit.nodes[child] for child in below.children] == [Leaf("smile", (False,)), Leaf("hat", (False,))]


def test_attributes_that_do_not_matter_are_not_used():
    query = Or((And((SMILE, HAT)), And((SMILE, Not(HAT)))))
    circuit = compile_query(query, VOCABULARY)
    assert circuit.attributes == ("smile",)
    assert circuit == compile_query(SMILE, VOCABULARY)


def test_equality_and_hash():
    circuit = compile_query(HEADLINE, VOCABULARY)
    assert circuit == compile_query(And((Not(GLASSES), Not(BEARD), SMILE)), VOCABULARY)
    assert circuit != compile_query(SMILE, VOCABULARY)
    assert len({circuit, compile_query(HEADLINE, VOCABULARY)}) == 1
    assert circuit != "circuit"


def test_pairs_far_apart_get_the_other_order_and_keep_their_identity():
    pairs = [And((A[i], A[i + 50])) for i in range(10)]
    circuit = compile_query(Or(tuple(pairs)), VOCABULARY)
    assert len(circuit.nodes) < 100
    assert circuit == compile_query(Or(tuple(reversed(pairs))), VOCABULARY)


def test_pairs_too_large_in_the_first_order_are_compiled_in_the_other():
    query = Or(tuple(And((A[i], A[i + 50])) for i in range(10)))
    assert compile_query(query, VOCABULARY, max_nodes=200).nodes == compile_query(query, VOCABULARY).nodes


def test_children_come_first():
    nodes = compile_query(Cardinality("EXACTLY", 3, tuple(A[:8])), VOCABULARY).nodes
    for index, node in enumerate(nodes):
        if isinstance(node, (Sum, LogSumExp)):
            assert all(child < index for child in node.children)
    assert len(set(nodes)) == len(nodes)


def test_a_blow_up_hits_the_cap_and_says_what_to_do():
    chance = random.Random(0)
    clauses = (Or(tuple(chance.choice((a, Not(a))) for a in chance.sample(A, 3))) for _ in range(250))
    with pytest.raises(LimitError, match='more than 10,000 nodes; use semantics="product"'):
        compile_query(And(tuple(clauses)), VOCABULARY, max_nodes=10_000)


def test_many_thresholds_count_as_many_nodes():
    query = Or(tuple(Near("age", number / 100, 0.001) for number in range(100)))
    assert len(compile_query(query, VOCABULARY, max_nodes=20_000).nodes) == 1
    with pytest.raises(LimitError):
        compile_query(query, VOCABULARY, max_nodes=5_000)


def test_the_logic_does_not_import_torch():
    code = "import sys, energyql.logic.circuit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
