"""Answers to queries during a lesson: pictures of which the readers are sure, from the wall or drawn for the query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import split_outputs
from energyql.energy.rule import EnergyRule, compile_energy_rule
from energyql.errors import DataError
from energyql.language import as_query, bind
from energyql.pipeline.settings import DEFAULT_PURITY
from energyql.numerics.shapes import Float
from energyql.teaching.lesson import Lesson
from energyql.teaching.wall import Wall
from energyql.training.settings import POOL_START

BLOCK = 4_096
"""Number of latents that heads read at a time, without drawing their pictures."""
BEST = 128
"""Most pictures of a block that are drawn, those that the heads find most probable."""
AT_ONCE = 16
"""Number of pictures that are drawn together."""
MOST = 2_000
"""Most pictures that are drawn for an answer."""


@dataclass(frozen=True)
class Answer:
    """Pictures that satisfy a query, as far as the readers know.

    Attributes:
        numbers: numbers of the accepted pictures, at most as many as were asked for.
        expected: share of them that is expected to be right, in [0, 1]; NaN without pictures.
        drawn: number of pictures that were drawn for the query, beside those of the wall.
        kept: how many of those were accepted.
        finished: whether no more will come.
    """

    numbers: tuple[int, ...]
    expected: float
    drawn: int
    kept: int
    finished: bool


def compile_query(query: str, lesson: Lesson) -> EnergyRule:
    """Compile a query about the attributes of a lesson.

    Raises:
        EnergyQLError: the query is wrong, or about an attribute that nothing is known of yet.
    """
    expr, text = as_query(query)
    rule = compile_energy_rule(bind(expr, lesson.vocabulary, query=text), lesson.vocabulary, "exact", query=text)
    known = {} if lesson.reading is None else lesson.reading.vocabulary
    if unknown := [name for name in rule.attributes if name not in known]:
        what = lesson.meter(unknown[0]).advice
        raise DataError(f"nothing is known of {unknown[0]!r} yet: {what}", hint="click pictures that have it, and such that do not")
    return rule


def answer(lesson: Lesson, rule: EnergyRule, n: int, guide: AttributeBank | None) -> Iterator[Answer]:
    """Yield the pictures that are accepted so far: at once those of the wall, and then after each batch drawn.

    Pictures are accepted from the highest P(query) on as long as the mean of P is the wanted purity. Those that are
    drawn are prior samples too, in the order in which heads find them probable; so each can be labelled by its number.
    """
    wall = lesson.wall
    begun = len(wall)
    candidates, drawn = _candidates(wall, rule, guide), 0
    while True:
        with wall.lock:
            lesson.read_new()
            found = _accepted(lesson, rule)
        rows = [row for row, _ in found]
        finished = len(found) >= n or drawn >= MOST
        batch = [] if finished else list(itertools.islice(candidates, AT_ONCE))
        finished = finished or not batch
        shown = sorted(found[:n] if len(found) < n else found, key=lambda each: each[0])[:n]
        expected = sum(p for _, p in shown) / len(shown) if shown else math.nan
        numbers = tuple(wall.numbers[row] for row, _ in shown)
        yield Answer(numbers, expected, drawn, sum(row >= begun for row in rows), finished)
        if finished:
            return
        wall.draw(batch)
        drawn += len(batch)


def _accepted(lesson: Lesson, rule: EnergyRule) -> list[tuple[int, float]]:
    """Rows of accepted pictures with P(query), the highest first."""
    assert lesson.reading is not None
    p = rule.log_value(lesson.reading.predictions).exp()
    order = p.argsort(descending=True)
    mean = p[order].cumsum(0) / (1 + torch.arange(len(p)))
    count = int((mean >= DEFAULT_PURITY).sum())  # the mean falls
    return [(int(row), float(p[row])) for row in order[:count]]


def _candidates(wall: Wall, rule: EnergyRule, guide: AttributeBank | None) -> Iterator[int]:
    """Numbers of pictures to draw: block after block, those of highest probability by the heads first."""
    free = (number for number in itertools.count(POOL_START) if number not in wall.rows)
    known = guide is not None and set(rule.attributes) <= set(guide.vocabulary)
    while True:
        block = list(itertools.islice(free, BLOCK if known else AT_ONCE))
        if not known or guide is None:
            yield from block
            continue
        p = rule.log_value(guide.predict(wall.prior.read(torch.tensor(block), guide.space), tuple(rule.attributes)))
        yield from (block[int(k)] for k in p.argsort(descending=True)[:BEST])
