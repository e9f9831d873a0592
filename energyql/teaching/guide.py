"""Heads fitted to what readers say of a wall: they tell from latents alone which pictures are worth drawing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import Prediction, output_count
from energyql.kinds import KINDS
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


@dataclass(frozen=True)
class Guide:
    """Heads, and the prior samples whose pictures they foretell."""

    heads: AttributeBank
    prior: Prior

    def predict(self, numbers: Sequence[int], names: tuple[str, ...]) -> Mapping[str, Prediction]:
        """Predictions of attributes for pictures by their numbers, without drawing them."""
        return self.heads.predict(self.prior.read(torch.tensor(numbers), self.heads.space), names)


def fit_guide(reading: Reading, prior: Prior, latents: Tensor, progress: Callable[[float], None]) -> Guide | None:
    """Fit heads to the readings of a wall; `None` for too few pictures.

    Args:
        prior: whose `fitted` says what heads read.
        latents: the input of heads for each of the pictures, (pictures, latent_dim).
        progress: function that is called with the fraction done, between any two steps.
    """
    count = len(reading.outputs)
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
    labelled = Labelled(latents[order % count], labels, usable)
    course = Course(prior.seed % 2**63, progress=progress)
    return Guide(train_heads(labelled, settings, course, held_out=held_out, fitted=prior.fitted)[0], prior)
