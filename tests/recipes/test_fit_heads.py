import dataclasses

import pytest
import torch

from energyql.sampling import prior_latents
from recipes.avatars.domain import DOMAIN
from recipes.common.heads import CALIBRATION, TEST, fit_heads

SCALE = 0.02


@pytest.fixture(scope="module")
def bank():
    """Heads after 160 steps on small batches."""
    small = dataclasses.replace(DOMAIN, heads=dataclasses.replace(DOMAIN.heads, batch=256))
    return fit_heads(small, "generator", scale=SCALE)


def test_the_heads_read_the_direction_of_z_of_their_generator(bank):
    assert bank.space == "direction"
    assert bank.generator == "generator"
    assert set(bank.vocabulary) == set(DOMAIN.vocabulary)
    z = prior_latents(5, 0, 4, 64)
    assert torch.allclose(bank.predict(z)["hat"].logit, bank.predict(3 * z)["hat"].logit, atol=1e-4)


def test_the_heads_learn(bank):
    reports = bank.reports
    assert reports["beard"].score > 0.95
    assert reports["hair"].score > 0.6
    assert reports["background"].details["error"] < 0.15
    counts = {(report.fitted, report.held_out) for report in reports.values()}
    assert counts == {(SCALE * (2 * DOMAIN.head_latents + CALIBRATION), SCALE * TEST)}
