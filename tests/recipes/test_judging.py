import pytest
import torch

from energyql.attributes.judge import Judge
from energyql.models import model_folder
from energyql.training.picture_fit import CALM, distort
from recipes.avatars.domain import DOMAIN
from recipes.common.factors import Factors
from recipes.common.judging import renderer
from recipes.common.labelling import beyond_prior


def drawn(beyond, batch=40):
    return renderer(DOMAIN, beyond)(batch, torch.Generator().manual_seed(5))


def test_a_share_of_the_pictures_is_of_latents_beyond_the_prior(coarse):
    pictures, labels = drawn(0.5)
    assert pictures.shape == (40, 3, DOMAIN.judge_side, DOMAIN.judge_side)
    prior, true = drawn(0.0)
    assert torch.equal(pictures[20:], prior[20:])
    assert not (pictures[:20] == prior[:20]).flatten(1).all(1).any()
    for name, label in labels.items():
        assert torch.equal(label[20:], true[name][20:])


def test_a_weaker_distortion_changes_less(coarse):
    pictures, _ = drawn(0.0, 16)

    def change(strength):
        return (distort(pictures, torch.Generator().manual_seed(1), strength) - pictures).abs().mean().item()

    assert change(0.0) < 1e-5
    assert change(0.0) < change(CALM) < change(1.0)


@pytest.mark.slow
def test_the_packaged_judge_sees_freckles_between_dark_glasses_and_a_moustache():
    factors, random = Factors(DOMAIN), torch.Generator().manual_seed(5)
    z = beyond_prior(factors, torch.randn(40_000, DOMAIN.config.z_dim, generator=random), random)
    labels = factors(z).labels
    scenes = factors(z[labels["sunglasses"] & labels["moustache"] & (labels["skin_tone"] > 0.6)][:510])
    pictures = DOMAIN.drawing(DOMAIN.judge_side).compose(scenes.parts, scenes.paints)
    seen = Judge.load(model_folder("avatars"))(pictures)["freckles"].logit > 0
    meant = scenes.labels["freckles"].bool()
    assert meant.sum() > 100
    assert (seen[meant].float().mean() + (~seen[~meant]).float().mean()) / 2 > 0.94
