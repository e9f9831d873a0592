import pytest
import torch

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.surrogates import fit_readouts
from energyql.energy.clipped import ClippedEnergy
from energyql.energy.query_energy import QueryEnergy, Surrogate
from energyql.energy.rule import compile_energy_rule
from energyql.language import bind, parse
from energyql.numerics.pullback import Identity
from energyql.sampling import prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hat", "yes/no"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red")),
        AttributeSpec("age", "continuous"),
    ]
)
DIM = 12


def linear_bank(scale=1.5):
    random = torch.Generator().manual_seed(0)
    heads = {}
    for name, outputs in (("smile", 1), ("hat", 1), ("hair", 3), ("age", 1)):
        weight = scale * torch.randn(outputs, DIM, generator=random) / DIM**0.5
        bias, std = torch.randn(outputs, generator=random), torch.tensor(0.3 if name == "age" else 1.0)
        heads[name] = Head(torch.zeros(0, DIM), torch.zeros(0), torch.zeros(outputs, 0), weight, bias, std)
    return AttributeBank(VOCABULARY, heads, fitted=FittedUnder("z"))


def rule_of(text, semantics="exact"):
    return compile_energy_rule(bind(parse(text), VOCABULARY), VOCABULARY, semantics)


@pytest.fixture(scope="module")
def readouts():
    return fit_readouts(linear_bank(), Identity(), DIM)


@pytest.mark.parametrize(
    ("text", "dimensions"),
    [("smile", 1), ("smile XOR hat", 2), ("hair = red AND smile", 3), ("age > 0.4 AND hair != red AND smile", 4)],
)
@pytest.mark.parametrize("semantics", ["exact", "product", "lace"])
def test_for_linear_heads_it_is_the_energy_itself(readouts, text, dimensions, semantics):
    rule, z = rule_of(text, semantics), prior_latents(1, 0, 500, DIM)
    surrogate = Surrogate(rule, readouts)
    assert surrogate.basis.shape == (dimensions, DIM)
    assert torch.allclose(surrogate.basis @ surrogate.basis.t(), torch.eye(dimensions), atol=1e-5)
    energy = QueryEnergy(rule, Identity(), linear_bank())
    assert (surrogate(z @ surrogate.basis.t()) - energy(z)).abs().mean() < 0.05


def test_a_clipped_surrogate_is_as_steep_as_the_clipped_energy(readouts):
    rule, z = rule_of("smile AND hat AND hair = red"), prior_latents(1, 0, 500, DIM)
    energy = QueryEnergy(rule, Identity(), linear_bank(), surrogate=lambda: Surrogate(rule, readouts))
    clipped = ClippedEnergy(energy, 0.5)
    surrogate = clipped.surrogate()
    assert (surrogate(z @ surrogate.basis.t()) - clipped(z)).abs().mean() < 0.1 < 0.2 * clipped(z).mean()


def test_lifting_changes_the_part_along_the_basis_alone(readouts):
    surrogate = Surrogate(rule_of("smile OR hair = black"), readouts)
    v, z = prior_latents(2, 0, 70, 3), prior_latents(3, 0, 70, DIM)
    lifted = surrogate.lift(v, z)
    assert torch.allclose(lifted @ surrogate.basis.t(), v, atol=1e-5)
    others = torch.eye(DIM) - surrogate.basis.t() @ surrogate.basis
    assert torch.allclose(lifted @ others, z @ others, atol=1e-5)
    one_by_one = [surrogate.lift(v[i : i + 1], z[i : i + 1]) for i in range(70)]
    assert torch.equal(lifted, torch.cat(one_by_one))


def test_equal_queries_have_equal_surrogates(readouts):
    one, other = (Surrogate(rule_of(text), readouts) for text in ("smile AND hat", "hat AND smile"))
    assert one == other
    assert hash(one) == hash(other)
    assert one != Surrogate(rule_of("smile OR hat"), readouts)


def test_heads_that_say_nothing_do_no_harm():
    surrogate = Surrogate(rule_of("smile AND hair = red"), fit_readouts(linear_bank(0.0), Identity(), DIM))
    assert surrogate(torch.zeros(5, len(surrogate.basis))).isfinite().all()
