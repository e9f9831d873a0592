import torch

from energyql.generators.base import Generator


class Wrapped:
    """A foreign network in as few lines as the protocol promises."""

    z_dim = 4

    def encode(self, z, truncation=1.0):
        return z

    def synthesize(self, w):
        return w[:, :3, None, None].expand(-1, -1, 8, 8)


def test_a_foreign_network_is_a_generator():
    generator = Wrapped()
    assert isinstance(generator, Generator)
    assert generator.synthesize(generator.encode(torch.zeros(2, 4))).shape == (2, 3, 8, 8)


def test_without_synthesize_it_is_not():
    assert not isinstance(torch.nn.Linear(3, 3), Generator)
