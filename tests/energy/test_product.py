import warnings

import pytest
import torch
from formulas import HAIR, VOCABULARY, formulas, predictions
from hypothesis import given, settings

from energyql.energy.product import compile_product
from energyql.energy.rule import compile_energy_rule
from energyql.errors import Contradiction, TautologyWarning
from energyql.language import And, Attribute, Cardinality, Constant, Iff, Implies, Not, OneOf, Or, Weight, Xor

A, B, C = Attribute("smile"), Attribute("hat"), Attribute("beard")
HEADS = predictions()


def value(query):
    return compile_product(query, VOCABULARY).log_value(HEADS)


def literal(query):
    cells = (True,) if isinstance(query, Attribute) else (False,)
    return HEADS[(query if isinstance(query, Attribute) else query.operand).name].log_probability(cells)


def either(*values):
    return torch.logsumexp(torch.stack(values), dim=0)


a, b, c = literal(A), literal(B), literal(C)
na, nb, nc = (literal(Not(x)) for x in (A, B, C))

RULES = {
    "and": (And((A, B)), a + b),
    "and counts twice": (And((A, A)), 2 * a),
    "or": (Or((A, B)), either(a, b)),
    "or counts the overlap twice": (Or((A, A)), a + torch.tensor(2.0).log()),
    "not and": (Not(And((A, B))), either(na, nb)),
    "not or": (Not(Or((A, B, C))), na + nb + nc),
    "double negation": (Not(Not(A)), a),
    "implies": (Implies(A, B), either(na, b)),
    "not implies": (Not(Implies(A, B)), a + nb),
    "xor": (Xor((A, B)), either(a + nb, na + b)),
    "iff": (Iff((A, B)), either(a + b, na + nb)),
    "not iff": (Not(Iff((A, B))), either(a + nb, na + b)),
    "three-way xor": (Xor((A, B, C)), either(a + b + c, a + nb + nc, na + b + nc, na + nb + c)),
    "three-way iff": (Iff((A, B, C)), either(a + b + c, a + nb + nc, na + b + nc, na + nb + c)),
    "at least": (Cardinality("AT LEAST", 2, (A, B, C)), either(a + b + c, a + b + nc, a + nb + c, na + b + c)),
    "at most": (Cardinality("AT MOST", 0, (A, B, C)), na + nb + nc),
    "not exactly": (Not(Cardinality("EXACTLY", 1, (A, B))), either(a + b, na + nb)),
    "any": (Cardinality("ANY", None, (A, B)), either(a, b)),
    "none": (Cardinality("NONE", None, (A, B)), na + nb),
    "weight": (Weight(2.0, Or((A, B))), 2 * either(a, b)),
    "a weight passes through NOT": (Not(Weight(2.0, A)), 2 * na),
    "constants": (Or((And((A, Constant(True))), Constant(False))), a),
    "classes": (Not(OneOf("hair", ("red",))), HEADS["hair"].log_probability([x for x in HAIR if x != "red"])),
}


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule):
    query, expected = RULES[rule]
    torch.testing.assert_close(value(query), expected)


def test_an_or_can_have_a_negative_energy():
    heads = predictions(spread=0.0)
    assert (compile_product(Or((A, B, C)), VOCABULARY).log_value(heads) > 0).all()


def test_a_read_once_query_without_or_agrees_with_exact():
    query = And((A, Not(Or((B, C)))))
    exact = compile_energy_rule(query, VOCABULARY).log_value(HEADS)
    torch.testing.assert_close(value(query), exact)


@settings(max_examples=40, deadline=None)
@given(formulas)
def test_every_formula_has_a_finite_value(query):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TautologyWarning)
        try:
            rule = compile_energy_rule(query, VOCABULARY, "product")
        except Contradiction:
            return
    if rule.attributes:
        assert rule.log_value(HEADS).isfinite().all()
    assert rule.explain()


def test_what_folds_to_false_is_refused():
    with pytest.raises(Contradiction):
        compile_product(And((A, Constant(False))), VOCABULARY)
