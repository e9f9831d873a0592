"""Train the GAN and the VAEs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.generators.stylegan2 import StyleGAN2
from energyql.training.steps import digest, learning_rate
from recipes.common.loop import scaled, train
from recipes.digits.data import JUDGE, LABELLER, real_digits, vary
from recipes.digits.networks import COUNTS, STYLEGAN, VAE, VAES, Discriminator, HierarchicalVAE, binomial_loss

GAN_STEPS, VAE_STEPS = 8_000, 4_000
BATCH = 64
SEED = 5
GAN_RATE, VAE_RATE = 2e-3, 2e-3
R1, R1_EVERY = 0.3, 4
"""Weight of the gradient penalty, half of the mean square of the gradient, and the steps between two."""
AVERAGE = 0.998
"""Decay of the moving average of the generator."""
VARIED, GAN_VARIED = 0.5, 0.6
"""Share of distorted pictures. The discriminator sees real and drawn ones distorted alike, so that what is drawn has no
distortions (Karras et al. 2020, arXiv 2006.06676)."""
WARM_UP = 0.3
"""Share of the steps in which the weight of a VAE's divergence rises to 1."""


def train_gan(folder: Path, scale: float, progress: Callable[[float], None]) -> tuple[StyleGAN2, Discriminator]:
    """Return a StyleGAN2 of digits, the moving average, with the mean of its w, and its discriminator.

    The losses are the non-saturating one of Goodfellow et al. 2014 (arXiv 1406.2661) and the gradient penalty R1 of
    Mescheder et al. 2018 (arXiv 1801.04406).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        generator, discriminator = StyleGAN2(STYLEGAN), Discriminator()
    for name, parameter in generator.named_parameters():  # noise is not needed at 8 x 8 pixels
        parameter.requires_grad_(not name.endswith("noise_strength"))
    average = copy.deepcopy(generator).requires_grad_(False)
    real = real_digits(LABELLER, JUDGE)[0]
    learned = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizers = {
        "generator's": torch.optim.Adam(learned, GAN_RATE, betas=(0.0, 0.99)),
        "discriminator's": torch.optim.Adam(discriminator.parameters(), GAN_RATE / 2, betas=(0.0, 0.99)),
    }
    steps = scaled(GAN_STEPS, scale)

    def step(done: float, random: torch.Generator) -> None:
        for name, optimizer in optimizers.items():
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(done) * GAN_RATE / (1 if name == "generator's" else 2)
        w = generator.encode(torch.randn(BATCH, STYLEGAN.z_dim, generator=random))
        drawn = vary(generator.synthesize(w, "none"), random, GAN_VARIED)
        pictures = vary(real[torch.randint(len(real), (BATCH,), generator=random)], random, GAN_VARIED)
        penalised = round(done * steps) % R1_EVERY == 0
        pictures.requires_grad_(penalised)
        odds = discriminator(pictures)
        loss = F.softplus(-odds).mean() + F.softplus(discriminator(drawn.detach())).mean()
        if penalised:
            (gradient,) = torch.autograd.grad(odds.sum(), pictures, create_graph=True)
            loss = loss + R1_EVERY * R1 / 2 * gradient.square().sum((1, 2, 3)).mean()
        _apply(optimizers["discriminator's"], loss)
        _apply(optimizers["generator's"], F.softplus(-discriminator(drawn)).mean())
        with torch.no_grad():
            decay = min(AVERAGE, (done * steps + 1) / (done * steps + 10))
            torch._foreach_lerp_(list(average.parameters()), list(generator.parameters()), 1 - decay)

    modules = {"generator": generator, "discriminator": discriminator, "average": average}
    identity = digest((STYLEGAN, GAN_RATE, R1, R1_EVERY, AVERAGE, GAN_VARIED, BATCH, steps, SEED), real)
    train(
        modules,
        optimizers,
        step,
        steps=steps,
        identity=identity,
        path=folder / "gan.safetensors",
        seed=SEED,
        progress=progress,
    )
    with torch.no_grad():
        z = torch.randn(65_536, STYLEGAN.z_dim, generator=torch.Generator().manual_seed(SEED))
        average.mapping.w_avg.copy_(average.encode(z).mean(0))
    return average.eval(), discriminator.eval().requires_grad_(False)


def train_vae(kind: str, folder: Path, scale: float, progress: Callable[[float], None]) -> VAE | HierarchicalVAE:
    """Return a VAE of a kind, trained on the evidence lower bound; the weight of the divergence rises at first."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = VAES[kind]()
    real = real_digits(LABELLER, JUDGE)[0]
    optimizer = torch.optim.Adam(network.parameters(), VAE_RATE)
    steps = scaled(VAE_STEPS, scale)

    def step(done: float, random: torch.Generator) -> None:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done) * VAE_RATE
        pictures = vary(real[torch.randint(len(real), (BATCH,), generator=random)], random, VARIED)
        w, divergence = network.draw(pictures, random)
        loss = binomial_loss(network.logits(w), pictures) + min(1.0, done / WARM_UP) * divergence
        _apply(optimizer, loss.mean())

    identity = digest((kind, COUNTS, VAE_RATE, VARIED, WARM_UP, BATCH, steps, SEED), real)
    train(
        {"network": network}, {"optimizer": optimizer}, step, steps=steps, identity=identity,
        path=folder / f"{kind}.safetensors", seed=SEED, progress=progress,
    )  # fmt: skip
    return network.eval().requires_grad_(False)


def _apply(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
