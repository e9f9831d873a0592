"""Heads, fitted to what readers say of a wall or of the model before: they tell from latents alone what to draw."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import Prediction, output_count
from energyql.kinds import KINDS
from energyql.numerics.shapes import Float
from energyql.teaching.reading import Reading
from energyql.training.bank_fit import TAUGHT_DECAY, TAUGHT_STOPPING, with_labels
from energyql.training.heads import HeadSettings, train_heads
from energyql.training.labelled import Labelled
from energyql.training.samples import Prior
from energyql.training.steps import Course
from energyql.training.teacher import DRAWS, draw_labels

LEAST = 256
"""Fewest pictures from which heads are fitted."""
STEPS = 800
"""Most steps of a fit."""


class Latents:
    """Prior samples as heads read them.

    Attributes:
        prior: its `fitted` says what heads read.
    """

    def __init__(self, prior: Prior) -> None:
        self.prior = prior
        self._wall = torch.zeros(0)
        self._lock = threading.Lock()

    def of(self, numbers: Sequence[int]) -> Float[Tensor, "pictures latent_dim"]:
        """Those of any pictures, by their numbers."""
        return self.prior.read(torch.tensor(numbers), self.prior.fitted.space)

    def of_wall(self, numbers: Sequence[int]) -> Float[Tensor, "pictures latent_dim"]:
        """Those of all pictures of a wall, or of its first ones, which are kept."""
        with self._lock:
            if (known := len(self._wall)) < len(numbers):
                new = self.of(numbers[known:])
                self._wall = torch.cat([self._wall, new]) if known else new
            return self._wall[: len(numbers)]


@dataclass(frozen=True)
class Guide:
    """Heads, and what they read."""

    heads: AttributeBank
    latents: Latents

    def predict(self, numbers: Sequence[int], names: Sequence[str]) -> Mapping[str, Prediction]:
        """Predictions of attributes for any pictures, without drawing them."""
        return self.heads.predict(self.latents.of(numbers), names)

    def predict_wall(self, numbers: Sequence[int], names: Sequence[str]) -> Mapping[str, Prediction]:
        """The same for all pictures of a wall, without a look at them."""
        return self.heads.predict(self.latents.of_wall(numbers), names)


def fit_guide(
    reading: Reading, numbers: Sequence[int], latents: Latents, progress: Callable[[float], None]
) -> Guide | None:
    """Fit heads to the readings of a wall; `None` for too few pictures.

    Args:
        numbers: the pictures that were read.
        progress: function that is called with the fraction done, between any two steps.
    """
    count, prior = len(reading.outputs), latents.prior
    if count < LEAST:
        return None
    random = torch.Generator().manual_seed(prior.seed % 2**63)
    specs = reading.vocabulary
    outputs = reading.outputs.clone()
    unseen = torch.cat([reading.unseen[name] for name in specs], 1)  # labels must not speak twice
    outputs[reading.rows] = torch.where(unseen.isnan(), outputs[reading.rows], unseen)
    parts = outputs.split([output_count(spec) for spec in specs.values()], 1)
    first = (torch.arange(count) < round((1 - TAUGHT_STOPPING) * count)).repeat(DRAWS)
    order = torch.cat([first.nonzero()[:, 0], (~first).nonzero()[:, 0]])
    labels = {}
    for (name, spec), own in zip(specs.items(), parts, strict=True):
        drawn = own[:, 0].repeat(DRAWS) if KINDS[spec.kind].numeric else draw_labels(own, random)
        labels[name] = drawn[order]
    held_out = int((~first).sum())
    usable = with_labels(specs, labels, len(order) - held_out)
    if not usable:
        return None
    settings = HeadSettings(steps=STEPS, weight_decay=HeadSettings().weight_decay * TAUGHT_DECAY)
    labelled = Labelled(latents.of_wall(numbers)[order % count], labels, usable)
    course = Course(prior.seed % 2**63, progress=progress)
    return Guide(train_heads(labelled, settings, course, held_out=held_out, fitted=prior.fitted)[0], latents)
