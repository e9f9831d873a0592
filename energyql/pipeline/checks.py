"""Checks for a query: whether the attribute heads are good enough, and whether pictures satisfy the query.

The judge decides whether a picture satisfies the query. It is a network or function that reads attributes off pictures,
and does not guide the sampler.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.quality import WEAK_HELP, HeadReport
from energyql.errors import ModelError, WeakHeadError
from energyql.language import Expr, predicates
from energyql.logic.satisfiability import satisfied
from energyql.sampling import Status
from energyql.vocabulary import AttributeSpec

if TYPE_CHECKING:
    from energyql.pipeline.result import Result

LEAST_RATE = 0.05
"""Lower bound of the share of samples that `next_round` expects to satisfy the query, so that no round is very large.
"""


def check_heads(
    expr: Expr,
    attributes: Iterable[str],
    reports: Mapping[str, HeadReport],
    allowed: Collection[str],
    query: str,
    reads: Collection[str] | None = None,
    guide: str = "head",
) -> None:
    """Check that a query depends on no attribute whose head is too weak, except those that the user allows.

    A head is the network that predicts an attribute from latents. A weak head ranks latents badly that it was not
    fitted to. For heads, this function is not called if the pictures are verified: a weak head then costs more draws,
    but the verifier finds most wrong pictures. The function also checks a reader of texts, in place of the heads.

    Args:
        expr: the query, with attributes checked by `bind`.
        attributes: names of all attributes on which the energy of the query depends. Relations of the model, such as
            "sunglasses IMPLIES glasses", may add attributes that the query does not name.
        reports: attribute -> quality of its head; a head without a report passes.
        allowed: names of attributes whose heads may be weak.
        query: text of the query, which the error shows with carets under the attributes with weak heads.
        reads: names of the attributes that the model's verifier, or its judge, can read off pictures. If they include
            all attributes of the query, the hint of the error advises to verify. `None` if the model has neither
            verifier nor judge, or if the run cannot be verified.
        guide: word in the error for what predicts the attributes: "head", or "reader".

    Raises:
        WeakHeadError: the query needs a weak head that is not allowed; the message says how good the head is.
    """
    weak = [name for name in attributes if name not in allowed and name in reports and reports[name].weak]
    if not weak:
        return
    sure = "" if unjudged(expr, reads) else 'let a reader of the pictures decide: verify="sure", or --verify sure; '
    report, others = reports[weak[0]], f" (and {', '.join(map(repr, weak[1:]))})" if len(weak) > 1 else ""
    raise WeakHeadError(
        f"the {guide} of {weak[0]!r}{others} is too weak for queries: {report.weak}",
        query=query,
        spans=[node.span for node in predicates(expr) if node.name in weak and node.span is not None],
        hint=f"{sure}it was fitted to {report.fitted:,} labels and measured on {report.held_out:,} others. What helps: "
        f"{WEAK_HELP}; or allow it by name: "
        f"allow_weak={weak}, or --allow-weak {','.join(weak)}",
    )


def verdict(
    expr: Expr, judged: Mapping[str, npt.NDArray[Any]] | None, vocabulary: Mapping[str, AttributeSpec]
) -> npt.NDArray[np.bool_] | None:
    """Return for each picture whether it satisfies a query by the judge's values, (n,); `None` if they cannot tell.

    The function `unjudged` says why they cannot.

    Predictions of heads are not used. The sampler followed the heads, so their predictions satisfy the query even where
    the predictions are wrong.

    Args:
        expr: the query, with attributes checked by `bind`.
        judged: attribute -> the judge's value for each picture, (n,); `None` without a judge.
        vocabulary: the attributes of the model.
    """
    if judged is None or unjudged(expr, judged):
        return None
    return satisfied(expr, judged, vocabulary)


def unjudged(
    expr: Expr, judged: Collection[str] | None, further: Sequence[str] = (), reader: str = "the judge"
) -> str | None:
    """Return why a judge or verifier cannot decide whether pictures satisfy a query; `None` if it can.

    Examples of reasons: "the model has no judge", "the judge does not read 'hat'".

    Args:
        expr: the query, with attributes checked by `bind`.
        judged: names of the attributes that the judge or verifier reads; `None` without a judge.
        further: attributes that must be read too, on which P(query) depends because of relations of the model.
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
    """Return how many samples to draw next, so that probably `target` samples in all satisfy the query.

    The share of samples that satisfy the query is estimated from the samples so far. The estimate is 1 before the first
    sample, and never below 0.05.

    Args:
        target: number of samples that are to satisfy the query.
        hits: number of samples that satisfy it so far.
        trials: number of samples drawn so far.
    """
    rate = max(LEAST_RATE, hits / trials) if trials else 1.0
    return math.ceil((target - hits) / rate)


def satisfying_positions(result: Result, most: int) -> npt.NDArray[np.int64]:
    """Return the positions, in a result, of the first `most` samples that satisfy the query by the judge.

    Samples of which a verifier accepted no picture are left out.

    Args:
        result: samples of a query.
        most: largest number of positions to return.

    Raises:
        ModelError: the result has no verdicts of a judge.
    """
    if result.satisfied is None:  # a function showed only now what it reads
        raise cannot_count(result.provenance["unjudged"])
    refused = np.array([status == Status.NOT_ACCEPTED for status in result.status], bool)
    return np.flatnonzero(result.satisfied & ~refused)[:most]


def cannot_count(reason: str) -> ModelError:
    """Return the error for a run that must count the samples that satisfy the query, but gets no verdicts of a judge.

    `reason` says why there are no verdicts, such as "the model has no judge".
    """
    return ModelError(
        f"samples that satisfy the query cannot be counted: {reason}",
        hint="give the model a judge that reads its attributes, or draw a fixed number of samples",
    )
