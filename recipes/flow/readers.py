"""The guide and the judge: two networks that read attributes off pictures, of other seeds, shapes and distortions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderDC
from torch import Tensor

from energyql.attributes.judge import Convolutions, Judge
from energyql.training.picture_fit import distort, distortion_strength
from energyql.training.steps import digest, learning_rate
from recipes.avatars.vocabulary import VOCABULARY
from recipes.common.judging import Draw, examine, fit_numbers, reader_loss
from recipes.common.loop import scaled, train
from recipes.flow.networks import SIDE
from recipes.flow.training import Bank, Done, decode, recent, render

STEPS, BATCH, RATE = 2_000, 64, 3e-3
DECODED = 0.5
"""Share of the pictures that are decoded latents, as the flow draws them; the others are renderings."""
NOISE = 0.2
"""Most noise in these latents, whose root mean square is 1."""


def mirror_and_smear(images: Tensor, random: torch.Generator, strength: float) -> Tensor:
    """Return pictures with other brightness and smooth noise, of which some are mirrored and some have fewer pixels.

    Args:
        images: pictures in [-1, 1], (batch, 3, side, side).
        random: source of random numbers.
        strength: from 0 to 1.
    """
    batch, side = len(images), images.shape[-1]
    mirrored = torch.rand(batch, generator=random) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    fewer = F.interpolate(F.interpolate(images, scale_factor=0.75, mode="area"), size=side, mode="bilinear")
    coarse = torch.rand(batch, 1, 1, 1, generator=random) < 0.5 * strength
    images = torch.where(coarse, fewer, images)
    brightness = 0.05 * strength * torch.randn(batch, 1, 1, 1, generator=random)
    noise = torch.randn(batch, 3, side // 4, side // 4, generator=random)
    return images + brightness + 0.08 * strength * F.interpolate(noise, size=side, mode="bilinear")


@dataclass(frozen=True)
class Reader:
    """How a network that reads pictures is made.

    Attributes:
        name: of its files.
        seed: of its weights, and of the pictures that it learns from.
        channels: see `Judge`.
        distorted: changes pictures while it learns, by a strength from 0 to 1.
    """

    name: str
    seed: int
    channels: tuple[int, ...]
    distorted: Callable[[Tensor, torch.Generator, float], Tensor]


GUIDE = Reader("guide", 31, (16, 32, 64, 96), distort)
JUDGE = Reader("judge", 47, (20, 40, 80), mirror_and_smear)


def decoder(network: AutoencoderDC, bank: Bank, noise: float) -> Draw:
    """Return what decodes latents of a bank with at most so much noise, whose attributes are those of the bank."""

    @torch.no_grad()
    def draw(count: int, random: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        rows = torch.randint(len(bank.latents), (count,), generator=random)
        amount = noise * torch.rand(count, 1, 1, 1, generator=random)
        latents = bank.latents[rows] + amount * torch.randn(bank.latents[rows].shape, generator=random)
        return decode(network, latents), {name: label[rows] for name, label in bank.labels.items()}

    return draw


def both(first: Draw, second: Draw, share: float) -> Draw:
    """Return what draws a share of the pictures by `second`, after others by `first`."""

    def draw(count: int, random: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        some = round(share * count)
        parts = first(count - some, random), second(some, random)
        labels = {name: torch.cat([part[1][name] for part in parts]) for name in parts[0][1]}
        return torch.cat([part[0] for part in parts]), labels

    return draw


def train_reader(reader: Reader, network: AutoencoderDC, bank: Bank, folder: Path, scale: float, done: Done) -> Judge:
    """Return a network that learned from new renderings and decoded latents."""
    draw = both(render, decoder(network, bank, NOISE), DECODED)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(reader.seed)
        judge = Judge(VOCABULARY, Convolutions(SIDE, reader.channels))
    judge.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-3)
    steps, last = scaled(STEPS, scale), None

    def step(fraction: float, random: torch.Generator) -> None:
        nonlocal last
        for group in optimizer.param_groups:
            group["lr"] = RATE * learning_rate(fraction)
        images, labels = draw(BATCH, random)
        outputs = judge.head(judge.features(reader.distorted(images, random, distortion_strength(fraction))))
        loss = reader_loss(outputs, labels, VOCABULARY)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = recent(last, loss)

    settings = (reader.name, reader.seed, reader.channels, STEPS, BATCH, RATE, DECODED, NOISE, steps)
    train(
        {"judge": judge}, {"optimizer": optimizer}, step, steps=steps, seed=reader.seed,
        identity=digest(settings, bank.latents), path=folder / f"{reader.name}.safetensors",
        progress=lambda fraction: done(reader.name, fraction, last),
    )  # fmt: skip
    judge.eval().requires_grad_(False)
    fit_numbers(judge, draw, count=scaled(16_384, scale), seed=reader.seed)
    examine(judge, draw, count=scaled(4_096, scale), seed=reader.seed + 1)
    return judge
