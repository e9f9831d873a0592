"""Answers to queries during a lesson: pictures of which readers are surest, from the wall or drawn for the query."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from energyql.energy.rule import EnergyRule
from energyql.errors import DataError
from energyql.numerics.shapes import Float
from energyql.pipeline.queries import CheckedQuery, ListedQuery, check
from energyql.pipeline.settings import DEFAULT_PURITY, DEFAULT_SEMANTICS
from energyql.teaching.guide import Guide
from energyql.teaching.lesson import Lesson
from energyql.training.settings import POOL_START

BLOCK = 4_096
"""Number of latents that heads read at a time, without drawing their pictures."""
BEST = 128
"""Most pictures of a block that are drawn, those that the heads find most probable."""
AT_ONCE = 16
"""Number of pictures that are drawn together."""
STAYS = 0.5
"""Least P(query) of a picture that stays in an answer."""
MOST_EACH = 50
"""Most pictures that are drawn for one that is asked for."""


@dataclass(frozen=True)
class Answer:
    """Pictures that satisfy a query, as far as the readers know.

    Attributes:
        numbers: their numbers, at most as many as were asked for.
        expected: share of them that is expected to be right, in [0, 1]; NaN without pictures.
        drawn: number of pictures that were drawn for the query, beside those of the wall.
        kept: how many of the pictures were.
        finished: whether no more will come.
    """

    numbers: tuple[int, ...]
    expected: float
    drawn: int
    kept: int
    finished: bool


def check_query(query: str, lesson: Lesson) -> CheckedQuery:
    """Parse and compile a query about the attributes of a lesson, and of the model before it.

    Raises:
        EnergyQLError: the query is wrong, or about an attribute that nothing is known of yet.
    """
    checked = check(ListedQuery(query), lesson.vocabulary.extended(lesson.taken.values()), DEFAULT_SEMANTICS)
    known = {*lesson.taken, *(() if lesson.reading is None else lesson.reading.vocabulary)}
    if unknown := [name for name in checked.rule.attributes if name not in known]:
        what = lesson.meter(unknown[0]).advice
        hint = f"{what}: there must be labels of two answers"
        raise DataError(f"nothing is known of {unknown[0]!r} yet", hint=hint)
    return checked


def answer(lesson: Lesson, rule: EnergyRule, n: int, guide: Guide | None, keep: Sequence[int] = ()) -> Iterator[Answer]:
    """Yield the n pictures of highest P(query) so far: at once those of the wall, and then after each batch drawn.

    Pictures to `keep`, which were shown before, come first if they probably satisfy the query, and none of their labels
    says otherwise.
    Others with labels of an attribute of the query are left out: the person knows them.

    It ends when the mean of P of so many pictures is the wanted purity, or `MOST_EACH` were drawn for each, or no
    photograph is left. Pictures that are drawn are prior samples too, those first that the heads find probable; so each
    can be labelled by its number.
    """
    wall = lesson.wall
    candidates, begun, drawn = _candidates(lesson, rule, guide), len(wall), 0
    known = [number for number, own in lesson.labels.items() if not own.keys().isdisjoint(rule.attributes)]
    known += keep
    shown = torch.tensor([wall.rows[number] for number in dict.fromkeys(keep)], dtype=torch.int64)
    kept = shown[(_probabilities(lesson, rule).minimum(_probabilities(lesson, rule, said=True)) >= STAYS)[shown]]
    wanted = max(0, n - len(kept))
    exhausted = False
    while True:
        p = _probabilities(lesson, rule)
        is_new = torch.ones(len(p), dtype=torch.bool)
        is_new[[row for number in known if (row := wall.rows[number]) < len(p)]] = False
        best = p.argsort(descending=True)
        best = best[is_new[best]]
        certain = int((p[best].cumsum(0) / (1 + torch.arange(len(best))) >= DEFAULT_PURITY).sum())  # the mean falls
        # Of more pictures that are certain enough, the first are taken: the surest of all look alike.
        found = best[:certain].sort().values[:wanted] if certain >= wanted else best[:wanted]
        rows = torch.cat([kept, found])
        finished = certain >= wanted or drawn >= MOST_EACH * wanted or exhausted
        expected = float(p[rows].mean()) if len(rows) else math.nan
        numbers = tuple(wall.numbers[row] for row in rows.tolist())
        yield Answer(numbers, expected, drawn, int((rows >= begun).sum()), finished)
        if finished:
            return
        batch = list(itertools.islice(candidates, AT_ONCE))
        exhausted = not batch
        wall.draw(batch)
        drawn += len(batch)


def _probabilities(lesson: Lesson, rule: EnergyRule, said: bool = False) -> Float[Tensor, " pictures"]:
    """P(query) of each picture of the wall, with labels that may be wrong, or (`said`) that are right."""
    with lesson.wall.lock:
        lesson.read_new()
        read = {} if lesson.reading is None else lesson.reading.said if said else lesson.reading.beliefs
        if others := [name for name in rule.attributes if name not in read]:
            assert lesson.before is not None
            read = {**read, **lesson.before.predict_wall(lesson.wall.numbers, others)}
        return rule.log_value(read).exp()


def _candidates(lesson: Lesson, rule: EnergyRule, guide: Guide | None) -> Iterator[int]:
    """Numbers of pictures to draw: block after block, those of highest probability by the heads first."""
    free = lesson.wall.absent(POOL_START)
    guides = [each for each in (lesson.before, guide) if each is not None]  # of an attribute of both, the second counts
    parts = [(each, [name for name in rule.attributes if name in each.heads.vocabulary]) for each in guides]
    if {name for _, names in parts for name in names} != set(rule.attributes):
        yield from free
        return
    while block := list(itertools.islice(free, BLOCK)):
        foretold = {name: each for own, names in parts for name, each in own.predict(block, names).items()}
        p = rule.log_value(foretold)
        yield from (block[int(k)] for k in p.argsort(descending=True)[:BEST])
