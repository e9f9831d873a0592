"""What R3GAN and FastGAN share: w is z and the class, drawn alone, in any precision; and what they refuse."""

import dataclasses

import pytest
import torch

from energyql.errors import ArgumentError
from energyql.generators.fastgan import FastGAN, FastGANConfig
from energyql.generators.r3gan import R3GAN, R3GANConfig

CLASSES = {"z_dim": 5, "c_dim": 3, "embed_features": 4}
R3 = R3GANConfig(widths=(6, 4), groups=(3, 2), blocks=(2, 1), **CLASSES)
FAST = FastGANConfig(widths=(6, 4, 3), layers=(2, 1), **CLASSES)


@pytest.fixture(params=[(R3GAN, R3), (FastGAN, FAST)], ids=["r3gan", "fastgan"])
def generator(request):
    network, config = request.param
    return network(config).eval().requires_grad_(False)


def test_w_is_z_and_the_class(generator):
    z, condition = torch.randn(2, 5), torch.eye(3)[[2, 0]]
    w = generator.encode(z, 0.5, condition)
    assert torch.equal(w[:, :5], 0.5 * z)
    assert torch.equal(w[:, 5:], generator.embed.T[[2, 0]])


def test_labels(generator):
    z = torch.randn(2, 5)
    for condition, message in ((None, r"shape \(2, 3\), not None"), (torch.eye(2), r"shape \(2, 3\), not")):
        with pytest.raises(ArgumentError, match=message):
            generator.encode(z, condition=condition)
    plain = type(generator)(dataclasses.replace(generator.config, c_dim=0, embed_features=0))
    with pytest.raises(ArgumentError, match="has no classes, so it takes no condition"):
        plain.encode(z, condition=torch.eye(3)[:2])


def test_a_picture_does_not_depend_on_its_batch(generator):
    w = generator.encode(torch.randn(5, 5), condition=torch.eye(3)[[2, 0, 1, 1, 0]])
    assert torch.equal(generator.synthesize(w[1:3]), generator.synthesize(w)[1:3])


def test_low_precision(generator):
    w = torch.randn(2, generator.config.w_dim)
    exact, rough = generator.synthesize(w), generator.synthesize(w, dtype=torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().mean() < 0.05 * exact.abs().mean()


def test_wrong_shapes(generator):
    with pytest.raises(ArgumentError, match=r"w must be \(batch, 9\), not \(2, 4, 9\)"):
        generator.synthesize(torch.zeros(2, 4, 9))
