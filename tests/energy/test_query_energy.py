import pytest
import torch
from formulas import EYES, HAIR, VOCABULARY, formulas, with_weights
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import SEMANTICS, compile_energy_rule
from energyql.errors import ArgumentError, Contradiction, LimitError, TautologyWarning
from energyql.language import And, Attribute, Constant, Interval, Near, Not, OneOf, Or, Weight
from energyql.logic.circuit import compile_query
from energyql.sampling import make_sampler

Z_DIM = 5
QUERY = And((Attribute("smile"), Not(Or((Attribute("hat"), OneOf("hair", ("red",))))), Interval("age", 0.6, None)))


class Model:
    """A linear encoder and heads that count how often they are called."""

    def __init__(self, dtype=torch.float64, scale=1.0):
        random = torch.Generator().manual_seed(0)

        def matrix(*shape):
            return (scale * torch.randn(*shape, generator=random, dtype=torch.float64)).to(dtype)

        self.mapping = matrix(Z_DIM, 6)
        sizes = {"hair": len(HAIR), "eyes": len(EYES)}
        self.heads = {name: matrix(6, sizes.get(name, 1)) for name in VOCABULARY}
        self.encoded, self.asked = 0, []

    def encode(self, z):
        self.encoded += 1
        return z @ self.mapping

    def predict(self, w, names):
        self.asked.append(names)
        found = {}
        for name in names:
            out = w @ self.heads[name]
            if name in ("hair", "eyes"):
                found[name] = Categorical(out, VOCABULARY[name].values)
            else:
                found[name] = YesNo(out[:, 0]) if VOCABULARY[name].kind == "yes/no" else Continuous(out[:, 0], 0.3)
        return found

    def energy(self, query, semantics="exact"):
        return QueryEnergy(compile_energy_rule(query, VOCABULARY, semantics), self.encode, self.predict)


