"""Checks of the parts of a model that a query needs: the quality of its heads, and a judge that does not guide."""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from energyql.attributes.bank import Bank
from energyql.attributes.judge import JointJudge, Judge
from energyql.attributes.quality import HeadReport
from energyql.energy.picture_energy import NO_GRADIENT, WITHOUT_GRADIENT
from energyql.errors import ArgumentError, ModelError, WeakHeadError, misfit
from energyql.generators.base import Generator, check_fitted_label, check_generator, latent_size
from energyql.language import Expr, predicates
from energyql.logic.truth import satisfied
from energyql.pipeline.result import Result
from energyql.sampling import SAMPLERS, Sampler
from energyql.sampling.base import has_trait
from energyql.sampling.registry import describe_sampler, sampler_words
from energyql.vocabulary import AttributeSpec, closest

LEAST_RATE = 0.05
"""Lower bound of the estimated share of satisfied samples, from which the size of the next round is computed."""
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
        attributes: names of all attributes that its energy reads, those of relations included.
        reports: quality of the heads by attribute; a head without a report passes.
        allowed: names of weak heads that may be used.
        query: its text, for carets.

    Raises:
        WeakHeadError: it needs a weak head; the message has the quality.
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
    """Check that the names of heads that are allowed to be weak are attributes.

    Raises:
        ArgumentError: the model has no such attribute.
    """
    for name in names:
        if name not in vocabulary:
            guess = closest(name, vocabulary)
            raise ArgumentError(
                f"{name!r} is to be allowed although it is weak, and the model has no such attribute",
                hint=f"did you mean {guess}?" if guess else f"attributes: {', '.join(vocabulary)}",
            )


