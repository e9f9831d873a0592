import random
import subprocess
import sys
import warnings

import pytest

from energyql.errors import Contradiction, LimitError, TautologyWarning
from energyql.language.ast import (
    And,
    Attribute,
    Cardinality,
    Constant,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Span,
    Weight,
    Xor,
)
from energyql.logic.circuit import Leaf, LogSumExp, Scaled, ScaledComplement, Sum, compile_query
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ["smile", "glasses", "beard", "hat"]),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red", "gray")),
        AttributeSpec("age", "continuous"),
        *(AttributeSpec(f"a{i}", "yes/no") for i in range(100)),
    ]
)
SMILE, GLASSES, BEARD, HAT = map(Attribute, ["smile", "glasses", "beard", "hat"])
A = [Attribute(f"a{i}") for i in range(100)]
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
    below = circuit.nodes[last.complement]
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


def test_children_come_first():
    nodes = compile_query(Cardinality("EXACTLY", 3, tuple(A[:8])), VOCABULARY).nodes
    for index, node in enumerate(nodes):
        if isinstance(node, (Sum, LogSumExp)):
            assert all(child < index for child in node.children)
    assert len(set(nodes)) == len(nodes)


CONTRADICTIONS = [
    (And((SMILE, Not(SMILE))), "smile and NOT smile cannot both hold"),
    (And((SMILE, HAT, Not(Or((BEARD, SMILE))))), "smile and NOT smile cannot both hold"),
    (And((Interval("age", 0.8, None), Interval("age", None, 0.3))), "age cannot be above 0.8 and below 0.3"),
    (
        And((Near("age", 0.2, 0.1), Interval("age", 0.5, 0.7))),
        "age cannot be within 0.1 of 0.2 and between 0.5 and 0.7",
    ),
    (And((Interval("age", 0.8, None), Not(Interval("age", 0.3, None)))), "age cannot be above 0.8 and below 0.3"),
    (And((OneOf("hair", ("red",)), OneOf("hair", ("black",)))), "hair cannot be both red and black"),
    (And((OneOf("hair", ("red",)), OneOf("hair", ("red",), True))), "hair = red and hair != red cannot both hold"),
    (Weight(2.0, And((SMILE, HAT, Not(SMILE)))), "smile and NOT smile cannot both hold"),
    (And((Or((SMILE, HAT)), Not(SMILE), BEARD, Not(HAT))), "smile OR hat, NOT smile and NOT hat cannot all hold"),
    (Cardinality("NONE", None, (SMILE, Not(SMILE))), "NOT smile and smile cannot both hold"),
    (Xor((SMILE, SMILE)), "smile XOR smile is false for every value of smile"),
    (Interval("age", 1.0, None), "age > 1 holds nothing: age runs from 0 to 1 and a point has no width"),
    (Constant(False), "FALSE never holds"),
    (And((SMILE, Constant(False))), "FALSE never holds"),
    (Not(Constant(True)), "NOT TRUE never holds"),
    (And((Or(tuple(A[:40])), *(Not(a) for a in A[:40]))), "these 41 parts cannot all hold"),
]


@pytest.mark.parametrize(("query", "reason"), CONTRADICTIONS)
def test_a_contradiction_names_the_parts_that_clash(query, reason):
    with pytest.raises(Contradiction) as caught:
        compile_query(query, VOCABULARY)
    assert caught.value.message == reason


def test_a_contradiction_points_at_the_parts_that_clash():
    text = "hat AND age > 0.8 AND age < 0.3"
    query = And(
        (
            Attribute("hat", span=Span(0, 3)),
            Interval("age", 0.8, None, span=Span(8, 17)),
            Interval("age", None, 0.3, span=Span(22, 31)),
        )
    )
    with pytest.raises(Contradiction) as caught:
        compile_query(query, VOCABULARY, query=text)
    assert caught.value.spans == (Span(8, 17), Span(22, 31))
    assert caught.value.render().splitlines()[1:] == [f"  {text}", "          ^^^^^^^^^     ^^^^^^^^^"]


def test_a_tautology_is_a_warning():
    with pytest.warns(TautologyWarning, match="smile OR NOT smile is always true"):
        circuit = compile_query(Or((SMILE, Not(SMILE))), VOCABULARY)
    assert circuit.nodes == (Sum(()),)
    assert circuit.attributes == ()
    with pytest.warns(TautologyWarning):
        assert compile_query(Interval("age", 0.0, None, True), VOCABULARY) == circuit


def test_no_warning_otherwise():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_query(HEADLINE, VOCABULARY)


def test_a_blow_up_hits_the_cap_and_says_what_to_do():
    chance = random.Random(0)
    clauses = (Or(tuple(chance.choice((a, Not(a))) for a in chance.sample(A, 3))) for _ in range(250))
    with pytest.raises(LimitError, match='more than 10,000 nodes; use semantics="product"'):
        compile_query(And(tuple(clauses)), VOCABULARY, max_nodes=10_000)


def test_many_conjuncts_that_clash_are_told_apart():
    query = And((*A, Not(A[7])))
    with pytest.raises(Contradiction, match="a7 and NOT a7 cannot both hold"):
        compile_query(query, VOCABULARY)


def test_the_logic_does_not_import_torch():
    code = "import sys, energyql.logic.circuit; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
