"""Models to evaluate: a random one whose judge reads other values in every picture, and one of known frequencies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from toys import lively_judge, random_generator, tiny_model

from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.pictures import PictureBank
from energyql.attributes.predictions import output_count
from energyql.pipeline.model import Model, load_model
from energyql.sampling import prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

KNOWN = Vocabulary(
    [
        AttributeSpec("a", "yes/no"),  # z0 > 1.5
        AttributeSpec("b", "yes/no"),  # z1 > 1.5
        AttributeSpec("c", "yes/no"),  # z0 + z2 > 0
        AttributeSpec("n", "continuous", low=-3, high=3),  # z3
    ]
)


def silent(stage: str, fraction: float) -> None:
    """A report of progress that only checks its fractions."""
    assert 0 <= fraction <= 1, stage


def lively_model(folder: Path) -> Path:
    """Write a random model whose judge's outputs have mean 0 and a spread of their own."""
    loaded = load_model(tiny_model(folder))
    generator, judge = loaded.generator, loaded.judge
    features = judge.features(generator.synthesize(generator.encode(prior_latents(0, 0, 256, generator.z_dim))))
    outputs = features @ judge.head.weight.T
    judge.head.weight /= 5 * outputs.std(0)[:, None]
    judge.head.bias.copy_(-(outputs / (5 * outputs.std(0))).mean(0))
    start = 0
    for spec in loaded.vocabulary.values():
        judge.head.bias[start] += 0.5 * (spec.kind == "continuous")  # the middle of its range
        start += output_count(spec)
    judge.save(folder)
    return folder


class Plain:
    """A generator whose pictures hold z, so that a judge can read it."""

    z_dim = 4

    def encode(self, z: Tensor, truncation: float = 1.0) -> Tensor:
        return truncation * z

    def synthesize(self, w: Tensor) -> Tensor:
        return torch.tanh(w / 4)[:, None, None, :].expand(-1, 3, 4, -1)


def read_plain(images: Tensor) -> dict[str, Any]:
    """Return the exact values of all attributes."""
    z = 4 * torch.atanh(images[:, 0, 0].double())
    return {"a": z[:, 0] > 1.5, "b": z[:, 1] > 1.5, "c": z[:, 0] + z[:, 2] > 0, "n": z[:, 3]}


def known_model(*, shift: float = 0.0, slope: float = 4.0) -> Model:
    """Return a model in memory whose attributes have known frequencies.

    Args:
        shift: error of the heads in the threshold of b.
        slope: of the heads' logits; larger is more certain.
    """

    def head(weights: list[float], bias: float, std: float = 1.0) -> Head:
        return Head(
            hidden_weight=torch.zeros(0, 4),
            hidden_bias=torch.zeros(0),
            out_weight=torch.zeros(1, 0),
            skip_weight=torch.tensor([weights]),
            out_bias=torch.tensor([bias]),
            std=torch.tensor(std),
        )

    heads = {
        "a": head([slope, 0, 0, 0], -1.5 * slope),
        "b": head([0, slope, 0, 0], -(1.5 + shift) * slope),
        "c": head([slope, 0, slope, 0], 0.0),
        "n": head([0, 0, 0, 1], 0.0, 0.1),
    }
    return Model("known", Plain(), AttributeBank(KNOWN, heads), read_plain)


def picture_model():
    """A model whose attributes a network reads off pictures, and another network judges."""
    generator = random_generator()
    guide, judge = (lively_judge(generator, seed=seed) for seed in (1, 2))
    return Model("pictures", generator, PictureBank(guide), judge, 0.7)


def by_function(**more):
    """A model whose pictures are read by a plain function."""
    return Model("known", Plain(), PictureBank(read_plain, KNOWN), **more)
