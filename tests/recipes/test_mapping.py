import pytest
import torch

from energyql.generators.mapping import MappingNetwork
from energyql.generators.stylegan2 import StyleGAN2Config, SynthesisNetwork
from energyql.pipeline.model import load_model
from recipes.avatars.domain import DOMAIN as AVATARS
from recipes.common.factors import Factors
from recipes.common.mapping import W_SHIFT, embedding, read_scores, shift_styles, write_mapping
from recipes.postcards.domain import DOMAIN as POSTCARDS


@pytest.fixture(scope="module", params=(AVATARS, POSTCARDS), ids=lambda domain: domain.name)
def domain(request):
    return request.param


@pytest.fixture(scope="module")
def z(domain):
    return torch.randn(4096, domain.config.z_dim, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def mapping(domain):
    return write_mapping(Factors(domain))


def test_the_network_gives_the_embedded_code_and_scores(domain, mapping, z):
    factors = Factors(domain)
    w = mapping(z)
    code, scores = (w - W_SHIFT) @ embedding(domain)[:, : domain.code_dim], read_scores(domain, w)
    error = (code - factors(z).code).abs()
    assert error[:, : len(domain.drawings)].max() < 5e-3
    assert error.max() < 0.06  # the curves of the paints are a few linear pieces
    assert error.mean() < 2e-3
    direction = z * torch.rsqrt(z.square().mean(1, keepdim=True))
    assert scores.shape[1] == len(domain.scores)
    assert torch.allclose(scores, direction @ factors.matrix.T, atol=1e-4)


def test_w_is_positive_so_that_the_last_activation_does_not_bend_it(mapping, z):
    assert mapping(z).min() > 0


def test_few_pictures_lie_between_two_drawings(domain, z):
    steps = Factors(domain)(z).code[:, : len(domain.drawings)]
    assert (steps.abs() < 0.999).any(1).float().mean() < 0.04


def test_half_precision_would_blur_the_steps(domain, mapping, z):
    halved = MappingNetwork(domain.config)
    halved.load_state_dict({name: value.half().float() for name, value in mapping.state_dict().items()})
    assert (halved(z) - mapping(z)).abs().max() > 0.05  # so the weights are stored in float32


def test_shifted_styles_draw_the_same_from_shifted_w_whatever_the_scores(domain):
    torch.manual_seed(0)
    w_dim, code_dim = domain.config.w_dim, domain.code_dim
    network = SynthesisNetwork(StyleGAN2Config(16, z_dim=8, w_dim=w_dim, channel_base=256, channel_max=16))
    network.requires_grad_(False)
    columns = embedding(domain)
    w = torch.randn(4, code_dim) @ columns[:, :code_dim].T
    before = network(w)
    shift_styles(network, domain)
    scores = torch.randn(4, len(domain.scores)) @ columns[:, code_dim:].T
    assert torch.allclose(network(w + scores + W_SHIFT), before, atol=1e-4)
    assert not torch.allclose(network(w), before, atol=1e-2)


def test_the_packaged_model_has_this_mapping(domain, mapping):
    packaged = load_model(domain.name).generator.mapping.state_dict()
    for name, value in mapping.state_dict().items():
        if name != "w_avg":
            assert torch.allclose(packaged[name], value, atol=1e-6), name
