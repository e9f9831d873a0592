"""The exact semantics against weighted model counting by brute force, and the laws of Boolean logic."""

import warnings

import pytest
import torch
from formulas import VOCABULARY, BruteForce, formulas, predictions, small, with_weights
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from energyql.energy.circuit import CircuitRule
from energyql.energy.rule import compile_energy_rule
from energyql.errors import Contradiction, TautologyWarning
from energyql.language import And, Attribute, Cardinality, Constant, Iff, Implies, Not, Or, Weight, Xor
from energyql.logic.circuit import Sum, compile_query

FEW = settings(max_examples=60, deadline=None)


def compiled(expr):
    """The circuit; False for a contradiction."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TautologyWarning)
        try:
            return compile_query(expr, VOCABULARY)
        except Contradiction:
            return False


def value(circuit, given_predictions):
    if not circuit.attributes:
        return torch.zeros(3)
    return CircuitRule(circuit).log_value(given_predictions)


def check_against_brute_force(expr, seed):
    brute, circuit = BruteForce(expr), compiled(expr)
    if circuit is False:
        assert not brute.table.any()
        return
    assert brute.table.any()
    assert (circuit.nodes == (Sum(()),)) == bool(brute.table.all())
    for dtype, tolerance in [(torch.float64, 1e-9), (torch.float32, 1e-5)]:
        heads = predictions(dtype=dtype, seed=seed)
        expected = [brute.log_probability(heads, sample) for sample in range(3)]
        torch.testing.assert_close(
            value(circuit, heads).double(), torch.tensor(expected, dtype=torch.float64), atol=tolerance, rtol=tolerance
        )


@FEW
@given(formulas, st.integers(0, 99))
def test_a_formula_counts_its_worlds(expr, seed):
    check_against_brute_force(expr, seed)


@FEW
@example(Implies(Weight(0.5, Not(Attribute("smile"))), Attribute("smile")), 0)  # a lone complement of swapped leaves
@given(with_weights, st.integers(0, 99))
def test_weighted_parts_are_opaque(expr, seed):
    brute = BruteForce(expr)
    assume(len(brute.weights) <= 4)
    check_against_brute_force(expr, seed)


def at_least(count, *operands):
    return Cardinality("AT LEAST", count, operands)


LAWS = {
    "idempotence of AND": lambda a, b, c: (And((a, a)), a),
    "idempotence of OR": lambda a, b, c: (Or((a, a)), a),
    "commutativity of AND": lambda a, b, c: (And((a, b)), And((b, a))),
    "commutativity of OR": lambda a, b, c: (Or((a, b)), Or((b, a))),
    "commutativity of XOR": lambda a, b, c: (Xor((a, b)), Xor((b, a))),
    "associativity of AND": lambda a, b, c: (And((a, And((b, c)))), And((And((a, b)), c))),
    "associativity of OR": lambda a, b, c: (Or((a, Or((b, c)))), Or((a, b, c))),
    "associativity of XOR": lambda a, b, c: (Xor((a, Xor((b, c)))), Xor((a, b, c))),
    "absorption": lambda a, b, c: (And((a, Or((a, b)))), a),
    "dual absorption": lambda a, b, c: (Or((a, And((a, b)))), a),
    "distributivity": lambda a, b, c: (And((a, Or((b, c)))), Or((And((a, b)), And((a, c))))),
    "dual distributivity": lambda a, b, c: (Or((a, And((b, c)))), And((Or((a, b)), Or((a, c))))),
    "De Morgan": lambda a, b, c: (Not(And((a, b))), Or((Not(a), Not(b)))),
    "dual De Morgan": lambda a, b, c: (Not(Or((a, b))), And((Not(a), Not(b)))),
    "double negation": lambda a, b, c: (Not(Not(a)), a),
    "excluded middle": lambda a, b, c: (Or((a, Not(a))), Constant(True)),
    "non-contradiction": lambda a, b, c: (And((a, Not(a))), Constant(False)),
    "implication": lambda a, b, c: (Implies(a, b), Or((Not(a), b))),
    "contraposition": lambda a, b, c: (Implies(a, b), Implies(Not(b), Not(a))),
    "equivalence": lambda a, b, c: (Iff((a, b)), And((Implies(a, b), Implies(b, a)))),
    "equivalence folds from the left": lambda a, b, c: (Iff((a, b, c)), Iff((Iff((a, b)), c))),
    "exclusive or": lambda a, b, c: (Xor((a, b)), Or((And((a, Not(b))), And((Not(a), b))))),
    "neutral TRUE": lambda a, b, c: (And((a, Constant(True))), a),
    "neutral FALSE": lambda a, b, c: (Or((a, Constant(False))), a),
    "case split": lambda a, b, c: (Or((And((a, b)), And((Not(a), b)))), b),
    "all": lambda a, b, c: (Cardinality("ALL", None, (a, b, c)), And((a, b, c))),
    "any": lambda a, b, c: (Cardinality("ANY", None, (a, b, c)), Or((a, b, c))),
    "none": lambda a, b, c: (Cardinality("NONE", None, (a, b, c)), Not(Or((a, b, c)))),
    "at least all": lambda a, b, c: (at_least(3, a, b, c), And((a, b, c))),
    "at least one": lambda a, b, c: (at_least(1, a, b, c), Or((a, b, c))),
    "majority": lambda a, b, c: (at_least(2, a, b, c), Or((And((a, b)), And((a, c)), And((b, c))))),
    "at most": lambda a, b, c: (Cardinality("AT MOST", 1, (a, b, c)), Not(at_least(2, a, b, c))),
    "exactly": lambda a, b, c: (
        Cardinality("EXACTLY", 2, (a, b, c)),
        And((at_least(2, a, b, c), Cardinality("AT MOST", 2, (a, b, c)))),
    ),
    "weight 1": lambda a, b, c: (And((Weight(1.0, a), b)), And((a, b))),
    "weights multiply": lambda a, b, c: (Weight(2.0, Weight(3.0, a)), Weight(6.0, a)),
    "equivalent operands of one weight": lambda a, b, c: (
        Weight(2.0, Not(Or((a, b)))),
        Weight(2.0, And((Not(b), Not(a)))),
    ),
    "a weighted part is a proposition": lambda a, b, c: (And((Weight(2.0, a), Not(Weight(2.0, a)))), Constant(False)),
}


@pytest.mark.parametrize("law", LAWS)
@settings(max_examples=12, deadline=None)
@given(small, small, small)
def test_law(law, a, b, c):
    left, right = (compiled(side) for side in LAWS[law](a, b, c))
    assert left == right
    if left is not False:
        assert hash(left) == hash(right)
        torch.testing.assert_close(value(left, predictions()), value(right, predictions()), atol=1e-9, rtol=1e-9)


@FEW
@given(formulas, formulas)
def test_circuits_are_equal_exactly_if_queries_are_equivalent(a, b):
    both = BruteForce(Iff((a, b)))
    assert (compiled(a) == compiled(b)) == bool(both.table.all())


def test_weighted_conjuncts_add_up():
    a, b, c = Attribute("smile"), Attribute("hat"), Attribute("beard")
    heads = predictions()
    energies = [-value(compiled(part), heads) for part in (a, Or((b, c)))]
    energy = -value(compiled(And((Weight(2.0, a), Weight(0.5, Or((b, c)))))), heads)
    torch.testing.assert_close(energy, 2 * energies[0] + 0.5 * energies[1])


def test_nested_weights():
    a, b = Attribute("smile"), Attribute("hat")
    heads = predictions()
    energy = -value(compiled(Weight(2.0, And((Weight(3.0, a), b)))), heads)
    torch.testing.assert_close(energy, -6 * value(compiled(a), heads) - 2 * value(compiled(b), heads))


def test_a_weighted_contradiction_or_tautology_is_one():
    a = Attribute("smile")
    assert compiled(Weight(2.0, And((a, Not(a))))) is False
    assert compiled(Or((a, Weight(2.0, Or((a, Not(a))))))) == compiled(Constant(True))


def test_the_exact_rule_is_the_circuit():
    rule = compile_energy_rule(Attribute("smile"), VOCABULARY)
    torch.testing.assert_close(rule.log_value(predictions()), value(compiled(Attribute("smile")), predictions()))
