import json

import numpy as np
import pytest
import torch
from commanding import command

from benchmarks import choices, foreign, lace
from benchmarks.choices import ChoiceModel, find_choices
from energyql.errors import ArgumentError
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.reference import prior_samples
from energyql.evaluation.settings import SampleCounts
from energyql.language import bind, parse
from energyql.sampling import prior_latents


@pytest.mark.parametrize("name", [pytest.param("avatars", marks=pytest.mark.slow), "postcards"])
def test_choices_are_what_the_judge_reads_off_the_pictures(name):
    chosen, read = ChoiceModel(name), EvaluatedModel(name)
    z = prior_latents(8, 0, 48, chosen.z_dim)
    made, seen = chosen.judge(z).values, read.judge(z).values
    assert made.keys() == seen.keys() == dict(chosen.vocabulary).keys()
    for attribute, spec in chosen.vocabulary.items():
        if spec.kind == "continuous":
            assert np.abs(made[attribute] - seen[attribute]).max() < 0.05
        else:
            assert (made[attribute] == seen[attribute]).mean() >= 46 / 48, attribute


@pytest.mark.parametrize("name", ["avatars", "postcards"])
def test_latents_w_of_the_bare_generator_tell_the_choices_that_z_makes(name):
    generator, model = getattr(foreign, name)(), ChoiceModel(name)
    z = prior_latents(9, 0, 4000, generator.z_dim)
    found, made = getattr(choices, name)(generator.encode(z)), model.read_latents(z)
    assert found.keys() == made.keys()
    for attribute, spec in model.vocabulary.items():
        if spec.kind == "continuous":
            assert np.abs(found[attribute] - made[attribute]).max() < 1e-4
        else:
            assert (found[attribute] == made[attribute]).mean() > 0.999, attribute


def test_a_model_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="nothing knows the choices of"):
        ChoiceModel(str(tmp_path))


def test_an_oracle_by_choices_is_drawn_from_the_prior_alone(tmp_path):
    model = ChoiceModel("avatars")
    query = bind(parse("hat AND frown AND hair = red"), model.vocabulary)
    prior = prior_samples(model, 500, tmp_path / "prior", report=lambda stage, done: None)

    bench = Bench(model, SampleCounts(oracle=100), tmp_path, lambda stage, done: None)
    oracle = find_choices(bench, query, None, prior)
    assert len(oracle.weights) >= 100
    assert (oracle.weights == 1).all()
    assert model.satisfied(query, oracle.samples.values).all()
    assert abs(oracle.prevalence - len(oracle.weights) / oracle.pictures) < 1e-12
    assert 0.001 < oracle.prevalence < 0.03
    again = find_choices(bench, query, None, prior)
    assert torch.equal(again.samples.z, oracle.samples.z)


@pytest.mark.slow
def test_experiments_of_the_paper_without_pictures(tmp_path):
    arguments = ["--protocols", "classes,zero-shot", "--samplers", "slice", "--smoke", "--out", str(tmp_path)]
    for _ in range(2):  # the second time it reads what it has
        done = command(lace, *arguments)
        assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8"))
    assert list(data["setups"]) == ["classes", "zero-shot"]
    classes = [record["query"] for record in data["setups"]["classes"]["comparison"]["queries"]]
    assert all(query.startswith("hair = ") for query in classes)
    assert len(classes) >= 4
    assert "no query of 4 attributes" in data["setups"]["zero-shot"]["missing"]  # the prior in miniature has none
    assert "Conditional sampling on classes" in done.stdout
    page = (tmp_path / "evaluation.md").read_text(encoding="utf-8")
    assert all(f"`{query}`" in page for query in classes)
    refused = command(lace, "--protocols", "sequential-5")
    assert refused.returncode == 2
    assert "choose from conditional-1, classes" in refused.stderr
