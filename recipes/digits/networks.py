"""The networks: a discriminator, a VAE, and a VAE of two levels. Both VAEs are generators of energyql.

Pixels of the data are counts, so VAEs draw the probabilities of a binomial distribution.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.files import read_tensors
from energyql.generators.stylegan2 import StyleGAN2Config
from energyql.numerics.shapes import Float
from recipes.digits.data import SIDE

T = TypeVar("T", bound=nn.Module)
WIDTH = 32
COUNTS = 3.0
"""How many independent pixels of the scanned digits a pixel is worth. It counts 16, which are not independent."""
DISCRIMINATOR, WEIGHTS = "discriminator.safetensors", "vae.safetensors"
STYLEGAN = StyleGAN2Config(
    resolution=SIDE,
    z_dim=32,
    w_dim=64,
    mapping_layers=4,
    mapping_lr_multiplier=0.1,
    channel_base=SIDE * WIDTH,
    channel_max=WIDTH,
    image_channels=1,
)


def _encoder(width: int) -> nn.Sequential:
    """Return a network from pictures (n, 1, 8, 8) to maps (n, width, 4, 4)."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.SiLU(),
    )


def _decoder(width: int) -> nn.Sequential:
    """Return a network from maps (n, width, 4, 4) to logits of pixels (n, 1, 8, 8)."""
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1),
        nn.SiLU(),
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        nn.SiLU(),
        nn.Conv2d(width, 1, 3, padding=1),
    )


