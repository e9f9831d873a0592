"""The benchmark of one evaluation, at its smallest."""

import json

import pytest
import torch
import typer
from typer.testing import CliRunner

from benchmarks import evaluation
from benchmarks.baselines import Bare, Published, gradient_by_autograd, random_bank, random_mapping
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import compile_energy_rule
from energyql.generators.mapping import FrozenMapping
from energyql.language import bind, parse


@pytest.mark.parametrize("widths", [(4,), (5, 4, 3)])
@pytest.mark.parametrize("layers", [0, 2])
def test_bare_products_have_the_shapes_of_an_evaluation(layers, widths):
    bank = random_bank(evaluation.VOCABULARY, 6, widths, "w")
    bare = Bare(layers, 6, [bank.heads[name] for name in ("a1", "c1", "n1")], 7)
    assert bare.forward().shape == (7, 1 + 5 + 1)
    assert bare.both().shape == (7, 6)


@pytest.mark.parametrize("query", evaluation.QUERIES)
def test_all_of_them_compute_the_same(query):
    network = random_mapping(evaluation.SMALL)
    bank = random_bank(evaluation.VOCABULARY, 16, (8,), "w")
    rule = compile_energy_rule(bind(parse(query), bank.vocabulary), bank.vocabulary)
    z = torch.randn(5, 16)
    ours = QueryEnergy(rule, FrozenMapping(network, 0.7), bank).gradient(z)
    plain = gradient_by_autograd(QueryEnergy(rule, lambda z: network(z, 0.7), bank.predict), z)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_the_published_structure_encodes_once_an_attribute():
    encoded = []
    bank = random_bank(evaluation.VOCABULARY, 6, (4,), "w")
    query = bind(parse(evaluation.QUERIES[-1]), bank.vocabulary)
    rule = compile_energy_rule(query, bank.vocabulary, "lace")
    published = Published(rule, bank.vocabulary, lambda z: encoded.append(1) or z, 6)
    value, gradient = gradient_by_autograd(published, torch.randn(3, 6))
    assert len(encoded) == len(rule.attributes) == 12
    assert value.shape == (3,)
    assert gradient.shape == (3, 6)


@pytest.mark.slow
def test_smoke(tmp_path):
    app, threads = typer.Typer(), torch.get_num_threads()
    app.command()(evaluation.main)
    outcome = CliRunner().invoke(app, ["--smoke", "--threads", str(threads), "--out", str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    data = json.loads((tmp_path / "results.json").read_text())
    assert [row["attributes"] for row in data["rows"]] == [1, 3, 6, 12] * 2 + [7, 7, 5, 5]
    for row in data["rows"]:
        assert row["ratios"]["gradient"] == row["seconds"]["gradient"] / row["seconds"]["bare gradient"]
        assert row["ratios"]["energy"] == row["seconds"]["energy"] / row["seconds"]["bare energy"]
    page = (tmp_path / "results.md").read_text()
    assert page.count("\n| ours |") == 4
    assert f"`{evaluation.QUERIES[1]}`" in page
    assert "ours, energy" in outcome.output
