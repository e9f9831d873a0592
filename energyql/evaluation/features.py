"""What a judge sees in pictures before it decides: the features that distances between pictures are measured in."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.attributes.labels import ImageLabeller
from energyql.evaluation.judge import Judge

Features = Callable[[Tensor], Tensor]
"""Pictures in [-1, 1], (batch, 3, height, width) -> features (batch, dim)."""


def features_of(judge: ImageLabeller | None) -> Features | None:
    """The features of a judge; nothing for a judge that has none, such as a function.

    Those of a `Judge` are averaged over the positions of its last level, as those of Inception are for its distance:
    as many as it has channels there. Any other object can bring a method `features`.
    """
    if isinstance(judge, Judge):
        channels = judge.channels[-1]
        return lambda images: judge.features(images).unflatten(1, (channels, -1)).mean(2)
    found = getattr(judge, "features", None)
    return found if callable(found) else None


@torch.inference_mode()
def read_features(features: Features | None, images: Tensor) -> Tensor | None:
    """Features of pictures, (batch, dim) float32 on the CPU."""
    return None if features is None else features(images).flatten(1).float().cpu()
