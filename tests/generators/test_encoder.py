import pytest
import torch
from labelled import CHECKPOINTS

from energyql.generators.classes import as_condition, encode_under
from energyql.generators.encoder import encoder
from energyql.generators.frozen import FrozenMapping
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.generators.zoo import load_generator

SIZES = StyleGAN2Config(resolution=8, z_dim=6, w_dim=5, mapping_layers=2, channel_max=4)


@pytest.mark.parametrize(
    ("name", "label"),
    [("ada.pkl", None), ("ada_conditional.pkl", 1), ("stylegan3-t.pkl", None), ("stylegan3-t-conditional.pkl", 0)],
)
def test_a_stylegan_is_frozen(name, label):
    generator = load_generator(CHECKPOINTS / name)
    condition = as_condition(label, generator)
    encode = encoder(generator, 0.7, condition)
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(0))
    assert isinstance(encode, FrozenMapping)
    torch.testing.assert_close(encode(z), encode_under(generator, z, 0.7, condition), rtol=1e-5, atol=1e-5)


class Other(StyleGAN2):
    def encode(self, z, truncation=1.0, label=None):
        return 2 * super().encode(z, truncation, label)


def test_an_encode_of_ones_own_is_called():
    generator, z = Other(SIZES), torch.randn(3, 6)
    assert torch.equal(encoder(generator, 0.7)(z), generator.encode(z, 0.7))
    plain = StyleGAN2(SIZES)
    plain.encode = lambda z, truncation: truncation * z
    assert torch.equal(encoder(plain, 0.5)(z), 0.5 * z)


def test_a_mapping_network_of_ones_own_is_called():
    generator, z = StyleGAN2(SIZES), torch.randn(3, 6)
    generator.mapping = torch.nn.Identity()
    generator.mapping.forward = lambda z, truncation, label: 3 * truncation * z
    assert torch.equal(encoder(generator, 0.5)(z), 1.5 * z)
