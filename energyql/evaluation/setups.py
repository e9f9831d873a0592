"""Named set-ups: which queries are asked, and where the set-up comes from.

Queries are drawn by a seed from the model's vocabulary, and kept if the prior of the model shows that they can be had
and how rare they are: the same model gets the same queries.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from energyql.errors import EnergyQLError
from energyql.evaluation.subject import Seen
from energyql.language import And, E, Expr, Not, Or, bind
from energyql.logic.truth import satisfied
from energyql.vocabulary import AttributeSpec, Vocabulary

T = TypeVar("T")

TRIES = 20_000
LEAST, MOST = 0.001, 0.9
"""Prevalence of the queries of a set-up, unless it says otherwise."""
RARE = 0.001
TARGETS = (0.25, 0.5, 0.75)
"""Of a continuous attribute, as shares of its range."""
PUBLISHED = "Nie et al. 2021, arXiv 2110.10873"


@dataclass(frozen=True)
class Setup:
    """One experiment.

    Attributes:
        name: what `--protocols` calls it.
        title: a heading.
        about: what is asked, and where that comes from.
        queries: draws them.
        sequential: the queries are the steps of one edit, rather than samples of their own.
    """

    name: str
    title: str
    about: str
    queries: Callable[[Draw], list[Expr]]
    sequential: bool = False


class Draw:
    """Random conditions on a model's attributes, by `Random.random` alone, whose numbers Python promises to keep.

    Args:
        vocabulary: of the model.
        prior: judged samples of the prior.
        seed: text that names the set-up.
    """

    def __init__(self, vocabulary: Vocabulary, prior: Seen, seed: str) -> None:
        self.vocabulary, self._prior = vocabulary, prior
        self._uniform = random.Random(seed).random

    def condition(self, spec: AttributeSpec) -> Expr:
        """One value of an attribute: yes, a class, or a target with the attribute's own tolerance."""
        attribute = E[spec.name]
        if spec.kind == "yes/no":
            return attribute
        if spec.kind == "categorical":
            return attribute.eq(self._one_of(spec.values))
        target = spec.low + self._one_of(TARGETS) * (spec.high - spec.low)
        return attribute.eq(round(target, 6))

    def prevalence(self, query: Expr) -> float:
        """Share of prior pictures that satisfy a query, by the judge."""
        bound = bind(query, self.vocabulary)
        return float(satisfied(bound, self._prior.values, self.vocabulary).mean())

    def several(self, count: int, what: int, join: Callable[[Sequence[Expr]], Expr], least: float, most: float) -> Expr:
        """A query of conditions on `count` different attributes with a prevalence from `least` to `most`.

        Raises:
            EnergyQLError: none was found in `TRIES` attempts.
        """
        for _ in range(TRIES if len(self.vocabulary) >= count else 0):
            names = self.some(list(self.vocabulary), count)
            query = join([self.condition(self.vocabulary[name]) for name in names])
            if least <= self.prevalence(query) <= most:
                return query
        raise EnergyQLError(
            f"no query of {count} attributes has a prevalence from {least:g} to {most:g} (set-up query {what + 1})",
            hint="the model has few attributes, or they hardly vary, or the prior is too small: raise --prior",
        )

    def some(self, names: list[str], count: int) -> list[str]:
        """`count` of the names, in random order."""
        pool = list(names)
        return [pool.pop(int(self._uniform() * len(pool))) for _ in range(count)]

    def _one_of(self, values: Sequence[T]) -> T:
        return values[int(self._uniform() * len(values))]


def _single(draw: Draw) -> list[Expr]:
    found: list[Expr] = []
    for spec in draw.vocabulary.values():
        conditions = [draw.condition(spec) for _ in range(8)]
        possible = [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST]
        found += possible[:1]
    return found


def _conjunctions(count: int, size: int, least: float, most: float) -> Callable[[Draw], list[Expr]]:
    def choose(draw: Draw) -> list[Expr]:
        found: list[Expr] = []
        while len(found) < count:
            query = draw.several(size, len(found), lambda parts: And(tuple(parts)), least, most)
            if query not in found:
                found.append(query)
        return found

    return choose


def _rare(draw: Draw) -> list[Expr]:
    return _conjunctions(3, 4, np.nextafter(0, 1), RARE)(draw)


def _logic(draw: Draw) -> list[Expr]:
    shapes: list[tuple[int, Callable[[Sequence[Expr]], Expr]]] = [
        (2, lambda p: And((p[0], p[1]))),
        (2, lambda p: Or((p[0], p[1]))),
        (2, lambda p: And((p[0], Not(p[1])))),
        (4, lambda p: Or((And((p[0], p[1])), And((p[2], Not(p[3])))))),
        (3, lambda p: And((p[0], Not(Or((p[1], p[2])))))),
    ]
    return [draw.several(size, i, join, LEAST, MOST) for i, (size, join) in enumerate(shapes)]


def _sequence(draw: Draw) -> list[Expr]:
    steps = draw.several(5, 0, lambda parts: And(tuple(parts)), np.nextafter(0, 1), 1.0)
    return list(steps.operands) if isinstance(steps, And) else [steps]


SETUPS: dict[str, Setup] = {
    setup.name: setup
    for setup in (
        Setup(
            "conditional-1",
            "Conditional sampling on one attribute",
            f"Every attribute with one of its values. After the single-attribute experiments of {PUBLISHED}.",
            _single,
        ),
        Setup(
            "conditional-3",
            "Conditional sampling on three attributes",
            f"Six random triples with a prevalence of at least 0.1 %. After the experiments of {PUBLISHED}, which "
            "condition FFHQ on glasses, gender, smile and age together.",
            _conjunctions(6, 3, LEAST, MOST),
        ),
        Setup(
            "sequential-5",
            "Sequential editing of five attributes",
            "Pictures of the prior, edited by one attribute after the other; all earlier edits are to hold. After the "
            f"sequential editing of {PUBLISHED}, and of StyleFlow (Abdal et al. 2021, arXiv 2008.02401).",
            _sequence,
            sequential=True,
        ),
        Setup(
            "zero-shot",
            "Combinations that are hardly ever seen",
            f"Three conjunctions of four attributes that at most one picture of the prior in 1,000 shows. After the "
            f"zero-shot generation of {PUBLISHED}.",
            _rare,
        ),
        Setup(
            "logic",
            "Logical compositions",
            f"a AND b; a OR b; a AND NOT b; (a AND b) OR (c AND NOT d), as in the experiments of {PUBLISHED}; and a "
            "AND NOT (b OR c).",
            _logic,
        ),
    )
}
"""Every set-up by its name."""


def choose_queries(setup: Setup, vocabulary: Vocabulary, prior: Seen, seed: int) -> list[Expr]:
    """The queries of a set-up for a model.

    Raises:
        EnergyQLError: the model does not have such queries.
    """
    return setup.queries(Draw(vocabulary, prior, f"{seed}/{setup.name}"))
