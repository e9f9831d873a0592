"""From latents to images and what is read off them, in batches that fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.labels import read_images
from energyql.generators.base import Generator
from energyql.pipeline.model import Model

PIXEL_BATCH = 1 << 20
"""Pixels that are drawn together unless a call says otherwise: 64 pictures of 128 x 128, one of 1024 x 1024."""
Encode = Callable[[Tensor], Tensor]
Values = dict[str, npt.NDArray[Any]]
"""Attribute -> decided values, (n,)."""


def draw(
    generator: Generator, encode: Encode, z: Tensor, batch_size: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """w and images of the latents z (n, z_dim), batch by batch, in order.

    Args:
        generator: draws.
        encode: from z to w, truncation and label applied.
        z: on the generator's device.
        batch_size: pictures drawn together; by default as many as `PIXEL_BATCH` allows.
    """
    size = batch_size or 1  # one picture first tells how many fit
    start = 0
    while start < len(z):
        with torch.inference_mode():  # inside the loop: it must not reach the code that takes the batches
            w = encode(z[start : start + size])
            images = generator.synthesize(w)
        yield w, images
        start += size
        size = batch_size or max(1, PIXEL_BATCH // (images.shape[-1] * images.shape[-2]))


def judge(model: Model, images: Tensor) -> Values:
    """What the model's judge reads off images; nothing where there is no judge."""
    if model.judge is None:
        return {}
    with torch.inference_mode():
        return read_images(model.judge, images, model.vocabulary)


def join_values(parts: list[Values]) -> Values:
    """The values of consecutive batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
