"""The energy of what is read off pictures: values, gradients, batches, and how often the generator is called."""

import pytest
import torch
from evaluation.lively import KNOWN, Plain, known_model
from toys import VOCABULARY, lively_judge, random_generator

from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import Continuous, YesNo
from energyql.energy import picture_energy
from energyql.energy.picture_energy import PictureEnergy, reader_energy
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.generators.mapping import encoder
from energyql.language import bind, parse
from energyql.numerics.pullback import Identity
from energyql.sampling import make_sampler, prior_latents
from energyql.sampling.rejection import COSTLY_PILOT


def read(images):
    """What the heads of `known_model` say, from the picture."""
    z = 4 * torch.atanh(images[:, 0, 0])
    logits = 4 * torch.stack([z[:, 0] - 1.5, z[:, 1] - 1.5, z[:, 0] + z[:, 2]])
    return {"a": YesNo(logits[0]), "b": YesNo(logits[1]), "c": YesNo(logits[2]), "n": Continuous(z[:, 3], 0.1)}


def rule_of(query, vocabulary, semantics="exact"):
    return compile_energy_rule(bind(parse(query), vocabulary), vocabulary, semantics)


def plain_energy(query, *, gradient=True):
    bank = PictureBank(read, KNOWN, gradient=gradient)
    return reader_energy(rule_of(query, KNOWN), bank, Identity(), lambda w, rows: Plain().synthesize(w))


@pytest.fixture(scope="module")
def drawn():
    """An energy by a random network through a random StyleGAN2, and the same by hand."""
    generator = random_generator()
    bank, rule = PictureBank(lively_judge(generator)), rule_of("smile AND NOT beard OR age > 0.6", VOCABULARY)
    encode = encoder(generator, 0.7, None)

    def by_hand(z):
        pictures = generator.synthesize(generator.encode(z, 0.7))
        return -rule.log_value(bank.predict(pictures))

    return reader_energy(rule, bank, encode, lambda w, rows: generator.synthesize(w)), by_hand


@pytest.mark.parametrize("query", ["a AND NOT b", "c XOR (a OR b)", "n > 0.3 AND c"])
def test_it_is_the_energy_of_heads_that_see_the_same(query):
    z = prior_latents(0, 0, 9, 4)
    heads = QueryEnergy(rule_of(query, KNOWN), Identity(), known_model().bank)
    energy = plain_energy(query)
    assert torch.allclose(energy(z), heads(z), atol=1e-4)
    for ours, theirs in zip(energy.gradient(z), heads.gradient(z), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-3)


def test_values_and_gradients_through_a_generator(drawn):
    energy, by_hand = drawn
    z = prior_latents(0, 0, 5, 8)
    variable = z.clone().requires_grad_()
    value = by_hand(variable)
    (slope,) = torch.autograd.grad(value.sum(), variable)
    assert torch.allclose(energy(z), value.detach(), atol=1e-4)
    found = energy.gradient(z)
    assert torch.allclose(found[0], value.detach(), atol=1e-4)
    assert torch.allclose(found[1], slope, atol=1e-4, rtol=1e-3)
    assert slope.norm(dim=1).min() > 1e-3
    assert not found[0].requires_grad
    with torch.inference_mode():
        assert torch.allclose(energy.gradient(z)[1], slope, atol=1e-4, rtol=1e-3)


def test_a_mapping_may_have_layers():
    bank, query = PictureBank(read, KNOWN, gradient=True), "a AND NOT b"
    layers = reader_energy(
        rule_of(query, KNOWN), bank, lambda z: z.view(-1, 2, 2), lambda w, rows: Plain().synthesize(w.flatten(1))
    )
    z = prior_latents(0, 0, 9, 4)
    for found, expected in zip(layers.gradient(z), plain_energy(query).gradient(z), strict=True):
        assert torch.equal(found, expected)


def test_a_sample_does_not_depend_on_its_batch(drawn, monkeypatch):
    energy, _ = drawn
    z = prior_latents(0, 0, 23, 8)
    whole, slopes = energy(z), energy.gradient(z)[1]
    for size in (1, 2, 3, 7):
        assert torch.equal(torch.cat([energy(part) for part in z.split(size)]), whole)
        assert torch.equal(torch.cat([energy.gradient(part)[1] for part in z.split(size)]), slopes)
    monkeypatch.setattr(picture_energy, "PIXELS_AT_ONCE", 3 * 16 * 16)  # two pictures at a time
    assert torch.equal(energy(z), whole)


