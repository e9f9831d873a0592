"""What a query relies on: heads whose quality was measured, and a judge that took no part in guiding."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, WeakHeadError
from energyql.language import Expr, predicates
from energyql.logic.truth import satisfied
from energyql.vocabulary import AttributeSpec, closest

NO_JUDGE = "the model has no judge"


def check_heads(
    expr: Expr,
    attributes: Iterable[str],
    reports: Mapping[str, HeadReport],
    allowed: Collection[str] = (),
    *,
    query: str | None = None,
) -> None:
    """Check that a query relies on no weak head but those allowed.

    Args:
        expr: the bound query.
        attributes: all that its energy reads, those of relations included.
        reports: by attribute; a head without a report passes, because nothing is known of it.
        allowed: names of weak heads that may be used.
        query: its text, for carets.

    Raises:
        WeakHeadError: it does; the message has the numbers.
    """
    weak = {
        name: report for name in attributes if name not in allowed and (report := reports.get(name)) and report.weak
    }
    if not weak:
        return
    name, report = next(iter(weak.items()))
    others = f" (and {', '.join(map(repr, list(weak)[1:]))})" if len(weak) > 1 else ""
    raise WeakHeadError(
        f"the head of {name!r}{others} is too weak for queries: {report.weak}",
        query=query,
        spans=[node.span for node in predicates(expr) if node.name in weak and node.span is not None],
        hint=f"it was fitted to {report.fitted:,} labels and measured on {report.held_out:,} others: train it on more, "
        f"or allow it by name: allow_weak={list(weak)}, or --allow-weak {','.join(weak)}",
    )


def check_allowed(names: Iterable[str], vocabulary: Collection[str]) -> None:
    """Check that weak heads that are allowed by name exist.

    Raises:
        ArgumentError: the model has no such attribute.
    """
    for name in names:
        if name not in vocabulary:
            guess = closest(name, vocabulary)
            raise ArgumentError(
                f"allow_weak names {name!r}, which is no attribute of the model",
                hint=f"did you mean {guess}?" if guess else f"attributes: {', '.join(vocabulary)}",
            )


def verdict(
    expr: Expr, judged: Mapping[str, npt.NDArray[Any]] | None, vocabulary: Mapping[str, AttributeSpec]
) -> tuple[npt.NDArray[np.bool_], None] | tuple[None, str]:
    """Return whether each picture satisfies a bound query according to the judge, (n,); or `None` and why not judged.

    Heads never judge: they guided the sampler, so they agree with themselves also where they are wrong.

    Args:
        expr: the bound query.
        judged: attribute -> the judge's values, (n,); `None` without a judge.
        vocabulary: the attributes of the model.
    """
    reason = unjudged(expr, judged)
    if reason is not None or judged is None:
        return None, reason or NO_JUDGE
    holds = satisfied(expr, judged, vocabulary)
    return np.broadcast_to(holds, (len(next(iter(judged.values()))),)).copy(), None


def unjudged(expr: Expr, judged: Collection[str] | None) -> str | None:
    """Return why pictures get no verdict on a bound query, or `None` if they get one.

    Args:
        expr: the bound query.
        judged: the attributes that the judge reads; `None` without a judge.
    """
    if judged is None:
        return NO_JUDGE
    names = [node.name for node in predicates(expr)]
    if not names:
        return "the query names no attribute"
    unread = [name for name in names if name not in judged]
    return f"the judge does not read {unread[0]!r}" if unread else None
