import math
from dataclasses import replace

import pytest
import torch

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.surrogates import MOST_DIRECTIONS, SurrogateHeads
from energyql.errors import UnknownAttribute
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import load_model
from energyql.sampling import prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red")),
        AttributeSpec("age", "continuous"),
    ]
)
NAMES, DIM = tuple(VOCABULARY), 24


def bent_bank(directions=2, seed=0, bend=3.0, unit=1.0, space="z"):
    """Heads of 20 units that depend on a few directions of z each."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random)

    heads = {}
    for name, outputs in (("smile", 1), ("hair", 3), ("age", 1)):
        basis = torch.linalg.qr(normal(DIM, directions))[0].t()
        scale = unit if name == "age" else 1.0
        heads[name] = Head(
            normal(20, directions) @ basis, normal(20), scale * bend * normal(outputs, 20) / math.sqrt(20),
            scale * normal(outputs, directions) @ basis, scale * normal(outputs),
            torch.tensor(0.2 * scale if name == "age" else 1.0),
        )  # fmt: skip
    return AttributeBank(VOCABULARY, heads, fitted=FittedUnder(space))


def surrogates(bank, encode=None):
    return SurrogateHeads(bank, encode or Identity(), DIM)


def misses(bank, other, z):
    """Mean distance of the probabilities of yes and of red, and of the means in deviations."""
    ours, theirs = bank.predict(z), other.predict(z)
    return {
        "smile": (ours["smile"].probability((True,)) - theirs["smile"].probability((True,))).abs().mean().item(),
        "hair": (ours["hair"].probability(("red",)) - theirs["hair"].probability(("red",))).abs().mean().item(),
        "age": ((ours["age"].mean - theirs["age"].mean).abs().mean() / theirs["age"].mean.std()).item(),
    }


@pytest.fixture(scope="module")
def z():
    return prior_latents(3, 0, 5000, DIM)


@pytest.fixture(scope="module")
def bank():
    return bent_bank()


@pytest.fixture(scope="module")
def heads(bank):
    return surrogates(bank)


def test_networks_answer_as_the_heads_where_lines_do_not(bank, heads, z):
    lines, networks = misses(heads.linear(NAMES), bank, z), misses(heads.distilled(NAMES), bank, z)
    for name in NAMES:
        assert networks[name] < 0.03, name
        assert networks[name] < 0.4 * lines[name], name


def test_heads_that_read_the_direction_of_z(z):
    bank = bent_bank(space="direction")
    heads = surrogates(bank)
    lines, networks = misses(heads.linear(NAMES), bank, z), misses(heads.distilled(NAMES), bank, z)
    assert all(networks[name] < 0.6 * lines[name] for name in NAMES)


def test_they_read_no_more_directions_than_the_heads_depend_on(heads):
    for head in heads.distilled(NAMES).heads.values():
        assert torch.linalg.matrix_rank(torch.cat([head.skip_weight, head.hidden_weight]).double(), rtol=1e-3) == 2


def test_where_an_attribute_depends_on_everything_the_best_line_is_among_the_directions(z):
    bank = bent_bank(directions=DIM, bend=1.0)
    found = surrogates(bank)
    for name, head in found.distilled(NAMES).heads.items():
        rank = torch.linalg.matrix_rank(torch.cat([head.skip_weight, head.hidden_weight]).double(), rtol=1e-3)
        assert rank <= MOST_DIRECTIONS, name
    lines, networks = misses(found.linear(NAMES), bank, z), misses(found.distilled(NAMES), bank, z)
    assert all(networks[name] < 1.05 * lines[name] for name in NAMES)


def test_the_same_networks_in_every_run_mode_and_order(monkeypatch):
    monkeypatch.setattr("energyql.attributes.surrogates.STEPS", 32)
    model = load_model("avatars")  # wide enough for a product to round by what is beside a head
    orders = (("hat", "hair", "smile", "skin_tone"), ("skin_tone",), ("smile", "hat"), ("hair",))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    together = SurrogateHeads(model.bank, Identity(), 64).distilled(orders[0]).heads
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            heads = SurrogateHeads(model.bank, Identity(), 64)
            apart = {name: head for names in orders[1:] for name, head in heads.distilled(names).heads.items()}
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.get_rng_state(), state)
    for name, head in together.items():
        assert all(torch.equal(apart[name].tensors()[field], tensor) for field, tensor in head.tensors().items()), name


def test_networks_are_fitted_once(heads):
    assert heads.distilled(("smile", "age")) is heads.distilled(("smile", "age"))
    assert heads.distilled(("smile",)).heads["smile"] is heads.distilled(NAMES).heads["smile"]
    assert tuple(heads.distilled(("age", "smile")).vocabulary) == ("age", "smile")
    with pytest.raises(UnknownAttribute, match="'hat' is not an attribute"):
        heads.distilled(("hat",))


def test_heads_on_w_of_any_function_of_z(bank, z):
    turn = torch.linalg.qr(torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(1)))[0]
    found = surrogates(bank, lambda z: torch.tanh(z @ turn / 2)).distilled(NAMES)  # differentiated by autograd
    ours, theirs = found.predict(z)["smile"], bank.predict(torch.tanh(z @ turn / 2))["smile"]
    assert ((ours.logit > 0) == (theirs.logit > 0)).double().mean() > 0.95


@pytest.mark.parametrize("unit", [1e-9, 1e4])
def test_numbers_in_any_unit(unit, z):
    bank = bent_bank(unit=unit)
    found = surrogates(bank).distilled(("age",))
    assert (found.predict(z)["age"].mean - bank.predict(z)["age"].mean).abs().mean() < 0.05 * unit
    missed = (found.predict(z)["age"].mean - bank.predict(z)["age"].mean).square().mean().item()
    assert float(found.predict(z)["age"].std) == pytest.approx(math.sqrt(missed + (0.2 * unit) ** 2), rel=0.03)


def test_constant_heads_and_answers_that_are_no_numbers():
    bank, flat = bent_bank(), {}
    for name, head in bank.heads.items():
        flat[name] = Head.from_tensors({field: torch.zeros_like(tensor) for field, tensor in head.tensors().items()})
    flat["smile"] = replace(flat["smile"], out_bias=torch.ones(1))
    flat = AttributeBank(VOCABULARY, flat, fitted=FittedUnder("z"))
    found = surrogates(flat).distilled(NAMES).predict(prior_latents(0, 0, 50, DIM))
    assert torch.allclose(found["smile"].probability((True,)), torch.tensor(1.0).sigmoid(), atol=0.02)
    for encode in (lambda z: torch.where(z[:, :1] > 1, torch.nan, z), lambda z: z * torch.inf):
        for head in surrogates(bank, encode).distilled(NAMES).heads.values():
            assert all(tensor.isfinite().all() for tensor in head.tensors().values())


@pytest.mark.parametrize(
    "encode", [lambda z: z.detach(), lambda z: torch.from_numpy(z.numpy() * 1.0), lambda z: z.mul_(1.0)]
)
def test_an_encoding_without_a_derivative_leaves_the_best_line(bank, encode, z):
    found = surrogates(bank, encode)
    networks = found.distilled(NAMES)
    for head, directions in zip(networks.heads.values(), (1, 3, 1), strict=True):
        rank = torch.linalg.matrix_rank(torch.cat([head.skip_weight, head.hidden_weight]).double(), rtol=1e-3)
        assert 1 <= rank <= directions
    lines, networks = misses(found.linear(NAMES), bank, z), misses(networks, bank, z)
    assert all(networks[name] < 1.1 * lines[name] for name in NAMES)
