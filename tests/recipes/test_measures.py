import pytest
import torch

from energyql.attributes.judge import Judge
from energyql.models import model_folder
from energyql.pipeline.model import load_model
from energyql.sampling import prior_latents
from recipes.avatars.domain import DOMAIN
from recipes.common.factors import Factors
from recipes.common.measures import COLUMNS, SEED, measure


@pytest.fixture(scope="module")
def judge():
    return Judge.load(model_folder("avatars"))


@pytest.mark.slow
def test_the_packaged_generator_draws_what_was_meant(judge):
    measures = measure(DOMAIN, load_model("avatars").generator, judge, 48)
    assert measures.closeness.psnr.median() > 40
    assert measures.closeness.energy.median() > 0.9
    assert measures.seen > 0.93
    assert 0 < len(measures.watched.psnr) < 48


@pytest.mark.slow
def test_a_generator_that_forgets_what_was_meant_is_found_out(judge, monkeypatch):
    generator = load_model("avatars").generator
    z = torch.zeros(1, 64) + 1.0
    monkeypatch.setattr(type(generator), "encode", lambda self, other: self.mapping(z).expand(len(other), -1))
    measures = measure(DOMAIN, generator, judge, 16)
    assert measures.seen < 0.2
    assert measures.closeness.psnr.median() < 20


def test_side_by_side_has_renderings_above(judge, coarse):
    measures = measure(DOMAIN, load_model("avatars").generator, judge, COLUMNS)
    picture = measures.side_by_side()
    side = measures.drawn.shape[-1]
    assert picture.shape == (3, 2 * side, COLUMNS * side)
    factors = Factors(DOMAIN)
    avatars = factors(prior_latents(SEED, 0, COLUMNS, 64))
    expected = DOMAIN.drawing(side).compose(avatars.parts, avatars.paints)
    assert torch.equal(picture[:, :side, side : 2 * side], expected[1])
