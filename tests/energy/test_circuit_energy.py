"""The energy without autograd against the energy with it, on random networks."""

import pytest
import torch
from formulas import VOCABULARY, formulas, with_weights
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.predictions import output_count
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import SEMANTICS, compile_energy_rule
from energyql.errors import ArgumentError, Contradiction, LimitError
from energyql.generators.mapping import FrozenMapping, MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.language import And, Attribute, Interval, Not, OneOf, Or, Weight
from energyql.numerics.pullback import Identity
from energyql.vocabulary import AttributeSpec, Vocabulary

DIM = 6
DEEP = {"glasses": (5, 4), "eyes": (5, 4), "hat": (5, 4), "yaw": (3, 3, 2)}
QUERY = And((Attribute("smile"), Not(Or((Attribute("hat"), OneOf("hair", ("red",))))), Interval("age", 0.4, None)))
pytestmark = pytest.mark.filterwarnings("ignore::energyql.errors.TautologyWarning")


def random_bank(vocabulary=VOCABULARY, space="w", dtype=torch.float64):
    """Heads of one hidden layer and of several, in two shapes."""
    random = torch.Generator().manual_seed(0)

    def matrix(*shape):
        return torch.randn(*shape, generator=random, dtype=torch.float64).to(dtype) / shape[-1] ** 0.5

    heads = {}
    for name, spec in vocabulary.items():
        first, *deeper = widths = DEEP.get(name, (4,))
        pairs = zip(widths, deeper, strict=False)
        outputs = output_count(spec)
        heads[name] = Head(
            matrix(first, DIM), matrix(first), matrix(outputs, widths[-1]), matrix(outputs, DIM), matrix(outputs),
            torch.tensor(0.3, dtype=dtype), tuple((matrix(after, before), matrix(after)) for before, after in pairs),
        )  # fmt: skip
    return AttributeBank(vocabulary, heads, fitted=FittedUnder(space))


def random_encoder(c_dim=0, dtype=torch.float64):
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        network = MappingNetwork(
            StyleGAN2Config(resolution=8, z_dim=5, w_dim=DIM, c_dim=c_dim, mapping_layers=3, mapping_lr_multiplier=1.0)
        )
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.normal_()
    return FrozenMapping(network.to(dtype), 0.7, torch.eye(c_dim)[0] if c_dim else None)


BANK, ENCODE = random_bank(), random_encoder()


def latents(batch=4, dim=5, seed=0, dtype=torch.float64):
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, dim, dtype=torch.float64, generator=random).to(dtype)


def energies(query, semantics="exact", encode=ENCODE, bank=BANK):
    """Without autograd, and with it."""
    rule = compile_energy_rule(query, bank.vocabulary, semantics)
    return QueryEnergy(rule, encode, bank), QueryEnergy(rule, lambda z: encode(z), bank.predict)


def check(ours, reference, z, tolerance=1e-8):
    value, gradient = ours.gradient(z)
    expected, slopes = reference.gradient(z)
    torch.testing.assert_close(value, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(gradient, slopes, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(ours(z), expected, atol=tolerance, rtol=tolerance)
    assert not (value.requires_grad or gradient.requires_grad)


@pytest.mark.parametrize("semantics", SEMANTICS)
@settings(max_examples=50, deadline=None)
@given(st.one_of(formulas, with_weights), st.integers(0, 99))
def test_equal_to_autograd(semantics, query, seed):
    try:
        ours, reference = energies(query, semantics)
    except (Contradiction, LimitError):
        assume(False)
    check(ours, reference, latents(seed=seed))


@settings(max_examples=40, deadline=None)
@given(st.one_of(formulas, with_weights), st.integers(0, 99))
def test_in_float32(query, seed):
    try:
        ours, _ = energies(query, "exact", random_encoder(dtype=torch.float32), random_bank(dtype=torch.float32))
        _, reference = energies(query)
    except Contradiction:
        assume(False)
    z = latents(seed=seed)
    found, expected = ours.gradient(z.float()), reference.gradient(z)
    # A step of float32 is 2e-6 at 25 nats. Shares of a disjunction are exponentials of differences of such energies.
    nats = (expected[0].abs() / 8).clamp(min=1)
    scaled, truth = ([energy / nats, gradient / nats[:, None]] for energy, gradient in (found, expected))
    torch.testing.assert_close(scaled, [tensor.double() for tensor in truth], atol=1e-5, rtol=1e-4, check_dtype=False)


def test_heads_that_read_z():
    bank = random_bank(space="z")
    check(*energies(QUERY, encode=Identity(), bank=bank), latents(dim=DIM))


def test_a_conditional_generator():
    check(*energies(QUERY, encode=random_encoder(3)), latents())


def test_a_foreign_encoder_is_differentiated():
    matrix = torch.randn(5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    check(*energies(QUERY, encode=lambda z: torch.tanh(z @ matrix)), latents())


def test_no_query_of_exact_and_product_needs_autograd(monkeypatch):
    monkeypatch.setattr(AttributeBank, "predict", None)
    weighted = Or((Weight(2.0, Attribute("beard")), Weight(3.0, Attribute("smile"))))
    for query, semantics in [(QUERY, "exact"), (QUERY, "product"), (weighted, "exact"), (weighted, "product")]:
        value, gradient = energies(query, semantics)[0].gradient(latents())
        assert value.isfinite().all()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("batch", [0, 1, 64])
def test_in_every_mode(mode, batch):
    ours, reference = energies(QUERY)
    expected = reference.gradient(latents(batch))
    with mode():
        z = latents(batch)
        value, gradient = ours.gradient(z)
        energy = ours(z)
    torch.testing.assert_close((value.clone(), gradient.clone()), expected)
    torch.testing.assert_close(energy.clone(), expected[0])
    torch.testing.assert_close(z.clone(), latents(batch))


def test_autograd_can_differentiate_the_energy():
    ours, _ = energies(QUERY)
    z = latents().requires_grad_()
    (gradient,) = torch.autograd.grad(ours(z).sum(), z)
    torch.testing.assert_close(gradient, ours.gradient(z)[1])


def test_a_latent_of_another_type():
    ours, _ = energies(QUERY)
    for call in (ours, ours.gradient):
        with pytest.raises(ArgumentError, match=r"the heads are float64 on cpu, and z is float32 of shape \(4, 5\)"):
            call(latents(dtype=torch.float32))


def test_many_attributes_in_one_query():
    specs = [AttributeSpec(f"a{i}", "yes/no") for i in range(14)]
    vocabulary = Vocabulary(specs)
    bank = random_bank(vocabulary)
    operands = tuple(Attribute(spec.name) for spec in specs)
    for query in (And(operands), Or(operands), Not(And(operands)), And(tuple(map(Not, operands)))):
        check(*energies(query, bank=bank), latents())
