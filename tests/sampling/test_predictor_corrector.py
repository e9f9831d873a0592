import math

import pytest

from energyql.errors import ArgumentError
from energyql.sampling import PredictorCorrector, RandomStreams, VPSchedule, prior_latents
from sampling.toys import Quadratic, flat


def test_the_clean_score_makes_the_predictor_twice_as_strong():
    # N(0, 1) times exp(-κ z²/2) is N(0, 1 / (1 + κ)), but this tends to N(0, 1 / (1 + 2 κ)).
    sampler = PredictorCorrector(steps=400, corrections=0)
    z = sampler.sample(Quadratic(3.0), prior_latents(0, 0, 4000, 2), noise=RandomStreams(0)).z
    assert z.std().item() == pytest.approx(math.sqrt(1 / 7), rel=0.05)


def test_without_an_energy_it_stays_in_the_prior():
    z = PredictorCorrector().sample(flat, prior_latents(0, 0, 500, 64), noise=RandomStreams(0)).z
    assert z.std().item() == pytest.approx(1, abs=0.05)


def test_gradients_of_the_published_settings():
    result = PredictorCorrector.published().sample(Quadratic(), prior_latents(0, 0, 1, 2))
    assert result.gradients.tolist() == [3000]
    assert result.ok.all()


@pytest.mark.parametrize(
    ("steps", "most", "rule"),
    [(1, 0.5, "a whole number of at least 2"), (20, 20.0, "above beta_max, 20"), (2.5, 0.5, "a whole number")],
)
def test_too_few_steps_for_the_schedule(steps, most, rule):
    with pytest.raises(ArgumentError, match=f"steps must be {rule}"):
        PredictorCorrector(steps=steps, schedule=VPSchedule(0.1, most))
