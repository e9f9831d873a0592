"""Labelled pictures or latents as tensors: what a fit learns from, and what it is measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.vocabulary import Vocabulary


@dataclass(frozen=True)
class Labelled:
    """Pictures or latents with their labels.

    Attributes:
        inputs: pictures, (n, 3, side, side) uint8, or latents, (n, latent_dim).
        labels: attribute -> (n,): 0/1, class index or number; NaN where missing.
        vocabulary: the attributes to learn, which all have labels.
    """

    inputs: Tensor
    labels: Mapping[str, Tensor]
    vocabulary: Vocabulary

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def targets(self) -> Tensor:
        """The labels side by side, (n, attributes) float."""
        return torch.stack([self.labels[name].float() for name in self.vocabulary], 1)

    def labels_at(self, rows: Tensor | slice) -> dict[str, Tensor]:
        """Attribute -> labels of some rows, as floats."""
        return {name: self.labels[name][rows].float() for name in self.vocabulary}

    def take(self, rows: Tensor | slice) -> Labelled:
        """Some rows, in the given order."""
        return Labelled(self.inputs[rows], self.labels_at(rows), self.vocabulary)
