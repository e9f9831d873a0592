import pytest
import torch

from energyql.generators.mapping import MappingNetwork
from recipes.avatars.factors import CODE_DIM, Z_DIM, Factors
from recipes.avatars.mapping import W_SHIFT, shift_styles, write_mapping
from recipes.avatars.synthesis import CONFIG, Painter


@pytest.fixture(scope="module")
def embed():
    torch.manual_seed(0)
    layer = torch.nn.Linear(CODE_DIM, CONFIG.w_dim)
    torch.nn.init.normal_(layer.weight, std=CODE_DIM**-0.5)
    return layer.requires_grad_(False)


@pytest.fixture(scope="module")
def z():
    return torch.randn(4096, Z_DIM, generator=torch.Generator().manual_seed(1))


def unexplained(w, target):
    return ((w - target).square().mean() / target.var(0).mean()).item()


def test_the_network_gives_the_embedded_code(embed, z):
    factors = Factors()
    target = embed(factors(z).code) + W_SHIFT
    mapping = write_mapping(embed, factors)
    assert unexplained(mapping(z), target) < 0.002
    halved = MappingNetwork(CONFIG)
    halved.load_state_dict({name: value.half().float() for name, value in mapping.state_dict().items()})
    assert unexplained(halved(z), target) < 0.003


def test_shifted_styles_draw_the_same_from_shifted_w():
    torch.manual_seed(0)
    painter = Painter(16).requires_grad_(False)
    w = torch.randn(4, CONFIG.w_dim)
    before = painter.synthesis(w)
    shift_styles(painter)
    assert torch.allclose(painter.synthesis(w + W_SHIFT), before, atol=1e-4)
    assert not torch.allclose(painter.synthesis(w), before, atol=1e-2)
