import pytest
import torch

from recipes.avatars.domain import DOMAIN
from recipes.avatars.factors import PRESENTATION
from recipes.avatars.vocabulary import VOCABULARY
from recipes.common.factors import Factors

N = 20000
Z_DIM = DOMAIN.config.z_dim


@pytest.fixture(scope="module")
def avatars():
    return Factors(DOMAIN)(torch.randn(N, Z_DIM, generator=torch.Generator().manual_seed(0)))


def share(mask):
    return mask.float().mean().item()


def test_every_attribute_of_the_vocabulary_is_labelled_and_varies(avatars):
    assert set(avatars.labels) == set(VOCABULARY)
    for name, spec in VOCABULARY.items():
        labels = avatars.labels[name]
        if spec.kind == "continuous":
            assert 0 <= labels.min() < 0.05
            assert 0.95 < labels.max() <= 1
        else:
            counts = torch.bincount(labels.long(), minlength=len(spec.values) or 2)
            assert len(counts) == (len(spec.values) or 2)
            assert counts.min() > 0.1 * N


def test_what_cannot_be_seen_is_not_labelled_as_if_it_could(avatars):
    labels = avatars.labels
    assert not (labels["bald"] & labels["hat"]).any()
    assert not (labels["bald"] & labels["long_hair"]).any()
    assert not (labels["sunglasses"] & ~labels["glasses"]).any()
    hidden = VOCABULARY["eyes"].values.index("hidden")
    assert torch.equal(labels["eyes"] == hidden, labels["sunglasses"])
    assert torch.equal(labels["smile"], labels["mouth"] <= 1)


def test_dependencies_have_the_sign_that_was_set(avatars):
    labels = avatars.labels
    assert PRESENTATION["beard"] * PRESENTATION["long"] < 0
    assert share(labels["beard"][labels["long_hair"]]) < 0.6 * share(labels["beard"])


def test_only_the_direction_of_z_counts():
    z = torch.randn(16, Z_DIM, generator=torch.Generator().manual_seed(1))
    factors = Factors(DOMAIN)
    code = factors(z).code
    assert code.shape == (16, DOMAIN.code_dim)
    assert torch.allclose(code, factors(3 * z).code, atol=1e-4)
