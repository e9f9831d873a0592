from itertools import pairwise

import torch

from energyql.attributes.judge import Judge
from energyql.models import model_folder
from energyql.training.picture_fit import distort
from recipes.avatars.domain import DOMAIN
from recipes.common.judging import CALM, distortion_strength, renderer


def drawn(beyond, batch=400):
    return renderer(DOMAIN, beyond)(batch, torch.Generator().manual_seed(5))


def test_a_share_of_the_pictures_has_attributes_that_are_rare_together():
    def hard(scenes):
        labels = scenes.labels
        return (labels["sunglasses"] & labels["moustache"] & labels["freckles"]).float().mean()

    pictures, scenes = drawn(0.5)
    assert pictures.shape == (400, 3, DOMAIN.judge_side, DOMAIN.judge_side)
    _, prior = drawn(0.0)
    assert torch.equal(scenes.z[200:], prior.z[200:])
    assert not torch.equal(scenes.z[:200], prior.z[:200])
    assert hard(drawn(1.0, 4000)[1]) > 2 * hard(drawn(0.0, 4000)[1])


def test_distortions_are_strong_first_and_weak_at_the_end():
    assert [distortion_strength(share) for share in (0.0, 0.25, 0.5)] == [1, 1, 1]
    assert abs(distortion_strength(1.0) - CALM) < 1e-9
    strengths = [distortion_strength(k / 20) for k in range(21)]
    assert all(after <= before for before, after in pairwise(strengths))


def test_a_weaker_distortion_changes_less():
    pictures, _ = drawn(0.0, 16)

    def change(strength):
        return (distort(pictures, torch.Generator().manual_seed(1), strength) - pictures).abs().mean().item()

    assert change(0.0) < 1e-5
    assert change(0.0) < change(CALM) < change(1.0)


def test_the_packaged_judge_sees_freckles_between_dark_glasses_and_a_moustache():
    pictures, scenes = drawn(1.0, 6000)
    labels = scenes.labels
    rows = (labels["sunglasses"] & labels["moustache"] & (labels["skin_tone"] > 0.6)).nonzero()[:, 0]
    judge = Judge.load(model_folder("avatars"))
    seen = judge(pictures[rows])["freckles"].logit > 0
    meant = labels["freckles"][rows].bool()
    assert meant.sum() > 20
    assert (seen[meant].float().mean() + (~seen[~meant]).float().mean()) / 2 > 0.97
