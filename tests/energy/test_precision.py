"""Energies whose products are computed in bfloat16."""

from typing import get_args

import pytest
import torch
from toys import tiny_model

import energyql
from energyql import load_model
from energyql.energy.query_energy import QueryEnergy
from energyql.errors import ArgumentError
from energyql.numerics.linear import BATCH_SIZES, WHOLE_VECTORS, sizes_for
from energyql.pipeline.plan import plan_query
from energyql.pipeline.session import Session
from energyql.pipeline.settings import Precision
from energyql.sampling import SliceSampler

QUERY = "smile AND NOT beard AND (hair = black OR age > 0.5)"


@pytest.fixture(scope="module", params=["w", "z", "direction"])
def model(request, tmp_path_factory):
    return load_model(tiny_model(tmp_path_factory.mktemp("model"), space=request.param))


def prepare(model, precision, query=QUERY, **settings):
    return plan_query(Session(model, torch.device("cpu")), query, precision=precision, **settings)


def test_energies_are_nearly_the_same_and_keep_their_type(model):
    z = torch.randn(200, model.generator.z_dim, generator=torch.Generator().manual_seed(0))
    exact, rounded = (prepare(model, precision).energy for precision in ("float32", "bfloat16"))
    e, gradient = rounded.gradient(z)
    expected, slopes = exact.gradient(z)
    assert e.dtype == gradient.dtype == torch.float32
    assert not torch.equal(e, expected)
    torch.testing.assert_close(e, expected, atol=0.05, rtol=0.05)
    torch.testing.assert_close(rounded(z), e, atol=1e-5, rtol=1e-5)
    # A unit that is nearly 0 may be rounded to the other side of its kink, so not every gradient is as near.
    assert torch.nn.functional.cosine_similarity(gradient, slopes).mean() > 0.99


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("semantics", ["exact", "product", "lace", "jem"])
def test_a_row_has_the_same_energy_in_any_batch(model, precision, semantics):
    # Where a sample stands in its batch decides which instructions compute, say, its sigmoid; they must round alike.
    z = torch.randn(300, model.generator.z_dim, generator=torch.Generator().manual_seed(1))
    energy = prepare(model, precision, semantics=semantics).energy
    whole, slopes = energy.gradient(z)
    for count in (1, 7, 33, 100):
        rows = z[: 40 * count]  # single ones too stand at each place of the widest vectors, which hold 32 numbers
        parts = [energy.gradient(part) for part in rows.split(count)]
        assert torch.equal(whole[: len(rows)], torch.cat([e for e, _ in parts]))
        assert torch.equal(slopes[: len(rows)], torch.cat([gradient for _, gradient in parts]))
        assert torch.equal(whole[: len(rows)], torch.cat([energy(part) for part in rows.split(count)]))


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("semantics", ["exact", "lace"])
def test_batches_have_few_different_sizes(model, precision, semantics, monkeypatch):
    # A product is compiled for every number of rows, which takes longer than the product.
    energy, seen = prepare(model, precision, semantics=semantics).energy, set()
    encode = energy.encode
    monkeypatch.setattr(energy, "encode", lambda z: (seen.add(len(z)), encode(z))[1])
    for rows in {*range(1, 514, 12), *(size + more for size in BATCH_SIZES for more in (-1, 0, 1)), 513} - {0}:
        assert energy(torch.randn(rows, model.generator.z_dim)).shape == (rows,)
    energy(torch.randn(1500, model.generator.z_dim))
    assert seen == set(sizes_for(getattr(torch, precision)) if semantics == "exact" else WHOLE_VECTORS)


def test_other_semantics_convert_what_they_can(model):
    z = torch.randn(50, model.generator.z_dim, generator=torch.Generator().manual_seed(2))
    exact, rounded = (prepare(model, name, semantics="lace").energy for name in ("float32", "bfloat16"))
    torch.testing.assert_close(rounded(z), exact(z), atol=0.05, rtol=0.05)


def test_a_result_says_so_and_is_itself_exact(model):
    found = energyql.generate(QUERY, 3, model=model, precision="bfloat16", progress=False)
    assert found.provenance["precision"] == "bfloat16"
    torch.testing.assert_close(
        torch.from_numpy(found.energy).float(), prepare(model, "float32").energy(found.z), atol=1e-5, rtol=1e-5
    )


def test_the_last_layer_is_not_rounded(model):
    z = torch.randn(400, model.generator.z_dim, generator=torch.Generator().manual_seed(3))
    values = prepare(model, "bfloat16", "smile").energy(z)
    assert len(values.unique()) > 300  # eight bits would leave far fewer


def test_mistakes(model):
    with pytest.raises(ArgumentError, match="no precision 'half'\nchoose float32, bfloat16"):
        prepare(model, "half")
    rule = prepare(model, "float32").rule
    with pytest.raises(ArgumentError, match="cannot be computed in bfloat16"):
        QueryEnergy(rule, lambda z: z, model.bank).computed_in(torch.bfloat16)


def test_what_samplers_keep_is_of_one_precision_and_of_energies_that_never_change(model):
    exact = prepare(model, "float32").energy
    assert exact.sampler_cache == {} and exact.computed_in(torch.bfloat16).sampler_cache == {}
    assert exact.computed_in(torch.bfloat16).sampler_cache is not exact.sampler_cache
    assert QueryEnergy(exact.rule, lambda z: z, model.bank).sampler_cache is None


def test_samplers_take_it(model):
    found = list(
        energyql.sample_latents(QUERY, 5, model=model, sampler=SliceSampler(), precision="bfloat16", progress=False)
    )
    assert sum(len(part.z) for part in found) == 5
