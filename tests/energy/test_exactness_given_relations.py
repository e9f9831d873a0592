"""Queries given relations of the vocabulary, against P(query AND relations) / P(relations) by listing every world."""

import warnings

import pytest
import torch
from formulas import VOCABULARY as PLAIN
from formulas import BruteForce, formulas, predictions, small
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from test_exactness import LAWS

from energyql.attributes.predictions import YesNo, log_probabilities
from energyql.energy.circuit import CircuitRule
from energyql.errors import Contradiction, TautologyWarning
from energyql.language import And, Attribute, Iff, Not, Or, Weight, bind, parse
from energyql.logic.circuit import Given, Sum, compile_query
from energyql.vocabulary import Vocabulary

RELATIONS = (
    "beard IMPLIES NOT hat",
    "smile IFF eyes = blue",
    "smile IMPLIES age < 0.6",
    "AT MOST 1 OF (glasses, hair = red, yaw > 0.8)",
)
RELATED = Vocabulary(PLAIN.values(), relations=RELATIONS)
BOUND = [bind(parse(text), PLAIN, query=text) for text in RELATIONS]
ALL = And(tuple(BOUND))
GROUPS = [("beard", "hat"), ("smile", "eyes", "age"), ("glasses", "hair", "yaw")]
FEW = settings(max_examples=25, deadline=None)


def compiled(expr, vocabulary=RELATED):
    """The circuit; False for a contradiction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TautologyWarning)
        try:
            return compile_query(expr, vocabulary)
        except Contradiction:
            return False


def value(circuit, heads):
    if not circuit.attributes:
        return torch.zeros(3, dtype=torch.float64)
    return CircuitRule(circuit).log_value(heads).double()


def check_against_brute_force(expr, seed):
    circuit, both = compiled(expr), BruteForce(And((expr, *BOUND)))
    always = BruteForce(Or((Not(ALL), expr))).table.all()
    assert (circuit is False) == (not both.table.any())
    if circuit is False:
        return
    assert (circuit.nodes == (Sum(()),)) == bool(always)
    relations = BruteForce(ALL)
    for dtype, tolerance in [(torch.float64, 1e-9), (torch.float32, 1e-5)]:
        heads = predictions(dtype=dtype, seed=seed)
        expected = [both.log_probability(heads, i) - relations.log_probability(heads, i) for i in range(3)]
        torch.testing.assert_close(
            value(circuit, heads), torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=tolerance
        )


@FEW
@given(formulas, st.integers(0, 99))
def test_a_formula_counts_the_worlds_that_the_relations_allow(expr, seed):
    check_against_brute_force(expr, seed)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(formulas, st.integers(0, 99))
def test_ten_thousand_formulas(expr, seed):
    check_against_brute_force(expr, seed)
    yes, no = compiled(expr), compiled(Not(expr))
    heads = predictions(dtype=torch.float32, seed=seed)
    total = sum(torch.zeros(3) if side is False else value(side, heads).exp() for side in (yes, no))
    torch.testing.assert_close(total, torch.ones(3, dtype=torch.float64), atol=1e-5, rtol=0)


@FEW
@example(Attribute("smile"), Attribute("hat"))
@given(formulas, formulas)
def test_probabilities_add_up(a, b):
    heads = predictions()

    def p(expr):
        circuit = compiled(expr)
        return torch.zeros(3, dtype=torch.float64) if circuit is False else value(circuit, heads).exp()

    torch.testing.assert_close(p(a) + p(Not(a)), torch.ones(3, dtype=torch.float64), atol=1e-9, rtol=0)
    torch.testing.assert_close(p(a), p(And((a, b))) + p(And((a, Not(b)))), atol=1e-9, rtol=0)
    torch.testing.assert_close(p(Or((a, b))), p(a) + p(b) - p(And((a, b))), atol=1e-9, rtol=0)


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=3, deadline=None)
@given(small, small, small)
def test_law(law, a, b, c):
    left, right = (compiled(side) for side in LAWS[law](a, b, c))
    assert left == right
    if left is not False:
        torch.testing.assert_close(value(left, predictions()), value(right, predictions()), atol=1e-9, rtol=1e-9)


@FEW
@example(Attribute("smile"), parse("eyes = blue"))
@example(parse("smile AND (beard IMPLIES NOT hat)"), parse("smile"))
@given(formulas, formulas)
def test_circuits_are_equal_exactly_if_queries_agree_wherever_relations_hold(a, b):
    same = not BruteForce(And((Not(Iff((a, b))), *BOUND))).table.any()
    assert (compiled(a) == compiled(b)) == same


def test_queries_without_related_attributes_are_as_without_relations():
    free = Vocabulary(PLAIN.values(), relations=RELATIONS[1:])
    query = Or((Attribute("hat"), Attribute("beard")))
    assert compiled(query, free) == compiled(query, PLAIN)
    assert compiled(query, free).nodes == compiled(query, PLAIN).nodes


@pytest.mark.parametrize("query", ["hat", "NOT smile", "hair = red", "age < 0.4", "beard AND NOT smile AND glasses"])
def test_one_attribute_of_a_group_is_one_given_part(query):
    nodes = compiled(parse(query)).nodes
    parts = [node for node in nodes if isinstance(node, Given)]
    assert all(part.leaf is not None for part in parts)
    assert len(parts) == (3 if "AND" in query else 1)
    assert isinstance(nodes[-1], Sum if "AND" in query else Given)


def test_weighted_parts_are_given_the_relations_too():
    heads = predictions()
    a, b = Attribute("smile"), parse("hat OR glasses")
    weighted = value(compiled(And((Weight(2.0, a), Weight(0.5, b)))), heads)
    torch.testing.assert_close(weighted, 2 * value(compiled(a), heads) + 0.5 * value(compiled(b), heads))
    assert compiled(Weight(2.0, parse("beard AND hat"))) is False
    assert compiled(Or((a, Weight(2.0, parse("beard IMPLIES NOT hat"))))).nodes == (Sum(()),)


def test_the_clash_inside_a_weighted_part_is_named():
    query = "2 * (smile AND beard AND hat)"
    with pytest.raises(Contradiction, match="beard and hat cannot both hold") as caught:
        compile_query(bind(parse(query), RELATED, query=query), RELATED, query=query)
    assert "always: beard IMPLIES NOT hat" in str(caught.value)


@FEW
@given(formulas, st.integers(0, 99))
def test_the_gradient_by_hand_is_that_of_autograd(expr, seed):
    circuit = compiled(expr)
    assume(circuit is not False and any(isinstance(node, Given) for node in circuit.nodes))
    fold, heads = CircuitRule(circuit).fold, predictions(seed=seed)
    leaves = log_probabilities([(heads[leaf.attribute], leaf.cells) for leaf in fold.leaves]).requires_grad_()
    energy, slopes = fold.energy_and_slopes(-leaves.detach())
    by_torch = -fold(leaves)
    torch.testing.assert_close(energy, by_torch.detach(), atol=1e-9, rtol=1e-9)
    (grad,) = torch.autograd.grad(by_torch.sum(), leaves)
    inside = by_torch.detach() > 1e-9  # where rounding is cut off, autograd stops
    torch.testing.assert_close(slopes.expand_as(grad)[:, inside], -grad[:, inside], atol=1e-7, rtol=1e-7)


def test_energies_are_never_negative():
    sure = {name: YesNo(torch.tensor([16.0, -16.0, 12.5], dtype=torch.float32)) for name in ("hat", "beard")}
    energy = -CircuitRule(compiled(Or((Attribute("hat"), Not(Attribute("beard")))))).log_value(sure)
    assert (energy >= 0).all()
