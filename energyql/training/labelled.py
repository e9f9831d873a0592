"""Labelled pictures or latents as tensors: what a fit learns from, and what it is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from energyql.vocabulary import Vocabulary


@dataclass(frozen=True)
class Seen:
    """Pictures, and what a frozen backbone read off them.

    Attributes:
        pictures: (n, 3, side, side) uint8.
        features: layer of the backbone -> features of the pictures, (n, features) float16.
    """

    pictures: Tensor
    features: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, rows: Tensor | slice) -> Seen:
        return Seen(self.pictures[rows], {layer: each[rows] for layer, each in self.features.items()})

    @classmethod
    def join(cls, parts: Sequence[Seen]) -> Seen:
        """One after the other, with the layers that all have."""
        layers = set.intersection(*(set(part.features) for part in parts))
        features = {layer: torch.cat([part.features[layer] for part in parts]) for layer in sorted(layers)}
        return cls(torch.cat([part.pictures for part in parts]), features)


Inputs = Tensor | Seen
"""What readers learn from and read: pictures, with or without features, or the latents that heads read."""


AnyInputs = TypeVar("AnyInputs", Tensor, Seen, Inputs, covariant=True)


@dataclass(frozen=True)
class Labelled(Generic[AnyInputs]):
    """Pictures or latents with their labels.

    Attributes:
        inputs: pictures, (n, 3, side, side) uint8, also with features, or latents, (n, latent_dim).
        labels: attribute -> (n,): 0/1, class index or number; NaN where missing.
        vocabulary: the attributes to learn, which all have labels.
        exact: whether the labels are right by definition; those that people give are not.
    """

    inputs: AnyInputs
    labels: Mapping[str, Tensor]
    vocabulary: Vocabulary
    exact: bool = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def targets(self) -> Tensor:
        """The labels side by side, (n, attributes) float."""
        return torch.stack([self.labels[name].float() for name in self.vocabulary], 1)

    def labels_at(self, rows: Tensor | slice) -> dict[str, Tensor]:
        """Attribute -> labels of some rows, as floats."""
        return {name: self.labels[name][rows].float() for name in self.vocabulary}

    def take(self, rows: Tensor | slice) -> Labelled[AnyInputs]:
        """Some rows, in the given order."""
        return Labelled(self.inputs[rows], self.labels_at(rows), self.vocabulary, self.exact)