def test_no_sample_at_all(drawn):
    energy, _ = drawn
    assert energy(torch.empty(0, 8)).shape == (0,)
    assert energy.gradient(torch.empty(0, 8))[1].shape == (0, 8)


def test_drawn_with_the_numbers_of_the_samples():
    seen = []

    def draw(w, rows):
        seen.append(rows.tolist())
        return Plain().synthesize(w + rows[:, None])

    energy = PictureEnergy(Identity(), draw, lambda pictures: 4 * torch.atanh(pictures[:, 0, 0, 0]))
    z = torch.zeros(3, 4)
    assert torch.allclose(energy(z, torch.tensor([2, 0, 5])), torch.tensor([2.0, 0.0, 5.0]), atol=1e-5)
    assert torch.allclose(energy(z), torch.zeros(3))
    assert seen[0] == [2]  # the first picture shows how many fit
    assert [2, 0, 5] in seen


def test_an_energy_of_latents_is_added():
    latents = QueryEnergy(rule_of("b", KNOWN), Identity(), known_model().bank)
    z = prior_latents(0, 0, 4, 4)
    both = PictureEnergy(Identity(), lambda w, rows: Plain().synthesize(w), plain_energy("a").of_pictures, latents)
    assert torch.allclose(both(z), plain_energy("a")(z) + latents(z), atol=1e-5)
    assert torch.allclose(both.gradient(z)[1], plain_energy("a").gradient(z)[1] + latents.gradient(z)[1], atol=1e-4)


def test_without_a_gradient_nothing_is_differentiated():
    energy = plain_energy("a", gradient=False)
    with pytest.raises(ArgumentError, match='no gradient.*\n.*sampler="slice"'):
        energy.gradient(prior_latents(0, 0, 2, 4))
    assert torch.allclose(energy(prior_latents(0, 0, 2, 4)), plain_energy("a")(prior_latents(0, 0, 2, 4)))


@pytest.mark.parametrize(
    ("query", "name"), [("c", "slice+descent"), ("a AND b", "slice+descent"), ("a AND b", "slice")]
)
def test_every_drawn_picture_is_counted(query, name):
    """But those of the pilot, which are few, and the one that shows how many fit."""
    pictures = []

    def draw(w, rows):
        pictures.append(len(w))
        return Plain().synthesize(w)

    energy = reader_energy(rule_of(query, KNOWN), PictureBank(read, KNOWN, gradient=True), Identity(), draw)
    found = make_sampler(name).sample(energy, prior_latents(0, 0, 6, 4))
    assert sum(pictures) - 1 == int(found.evaluations.sum()) + COSTLY_PILOT
    assert bool(found.ok.all())
    if name == "slice+descent":
        assert energy(found.z).max() < 0.11


def test_the_pilot_is_drawn_once():
    calls = []

    def draw(w, rows):
        calls.append(len(w))
        return Plain().synthesize(w)

    energy = reader_energy(rule_of("c", KNOWN), PictureBank(read, KNOWN), Identity(), draw)
    sampler = make_sampler("slice")
    sampler.sample(energy, prior_latents(0, 0, 2, 4))
    first = sum(calls)
    calls.clear()
    sampler.sample(energy, prior_latents(0, 0, 2, 4))
    assert sum(calls) == first - 1 - COSTLY_PILOT


def test_narrow_intervals_of_a_network_have_a_least_energy():
    bank = PictureBank(lively_judge(random_generator()))
    rule = rule_of("0.49 < age < 0.51", VOCABULARY)
    assert reader_energy(rule, bank, Identity(), None).least > 0.5
    assert reader_energy(rule_of("smile", VOCABULARY), bank, Identity(), None).least == 0
    assert plain_energy("0.2 < n < 0.21").least == 0  # nobody knows how precise a function is


def test_a_joint_energy_of_pictures_has_no_floor():
    energy = reader_energy(
        rule_of("a AND NOT b", KNOWN, "jem"),
        PictureBank(read, KNOWN),
        Identity(),
        lambda w, rows: Plain().synthesize(w),
    )
    with pytest.raises(ArgumentError, match="no lower bound"):
        make_sampler("slice").sample(energy, prior_latents(0, 0, 4, 4))
