"""Gradients written by hand against autograd, in both spaces, with offsets."""

import pytest
import torch
from toys import CONFIG, tiny_model

from energyql.editing.latents import Latents, LatentSpace, edited_w, mean_offset, shifted
from energyql.editing.pictures import flat_features
from energyql.editing.terms import (
    TermInput,
    distance_term,
    keep_identity,
    keep_logits,
    keep_predictions,
    query_term,
)
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.errors import ArgumentError
from energyql.language import bind, parse
from energyql.numerics.pullback import Identity
from energyql.pipeline.model import load_model

N = 3


@pytest.fixture(scope="module", params=["z", "w", "direction"])
def space(request, tmp_path_factory):
    model = load_model(tiny_model(tmp_path_factory.mktemp("model"), space=request.param))
    return LatentSpace(model, 0.7, None)


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def by_differences(energy, z, rows, step=1e-2):
    """Central differences, in float32: coarse."""
    columns = []
    for i in range(z.shape[1]):
        shift = torch.zeros_like(z)
        shift[:, i] = step
        columns.append((energy(z + shift, rows) - energy(z - shift, rows)) / (2 * step))
    return torch.stack(columns, 1)


def check(space, before, terms):
    energy = space.energy(before, terms)
    z, rows = before.z[[2, 0]] + 0.3 * draws(2, 8, seed=9), torch.tensor([2, 0])
    value, gradient = energy.gradient(z, rows)
    assert value.shape == (2,)
    numeric = by_differences(energy, z, rows)
    assert torch.allclose(gradient, numeric, atol=0.03 * numeric.abs().max().item() + 1e-3)


@pytest.fixture(scope="module", params=[None, 2, 3])
def before(request, space):
    z = draws(N, 8)
    shape = {2: (N, CONFIG.w_dim), 3: (N, CONFIG.num_ws, CONFIG.w_dim)}.get(request.param)
    return Latents(z, None if shape is None else 0.3 * draws(*shape, seed=4))


def outputs(space, before):
    return space.model.bank.raw_outputs(space.names).function(space.head_input(before)).contiguous()


def test_the_query(space, before):
    vocabulary = space.model.vocabulary
    query = bind(parse("smile AND NOT (hair = black OR age > 0.6)"), vocabulary)
    energy = QueryEnergy(compile_energy_rule(query, vocabulary), Identity(), space.model.bank)
    check(space, before, [query_term(energy, 3.0)])


def test_nearness(space, before):
    terms = [distance_term("z", space.scaled(before.z), 0.5), distance_term("w", space.encode(before.z), 0.2)]
    check(space, before, terms)
    if space.length_is_free:
        value, gradient = space.energy(before, terms).gradient(3 * before.z, torch.arange(N))
        assert torch.allclose(value, torch.zeros(N), atol=1e-4)
        assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-3)


@pytest.mark.parametrize("kind", [keep_predictions, keep_logits])
def test_keeping(space, before, kind):
    raw = space.model.bank.raw_outputs(space.names)
    weights = torch.tensor([[1.0, 2.0, 0.5, 0.0, 1.0]]).expand(N, -1)
    term = kind(raw, outputs(space, before), weights)
    check(space, before, [term])


def test_predictions_cost_their_divergence(space, before):
    raw = space.model.bank.raw_outputs(space.names)
    term = keep_predictions(raw, outputs(space, before), torch.ones(N, 5))
    rows = torch.arange(N)
    same = space.head_input(before)
    value, gradient = term.evaluate(TermInput(rows, before.z, None, same))
    assert torch.allclose(value, torch.zeros(N), atol=1e-5)
    assert torch.allclose(gradient, torch.zeros_like(gradient), atol=1e-4)
    moved = same + draws(*same.shape, seed=5)
    now, then = space.model.bank.predict(moved), space.model.bank.predict(same)
    expected = torch.zeros(N)
    for name in ("smile", "glasses", "beard"):
        p, q = then[name].logit.sigmoid(), now[name].logit.sigmoid()
        expected += p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    p, q = then["hair"].logits.softmax(1), now["hair"].logits.softmax(1)
    expected += (p * (p / q).log()).sum(1) + ((now["age"].mean - then["age"].mean) / now["age"].std).square() / 2
    assert torch.allclose(term.evaluate(TermInput(rows, before.z, None, moved))[0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", [None, [1, 2]])
def test_identity(space, before, layers):
    def embed(images):
        return images.flatten(1)[:, ::7]

    w = space.w(before)
    synthesis = edited_w(before, w, None if layers is None else space.layer_mask(layers))
    seen = flat_features(embed, space.model.generator.synthesize(w))
    term = keep_identity(embed, space.model.generator.synthesize, synthesis, seen, 2.0)
    check(space, before, [term])
    rows = torch.arange(N)
    value, _ = term.evaluate(TermInput(rows, before.z, space.encode(before.z), space.head_input(before)))
    assert torch.allclose(value, torch.zeros(N), atol=1e-5)


def test_an_embedding_that_is_none():
    with pytest.raises(ArgumentError, match=r"tensor \(batch, features\), not float"):
        flat_features(lambda images: 1.0, torch.zeros(2, 3, 4, 4))
    with pytest.raises(ArgumentError, match=r"not Tensor of shape \(2,\)"):
        flat_features(lambda images: images.sum((1, 2, 3)), torch.zeros(2, 3, 4, 4))


def test_latents_beside_what_z_is_mapped_to(space):
    z, offset = draws(N, 8), 0.5 * draws(N, CONFIG.num_ws, CONFIG.w_dim, seed=1)
    assert space.from_w(z, space.encode(z)).offset is None
    result = space.from_w(z, shifted(space.encode(z), offset))
    assert torch.allclose(result.offset, offset, atol=1e-5)
    assert torch.allclose(space.w(result), shifted(space.encode(z), offset), atol=1e-5)
    assert torch.equal(mean_offset(offset), offset.mean(1))
    with pytest.raises(ArgumentError, match="does not fit z"):
        space.from_w(z, torch.zeros(N, 5))


@pytest.mark.parametrize("layers", [[], [-1], [99], ["x"], "01", 3.5])
def test_layers_that_are_none(space, layers):
    with pytest.raises(ArgumentError, match="layers are whole numbers"):
        space.layer_mask(layers)
