"""What a result says: its summary, and the words about single pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.heads import DOUBT
from energyql.attributes.judge import IMAGE_JUDGE
from energyql.attributes.predictions import Table
from energyql.attributes.quality import VERIFIER
from energyql.errors import EnergyQLError
from energyql.language import Expr, Near, Weight, bind, parse, predicates
from energyql.language.lexical import shorten
from energyql.logic.satisfiability import conjuncts, satisfied
from energyql.pipeline.provenance import Mixture, Provenance
from energyql.pipeline.settings import DEFAULT_PURITY
from energyql.render.pictures import Cell
from energyql.sampling import Status
from energyql.vocabulary import AttributeSpec, Vocabulary

if TYPE_CHECKING:
    from energyql.pipeline.result import Result

MOST_QUERY = 300
"""Largest number of characters of a query in the alternative text of a picture (for readers who cannot see it)."""
HOLDS = {True: "holds", False: "does not hold", None: "is not judged"}
"""Verdicts on a query as words: "The query smile holds"."""
MARK = "doubtful"
"""Text beside a picture for which the predictions of the attribute heads may be wrong."""
MOST_GAP = 0.1
"""A summary proposes a remedy if the share of pictures that satisfy the query by the judge is smaller than expected by
more than this number. The expected share is P(query) by the heads, or the setting `purity`."""
MOST_PROMPTS = 8
"""Largest number of prompts whose shares a summary states."""
LEAST_SPREAD = 0.01
"""Numbers below pictures that differ by less are left out, because they say nothing about a single picture."""


def summary(result: Result) -> str:
    """Sentences about a result for people, of which those of `verdict` are first; no full stop at the end."""
    facts, statuses = result.provenance, result.status
    refused = statuses.count(Status.NOT_ACCEPTED)
    failed = len(result) - statuses.count(Status.OK) - refused
    parts = _verdict_parts(result)
    if "wanted" in facts:
        returned = round(result.statistics.get("returned", len(result)))
        whole = "" if returned == len(result) else f" for all {returned}"  # this is a part of them
        parts += [] if "verified" in facts else [f"{_drawn(result)}{whole}"]
        if len(result) < (wanted := facts["wanted"]) and not whole:
            budget = facts.get("budget")
            ended = "few satisfy the query" if budget is None else f"the budget of {budget} calls ended"
            parts.append(f"{wanted} were wanted, but {ended}")
    if marked := int(result.doubtful.sum()):
        parts.append(f"{marked} {'is' if marked == 1 else 'are'} doubtful: {DOUBT}")
    if mixture := facts.get("mixture"):
        parts.append(f"prompts in the shares {_describe_shares(facts['condition'], mixture)}")
    if doubts := (facts.get("words") or {}).get("doubts"):
        parts.append(f"of the reader of words: {doubts}")
    if reason := facts.get("unverified"):
        parts.append(f"no verifier decided, because {reason}")
    if refused:
        was = "was" if refused == 1 else "were"
        many = "in as many draws as attempts allows (--attempts; more labels of such pictures help)"
        parts.append(f"{refused} {was} not accepted {many}")
    if failed:
        parts.append(f"the solver could not finish {failed}")
    effective = round(result.statistics.get("effective_samples", len(result)))
    if _guide(facts) == "reader" and effective < len(result):
        more = "" if 2 * effective >= len(result) else "draw more for exact frequencies (-n): "
        parts.append(f"{more}they count as {effective} independent samples, by their weights")
    if result.audited:
        parts.append(f"audited: {result.audited}")
    return _sentences(parts)


def verdict_sentences(result: Result) -> str:
    """Sentences that say how many samples satisfy the query, and what decided it.

    - Judged only: "9 of 16 satisfy the query, says the image judge". If the attribute heads expected far more, their
      mean P(query) follows, and what helps.
    - Verified and judged: also the verifier and the number of drawn pictures. If held-out labels, or a trial, say that
      far fewer accepted pictures are right than wanted, the expected share follows, unless the judge is code, which is
      always right.
    - Verified only: how many samples the verifier accepted, the number of drawn pictures, and the same expected share.
    - Verified by code that returns values instead of probabilities: how many satisfy the query by this code, which
      counts as the definition of the attributes; no judge.
    - Neither: why they were not judged, and what the heads say: mean P(query), or mean energy, and their quality.
    """
    return _sentences(_verdict_parts(result))


def _verdict_parts(result: Result) -> list[str]:
    facts, count = result.provenance, len(result)
    verified = facts.get("verified")
    by = verified["by"] if verified else ""
    by = f"the {by}" if by in (VERIFIER, IMAGE_JUDGE) else by
    drawn = [_drawn(result)] if "drawn" in result.statistics else []
    kept = f"{count - result.status.count(Status.NOT_ACCEPTED)} of {count}"
    if verified and verified["stated"]:
        return [f"{kept} satisfy the query by the definition {verified['by']}", *drawn]
    if result.satisfied is not None:
        line = f"{result.satisfied.sum()} of {count} satisfy the query, says the {facts['judge']}"
        if not verified:
            return [line, *_expected(result)]
        parts = [f"{line}, accepted by {by}", *drawn]
        if estimate := _estimate(result):
            return [*parts, estimate]
        few = count > 0 and result.satisfied.mean() < _purity(facts) - MOST_GAP
        return [*parts, f"more labels improve {by}"] if few else parts
    if verified and drawn:
        return [f"{kept} accepted by {by}; no second reader checked them", *drawn, *filter(None, [_estimate(result)])]
    line, qualities = f"not judged: {facts['unjudged']}", _qualities(facts)
    if not count or not qualities:
        return [line]
    value = f"energy {result.energy.mean():.3g}" if result.probability is None else f"P {result.probability.mean():.2f}"
    by = "reader" if _guide(facts) == "reader" else "attribute heads"
    return [f"{line}; mean {value} by the {by} ({describe_qualities(qualities)})"]


def _sentences(parts: Sequence[str]) -> str:
    first, *others = parts
    return ". ".join([first, *(f"{part[:1].upper()}{part[1:]}" for part in others)])


def _drawn(result: Result) -> str:
    drawn = round(result.statistics["drawn"])
    return f"{drawn:,} picture{'s were' if drawn != 1 else ' was'} drawn"


def _estimate(result: Result) -> str:
    """Sentence: share of accepted pictures that is expected to be right; "" if high enough, or if code judged."""
    facts = result.provenance
    right = facts["verified"].get("threshold", {}).get("precision")
    known = result.satisfied is not None and facts["judge"] != IMAGE_JUDGE  # code, which is right by definition
    if right is None or known or right >= _purity(facts) - MOST_GAP:
        return ""
    return f"about {right:.0%} are truly right: label more pictures of `{shorten(facts['query'])}`".replace("%", " %")


def _expected(result: Result) -> list[str]:
    """What the heads expected, and what helps, if far fewer pictures satisfy the query."""
    if result.probability is None or not len(result) or result.satisfied is None:
        return []
    share, expected = float(result.satisfied.mean()), float(result.probability.mean())
    if share >= expected - MOST_GAP:
        return []
    facts, guide = result.provenance, _guide(result.provenance)
    by = "attribute heads" if guide == "heads" else guide
    sure = "" if "unverified" in facts else "--verify sure keeps only those, "
    helps = f"{sure}--only-satisfied draws until {len(result)} do; more labels improve the {guide}"
    return [f"the {by} expected {100 * expected:.0f} %: {helps}"]


def _guide(facts: Provenance) -> str:
    """What guided the sampler: "heads" on latents, or a "reader" of pictures."""
    return "reader" if "reader" in facts else "heads"


def _qualities(facts: Provenance) -> Mapping[str, str | None]:
    """Attribute -> quality of its head, or of the reader that guided the sampler in place of heads."""
    return facts["reader"] if "reader" in facts else facts.get("heads", {})


def _purity(facts: Provenance) -> float:
    """Wanted share of right pictures among those that a verifier accepts, from 0 to 1."""
    return float(facts.get("purity", DEFAULT_PURITY))


def _describe_shares(prompts: Sequence[str], mixture: Mixture) -> str:
    """The largest shares of prompts in one line, as in `60% ± 2% "a house", 40% ± 2% "a hill"`."""
    parts = sorted(zip(mixture["shares"], mixture["errors"], prompts, strict=True), key=lambda part: -part[0])
    texts = [f'{share:.0%} ± {error:.0%} "{shorten(" ".join(prompt.split()))}"' for share, error, prompt in parts]
    return ", ".join(texts[:MOST_PROMPTS]) + (f" and {more} others" if (more := len(texts) - MOST_PROMPTS) > 0 else "")


def describe_qualities(qualities: Mapping[str, str | None]) -> str:
    """Qualities of heads or of a reader as text, such as "smile: R2 0.80 (0.70 to 0.90), hat: ..."."""
    return ", ".join(f"{name}: {quality or 'quality not measured'}" for name, quality in qualities.items())


def origin(facts: Provenance) -> str:
    """How the pictures were made: "Model tiny, seed 7, exact semantics"."""
    condition = "" if facts.get("condition") is None else f", condition {facts['condition']}"
    return f"Model {facts['model']}{condition}, seed {facts['seed']}, {facts['semantics']} semantics"


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """Values that the judge read off a picture, as a text such as "smile, hair = red; no hat".

    Args:
        judged: attribute -> the judge's value for each of n pictures, (n,).
        index: position of the picture.
        only: names of the attributes to include, by default all.
    """
    present: list[str] = []
    absent: list[str] = []
    for name in judged if only is None else [name for name in only if name in judged]:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (present if value else absent).append(name if value else f"no {name}")
        else:
            present.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    return "; ".join(", ".join(part) for part in (present, absent) if part)


def alternative_text(
    result: Result, index: int, verdicts: Sequence[tuple[str, bool | None]], doubtful: bool, count: int | None = None
) -> str:
    """A text for readers who cannot see a picture: "Picture 1 of 16. Image judge: smile. The query ...".

    Args:
        index: position of the picture in the result, counted from 0.
        verdicts: pairs of the text of a query and whether the picture satisfies it; `None` if that is unknown.
        doubtful: whether the text warns that the attribute heads may be wrong about the picture.
        count: number of all pictures, for "of 16"; by default the number of samples of the result.
    """
    judge = result.provenance["judge"] or ""
    read = f"{judge[:1].upper()}{judge[1:]}: {reading(result.judged, index)}. " if judge and result.judged else ""
    texts = [(f"{query[:MOST_QUERY]}…" if len(query) > MOST_QUERY else query, holds) for query, holds in verdicts]
    answers = " ".join(f"The query {query} {HOLDS[holds]}." for query, holds in texts)
    doubt = f" It is doubtful: {DOUBT}." if doubtful else ""
    return f"Picture {index + 1} of {count or len(result)}. {read}{answers}{doubt}"


def captions(result: Result) -> list[str]:
    """P(query) of each picture, "P 0.950", without one its energy, "E 0.051"; "" for all if they hardly differ."""
    letter, values = ("E", result.energy) if result.probability is None else ("P", result.probability)
    if len(values) > 1 and np.isfinite(values).all() and np.ptp(values) < LEAST_SPREAD:
        return [""] * len(values)
    return [f"{letter} {value:.3f}" for value in values]


def cells(result: Result) -> list[Cell]:
    """The pictures with what stands below each: number, tick or cross, doubt, and why there is a cross."""
    verdicts = [None] * len(result) if result.satisfied is None else result.satisfied.tolist()
    rows = zip(result.images, captions(result), verdicts, result.doubtful, failures(result), strict=True)
    by = f"says the {result.provenance['judge']}"
    return [
        Cell(picture, caption, holds, MARK if doubtful else "", ", ".join([f"no: {failed}", by]) if failed else "")
        for picture, caption, holds, doubtful, failed in rows
    ]


def failures(result: Result) -> list[str]:
    """For each picture the parts of the query that fail by the judge, as "glasses, NOT hat"; "" if it holds."""
    if result.satisfied is None or result.satisfied.all():
        return [""] * len(result)
    whole = result.provenance.get("canonical") or result.provenance["query"]
    truths = _truths(whole, result) or {whole: result.satisfied}
    if not np.array_equal(np.all(list(truths.values()), axis=0), result.satisfied):
        truths = {whole: result.satisfied}  # the values do not say by which part
    names = {text: shorten(text) for text in truths}
    return [", ".join(names[text] for text, truth in truths.items() if not truth[i]) for i in range(len(result))]


def _truths(query: str, result: Result) -> dict[str, npt.NDArray[np.bool_]]:
    """Part of the query -> whether it holds by the judge's values, (n,); {} if these alone do not tell."""
    vocabulary = Vocabulary([_spec(name, table) for name, table in result.probabilities.items()])
    try:
        bound = bind(parse(query), vocabulary)
    except EnergyQLError:
        return {}
    nodes = list(predicates(bound))
    if any(node.name not in result.judged or (isinstance(node, Near) and str(node) not in query) for node in nodes):
        return {}  # a tolerance that the query does not state is the model's
    shape = (len(result),)
    return {
        str(part): np.broadcast_to(satisfied(part, result.judged, vocabulary), shape)
        for part in map(_unweighted, conjuncts(bound))
    }


def _spec(name: str, table: Table) -> AttributeSpec:
    """The attribute of a table of predictions."""
    if isinstance(table, dict):
        return AttributeSpec(name, "categorical", tuple(table))
    return AttributeSpec(name, "continuous" if isinstance(table, tuple) else "yes/no")


def _unweighted(expr: Expr) -> Expr:
    """A part of a query without the weights at its root, which do not change whether it is true."""
    while isinstance(expr, Weight):
        expr = expr.operand
    return expr
