import pytest
import torch
from recipes.avatars.heads import SEEDS, fit_heads, mean_head
from recipes.avatars.labelling import Labelled

from energyql.attributes.bank import AttributeBank
from energyql.sampling import prior_latents
from recipes.avatars.factors import Factors
from recipes.avatars.vocabulary import VOCABULARY

COUNT = 2000


def labelled(seed, count=COUNT):
    z = prior_latents(seed, 0, count, 64)
    return Labelled(z, {name: Factors()(z).labels[name].float() for name in VOCABULARY})


@pytest.fixture(scope="module")
def prior():
    return labelled(1)


@pytest.fixture(scope="module")
def bank(prior):
    return fit_heads(prior, labelled(2), "generator", scale=0.01)


def test_the_heads_read_the_direction_of_z_of_their_generator(bank):
    assert bank.space == "direction"
    assert bank.generator == "generator"
    assert set(bank.vocabulary) == set(VOCABULARY)
    z = prior_latents(5, 0, 4, 64)
    assert torch.allclose(bank.predict(z)["hat"].logit, bank.predict(3 * z)["hat"].logit, atol=1e-4)


def test_the_heads_learn(bank):
    reports = bank.reports
    assert reports["beard"].score > 0.85
    assert reports["hair"].score > 0.5
    assert reports["background"].details["error"] < 0.15
    assert {(report.fitted, report.held_out) for report in reports.values()} == {(COUNT + 1900, 100)}


def test_latents_that_were_found_are_learned_from(prior):
    found = labelled(2)
    turned = Labelled(found.latents, found.labels | {"beard": 1 - found.labels["beard"]})
    accuracy = [
        fit_heads(prior, more, "generator", scale=0.01, seeds=SEEDS[:1]).reports["beard"].score
        for more in (found, turned)
    ]
    assert accuracy[0] > accuracy[1] + 0.2


def test_a_mean_head_says_the_mean_of_what_its_heads_say(prior):
    banks = [fit_heads(prior, None, "generator", scale=0.002, seeds=[seed]) for seed in (1, 2)]
    means = {name: mean_head([bank.heads[name] for bank in banks]) for name in VOCABULARY}
    mean = AttributeBank(VOCABULARY, means, space="direction").predict(prior.latents[:50])
    one, two = (bank.predict(prior.latents[:50]) for bank in banks)
    assert not torch.allclose(one["hair"].logits, two["hair"].logits, atol=0.01)
    assert torch.allclose(mean["hair"].logits, (one["hair"].logits + two["hair"].logits) / 2, atol=1e-4)
    assert torch.allclose(mean["skin_tone"].mean, (one["skin_tone"].mean + two["skin_tone"].mean) / 2, atol=1e-5)
    assert mean["skin_tone"].std == pytest.approx((one["skin_tone"].std + two["skin_tone"].std) / 2)
