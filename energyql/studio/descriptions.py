"""Descriptions of models, attributes and queries for the API, before anything is drawn."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from energyql.attributes.judge import who_judges
from energyql.errors import EnergyQLError, LimitError
from energyql.gallery.words import draw_query
from energyql.kinds import BARE, KINDS
from energyql.language import parse, quote
from energyql.language.lexical import Quoted
from energyql.pipeline.plan import check_readers
from energyql.pipeline.queries import ListedQuery, check
from energyql.pipeline.session import Session
from energyql.pipeline.settings import DEFAULT_SEMANTICS, DrawSettings
from energyql.studio.limits import Limits
from energyql.studio.problems import describe
from energyql.studio.schemas import Attribute, Check, CheckRequest, ModelInfo
from energyql.vocabulary import Vocabulary


def check_length(query: str, limits: Limits) -> str:
    """Return the query; a `LimitError` if it is longer than `limits.characters`."""
    if len(query) > limits.characters:
        raise LimitError(f"the query has {len(query):,} characters; this studio takes {limits.characters:,}")
    return query


def check_query(request: CheckRequest, session: Session, limits: Limits) -> Check:
    """Return the meaning of a query. If the query is wrong, return its error, without raising the error."""
    query = request.query
    try:
        checked = check(ListedQuery(check_length(query, limits)), session.model.vocabulary, request.semantics)
        settings = DrawSettings(verify=request.verify, allow_weak=request.allow_weak)
        check_readers(session, checked.bound, checked.rule, settings, query)
    except EnergyQLError as error:
        return Check(ok=False, problem=describe(error))
    caption, drawing, _ = draw_query(checked)
    return Check(
        ok=True, warnings=[describe(warning) for warning in checked.warnings], canonical=str(checked.expr),
        caption=caption, drawing=drawing, explanation=checked.rule.explain(),
    )  # fmt: skip


_EXAMPLES = (
    "smile AND NOT (glasses OR beard)",
    "hair = red AND long_hair AND mouth = laugh",
    "AT LEAST 2 OF (glasses, beard, hat)",
    "beard XOR long_hair",
    "hair IN {gray, black} AND skin_tone > 0.6 AND NOT hat",
    "sunglasses AND hat AND beard AND frown",
)


def examples(vocabulary: Vocabulary) -> list[str]:
    """Up to six example queries for a model with the attributes in `vocabulary`.

    They are those of `_EXAMPLES` that fit the model. If fewer than three fit, more are made from names in `vocabulary`.
    """
    queries = []
    for query in _EXAMPLES:
        with suppress(EnergyQLError):
            queries.append(check(ListedQuery(query), vocabulary, DEFAULT_SEMANTICS).text)
    if len(queries) >= 3:
        return queries
    plain = [quote(spec.name) for spec in vocabulary.values() if BARE in KINDS[spec.kind].queries.forms][:3]
    queries += [f"{plain[0]} AND NOT {plain[1]}", f"{plain[0]} XOR {plain[1]}"] if len(plain) > 1 else plain
    others = [spec for spec in vocabulary.values() if BARE not in KINDS[spec.kind].queries.forms]
    return [*queries, *(str(KINDS[spec.kind].queries.example(parse(quote(spec.name)), spec)) for spec in others)][:6]


def describe_model(name: str, session: Session) -> ModelInfo:
    """Description of a model in the API: attributes, truncation, judge, fingerprint and example queries."""
    model, reader = session.model, session.model.words
    low, high = model.bank.truncation
    weak = {name: report.weak for name, report in model.report.items()}
    weights = " ".join(f"{part} {digest}" for part, digest in sorted(model.fingerprints.items()))
    attributes = []
    for spec in model.vocabulary.values():
        words = {"written": quote(spec.name), "values": [quote(value) for value in spec.values]}
        attributes.append(Attribute(**spec.to_dict() | words, weak=weak.get(spec.name)))
    return ModelInfo(
        name=name, fingerprint=hashlib.sha256(weights.encode()).hexdigest()[:12], attributes=attributes,
        truncation=model.truncation, truncation_low=low, truncation_high=high, judge=who_judges(model.judge),
        verify="off" if model.verifier is None else "sure",
        words=None if reader is None else Path(reader.name).name,
        texts=[] if reader is None else [quote(Quoted(text)) for text in reader.calibrations],
        examples=examples(Vocabulary(spec for name, spec in model.vocabulary.items() if not weak.get(name))),
    )  # fmt: skip
