"""Evaluation protocols: for each the queries that are sampled or edited, and the publication it follows.

Queries are drawn by a seed from the model's vocabulary and kept if their prevalence in the prior is as the protocol
asks, so the same model gets the same queries. A new protocol is one entry of `PROTOCOLS`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from energyql.errors import EnergyQLError
from energyql.evaluation.judged import JudgedSamples
from energyql.language import And, E, Expr, Not, Or, bind
from energyql.logic.truth import satisfied
from energyql.vocabulary import AttributeSpec, Vocabulary

T = TypeVar("T")
Join = Callable[[Sequence[Expr]], Expr]

TRIES = 20_000
LEAST, MOST = 0.001, 0.9
"""Prevalence of the queries of a protocol, unless it says otherwise."""
SEEN, RARE = 1e-9, 0.001
"""Prevalence of a query that occurs in the prior at all, and the largest of a rare one."""
TARGETS = (0.25, 0.5, 0.75)
"""Of a continuous attribute, as shares of its range."""
PUBLISHED = "Nie et al. 2021, arXiv 2110.10873"


class RandomConditions:
    """Random conditions on a model's attributes, by `Random.random` alone, whose numbers Python promises to keep.

    The seed is a text that names the protocol and its seed.
    """

    def __init__(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: str) -> None:
        self.vocabulary, self._prior = vocabulary, prior
        self._uniform = random.Random(seed).random

    def values(self, spec: AttributeSpec) -> list[Expr]:
        """Return every value of an attribute: yes and no, each class, or each of the targets."""
        attribute = E[spec.name]
        if spec.kind == "yes/no":
            return [attribute, Not(attribute)]
        if spec.kind == "categorical":
            return [attribute.eq(value) for value in spec.values]
        return [attribute.eq(round(spec.low + share * (spec.high - spec.low), 6)) for share in TARGETS]

    def condition(self, spec: AttributeSpec) -> Expr:
        """Draw one value of an attribute: yes, a class, or a target with the attribute's own tolerance."""
        return E[spec.name] if spec.kind == "yes/no" else self._choice(self.values(spec))

    def prevalence(self, query: Expr) -> float:
        """Return the share of prior pictures that satisfy a query, by the judge."""
        bound = bind(query, self.vocabulary)
        return float(satisfied(bound, self._prior.values, self.vocabulary).mean())

    def compose(self, count: int, join: Join, least: float, most: float) -> Expr:
        """Draw a query with a prevalence from `least` to `most`: joined conditions on `count` different attributes.

        Raises:
            EnergyQLError: none was found in `TRIES` attempts.
        """
        for _ in range(TRIES if len(self.vocabulary) >= count else 0):
            pool = list(self.vocabulary)
            names = [pool.pop(int(self._uniform() * len(pool))) for _ in range(count)]
            query = join([self.condition(self.vocabulary[name]) for name in names])
            if least <= self.prevalence(query) <= most:
                return query
        raise EnergyQLError(
            f"no query of {count} attributes has a prevalence from {least:g} to {most:g}",
            hint="the model has few attributes, or they hardly vary, or the prior is too small: raise --prior",
        )

    def _choice(self, values: Sequence[T]) -> T:
        return values[int(self._uniform() * len(values))]


@dataclass(frozen=True)
class EvaluationProtocol:
    """One experiment.

    Attributes:
        name: for `--protocols`.
        title: heading of its results.
        about: its queries, and the publication that it follows.
        queries: draws the queries.
        sequential: the queries are the steps of one edit, rather than sampled one by one.
        truncation: under which it is run; by default that of the evaluation.
        attributes: that its queries name, where these are given rather than drawn.
        given: its queries, where they are given as texts.
    """

    name: str
    title: str
    about: str
    queries: Callable[[RandomConditions], list[Expr]]
    sequential: bool = False
    truncation: float | None = None
    attributes: tuple[str, ...] = ()
    given: tuple[Expr, ...] = ()

    def choose_queries(self, vocabulary: Vocabulary, prior: JudgedSamples, seed: int) -> list[Expr]:
        """Return the queries for a model.

        Raises:
            EnergyQLError: the model has no such queries.
        """
        return self.queries(RandomConditions(vocabulary, prior, f"{seed}/{self.name}"))


