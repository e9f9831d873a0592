import random

import pytest
import torch
from formulas import VOCABULARY, predictions

from energyql.energy.rule import COMPILERS, SEMANTICS, compile_energy_rule
from energyql.errors import ArgumentError, Contradiction, LimitError, TautologyWarning
from energyql.language import And, Attribute, Interval, Not, Or
from energyql.vocabulary import AttributeSpec, Vocabulary

A = Attribute("smile")


def test_every_name_has_a_compiler():
    assert list(COMPILERS) == list(SEMANTICS)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_one_interface(semantics):
    rule = compile_energy_rule(And((Attribute("hat"), A)), VOCABULARY, semantics)
    assert rule.attributes == ("smile", "hat")
    assert rule.log_value(predictions(batch=7)).shape == (7,)
    assert "smile" in rule.explain()
    assert (rule.draw() is None) == (semantics == "lace")
    assert rule.is_probability == (semantics == "exact")


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_contradictions_and_tautologies_are_told_by_all(semantics):
    with pytest.raises(Contradiction, match="age > 0.8 and age < 0.3 cannot both hold"):
        compile_energy_rule(And((Interval("age", 0.8, None), Interval("age", None, 0.3))), VOCABULARY, semantics)
    with pytest.warns(TautologyWarning):
        compile_energy_rule(Or((A, Not(A))), VOCABULARY, semantics)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match="no semantics is called 'fuzzy'") as caught:
        compile_energy_rule(A, VOCABULARY, "fuzzy")
    assert caught.value.hint == "choose one of exact, product, lace, jem"


def test_what_is_too_large_for_exact_goes_through_product_and_lace():
    chance = random.Random(0)
    vocabulary = Vocabulary([AttributeSpec(f"a{i}", "yes/no") for i in range(100)])
    atoms = [Attribute(name) for name in vocabulary]
    query = And(tuple(Or(tuple(chance.choice((a, Not(a))) for a in chance.sample(atoms, 3))) for _ in range(250)))
    with pytest.raises(LimitError, match='use semantics="product"'):
        compile_energy_rule(query, vocabulary, max_nodes=2_000)
    heads = {name: predictions()["smile"] for name in vocabulary}
    for semantics in ("product", "lace"):
        value = compile_energy_rule(query, vocabulary, semantics, max_nodes=2_000).log_value(heads)
        assert torch.isfinite(value).all()
