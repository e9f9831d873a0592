"""The semantics `jem`: joint energies from unnormalised logits."""

import itertools

import pytest
import torch
from formulas import VOCABULARY, predictions

import energyql
from energyql.attributes.predictions import Categorical, YesNo
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.evaluation.methods import read_methods
from energyql.language import And, Attribute, Interval, Not, OneOf, Or, Weight
from energyql.numerics.pullback import Identity
from energyql.sampling import SAMPLERS, make_sampler, prior_latents

SMILE, HAT, RED = Attribute("smile"), Attribute("hat"), OneOf("hair", ("red",))


def value(query, heads):
    return compile_energy_rule(query, VOCABULARY, "jem").log_value(heads)


def logits(heads, name, answer):
    head = heads[name]
    return head.logit / 2 * (1 if answer else -1) if isinstance(head, YesNo) else head.logits[:, answer]


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        (SMILE, lambda smile, hat, hair: smile),
        (And((SMILE, Not(HAT))), lambda smile, hat, hair: smile and not hat),
        (Or((SMILE, HAT, RED)), lambda smile, hat, hair: smile or hat or hair == "red"),
        (Not(And((SMILE, RED))), lambda smile, hat, hair: not (smile and hair == "red")),
        (Or((And((SMILE, HAT)), And((Not(SMILE), RED)))), lambda smile, hat, hair: hat if smile else hair == "red"),
    ],
)
def test_the_value_sums_the_logits_of_all_values_that_satisfy(query, holds):
    heads = {name: head for name, head in predictions().items() if name in ("smile", "hat", "hair")}
    rule = compile_energy_rule(query, VOCABULARY, "jem")
    classes = VOCABULARY["hair"].values
    terms = []
    answers = [(True, False) if name != "hair" else range(len(classes)) for name in rule.attributes]
    for found in itertools.product(*answers):
        known = dict(zip(rule.attributes, found, strict=True))
        hair = classes[known["hair"]] if "hair" in known else None
        if holds(known.get("smile"), known.get("hat"), hair):
            terms.append(sum(logits(heads, name, answer) for name, answer in known.items()))
    torch.testing.assert_close(rule.log_value(heads), torch.stack(terms).logsumexp(0))


def test_the_marginal_is_not_normalised():
    heads = predictions()
    both = torch.stack([value(RED, heads), value(Not(RED), heads)]).logsumexp(0)
    torch.testing.assert_close(both, heads["hair"].logits.logsumexp(1))
    shifted = heads | {"hair": Categorical(heads["hair"].logits + 3, heads["hair"].values)}
    torch.testing.assert_close(value(RED, shifted), value(RED, heads) + 3)
    exact = compile_energy_rule(RED, VOCABULARY)
    torch.testing.assert_close(exact.log_value(shifted), exact.log_value(heads))


def test_equivalent_queries_have_one_energy_and_a_weight_counts_for_the_condition_alone():
    heads = predictions()
    torch.testing.assert_close(value(Not(And((SMILE, HAT))), heads), value(Or((Not(SMILE), Not(HAT))), heads))
    exact = compile_energy_rule(SMILE, VOCABULARY).log_value(heads)
    torch.testing.assert_close(value(Weight(3.0, SMILE), heads) - value(SMILE, heads), 2 * exact)
    age = Interval("age", 0.6, None)  # a normal distribution has no logits
    torch.testing.assert_close(value(age, heads), compile_energy_rule(age, VOCABULARY).log_value(heads))


def test_it_says_what_it_adds():
    rule = compile_energy_rule(And((SMILE, HAT, Interval("age", 0.6, None))), VOCABULARY, "jem")
    (energy,) = [line for line in rule.explain().splitlines() if "energy" in line]
    added = "- logsumexp(smile) - logsumexp(hat)"
    assert energy == f"energy = -log P(query) {added}, in nats: lower is better; no probability"
    assert not rule.is_probability
    exact = compile_energy_rule(And((SMILE, HAT, Interval("age", 0.6, None))), VOCABULARY)
    plain = "energy = -log P(query), in nats: lower is better"
    assert rule.explain() == exact.explain().replace(plain, energy)
    age = compile_energy_rule(Interval("age", 0.6, None), VOCABULARY, "jem")
    assert plain in age.explain().splitlines()


def linear(z, names):
    return {name: YesNo(5 * z[:, i]) for i, name in enumerate(names)}


def test_samplers_that_need_a_floor_refuse_it():
    energy = QueryEnergy(compile_energy_rule(SMILE, VOCABULARY, "jem"), Identity(), linear)
    z = prior_latents(0, 0, 16, 3)
    for name in SAMPLERS:
        sampler = make_sampler(name)
        if "slice" in name or name in ("descent", "population"):
            with pytest.raises(ArgumentError, match="no lower bound") as caught:
                sampler.sample(energy, z)
            named = caught.value.hint.partition(": ")[2].replace(" or ", ", ").split(", ")
            floorless = {each for each in SAMPLERS if "slice" not in each}
            assert set(named) == floorless - {"descent", "population"}
        elif name != "published-predictor-corrector":  # 3,000 gradients
            assert (sampler.sample(energy, z).z[:, 0] > 0).float().mean() > 0.9, name


def test_a_table_of_probabilities_has_no_logits():
    with pytest.raises(ArgumentError, match="jem reads logits"):
        energyql.score("smile", {"smile": [0.5]}, "jem")


def test_it_is_a_method_of_the_evaluation():
    (method,) = read_methods("jem:published-langevin")
    assert (method.semantics, method.sampler) == ("jem", make_sampler("published-langevin"))
