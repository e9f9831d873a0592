import math

import pytest
import torch

from energyql.attributes import surrogates as surrogates_module
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.surrogates import fit_readouts
from energyql.sampling import prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red")),
        AttributeSpec("age", "continuous"),
    ]
)
DIM = 6


def bank(width=0, scale=1.0, seed=0, space="z"):
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    heads = {}
    for name, outputs in (("smile", 1), ("hair", 3), ("age", 1)):
        heads[name] = Head(
            3 * normal(width, DIM) / math.sqrt(DIM), normal(width), 3 * normal(outputs, width) / math.sqrt(width or 1),
            scale * normal(outputs, DIM) / math.sqrt(DIM), normal(outputs), torch.tensor(0.2 if name == "age" else 1.0),
        )  # fmt: skip
    return AttributeBank(VOCABULARY, heads, fitted=FittedUnder(space))


@pytest.fixture
def z():
    return prior_latents(3, 0, 20_000, DIM)


def test_linear_heads_are_found_again(z):
    heads = bank(scale=2.0)
    found = fit_readouts(heads, lambda z: z, DIM).predict(z)
    for name, prediction in heads.predict(z).items():
        if name == "age":
            assert torch.allclose(found[name].mean, prediction.mean, atol=1e-3)
            assert float(found[name].std) == pytest.approx(0.2, abs=1e-3)
        else:
            cells = (True,) if name == "smile" else ("black",)
            assert (found[name].probability(cells) - prediction.probability(cells)).abs().mean() < 0.01


def test_readouts_are_as_unsure_as_they_should_be(z):
    heads = bank(width=20, seed=1)
    answers, found = heads.predict(z), fit_readouts(heads, lambda z: z, DIM).predict(z)
    for name, cells in (("smile", (True,)), *(("hair", (value,)) for value in VOCABULARY["hair"].values)):
        told, true = found[name].probability(cells), answers[name].probability(cells)
        for low in (0.0, 0.25, 0.5, 0.75):
            some = (told >= low) & (told < low + 0.25)
            if some.sum() > 1000:
                assert told[some].mean().item() == pytest.approx(true[some].mean().item(), abs=0.08), (name, low)
    missed = (found["age"].mean - answers["age"].mean).square().mean() + 0.2**2
    assert float(found["age"].std) == pytest.approx(math.sqrt(missed), rel=0.03)


def test_readouts_read_z_through_the_encoding(z):
    heads, turn = bank(scale=2.0, space="w"), torch.linalg.qr(torch.randn(DIM, DIM))[0]
    found = fit_readouts(heads, lambda z: z @ turn, DIM)
    assert found.space == "z"
    agree = (found.predict(z)["smile"].logit > 0) == (heads.predict(z @ turn)["smile"].logit > 0)
    assert agree.double().mean() > 0.98


def test_the_fit_has_come_to_its_end(monkeypatch):
    heads = bank(width=20, seed=2)
    usual = fit_readouts(heads, lambda z: z, DIM)
    monkeypatch.setattr(surrogates_module, "READOUT_STEPS", 500)
    patient = fit_readouts(heads, lambda z: z, DIM)
    for name in VOCABULARY:
        ours, best = usual.heads[name].skip_weight, patient.heads[name].skip_weight
        assert (ours - best).norm() < 0.02 * best.norm() + 1e-6


def test_the_same_readouts_in_every_run_and_no_random_state_is_touched():
    state = torch.get_rng_state()
    one, other = (fit_readouts(bank(width=4), lambda z: z, DIM) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(one.heads[name].skip_weight, other.heads[name].skip_weight) for name in VOCABULARY)


def test_some_readouts_have_the_bits_of_all():
    heads = bank(width=4)
    every, some = fit_readouts(heads, lambda z: z, DIM), fit_readouts(heads, lambda z: z, DIM, ("smile",))
    assert list(some.vocabulary) == ["smile"]
    ours, others = (one.heads["smile"].tensors() for one in (some, every))
    assert all(torch.equal(ours[field], others[field]) for field in others)


def test_numbers_alone_and_constant_heads():
    age = Vocabulary([VOCABULARY["age"]])
    alone = AttributeBank(age, {"age": bank().heads["age"]}, fitted=FittedUnder("z"))
    assert fit_readouts(alone, lambda z: z, DIM).heads["age"].skip_weight.isfinite().all()
    flat = bank(scale=0.0)
    found = fit_readouts(flat, lambda z: z, DIM)
    assert all(head.skip_weight.abs().max() < 1e-3 for head in found.heads.values())


def test_answers_that_are_no_numbers_are_left_out():
    found = fit_readouts(bank(), lambda z: torch.where(z[:, :1] > 1, torch.nan, z), DIM)
    nowhere = fit_readouts(bank(), lambda z: z * torch.inf, DIM)
    for heads in (found.heads, nowhere.heads):
        assert all(tensor.isfinite().all() for head in heads.values() for tensor in head.tensors().values())
