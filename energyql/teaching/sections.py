"""The parts of a wall by what a reader says: one for each answer of which it is sure, and one of which it is not."""

from __future__ import annotations

from typing import NamedTuple

import torch

from energyql.kinds import KINDS
from energyql.teaching.lesson import Lesson

SURE = 0.9
"""Least certainty of an answer in the part of this answer."""
SHOWN = 24
"""Most pictures that a part shows."""


class Section(NamedTuple):
    """A part of the wall.

    Attributes:
        total: number of its pictures.
        numbers: those that are shown.
    """

    title: str
    total: int
    numbers: list[int]


def sections(lesson: Lesson, attribute: str) -> list[Section]:
    """The parts of a wall for an attribute: surely each answer, unsure; or quarters of a number, from low to high."""
    reading = lesson.reading
    if reading is None or attribute not in reading.vocabulary:
        return []
    spec, prediction, numbers = reading.vocabulary[attribute], reading.predictions[attribute], lesson.wall.numbers
    kind = KINDS[spec.kind]
    if kind.numeric:
        order = prediction.number().argsort()
        titles = ("lowest quarter", "second quarter", "third quarter", "highest quarter")
        return [_section(numbers, title, rows) for title, rows in zip(titles, order.tensor_split(4), strict=True)]
    certainty, best = prediction.certainty(), prediction.number()
    order = certainty.argsort(descending=True)
    classes, found = list(kind.classes(spec)), []
    for name, _ in kind.labels.answers(spec):
        here = (best[order] == classes.index(name)) & (certainty[order] >= SURE)
        found.append(_section(numbers, f"surely {name}", order[here]))
    unsure = order.flip(0)
    return [*found[:1], _section(numbers, "unsure", unsure[certainty[unsure] < SURE]), *found[1:]]


def _section(numbers: list[int], title: str, rows: torch.Tensor) -> Section:
    return Section(title, len(rows), [numbers[row] for row in rows[:SHOWN].tolist()])
