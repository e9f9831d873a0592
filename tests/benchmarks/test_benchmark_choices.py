import numpy as np
import pytest
import torch

from benchmarks.choices import ChoiceModel
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
from energyql.evaluation.reference import find_oracle, prior_samples
from energyql.language import bind, parse
from energyql.sampling import prior_latents


@pytest.mark.parametrize("name", ["avatars", "postcards"])
def test_choices_are_what_the_judge_reads_off_the_pictures(name):
    chosen, read = ChoiceModel(name), EvaluatedModel(name)
    z = prior_latents(8, 0, 48, chosen.z_dim)
    choices, seen = chosen.judge(z).values, read.judge(z).values
    assert choices.keys() == seen.keys() == dict(chosen.vocabulary).keys()
    for attribute, spec in chosen.vocabulary.items():
        if spec.kind == "continuous":
            assert np.abs(choices[attribute] - seen[attribute]).max() < 0.05
        else:
            assert (choices[attribute] == seen[attribute]).mean() >= 46 / 48, attribute


def test_a_model_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(ArgumentError, match="nothing knows the choices of"):
        ChoiceModel(str(tmp_path))


def test_an_oracle_by_choices_is_drawn_from_the_prior_alone(tmp_path):
    model = ChoiceModel("avatars")
    query = bind(parse("hat AND frown AND hair = red"), model.vocabulary)
    prior = prior_samples(model, 500, tmp_path / "prior", report=lambda stage, done: None)

    def no_energy(z):
        raise AssertionError("the heads have no part in it")

    oracle = find_oracle(model, query, no_energy, prior, 100, tmp_path / "oracle", lambda stage, done: None)
    assert len(oracle.weights) >= 100
    assert (oracle.weights == 1).all()
    assert model.satisfied(query, oracle.samples.values).all()
    assert abs(oracle.prevalence - len(oracle.weights) / oracle.pictures) < 1e-12
    assert 0.001 < oracle.prevalence < 0.03
    again = find_oracle(model, query, no_energy, prior, 100, tmp_path / "other", lambda stage, done: None)
    assert torch.equal(again.samples.z, oracle.samples.z)