def verdict(
    expr: Expr, judged: Mapping[str, npt.NDArray[Any]] | None, vocabulary: Mapping[str, AttributeSpec]
) -> tuple[npt.NDArray[np.bool_], None] | tuple[None, str]:
    """Return whether each picture satisfies a bound query by the judge, (n,), and `None`; or `None` and why not judged.

    Heads never judge: the sampler followed them, so their verdict is positive also where they are wrong.

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


def next_round(wanted: int, hits: int, trials: int) -> int:
    """Return the number of samples to draw next for `wanted` accepted ones; so far `hits` of `trials` were accepted."""
    rate = max(LEAST_RATE, hits / trials) if trials else 1.0
    return math.ceil((wanted - hits) / rate)


def accepted(result: Result, most: int) -> npt.NDArray[np.int64]:
    """Return the rows of the first samples, at most `most`, that satisfy the query according to the judge.

    Raises:
        ModelError: the samples have no verdict.
    """
    if result.satisfied is None:  # a function showed only now what it reads
        raise cannot_count(result.provenance["unjudged"])
    return np.flatnonzero(result.satisfied)[:most]


def cannot_count(reason: str) -> ModelError:
    """Return the error of a run that needs verdicts and gets none, for this reason."""
    return ModelError(
        f"samples that satisfy the query cannot be counted: {reason}",
        hint="give the model a judge that reads its attributes, or draw a fixed number of samples",
    )


def check_fitted_to(folder: Path, bank: Bank, generator: Generator, mark: str) -> None:
    """Check that the attributes of a model folder were learned from its generator, which has the fingerprint `mark`.

    Raises:
        ModelError: they were learned from another.
    """
    hint = "train the attributes again, or use the generator that they were fitted to"
    if not bank.fitted.is_of(mark):
        raise ModelError(f"{folder}: the attributes were fitted to another generator", hint=hint)
    try:
        if bank.label is not None:
            check_fitted_label(bank.label, generator)
        size = None if bank.latent_dim is None else latent_size(generator, bank.space)
    except ArgumentError as error:
        raise ModelError(f"{folder}: {error.message}", hint=hint) from None
    if size not in (None, bank.latent_dim):
        raise ModelError(f"{folder}: heads read {bank.latent_dim} numbers but {bank.space} has {size}", hint=hint)


def check_parts(name: str, generator: object, bank: object, judge: object) -> None:
    """Check the types of the parts of a model called `name`, and that its judge is independent.

    Raises:
        ArgumentError: a part has the wrong type.
        ModelError: the judge is the reader that guides the sampler.
    """
    check_generator(generator, f"the generator of model {name!r}")
    if not isinstance(bank, Bank):
        raise ArgumentError(
            f"the bank of model {name!r} is a {type(bank).__name__}, not heads of attributes",
            hint="an AttributeBank or a PictureBank, such as train_attributes returns as bank",
        )
    fits = judge is None or isinstance(judge, torch.nn.Module)
    if not fits and (not callable(judge) or isinstance(judge, type) or misfit(judge, None)):
        raise ArgumentError(
            f"the judge of model {name!r} is {judge!r}, which cannot be called with pictures",
            hint="give a judge, a function of pictures (n, channels, height, width), or None",
        )
    if judge is not None and is_same(bank.reader, judge):
        raise ModelError(
            f"the judge of model {name!r} is the reader that guides the sampler, so it could never object",
            hint="give it another network as judge=, trained with another seed (energyql train-judge), or None",
        )


def check_gradient(bank: Bank, sampler: object) -> None:
    """Check that the attributes have a gradient, if the sampler needs it.

    Raises:
        ArgumentError: the attributes are read off pictures by a function without a gradient.
    """
    if not bank.gradient and has_trait(sampler, "needs_gradient"):
        raise ArgumentError(f"this sampler follows a gradient, and {NO_GRADIENT}", hint=WITHOUT_GRADIENT)


def check_realism(realism: float, sampler: Sampler, discriminator: object, model: str) -> None:
    """Check that pictures can be drawn with a `realism`.

    Raises:
        ArgumentError: the model of that name has no discriminator, or the sampler only descends.
    """
    if realism and not callable(discriminator):
        raise ArgumentError(
            f"realism needs a discriminator, and model {model!r} has none that can be called",
            hint="give it a torch module from pictures to logits: dataclasses.replace(model, discriminator=module)",
        )
    if realism and has_trait(sampler, "descends"):
        drawing = ", ".join(name for name, make in SAMPLERS.items() if not has_trait(make(), "descends"))
        raise ArgumentError(
            f"{sampler_words(describe_sampler(sampler))} goes where the energy is lowest: with realism, to pictures "
            "that deceive the discriminator",
            hint=f"choose one that draws from the posterior: {drawing}",
        )


def is_same(one: object, other: object) -> bool:
    """Return whether two readers of pictures are the same object, or networks with shared or equal weights."""
    mine, theirs = list(_parts(one)), list(_parts(other))
    if any(a is b or (callable(a) and (a == b) is True) for a in mine for b in theirs):
        return True
    networks = [(a, b) for a in mine for b in theirs if isinstance(a, nn.Module) and isinstance(b, nn.Module)]
    return any(_alike(a, b) for a, b in networks)


def _parts(reader: Any) -> Iterator[Any]:
    """Yield a reader, the judges of a `JointJudge`, and the object or function of a method or a partial function."""
    yield reader
    if isinstance(reader, JointJudge):
        yield from reader.judges
    inner = reader.func if isinstance(reader, functools.partial) else getattr(reader, "__self__", None)
    if inner is not None and not isinstance(reader, nn.Module):
        yield from _parts(inner)


def _alike(one: nn.Module, other: nn.Module) -> bool:
    if {id(parameter) for parameter in one.parameters()} & {id(parameter) for parameter in other.parameters()}:
        return True
    if isinstance(one, Judge) and isinstance(other, Judge):  # their last layers may be of other attributes
        one, other = one.levels, other.levels
    mine, theirs = one.state_dict(), other.state_dict()
    return (
        bool(mine)
        and mine.keys() == theirs.keys()
        and all(
            mine[name].shape == theirs[name].shape and torch.equal(mine[name].cpu(), theirs[name].cpu())
            for name in mine
        )
    )
