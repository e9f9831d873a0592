"""Relations between the attributes of a model: queries that hold in every picture.

Heads are separate, so P(smile) and P(frown) can both be high for one latent, although no picture smiles and frowns.
Queries are therefore conditioned on the relations: P(query AND relations) / P(relations). Relations also let the
compiler find contradictions and tautologies that logic alone does not contain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from energyql.errors import EnergyQLError, VocabularyError
from energyql.language import Expr, bind, parse, predicates
from energyql.vocabulary import AttributeSpec, Vocabulary


def relations_for(expr: Expr, vocabulary: Mapping[str, AttributeSpec]) -> list[tuple[Expr, ...]]:
    """Return the relations of a vocabulary that concern a bound query, in groups that share no attribute.

    A group concerns a query that names one of the attributes which its relations connect, directly or through others.
    All other relations are independent of the query, and change no probability.

    Returns:
        Groups of bound queries without spans, because they stand in no text of the user's.

    Raises:
        VocabularyError: a relation is no query over the vocabulary.
    """
    if not isinstance(vocabulary, Vocabulary) or not vocabulary.relations:
        return []
    named = _names(expr)
    return [group for group in _connected(vocabulary) if any(named & _names(relation) for relation in group)]


@lru_cache(maxsize=64)
def _connected(vocabulary: Vocabulary) -> tuple[tuple[Expr, ...], ...]:
    """The relations in groups that share no attribute."""
    groups: list[tuple[frozenset[str], list[Expr]]] = []
    for text in vocabulary.relations:
        try:
            bound = bind(parse(text), vocabulary, query=text)
        except EnergyQLError as error:
            raise VocabularyError(f"a relation of model {vocabulary.model!r} is wrong: {error}") from error
        relation = bound.map(lambda node: replace(node, span=None))
        names, members = _names(relation), [relation]
        for group in [group for group in groups if group[0] & names]:
            groups.remove(group)
            names, members = names | group[0], [*group[1], *members]
        groups.append((names, members))
    return tuple(tuple(members) for _, members in groups)


def _names(expr: Expr) -> frozenset[str]:
    return frozenset(node.name for node in predicates(expr))