def _normal(moments: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return a draw from normals, given means and log deviations, and their divergence from N(0, I), (n,)."""
    mean, log_deviation = moments.flatten(1).chunk(2, 1)
    deviation = log_deviation.clamp(-5, 3).exp()
    divergence = 0.5 * (mean.square() + deviation.square() - 1) - deviation.log()
    return mean + deviation * noise, divergence.sum(1)


class Discriminator(nn.Module):
    """A network from pictures to the log odds that they are real.

    It has no statistics of batches, so that a score does not depend on the other pictures.
    """

    def __init__(self) -> None:
        super().__init__()
        self.maps = _encoder(WIDTH)
        self.score = nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 16, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, 1))

    def forward(self, images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, " n"]:
        """Return the log odds of pictures in [-1, 1]."""
        odds: Tensor = self.score(self.maps(images))
        return odds[:, 0]


class VAE(nn.Module):
    """A variational autoencoder (Kingma and Welling 2014, arXiv 1312.6114) without a mapping network: w is z."""

    z_dim = w_dim = 16

    def __init__(self) -> None:
        super().__init__()
        self.maps = _encoder(WIDTH)
        self.posterior = nn.Linear(WIDTH * 16, 2 * self.z_dim)
        self.start = nn.Sequential(
            nn.Linear(self.z_dim, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH * 16), nn.SiLU()
        )
        self.decoder = _decoder(WIDTH)

    def encode(self, z: Tensor, truncation: float = 1.0) -> Float[Tensor, "n 16"]:
        """Return w, which is z, scaled by the truncation."""
        return truncation * z

    def synthesize(self, w: Float[Tensor, "n 16"]) -> Float[Tensor, "n 1 8 8"]:
        """Return the mean pictures of latents, in [-1, 1]."""
        return torch.tanh(self.logits(w) / 2)

    def logits(self, w: Tensor) -> Float[Tensor, "n 1 8 8"]:
        """Return the log odds of the pixels."""
        found: Tensor = self.decoder(self.start(w).unflatten(1, (WIDTH, 4, 4)))
        return found

    def draw(self, images: Float[Tensor, "n 1 8 8"], random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a draw of w from the posterior of pictures, and the divergence of that from the prior, (n,)."""
        moments = self.posterior(self.maps(images).flatten(1))
        return _normal(moments, torch.randn(len(images), self.z_dim, generator=random))


class HierarchicalVAE(nn.Module):
    """A VAE of two levels, in the manner of NVAE (Vahdat and Kautz 2020, arXiv 2007.03898).

    z1 ~ N(0, I) has 8 numbers, and z2 given z1 is normal with mean and deviation of a network of z1, on two maps of 4 x
    4. So `z = (eps1, eps2)` with z1 = eps1 and z2 = mean(z1) + deviation(z1) eps2 is N(0, I), which is what energyql
    samples, and w = (z1, z2). The posterior of z2 is relative to its prior, as in NVAE. Truncation scales the noise,
    which is NVAE's temperature.
    """

    top, below = 8, 32
    z_dim = w_dim = top + below

    def __init__(self) -> None:
        super().__init__()
        self.maps = _encoder(WIDTH)
        self.posterior1 = nn.Linear(WIDTH * 16, 2 * self.top)
        self.start = nn.Sequential(
            nn.Linear(self.top, 2 * WIDTH), nn.SiLU(), nn.Linear(2 * WIDTH, WIDTH * 16), nn.SiLU()
        )
        channels = self.below // 16
        self.prior2 = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, 2 * channels, 1))
        self.posterior2 = nn.Sequential(
            nn.Conv2d(2 * WIDTH, WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(WIDTH, 2 * channels, 1)
        )
        self.join = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.decoder = _decoder(WIDTH)

    def encode(self, z: Tensor, truncation: float = 1.0) -> Float[Tensor, "n 40"]:
        """Return w = (z1, z2) of the noise z = (eps1, eps2), scaled by the truncation."""
        top, noise = (truncation * z).split([self.top, self.below], 1)
        return torch.cat([top, self._below(self._started(top), noise)], 1)

    def synthesize(self, w: Float[Tensor, "n 40"]) -> Float[Tensor, "n 1 8 8"]:
        """Return the mean pictures of latents, in [-1, 1]."""
        return torch.tanh(self.logits(w) / 2)

    def logits(self, w: Tensor) -> Float[Tensor, "n 1 8 8"]:
        """Return the log odds of the pixels."""
        top, below = w.split([self.top, self.below], 1)
        found: Tensor = self.decoder(self._started(top) + self.join(below.unflatten(1, (-1, 4, 4))))
        return found

    def draw(self, images: Float[Tensor, "n 1 8 8"], random: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return a draw of w from the posterior of pictures, and the divergence of that from the prior, (n,)."""
        maps = self.maps(images)
        top, divergence1 = _normal(
            self.posterior1(maps.flatten(1)), torch.randn(len(images), self.top, generator=random)
        )
        started = self._started(top)
        # In units of the prior, in which the prior is N(0, I), so that the draw is noise as the generator takes it.
        moments = self.posterior2(torch.cat([maps, started], 1))
        noise, divergence2 = _normal(moments, torch.randn(len(images), self.below, generator=random))
        return torch.cat([top, self._below(started, noise)], 1), divergence1 + divergence2

    def _started(self, top: Tensor) -> Float[Tensor, "n width 4 4"]:
        maps: Tensor = self.start(top)
        return maps.unflatten(1, (WIDTH, 4, 4))

    def _below(self, started: Tensor, noise: Tensor) -> Float[Tensor, "n 32"]:
        mean, log_deviation = self.prior2(started).flatten(1).chunk(2, 1)
        return mean + log_deviation.clamp(-5, 3).exp() * noise


VAES: dict[str, type[VAE] | type[HierarchicalVAE]] = {"vae": VAE, "hierarchical": HierarchicalVAE}


def binomial_loss(logits: Tensor, images: Tensor) -> Float[Tensor, " n"]:
    """Return the negative log-likelihood of counts of `COUNTS`, up to a constant, in nats."""
    return COUNTS * F.binary_cross_entropy_with_logits(logits, (images + 1) / 2, reduction="none").sum((1, 2, 3))


def read_vae(folder: Path, kind: str) -> VAE | HierarchicalVAE:
    """Return the VAE of a model folder."""
    return _read(VAES[kind](), folder / WEIGHTS)


def read_discriminator(folder: Path) -> Discriminator:
    """Return the discriminator of the folder of a GAN."""
    return _read(Discriminator(), folder / DISCRIMINATOR)


def _read(network: T, path: Path) -> T:
    network.load_state_dict(read_tensors(path))
    return network.eval().requires_grad_(False)
