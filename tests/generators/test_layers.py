import pytest
import torch

from energyql.generators.layers import FullyConnected, MappingNetwork, activation
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.generators.stylegan3 import StyleGAN3Config

SIZES = {"z_dim": 6, "w_dim": 5, "c_dim": 3, "mapping_layers": 2, "mapping_lr_multiplier": 0.1}


def test_activation():
    x = torch.tensor([-10.0, 0.0, 10.0])
    torch.testing.assert_close(activation(x), x.clamp(min=0) * 2**0.5 + x.clamp(max=0) * 0.2 * 2**0.5)
    assert activation(x, 1.5).tolist() == [-1.5, 0.0, 1.5]


@pytest.mark.parametrize("lr_multiplier", [1.0, 0.01])
def test_outputs_have_unit_variance_whatever_the_scale_of_the_parameters(lr_multiplier):
    torch.manual_seed(0)
    layer = FullyConnected(256, 512, lr_multiplier=lr_multiplier, bias=3.0)
    out = layer(torch.randn(64, 256))
    assert out.std().item() == pytest.approx(1, abs=0.1)
    assert out.mean().item() == pytest.approx(3, abs=0.1)
    assert layer.weight.std().item() == pytest.approx(1 / lr_multiplier, rel=0.1)


def test_both_configurations_make_one_network():
    second = MappingNetwork(StyleGAN2Config(resolution=8, **SIZES))
    third = MappingNetwork(StyleGAN3Config(resolution=8, **SIZES))
    assert list(second.state_dict()) == [
        "w_avg", "embed.weight", "embed.bias", "fc0.weight", "fc0.bias", "fc1.weight", "fc1.bias",
    ]  # fmt: skip
    third.load_state_dict(second.state_dict())
    z, label = torch.randn(4, 6), torch.eye(3)[[0, 1, 2, 0]]
    assert torch.equal(second(z, 0.7, label), third(z, 0.7, label))
