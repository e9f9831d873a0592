"""Random queries, whose answers the heads must get right where a sampler goes and the prior hardly ever does."""

from __future__ import annotations

import random

from energyql.language import And, E, Expr
from energyql.vocabulary import AttributeSpec
from recipes.avatars.vocabulary import VOCABULARY

LEAST_PARTS, MOST_PARTS = 2, 6
NARROWEST = 0.2
"""Width of an interval of a continuous attribute, as a share of its range."""


def random_query(seed: int, index: int) -> Expr:
    """A conjunction of two to six parts on different attributes, all of them as likely; it may contradict itself.

    What other queries ask for is a union of such, so their samples lie where those of conjunctions do.
    """
    source = random.Random(f"{seed}/{index}")
    specs = source.sample(list(VOCABULARY.values()), source.randint(LEAST_PARTS, MOST_PARTS))
    return And(tuple(_part(spec, source) for spec in specs))


def _part(spec: AttributeSpec, source: random.Random) -> Expr:
    attribute = E[spec.name]
    if spec.kind == "yes/no":
        return attribute if source.random() < 0.65 else ~attribute
    if spec.kind == "categorical":
        return attribute.is_in(source.sample(spec.values, source.randint(1, 2)))
    width = (spec.high - spec.low) * source.uniform(NARROWEST, 1)
    low = source.uniform(spec.low, spec.high - width)
    return attribute.is_between(low, low + width)
