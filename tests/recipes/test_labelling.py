import torch

from energyql.sampling import prior_latents
from recipes.avatars.factors import SCORES, Factors
from recipes.avatars.labelling import LATENT_SEED, MOVED, SPREAD, label_tensors, prior_and_beyond
from recipes.avatars.vocabulary import VOCABULARY


def test_labels_are_class_indices_and_numbers_in_the_range_of_their_attribute():
    labels = label_tensors(Factors()(prior_latents(1, 0, 4000, 64)))
    assert set(labels) == set(VOCABULARY)
    for name, spec in VOCABULARY.items():
        if spec.kind == "continuous":
            assert labels[name].min() >= spec.low
            assert labels[name].max() <= spec.high
        else:
            assert labels[name].unique().tolist() == list(range(len(spec.values) or 2))


def test_the_last_latents_are_of_the_prior_and_the_others_have_six_scores_moved():
    factors = Factors()
    z = prior_and_beyond(factors, 50, 3000)
    prior = prior_latents(LATENT_SEED, 0, 3050, 64)
    assert torch.equal(z[3000:], prior[3000:])
    moved = (z - prior)[:3000] @ torch.linalg.pinv(factors.matrix)  # scores are independent directions
    assert ((moved.abs() > 1e-3).sum(1) <= MOVED).all()
    assert (moved.abs() > 1e-3).float().mean().item() * len(SCORES) > MOVED - 0.1
    assert abs(moved[moved.abs() > 1e-3].std().item() - SPREAD) < 0.05
