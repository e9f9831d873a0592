"""One contender on one query: what it drew, held against the oracle, and what that cost."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from torch import Tensor

from energyql.bench.contenders import Contender
from energyql.bench.oracle import Oracle
from energyql.bench.subject import Seen, Subject
from energyql.evaluation.diversity import diversity
from energyql.evaluation.frechet import Gaussian, frechet_distance, frechet_floor
from energyql.evaluation.frequencies import Cells, frequency_error
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.progress import Report
from energyql.sampling import SampleResult

MOST_NEIGHBOURS = 1000
"""Samples among which distances are measured; their number grows with the square."""
LEAST_ORACLE = 30.0
"""Equally weighted samples that an oracle must be worth to be compared with."""


def measure(
    contender: Contender, subject: Subject, query: Expr, cells: Cells, oracle: Oracle, n: int, seed: int, report: Report
) -> dict[str, Any]:
    """Sample and compare.

    Args:
        contender: who samples.
        subject: the model.
        query: bound.
        cells: what is counted.
        oracle: of the query.
        n: samples. Those that the sampler could not finish count like all others.
        seed: of the run.
        report: called with the stages "sampling" and "judging".

    Returns:
        A dict, plain enough for JSON: see `describe` for the parts about the samples, and `costs`.
    """
    energy = contender.energy(subject, query)
    started = time.perf_counter()
    sampled = contender.sample(energy, subject, n, seed, report)
    seconds = time.perf_counter() - started
    seen = subject.look(sampled.z, report)
    heads = satisfied(query, subject.read_heads(sampled.z), subject.vocabulary)
    return {
        "sampler": repr(contender.sampler),
        "semantics": contender.semantics,
        **describe(seen, subject, query, cells, oracle),
        "heads": float(heads.mean()),
        **costs(sampled, seconds),
    }


def describe(seen: Seen, subject: Subject, query: Expr, cells: Cells, oracle: Oracle) -> dict[str, Any]:
    """What is true of samples of a query.

    Returns:
        - `satisfied`: share that satisfies the query by the judge, and `satisfied_error`, its standard error;
        - `frequency_error`: see `FrequencyError`; `cell` is its name;
        - `diversity`: see `Diversity`, for each of z, w and the judge's features;
        - `frechet`: `distance` on the judge's features to the oracle's pictures, and the `floor` that exact samples
          would show.

        What cannot be measured, because the judge has no features or the oracle is too small, is `None`.
    """
    share = float(satisfied(query, seen.values, subject.vocabulary).mean())
    found: dict[str, Any] = {
        "satisfied": share,
        "satisfied_error": math.sqrt(share * (1 - share) / len(seen)),
        "frequency_error": None,
        "diversity": None,
        "frechet": None,
    }
    if oracle.size < LEAST_ORACLE:
        return found
    error = frequency_error(cells.indicators(seen.values), cells.indicators(oracle.seen.values), oracle.weights)
    found["frequency_error"] = asdict(error) | {"cell": cells.names[error.cell]}
    exact = oracle.draws(min(len(seen), MOST_NEIGHBOURS))
    found["diversity"] = {
        name: asdict(diversity(ours, theirs)) for name, ours, theirs in _pairs(seen, exact) if len(ours) > 1
    } or None
    if seen.features is not None and oracle.seen.features is not None and len(seen) > 1:
        target = Gaussian.of(oracle.seen.features, oracle.weights)
        found["frechet"] = {
            "distance": frechet_distance(Gaussian.of(seen.features), target),
            "floor": frechet_floor(oracle.seen.features, oracle.weights, len(seen)),
        }
    return found


def _pairs(seen: Seen, exact: Seen) -> list[tuple[str, Tensor, Tensor]]:
    pairs = [("z", seen.z, exact.z), ("w", seen.w, exact.w)]
    if seen.features is not None and exact.features is not None:
        pairs.append(("features", seen.features, exact.features))
    return pairs


def costs(sampled: SampleResult, seconds: float) -> dict[str, Any]:
    """What samples cost.

    Returns:
        `evaluations` of the energy and `gradients` among them, a sample, mean; `work`, their sum, in which an
        evaluation with its gradient counts 2; `seconds` of sampling, pictures not included; `failures`, samples that
        the sampler could not finish, and how all ended, `statuses`.
    """
    evaluations = float(np.mean(sampled.evaluations.numpy()))
    gradients = float(np.mean(sampled.gradients.numpy()))
    return {
        "evaluations": evaluations,
        "gradients": gradients,
        "work": evaluations + gradients,
        "seconds": seconds,
        "failures": int((~sampled.ok).sum()),
        "statuses": {status.name: count for status, count in sampled.counts().items()},
    }
