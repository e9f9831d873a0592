"""Generators whose pictures are labelled by known functions, which stand in for a person who labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql import read_weights
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.labels import ImageLabeller, encode_column, label_images
from energyql.attributes.predictions import Categorical, YesNo
from energyql.generators.base import Generator
from energyql.generators.stylegan3 import StyleGAN3, StyleGAN3Config
from energyql.training.heads import attribute_loss, base_outputs
from energyql.training.labels import RANDOM, UNSURE, LabelTable, held_out_order
from energyql.training.samples import Prior
from energyql.training.settings import POOL_SIZE, POOL_START
from recipes.common.judging import balanced_accuracy

FRESH_SEED = 20_000
SG3 = StyleGAN3Config(
    32, z_dim=64, w_dim=64, mapping_layers=2, channel_base=512, channel_max=16, num_layers=6, num_critical=2
)

Quality = dict[str, dict[str, float]]
"""Attribute -> measure -> value, see `measure`."""


@dataclass(frozen=True)
class Sizes:
    """Numbers of pictures.

    Attributes:
        first: random ones that are labelled before the first round.
        round: labelled in each round.
        total: labelled in all rounds.
        random: random ones for the comparison.
        pool: to choose from.
        fresh: to measure heads on.
        truth: that the limits of the hidden truth come from.
        further: labelled by the teacher.
    """

    first: int = 200
    round: int = 100
    total: int = 500
    random: int = 1500
    pool: int = POOL_SIZE
    fresh: int = 3000
    truth: int = 4000
    further: int = 8000


@dataclass(frozen=True)
class World:
    """A generator and the labels of its pictures under one seed.

    Attributes:
        prior: the samples, and `fresh`, those of the measurement.
        labels: attribute -> cells of random pictures, of the pool, and of fresh ones.
    """

    prior: Prior
    fresh: Prior
    sizes: Sizes
    labels: Mapping[str, Mapping[str, list[Any]]]

    def table(self, indices: list[int]) -> LabelTable:
        """Return the labels of these pictures as `energyql label` would leave them."""
        chosen = [RANDOM if i < POOL_START else UNSURE for i in indices]
        columns = {
            name: [
                self.labels["random"][name][i] if i < POOL_START else self.labels["pool"][name][i - POOL_START]
                for i in indices
            ]
            for name in self.labels["random"]
        }
        index = torch.tensor(indices)
        order, learned, test = held_out_order(index, chosen, self.prior.seed, "the table")
        columns = {name: [cells[row] for row in order] for name, cells in columns.items()}
        return LabelTable(columns, index[torch.tensor(order)], learned=learned, test=test)


def dcgan(sizes: Sizes) -> tuple[Generator, ImageLabeller]:
    """Return the DCGAN of `gan-face-generate`, and the first four attributes of examples/faces/looks.py."""
    from gan_face_generate.models import Generator as DCGAN

    class Faces(torch.nn.Module):
        z_dim = w_dim = 100

        def __init__(self) -> None:
            super().__init__()
            self.network = DCGAN(ngpu=0, nc=3, nz=self.z_dim, ngf=64)
            weights = Path(inspect.getfile(DCGAN)).with_name("weights.tar")
            self.network.load_state_dict(read_weights(weights)["netG_state_dict"])

        def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
            return truncation * z

        def synthesize(self, w: Tensor) -> Tensor:
            images: Tensor = self.network(w[:, :, None, None])
            return images

    def look(images: Tensor) -> dict[str, Any]:
        light, face = images.mean(1), images[:, :, 20:48, 20:44].mean((2, 3))
        left, right = light[:, 20:48, 18:32].mean((1, 2)), light[:, 20:48, 32:46].mean((1, 2))
        background = torch.cat([light[:, :40, :6], light[:, :40, -6:]], 2).mean((1, 2)) / 2 + 0.5
        return {
            "night": background < 0.25,
            "dark_hair": light[:, 3:10, 22:42].mean((1, 2)) < -0.55,
            "warm": face[:, 0] - face[:, 2] > 0.3,
            "lit": ["right" if x > 0.15 else "left" if x < -0.15 else "front" for x in (right - left).tolist()],
        }

    return Faces().eval(), look


def stylegan3(sizes: Sizes) -> tuple[Generator, ImageLabeller]:
    """Return a small StyleGAN3 of random weights, and measurements of colour, light and contrast in its pictures."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        generator = StyleGAN3(SG3).eval().requires_grad_(False)
        w = generator.encode(torch.randn(64, SG3.z_dim))
        x = generator.synthesis.input(w)
        for layer in generator.synthesis.layers:  # layers know the magnitude of their inputs, as after training
            layer.magnitude_ema.copy_(x.square().mean())
            x = layer(x, w)
        seen = _numbers(generator.synthesize(generator.encode(torch.randn(sizes.truth, SG3.z_dim))))
    limits = {"bright": 0.8, "warm": 0.95, "plain": 0.1}
    edges = {name: seen[name].quantile(share) for name, share in limits.items()}
    low, high = seen["side"].quantile(torch.tensor([0.2, 0.9]))

    def look(images: Tensor) -> dict[str, Any]:
        found = _numbers(images)
        return {
            "bright": found["bright"] > edges["bright"],
            "warm": found["warm"] > edges["warm"],
            "plain": found["plain"] < edges["plain"],
            "side": ["left" if x < low else "right" if x > high else "even" for x in found["side"]],
        }

    return generator, look


