"""What readers say of the pictures of a wall, fitted anew to all labels after each click."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import HeadReport
from energyql.numerics.shapes import Bool, Float, Int
from energyql.teaching.wall import LAYERS, Wall
from energyql.training.feature_fit import choose_features, fit_linear
from energyql.training.heads import residuals
from energyql.training.label_noise import calibration, corrected_labels, wrong_labels
from energyql.training.labelled import Labelled
from energyql.training.report import report_quality
from energyql.training.steps import Course
from energyql.vocabulary import Vocabulary


@dataclass(frozen=True)
class Reading:
    """What the readers of some attributes say of the pictures of a wall.

    Attributes:
        networks: the readers, each of another layer; their mean is read.
        labels: attribute -> labels of the rows, (rows,): 0/1, class index or number; NaN where missing.
        rows: rows of the wall with labels, (rows,).
        random: which of them are random pictures, (rows,).
        outputs: for all pictures of the wall, (pictures, outputs).
        unseen: attribute -> outputs for the rows, each as if its own label were not there, (rows, outputs).
        rates: attribute -> share of wrong labels of each class.
        std: attribute -> standard deviation of the errors of a number; 1 for others.
    """

    networks: Sequence[Judge]
    labels: Mapping[str, Tensor]
    rows: Int[Tensor, " rows"]
    random: Bool[Tensor, " rows"]
    outputs: Float[Tensor, "pictures outputs"]
    unseen: Mapping[str, Tensor]
    rates: Mapping[str, Tensor]
    std: Mapping[str, Tensor]

    @property
    def vocabulary(self) -> Vocabulary:
        """The attributes that are read: those with labels that differ."""
        return self.networks[0].vocabulary

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        """Attribute -> predictions for all pictures of the wall."""
        return split_outputs(self.outputs, self.vocabulary.values(), self.std)

    def further(self, outputs: Float[Tensor, "further outputs"]) -> Reading:
        """The same with outputs for pictures that the wall got since."""
        return replace(self, outputs=torch.cat([self.outputs, outputs]))

    @cached_property
    def wrong(self) -> dict[str, Float[Tensor, " rows"]]:
        """Attribute -> P(label is wrong) of each row; NaN where it has none."""
        return {
            name: wrong_labels(self.unseen[name].nan_to_num(), self.labels[name], spec, self.rates[name])
            for name, spec in self.vocabulary.items()
        }

    @cached_property
    def reports(self) -> dict[str, HeadReport]:
        """Attribute -> quality on random pictures, each read as if its own label were not there."""
        chance = torch.Generator().manual_seed(0)
        corrected = {
            name: corrected_labels(self.unseen[name].nan_to_num(), self.labels[name], spec, self.rates[name], chance)
            for name, spec in self.vocabulary.items()
        }
        tested = {name: labels.where(self.random, math.nan) for name, labels in corrected.items()}
        learnt = {name: labels.where(~self.random, math.nan) for name, labels in self.labels.items()}
        outputs = torch.cat([self.unseen[name].nan_to_num() for name in self.vocabulary], 1)
        predictions = split_outputs(outputs, self.vocabulary.values(), self.std)
        return report_quality(predictions, tested, self.vocabulary, learnt)


def read_wall(wall: Wall, labels: Mapping[int, Mapping[str, float]], vocabulary: Vocabulary) -> Reading | None:
    """Fit readers to the labels of pictures of a wall, and let them read all of it.

    Args:
        labels: number of a picture -> attribute -> 0/1, class index or number.

    Returns:
        What they say of the attributes whose labels differ; `None` if there are none.
    """
    rows, columns, specs = _table(wall, labels, vocabulary)
    if not specs:
        return None
    labelled = Labelled(wall.seen(rows), columns, specs)
    fits = [fit_linear(labelled, settings) for settings in wall.settings]
    for fit in fits:  # pictures were chosen by what they look like, so P(class | picture) is as among the labelled ones
        fit.judge.adjust(torch.ones_like(fit.evening), -fit.evening)
    counts = [output_count(spec) for spec in specs.values()]
    unseen = torch.stack([torch.cat([fit.unseen[name] for name in specs], 1) - fit.evening for fit in fits]).mean(0)
    scales, shifts, rates = [], [], {}
    for own, (name, spec) in zip(unseen.split(counts, 1), specs.items(), strict=True):
        joint = calibration(own, columns[name], spec)  # of their mean
        scales.append(joint.scale.expand(own.shape[1]))
        shifts.append(joint.shift)
        rates[name] = joint.rates
    scale, shift = torch.cat(scales), torch.cat(shifts)
    for fit in fits:
        fit.judge.adjust(scale, shift)
    unseen, networks = unseen * scale + shift, [fit.judge for fit in fits]
    return Reading(
        networks, columns, rows, wall.is_random[rows], wall.read(networks),
        dict(zip(specs, unseen.split(counts, 1), strict=True)), rates, residuals(unseen, columns, specs),
    )  # fmt: skip


def best_layers(wall: Wall, labels: Mapping[int, Mapping[str, float]], vocabulary: Vocabulary) -> Sequence[str]:
    """The layers that tell the labelled pictures apart best; the present ones without labels that differ."""
    rows, columns, specs = _table(wall, labels, vocabulary)
    if not specs:
        return wall.layers
    labelled = Labelled(wall.seen_everywhere(rows.tolist()), columns, specs)
    return [each.layer for each in choose_features(wall.backbone, labelled, Course())[:LAYERS]]


def _table(
    wall: Wall, labels: Mapping[int, Mapping[str, float]], vocabulary: Vocabulary
) -> tuple[Int[Tensor, " rows"], dict[str, Tensor], Vocabulary]:
    """Rows of the wall with labels, attribute -> labels of these rows, and the attributes whose labels differ."""
    numbers = [number for number in labels if number in wall.rows]
    columns = {name: torch.tensor([labels[number].get(name, math.nan) for number in numbers]) for name in vocabulary}
    specs = Vocabulary(spec for name, spec in vocabulary.items() if _differ(columns[name]))
    rows = torch.tensor([wall.rows[number] for number in numbers], dtype=torch.int64)
    return rows, {name: columns[name] for name in specs}, specs


def _differ(labels: Float[Tensor, " rows"]) -> bool:
    return len(labels[~labels.isnan()].unique()) > 1