def latents(batch=4, dtype=torch.float64, seed=0):
    return torch.randn(batch, Z_DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("semantics", SEMANTICS)
@pytest.mark.parametrize("call", ["value", "gradient"])
def test_one_evaluation_encodes_and_predicts_once(semantics, call):
    model = Model()
    energy = model.energy(QUERY, semantics)
    energy(latents()) if call == "value" else energy.gradient(latents())
    assert model.encoded == 1
    assert model.asked == [("smile", "hair", "age", "hat")]


def test_the_energy_is_minus_the_log_probability():
    model, z = Model(), latents()
    heads = model.predict(model.encode(z), ("smile", "hair", "age", "hat"))
    p = (
        heads["smile"].probability((True,))
        * heads["hat"].probability((False,))
        * (1 - heads["hair"].probability(("red",)))
        * heads["age"].probability(((0.6, float("inf")),))
    )
    torch.testing.assert_close(model.energy(QUERY)(z), -p.log())


def test_the_energy_of_what_the_heads_read():
    model, z = Model(), latents()
    assert torch.equal(model.energy(QUERY).of_latent(model.encode(z)), model.energy(QUERY)(z))
    with pytest.warns(TautologyWarning):
        assert not model.energy(Constant(True)).of_latent(model.encode(z)).any()


def test_a_circuit_will_do_for_a_rule():
    model, z = Model(), latents()
    energy = QueryEnergy(compile_query(QUERY, VOCABULARY), model.encode, model.predict)
    torch.testing.assert_close(energy(z), model.energy(QUERY)(z))
    assert energy.rule.attributes == ("smile", "hair", "age", "hat")


def differences(function, z, step=1e-6):
    columns = []
    for j in range(z.shape[1]):
        shift = torch.zeros_like(z)
        shift[:, j] = step
        columns.append((function(z + shift) - function(z - shift)) / (2 * step))
    return torch.stack(columns, dim=1)


@pytest.mark.filterwarnings("ignore::energyql.errors.TautologyWarning")
@pytest.mark.parametrize("semantics", ["exact", "product"])
@settings(max_examples=60, deadline=None)
@given(st.one_of(formulas, with_weights), st.integers(0, 50))
def test_gradients_against_finite_differences(semantics, query, seed):
    try:
        energy = Model(scale=0.5).energy(query, semantics)
    except Contradiction:
        assume(False)
    z = latents(seed=seed)
    value, gradient = energy.gradient(z)
    torch.testing.assert_close(value, energy(z))
    torch.testing.assert_close(gradient, differences(energy, z), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "query",
    [
        And((Attribute("smile"), OneOf("hair", ("red", "gray")), Near("age", 0.5, 0.1))),
        Or((Attribute("smile"), And((Attribute("hat"), Interval("yaw", 0.2, 0.4))))),
        And((Weight(2.0, Attribute("beard")), Or((Interval("age", 0.6, None), Attribute("glasses"))))),
    ],
)
def test_gradients_of_lace_against_finite_differences(query):
    energy, z = Model(scale=0.5).energy(query, "lace"), latents()
    torch.testing.assert_close(energy.gradient(z)[1], differences(energy, z), atol=1e-5, rtol=1e-5)


def test_the_gradient_of_a_lace_not_is_the_scaled_one_of_its_operand():
    model, z = Model(), latents()
    value, gradient = model.energy(Attribute("smile"), "lace").gradient(z)
    alpha = (0.1 / value.abs()).clamp(max=1)
    torch.testing.assert_close(model.energy(Not(Attribute("smile")), "lace").gradient(z)[1], -alpha[:, None] * gradient)


@pytest.mark.filterwarnings("ignore::energyql.errors.TautologyWarning")
@pytest.mark.parametrize("semantics", SEMANTICS)
@settings(max_examples=60, deadline=None)
@given(st.one_of(formulas, with_weights))
def test_far_from_the_data_everything_is_finite_in_float32(semantics, query):
    try:
        energy = Model(torch.float32, scale=3.0).energy(query, semantics)
    except (Contradiction, LimitError):
        assume(False)
    value, gradient = energy.gradient(30 * latents(dtype=torch.float32))
    assert value.isfinite().all()
    assert gradient.isfinite().all()


def test_gradient_leaves_its_input_and_its_output_alone():
    energy, z = Model().energy(QUERY), latents()
    with torch.no_grad():
        value, gradient = energy.gradient(z)
    assert not (z.requires_grad or value.requires_grad or gradient.requires_grad)
    assert value.shape == (4,)
    assert gradient.shape == z.shape


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_an_empty_batch(semantics):
    value, gradient = Model().energy(QUERY, semantics).gradient(latents(0))
    assert value.shape == (0,)
    assert gradient.shape == (0, Z_DIM)


def test_samples_do_not_interact():
    energy, z = Model().energy(QUERY), latents(6)
    value, gradient = energy.gradient(z)
    alone = energy.gradient(z[2:3])
    torch.testing.assert_close((value[2:3], gradient[2:3]), alone)


@pytest.mark.parametrize("semantics", SEMANTICS)
def test_a_query_that_is_always_true_has_energy_zero(semantics):
    with pytest.warns(TautologyWarning):
        energy = Model().energy(Constant(True), semantics)
    value, gradient = energy.gradient(latents())
    assert not value.any() and value.shape == (4,)
    assert not gradient.any() and gradient.shape == (4, Z_DIM)


@pytest.mark.parametrize("z", [torch.zeros(5), torch.zeros(2, 3, 5), torch.zeros(2, 5, dtype=torch.long)])
def test_a_wrong_latent(z):
    with pytest.raises(ArgumentError, match=r"z must be floating point of shape \(batch, z_dim\)"):
        Model().energy(QUERY)(z)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ({}, "predict returned nothing for attribute 'smile'"),
        ({"smile": YesNo(torch.zeros(4, 1))}, r"the logit of attribute 'smile' must be float32 of shape \(4,\)"),
        ({"smile": YesNo(torch.zeros(3))}, r"must be float32 of shape \(4,\) on cpu, not float32 of shape \(3,\)"),
        ({"smile": YesNo(torch.zeros(4, dtype=torch.float64))}, "must be float32 .* not float64"),
        (
            {"smile": Categorical(torch.zeros(4, 3), ("a", "b"))},
            r"the logits .* must be float32 of shape \(4, 2\)",
        ),
        ({"smile": Continuous(torch.zeros(4), torch.zeros(3))}, r"the std of attribute 'smile' must be"),
    ],
)
def test_wrong_predictions(predictions, message):
    rule = compile_energy_rule(Attribute("smile"), VOCABULARY)
    energy = QueryEnergy(rule, lambda z: z, lambda w, names: predictions)
    with pytest.raises(ArgumentError, match=message):
        energy(latents(dtype=torch.float32))


def test_code_that_may_have_changed_is_asked_again_in_each_run():
    model, asked = Model(), [0]
    energy = model.energy(QUERY)
    for _ in range(2):
        make_sampler("slice").sample(energy, latents())
        asked.append(len(model.asked))
    assert asked[1] > 0
    assert asked[2] == 2 * asked[1]


def test_a_detached_encoder_is_reported():
    model = Model()
    rule = compile_energy_rule(QUERY, VOCABULARY)
    energy = QueryEnergy(rule, lambda z: model.encode(z).detach(), model.predict)
    with pytest.raises(ArgumentError, match="does not depend on z"):
        energy.gradient(latents())
