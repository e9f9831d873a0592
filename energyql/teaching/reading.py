"""What a reader says of the pictures of a wall, fitted anew to all labels after each click."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from energyql.attributes.judge import Judge
from energyql.attributes.predictions import Prediction, output_count, split_outputs
from energyql.attributes.quality import HeadReport
from energyql.kinds import KINDS
from energyql.numerics.shapes import Bool, Float, Int
from energyql.teaching.wall import Wall
from energyql.training.feature_fit import choose_features, fit_linear
from energyql.training.heads import residuals
from energyql.training.label_noise import calibration, corrected_labels, wrong_labels
from energyql.training.labelled import Labelled
from energyql.training.report import report_quality
from energyql.training.steps import Course
from energyql.vocabulary import Vocabulary


@dataclass(frozen=True)
class Reading:
    """What the reader of some attributes says of the pictures of a wall.

    Attributes:
        judge: the reader.
        labels: attribute -> labels of the rows, (rows,): 0/1, class index or number; NaN where missing.
        rows: rows of the wall with labels, (rows,).
        random: which of them are random pictures, (rows,).
        outputs: for all pictures of the wall, (pictures, outputs).
        unseen: attribute -> outputs for the rows, each as if its own label were not there, (rows, outputs).
        rates: attribute -> share of wrong labels of each class.
        std: attribute -> standard deviation of the errors of a number; 1 for others.
    """

    judge: Judge
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
        return self.judge.vocabulary

    @cached_property
    def predictions(self) -> dict[str, Prediction]:
        """Attribute -> predictions for all pictures of the wall."""
        return split_outputs(self.outputs, self.vocabulary.values(), self.std)

    @cached_property
    def beliefs(self) -> dict[str, Prediction]:
        """The same, but where a picture has a label, as surely as the label is right."""
        return self._trusting({name: 1 - wrong for name, wrong in self.wrong.items()})

    @cached_property
    def said(self) -> dict[str, Prediction]:
        """The same, but where a picture has a label, just that."""
        return self._trusting({name: torch.ones_like(wrong) for name, wrong in self.wrong.items()})

    def _trusting(self, trust: Mapping[str, Float[Tensor, " rows"]]) -> dict[str, Prediction]:
        """Predictions for all pictures, those with labels as surely as one trusts the labels, a probability each."""
        outputs, start = self.outputs.clone(), 0
        for name, spec in self.vocabulary.items():
            labels, count = self.labels[name], output_count(spec)
            known = ~labels.isnan()
            rows, given = self.rows[known], labels[known]
            if not KINDS[spec.kind].numeric:
                right = trust[name][known].clamp(1e-4, 1 - 1e-4)
                if count == 1:
                    given = right.logit() * (2 * given - 1)
                else:
                    others = (1 - right[:, None]).log().expand(-1, count) - math.log(count - 1)
                    given = others.scatter(1, given.long()[:, None], right.log()[:, None])
            outputs[rows, start : start + count] = given.reshape(-1, count)
            start += count
        return split_outputs(outputs, self.vocabulary.values(), self.std)

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
    """Fit a reader to the labels of pictures of a wall, and let it read all of it.

    Args:
        labels: number of a picture -> attribute -> 0/1, class index or number.

    Returns:
        What it says of the attributes whose labels differ; `None` if there are none.
    """
    rows, columns, specs = _table(wall, labels, vocabulary)
    if not specs:
        return None
    fit = fit_linear(Labelled(wall.seen(rows.tolist()), columns, specs), wall.settings)
    unseen = torch.cat([fit.unseen[name] for name in specs], 1) - fit.evening
    scales, shifts, rates = [], [], {}
    counts = [output_count(spec) for spec in specs.values()]
    for own, (name, spec) in zip(unseen.split(counts, 1), specs.items(), strict=True):
        fitted = calibration(own, columns[name], spec)
        scales.append(fitted.scale.expand(own.shape[1]))
        shifts.append(fitted.shift)
        rates[name] = fitted.rates
    scale, shift = torch.cat(scales), torch.cat(shifts)
    # Pictures were chosen by what they look like, so P(class | picture) is as among the labelled ones: without evening.
    fit.judge.adjust(scale, shift - fit.evening * scale)
    unseen = unseen * scale + shift
    return Reading(
        fit.judge, columns, rows, wall.is_random[rows], wall.read(fit.judge),
        dict(zip(specs, unseen.split(counts, 1), strict=True)), rates, residuals(unseen, columns, specs),
    )  # fmt: skip


def best_layer(wall: Wall, labels: Mapping[int, Mapping[str, float]], vocabulary: Vocabulary) -> str:
    """The layer that tells the labelled pictures apart best; the present one without labels that differ."""
    rows, columns, specs = _table(wall, labels, vocabulary)
    if not specs:
        return wall.layer
    labelled = Labelled(wall.seen_everywhere(rows.tolist()), columns, specs)
    return choose_features(wall.backbone, labelled, Course(progress=wall.give_way))[0].layer


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
