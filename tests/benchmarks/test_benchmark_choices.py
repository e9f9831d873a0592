import numpy as np
import pytest

from benchmarks.choices import ChoiceModel
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
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
