"""Checks for a query: whether heads are good enough, and whether pictures satisfy it by the model's judge."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.quality import WEAK_HELP, HeadReport
from energyql.errors import ModelError, WeakHeadError, either
from energyql.language import Expr, predicates
from energyql.logic.satisfiability import satisfied
from energyql.sampling import Status
from energyql.vocabulary import AttributeSpec

if TYPE_CHECKING:
    from energyql.pipeline.result import Result

LEAST_RATE = 0.05
"""Least share of satisfying samples that `next_round` expects, so that no round is very large."""


def weak_heads(
    attributes: Iterable[str], reports: Mapping[str, HeadReport], allowed: Collection[str]
) -> dict[str, HeadReport]:
    """Map each of `attributes` with a weak head to the head's report, unless it is in `allowed` or has no report."""
    reported = {name: reports[name] for name in attributes if name in reports and name not in allowed}
    return {name: report for name, report in reported.items() if report.weak}


def check_heads(
    expr: Expr,
    weak: Mapping[str, HeadReport],
    query: str,
    reads: Collection[str] | None = None,
    guide: str = "head",
) -> None:
    """Raise if a query depends on an attribute with a weak head that the user does not allow.

    With a verifier this is not called for heads: a weak head then only costs more draws. It also checks a reader of
    texts.

    Args:
        expr: the query, with attributes checked by `bind`.
        weak: the quality of the heads in question, from `weak_heads`.
        query: text of the query, for the error.
        reads: attributes that the verifier, or the judge, reads, for the hint to verify; `None` if the run cannot be
            verified.
        guide: word in the error for what predicts the attributes: "head", or "reader".

    Raises:
        WeakHeadError: a weak head is not allowed.
    """
    if not weak:
        return
    verified = either('verify="sure"', "--verify sure")
    look = either("load_model(..., judge=look)", "--judge module:function")
    sure = f"let a reader of the pictures decide: {verified}; "
    if why_unjudged(expr, reads):
        sure = "" if reads is None else f"if a function defines it, give it: {look}; "
    names, report = list(weak), next(iter(weak.values()))
    allowing = either(f"allow_weak={names}", f"--allow-weak {','.join(names)}")
    others = f" (and {', '.join(map(repr, names[1:]))})" if len(names) > 1 else ""
    raise WeakHeadError(
        f"the {guide} of {names[0]!r}{others} is too weak for queries: {report.weak}",
        query=query,
        spans=[node.span for node in predicates(expr) if node.name in weak and node.span is not None],
        hint=f"{sure}it was fitted to {report.fitted:,} labels and measured on {report.held_out:,} others. What helps: "
        f"{WEAK_HELP}; or allow it by name: {allowing}",
    )


def satisfied_by_judge(
    expr: Expr, judged: Mapping[str, npt.NDArray[Any]] | None, vocabulary: Mapping[str, AttributeSpec]
) -> npt.NDArray[np.bool_] | None:
    """Return whether each picture satisfies a query by the judge's values, (n,); `None` if they cannot tell.

    Heads are not asked: the sampler followed them, so they agree with the query even where they are wrong.
    """
    if judged is None or why_unjudged(expr, judged):
        return None
    return satisfied(expr, judged, vocabulary)


def why_unjudged(
    expr: Expr, judged: Collection[str] | None, further: Sequence[str] = (), reader: str = "the judge"
) -> str | None:
    """Return why a judge or verifier cannot decide a query, such as "the judge does not read 'hat'"; `None` if it can.

    Args:
        judged: attributes that it reads; `None` without a judge.
        further: attributes that must be read too, because of relations of the model.
        reader: words for the judge or verifier.
    """
    if judged is None:
        return "the model has no judge"
    names = [node.name for node in predicates(expr)]
    if not names:
        return "the query names no attribute"
    unread = [name for name in (*names, *further) if name not in judged]
    return f"{reader} does not read {unread[0]!r}" if unread else None


def next_round(target: int, hits: int, trials: int) -> int:
    """Return how many samples to draw next, so that probably `target` in all satisfy the query.

    Their share is estimated from the samples so far: 1 before the first one, and never below `LEAST_RATE`.
    """
    rate = max(LEAST_RATE, hits / trials) if trials else 1.0
    return math.ceil((target - hits) / rate)


def satisfying_positions(result: Result, most: int) -> npt.NDArray[np.int64]:
    """Return the positions of the first `most` samples that satisfy the query and were not refused by a verifier.

    Raises:
        ModelError: the result has no verdicts of a judge.
    """
    if result.satisfied is None:  # a function showed only now what it reads
        raise cannot_count(str(result.provenance["unjudged"]))
    refused = np.array([status == Status.NOT_ACCEPTED for status in result.status], bool)
    return np.flatnonzero(result.satisfied & ~refused)[:most]


def cannot_count(reason: str) -> ModelError:
    """Error to raise when satisfying samples must be counted but nothing judged them; `reason` says why."""
    return ModelError(
        f"samples that satisfy the query cannot be counted: {reason}",
        hint="give the model a judge that reads its attributes, or draw a fixed number of samples",
    )
