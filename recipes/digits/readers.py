"""The two networks that read real digits: one labels pictures for the heads, the other judges and takes no part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.numerics.shapes import Float
from energyql.training.labelled import Labelled
from energyql.training.picture_fit import PictureSettings, fit_network, measure, read_outputs
from energyql.training.steps import Course
from recipes.digits.data import JUDGE, LABELLER, SIDE, TEST, VOCABULARY, real_digits, slant, thickness, vary

SETTINGS = PictureSettings(side=SIDE, channels=(32, 64), least=120_000, most=120_000)
COPIES = 8
"""Distorted copies of each real digit. The measures of a copy are taken after its distortion."""
SEEDS = {LABELLER: 21, JUDGE: 22}


def train_reader(part: str, folder: Path, scale: float, progress: Callable[[float], None]) -> Judge:
    """Train a network on one part of the real digits, measure it on the test part, and save it by the name of the part.

    Args:
        part: `LABELLER` or `JUDGE`.
        folder: for the network and, while it is trained, for the state to continue from.
        scale: multiplies the length of the training.
        progress: called with the fraction done.
    """
    if (folder / f"{part}.json").is_file():
        progress(1.0)
        return Judge.load(folder, part)
    pictures, digits = real_digits(part)
    random = torch.Generator().manual_seed(SEEDS[part])
    pictures = torch.cat([pictures, *(vary(pictures, random, 1.0) for _ in range(COPIES))])
    labels = _labels(pictures, digits.repeat(1 + COPIES))
    seen = max(SETTINGS.batch, int(scale * SETTINGS.most))
    settings = PictureSettings(SETTINGS.side, SETTINGS.channels, least=seen, most=seen)
    course = Course(SEEDS[part], checkpoint=folder / f"{part}.state.safetensors", progress=progress)
    judge = fit_network(Labelled(_bytes(pictures), labels, VOCABULARY), settings, course).requires_grad_(False)
    unseen, true = real_digits(TEST)
    outputs, answers = read_outputs(judge, _bytes(unseen)), _labels(unseen, true)
    std, judge.report = measure(outputs, answers, VOCABULARY, labels)
    judge.std.copy_(torch.stack(list(std.values())))
    judge.save(folder, part)
    return judge


class Labeller:
    """A labeller of pictures: the digit by a network, and the two plain measures.

    Attributes:
        identity: see `energyql.attributes.labels.labeller_name`.
    """

    def __init__(self, network: Judge) -> None:
        self.network = network
        digest = hashlib.sha256()
        for tensor in network.state_dict().values():
            digest.update(tensor.numpy().tobytes())
        self.identity = f"labeller of digits {digest.hexdigest()}"

    def __call__(self, images: Float[Tensor, "n 1 8 8"]) -> dict[str, Any]:
        """Return the attributes of pictures in [-1, 1]."""
        return {"digit": self.network(images)["digit"], "thickness": thickness(images), "slant": slant(images)}


def _labels(pictures: Float[Tensor, "n 1 8 8"], digits: Float[Tensor, " n"]) -> dict[str, Float[Tensor, " n"]]:
    return {"digit": digits, "thickness": thickness(pictures), "slant": slant(pictures)}


def _bytes(pictures: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 3 8 8"]:
    """Return pictures as a fit takes them, uint8 with three channels."""
    return ((pictures + 1) * 127.5).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
