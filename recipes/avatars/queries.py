"""Random queries: their samples lie at latents that are rare in the prior, and at which the heads must be right too."""

from __future__ import annotations

import random

from energyql.language import And, E, Expr
from energyql.vocabulary import AttributeSpec
from recipes.avatars.vocabulary import VOCABULARY

LEAST_PARTS, MOST_PARTS = 2, 6
NARROWEST = 0.2
"""Width of an interval of a continuous attribute, as a share of its range."""


def random_query(seed: int, index: int) -> Expr:
    """Draw a conjunction of two to six parts on different attributes, equally likely; it may contradict itself.

    Every other query is a disjunction of such conjunctions, so its samples lie at the same latents.
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