def _and(parts: Sequence[Expr]) -> Expr:
    return And(tuple(parts))


def _single(draw: RandomConditions) -> list[Expr]:
    found: list[Expr] = []
    for spec in draw.vocabulary.values():
        conditions = [draw.condition(spec) for _ in range(8)]
        found += [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST][:1]
    return found


def _classes(draw: RandomConditions) -> list[Expr]:
    classes = [spec for spec in draw.vocabulary.values() if spec.kind == "categorical"]
    if not classes:
        raise EnergyQLError("the model has no categorical attribute", hint="choose other protocols")
    conditions = draw.values(max(classes, key=lambda spec: len(spec.values)))
    return [one for one in conditions if LEAST <= draw.prevalence(one) <= MOST]


def conjunctions(count: int, size: int, least: float, most: float) -> Callable[[RandomConditions], list[Expr]]:
    """Return a function that draws `count` different conjunctions of `size` attributes."""

    def choose(draw: RandomConditions) -> list[Expr]:
        found: list[Expr] = []
        while len(found) < count:
            query = draw.compose(size, _and, least, most)
            if query not in found:
                found.append(query)
        return found

    return choose


def _logic(draw: RandomConditions) -> list[Expr]:
    shapes: list[tuple[int, Join]] = [
        (2, _and),
        (2, lambda p: Or((p[0], p[1]))),
        (2, lambda p: And((p[0], Not(p[1])))),
        (4, lambda p: Or((And((p[0], p[1])), And((p[2], Not(p[3])))))),
        (3, lambda p: And((p[0], Not(Or((p[1], p[2])))))),
    ]
    return [draw.compose(size, join, LEAST, MOST) for size, join in shapes]


def _sequence(draw: RandomConditions) -> list[Expr]:
    return list(draw.compose(5, _and, SEEN, 1.0).children)


PROTOCOLS: dict[str, EvaluationProtocol] = {
    protocol.name: protocol
    for protocol in (
        EvaluationProtocol(
            "conditional-1",
            "Conditional sampling on one attribute",
            f"Every attribute with one of its values. After the single-attribute experiments of {PUBLISHED}.",
            _single,
        ),
        EvaluationProtocol(
            "classes",
            "Conditional sampling on classes",
            "Every class of the attribute with the most classes. After the experiment of "
            f"{PUBLISHED}, on the ten classes of CIFAR-10.",
            _classes,
        ),
        EvaluationProtocol(
            "conditional-2",
            "Conditional sampling on two attributes",
            f"Six random pairs with a prevalence of at least 0.1 %. After the experiments of {PUBLISHED}.",
            conjunctions(6, 2, LEAST, MOST),
        ),
        EvaluationProtocol(
            "conditional-3",
            "Conditional sampling on three attributes",
            f"Six random triples with a prevalence of at least 0.1 %. After the experiments of {PUBLISHED}, which "
            "condition FFHQ on glasses, gender, smile and age together.",
            conjunctions(6, 3, LEAST, MOST),
        ),
        EvaluationProtocol(
            "sequential-5",
            "Sequential editing of five attributes",
            "Pictures of the prior, edited by one attribute after the other; all earlier edits are to hold. After the "
            f"sequential editing of {PUBLISHED}, and of StyleFlow (Abdal et al. 2021, arXiv 2008.02401).",
            _sequence,
            sequential=True,
        ),
        EvaluationProtocol(
            "zero-shot",
            "Combinations that hardly ever occur",
            f"Three conjunctions of four attributes that at most one picture of the prior in 1,000 shows. After the "
            f"zero-shot generation of {PUBLISHED}.",
            conjunctions(3, 4, SEEN, RARE),
        ),
        EvaluationProtocol(
            "logic",
            "Logical compositions",
            f"a AND b; a OR b; a AND NOT b; (a AND b) OR (c AND NOT d), as in the experiments of {PUBLISHED}; and a "
            "AND NOT (b OR c).",
            _logic,
        ),
    )
}
"""Every protocol by its name."""
