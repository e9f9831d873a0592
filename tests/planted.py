"""A generator whose directions are known, for the tests that find them."""

import torch

from energyql.sampling import prior_latents

SPREAD = torch.tensor([3.0, 2.0, 1.0, 0.5, 0.0])


def rotation(size, seed=0):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed)))[0]


class Planted:
    """Its w is normal with known principal axes, one of them constant, and a picture is one number of w."""

    z_dim = 5

    def __init__(self, spread=SPREAD):
        self.axes, self.spread, self.mean = rotation(5), spread, torch.arange(5.0)

    def encode(self, z, truncation=1.0):
        return self.mean + truncation * (z * self.spread) @ self.axes.t()

    def synthesize(self, w):
        colours = torch.stack([w @ self.axes[:, 3], 0.1 * w @ self.axes[:, 1], 0 * w[:, 0]], 1)
        return colours[:, :, None, None].expand(-1, -1, 4, 4)


def drawn(generator, psi, n=6000):
    return generator.encode(prior_latents(77, 0, n, generator.z_dim), psi)