def _numbers(images: Tensor) -> dict[str, Tensor]:
    light, half = images.mean(1), images.shape[-1] // 2
    return {
        "bright": light.mean((1, 2)),
        "warm": images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2)),
        "plain": light.flatten(1).std(1),
        "side": light[:, :, half:].mean((1, 2)) - light[:, :, :half].mean((1, 2)),
    }


GENERATORS: dict[str, Callable[[Sizes], tuple[Generator, ImageLabeller]]] = {"dcgan": dcgan, "stylegan3": stylegan3}


@torch.no_grad()
def make_world(name: str, seed: int, sizes: Sizes, report: Callable[[float], None]) -> World:
    """Draw and label all pictures of a generator under one seed."""
    generator, look = GENERATORS[name](sizes)
    prior, fresh = (
        Prior(generator, s, FittedUnder("w", (0.7, 0.7)), torch.device("cpu")) for s in (seed, FRESH_SEED + seed)
    )
    parts = {
        "random": (prior, torch.arange(sizes.random)),
        "pool": (prior, POOL_START + torch.arange(sizes.pool)),
        "fresh": (fresh, torch.arange(sizes.fresh)),
    }
    labels: dict[str, dict[str, list[Any]]] = {}
    done, total = 0, sizes.random + sizes.pool + sizes.fresh
    for part, (source, index) in parts.items():
        labels[part] = {}
        for w in source.w(index).split(100):
            for attribute, cells in label_images(look, generator.synthesize(w)).items():
                labels[part].setdefault(attribute, []).extend(cells)
            done += len(w)
            report(done / total)
    return World(prior, fresh, sizes, labels)


def measure(world: World, bank: AttributeBank) -> Quality:
    """Measure heads on the fresh pictures.

    Returns:
        Attribute -> "natural": the mean recall of the classes where the most probable class is decided for; "balanced":
        the same where all classes count equally in the decision, which does not ask how certain a head is; "log loss":
        the mean negative log-likelihood in nats, which energies are made of.
    """
    found = {}
    for name, prediction in bank.predict(world.fresh.w(torch.arange(world.sizes.fresh))).items():
        assert isinstance(prediction, YesNo | Categorical)
        spec = bank.vocabulary[name]
        outputs = prediction.logit[:, None] if isinstance(prediction, YesNo) else prediction.logits
        truth = encode_column(world.labels["fresh"][name], spec)
        found[name] = {
            "natural": balanced_accuracy(outputs, truth, spec),
            "balanced": balanced_accuracy(outputs - base_outputs(truth, spec)[1], truth, spec),
            "log loss": attribute_loss(outputs, truth, spec).item(),
        }
    return found
