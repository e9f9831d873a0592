import pytest
import torch

from energyql.sampling import prior_latents
from recipes.avatars.domain import DOMAIN
from recipes.common.factors import Factors
from recipes.common.labelling import LATENT_SEED, MOVED, SPREAD, label_tensors, prior_and_beyond
from recipes.postcards.domain import DOMAIN as POSTCARDS


@pytest.mark.parametrize("domain", [DOMAIN, POSTCARDS], ids=lambda domain: domain.name)
def test_labels_are_class_indices_and_numbers_in_the_range_of_their_attribute(domain):
    labels = label_tensors(Factors(domain)(prior_latents(1, 0, 4000, domain.config.z_dim)).labels, domain.vocabulary)
    assert set(labels) == set(domain.vocabulary)
    for name, spec in domain.vocabulary.items():
        if spec.kind == "continuous":
            assert labels[name].min() >= spec.low
            assert labels[name].max() <= spec.high
        else:
            assert labels[name].unique().tolist() == list(range(len(spec.values) or 2))


def test_the_last_latents_are_of_the_prior_and_the_others_have_six_scores_moved():
    factors = Factors(DOMAIN)
    z = prior_and_beyond(factors, 50, 3000)
    prior = prior_latents(LATENT_SEED, 0, 3050, 64)
    assert torch.equal(z[3000:], prior[3000:])
    moved = (z - prior)[:3000] @ torch.linalg.pinv(factors.matrix)  # scores are independent directions
    assert ((moved.abs() > 1e-3).sum(1) <= MOVED).all()
    assert (moved.abs() > 1e-3).float().mean().item() * len(DOMAIN.scores) > MOVED - 0.1
    assert abs(moved[moved.abs() > 1e-3].std().item() - SPREAD) < 0.05
