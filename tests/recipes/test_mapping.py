import pytest
import torch

from energyql.generators.mapping import MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2Config, SynthesisNetwork
from recipes.avatars.factors import CODE_DIM, DRAWINGS, SCORES, Z_DIM, Factors
from recipes.avatars.mapping import W_SHIFT, embedding, shift_styles, write_mapping
from recipes.avatars.synthesis import CONFIG


@pytest.fixture(scope="module")
def z():
    return torch.randn(4096, Z_DIM, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mapping():
    return write_mapping(CONFIG, Factors())


def test_the_network_gives_the_embedded_code_and_scores(mapping, z):
    factors = Factors()
    found = (mapping(z) - W_SHIFT) @ embedding(CONFIG.w_dim)
    code, scores = found[:, :CODE_DIM], found[:, CODE_DIM:]
    steps = slice(len(DRAWINGS))
    assert (code[:, steps] - factors(z).code[:, steps]).abs().max() < 5e-3
    assert (code - factors(z).code).abs().max() < 0.03  # the curves of the paints are a few linear pieces
    direction = z * torch.rsqrt(z.square().mean(1, keepdim=True))
    assert scores.shape[1] == len(SCORES)
    assert torch.allclose(scores, direction @ factors.matrix.T, atol=1e-3)


def test_w_is_positive_so_that_the_last_activation_does_not_bend_it(mapping, z):
    assert mapping(z).min() > 0


def test_few_pictures_lie_between_two_drawings(z):
    steps = Factors()(z).code[:, : len(DRAWINGS)]
    assert (steps.abs() < 0.999).any(1).float().mean() < 0.04


def test_half_precision_would_blur_the_steps(mapping, z):
    halved = MappingNetwork(CONFIG)
    halved.load_state_dict({name: value.half().float() for name, value in mapping.state_dict().items()})
    assert (halved(z) - mapping(z)).abs().max() > 0.05  # so the weights are stored in float32


def test_shifted_styles_draw_the_same_from_shifted_w_whatever_the_scores():
    torch.manual_seed(0)
    config = StyleGAN2Config(16, z_dim=Z_DIM, w_dim=CONFIG.w_dim, channel_base=256, channel_max=16)
    network = SynthesisNetwork(config).requires_grad_(False)
    columns = embedding(CONFIG.w_dim)
    w = torch.randn(4, CODE_DIM) @ columns[:, :CODE_DIM].T
    before = network(w)
    shift_styles(network)
    scores = torch.randn(4, len(SCORES)) @ columns[:, CODE_DIM:].T
    assert torch.allclose(network(w + scores + W_SHIFT), before, atol=1e-4)
    assert not torch.allclose(network(w), before, atol=1e-2)
