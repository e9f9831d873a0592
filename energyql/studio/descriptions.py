"""Descriptions of models, attributes and queries for the API, before anything is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from types import MappingProxyType

from energyql.attributes.judge import who_judges
from energyql.attributes.quality import HeadReport
from energyql.errors import EnergyQLError, LimitError
from energyql.gallery.words import draw_query
from energyql.kinds import BARE, KINDS
from energyql.language import E, quote
from energyql.pipeline.checks import check_heads
from energyql.pipeline.draw import Pipeline
from energyql.pipeline.queries import ListedQuery, check
from energyql.pipeline.settings import DEFAULT_SEMANTICS
from energyql.studio.limits import Limits
from energyql.studio.problems import describe
from energyql.studio.schemas import Attribute, Check, ModelInfo
from energyql.vocabulary import Vocabulary


def check_length(query: str, limits: Limits) -> str:
    """Return a query, checked for its length.

    Raises:
        LimitError: it is longer than this studio allows.
    """
    if len(query) > limits.characters:
        raise LimitError(f"the query has {len(query):,} characters; this studio takes {limits.characters:,}")
    return query


def check_query(
    query: str,
    vocabulary: Vocabulary,
    semantics: str,
    limits: Limits,
    reports: Mapping[str, HeadReport] = MappingProxyType({}),
    allow_weak: Collection[str] = (),
) -> Check:
    """Return the meaning of a query or its error, which is not raised.

    Args:
        query: text of the query.
        vocabulary: attributes of the model.
        semantics: name of the semantics.
        limits: limits of the studio.
        reports: attribute -> quality of its head.
        allow_weak: attributes whose heads may be used although they are weak.
    """
    try:
        checked = check(ListedQuery(check_length(query, limits)), vocabulary, semantics)
        check_heads(checked.bound, checked.rule.attributes, reports, allow_weak, query=query)
    except EnergyQLError as error:
        return Check(ok=False, problem=describe(error))
    caption, drawing, _ = draw_query(checked)
    return Check(
        ok=True,
        warnings=[describe(warning) for warning in checked.warnings],
        canonical=str(checked.expr),
        caption=caption,
        drawing=drawing,
        explanation=checked.rule.explain(),
    )


_EXAMPLES = (
    "smile AND NOT (glasses OR beard)",
    "hair = red AND long_hair AND mouth = laugh",
    "AT LEAST 2 OF (glasses, beard, hat)",
    "beard XOR long_hair",
    "hair IN {gray, black} AND skin_tone > 0.6 AND NOT hat",
    "sunglasses AND hat AND beard AND frown",
)


def examples(vocabulary: Vocabulary) -> list[str]:
    """Return up to six example queries: known ones that fit the model, and if these are few, some of its attributes."""
    fitting = [query for query in _EXAMPLES if check_query(query, vocabulary, DEFAULT_SEMANTICS, Limits()).ok]
    if len(fitting) >= 3:
        return fitting
    plain = [quote(spec.name) for spec in vocabulary.values() if BARE in KINDS[spec.kind].forms][:3]
    made = [f"{plain[0]} AND NOT {plain[1]}", f"{plain[0]} XOR {plain[1]}"] if len(plain) > 1 else plain
    for spec in vocabulary.values():
        if BARE not in KINDS[spec.kind].forms:
            made.append(str(KINDS[spec.kind].example(E[spec.name], spec)))
    return [*fitting, *made][:6]


def describe_model(name: str, pipeline: Pipeline) -> ModelInfo:
    """Return the description of a model, called `name`, in the API."""
    model = pipeline.model
    low, high = model.bank.truncation
    weak = {name: report.weak for name, report in model.report.items()}
    weights = " ".join(f"{part} {digest}" for part, digest in sorted(model.fingerprints.items()))
    return ModelInfo(
        name=name,
        fingerprint=hashlib.sha256(weights.encode()).hexdigest()[:12],
        attributes=[
            Attribute(
                **spec.to_dict() | {"written": quote(spec.name), "values": [quote(value) for value in spec.values]},
                weak=weak.get(spec.name),
            )
            for spec in model.vocabulary.values()
        ],
        truncation=model.truncation,
        truncation_low=low,
        truncation_high=high,
        judge=who_judges(model.judge),
        examples=examples(Vocabulary(spec for name, spec in model.vocabulary.items() if not weak.get(name))),
    )
