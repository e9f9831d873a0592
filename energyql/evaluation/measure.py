"""One contender on one query: what it drew, held against the oracle, and what that cost."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor

from energyql.evaluation.accuracy import conditional_accuracy
from energyql.evaluation.contenders import Contender
from energyql.evaluation.diversity import diversity
from energyql.evaluation.frechet import Gaussian, frechet_distance, frechet_floor
from energyql.evaluation.frequencies import Cells, frequency_error
from energyql.evaluation.oracle import Oracle
from energyql.evaluation.subject import Seen, Subject
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.progress import Report
from energyql.sampling import SampleResult

MOST_NEIGHBOURS = 1000
"""Samples among which distances are measured; their number grows with the square."""
LEAST_ORACLE = 30.0
"""Equally weighted samples that an oracle must be worth to be compared with."""


@dataclass(frozen=True, eq=False)
class Ground:
    """What samples of one query are held against.

    Attributes:
        query: bound.
        cells: what is counted.
        oracle: exact samples of the query.
        prior: exact samples of the prior.
    """

    query: Expr
    cells: Cells
    oracle: Oracle
    prior: Seen


def measure(
    contender: Contender, subject: Subject, ground: Ground, n: int, seed: int, report: Report, *, shown: int = 0
) -> tuple[dict[str, Any], Seen]:
    """Sample and compare.

    Args:
        contender: who samples.
        subject: the model.
        ground: what to compare with.
        n: samples. Those that the sampler could not finish count like all others.
        seed: of the run.
        report: called with the stages "sampling" and "judging".
        shown: pictures to keep.

    Returns:
        Numbers, plain enough for JSON (see `describe` for those about the samples, and `costs`), and what was seen.
    """
    energy = contender.energy(subject, ground.query)
    started = time.perf_counter()
    sampled = contender.sample(energy, subject, n, seed, report)
    seconds = time.perf_counter() - started
    seen = subject.look(sampled.z, report, shown=shown)
    heads = satisfied(ground.query, subject.read_heads(sampled.z), subject.vocabulary)
    found = {
        "sampler": repr(contender.sampler),
        "semantics": contender.semantics,
        **describe(seen, subject, ground),
        "heads": float(heads.mean()),
        **costs(sampled, seconds),
    }
    return found, seen


def describe(seen: Seen, subject: Subject, ground: Ground) -> dict[str, Any]:
    """What is true of samples of a query.

    Returns:
        - `satisfied`: share that satisfies the query by the judge, and `satisfied_error`, its standard error;
        - `accuracy`: see `conditional_accuracy`;
        - `frequency_error`: see `FrequencyError`; `cell` is its name;
        - `diversity`: see `Diversity`, for each of z, w and the features;
        - `frechet`: `distance` on the features to the oracle's pictures, the `floor` that exact samples would show, and
          the distance `to_prior`: to pictures that nothing was asked of.

        What cannot be measured, because there are no features or the oracle is too small, is `None`.
    """
    oracle, vocabulary = ground.oracle, subject.vocabulary
    share = float(satisfied(ground.query, seen.values, vocabulary).mean())
    found: dict[str, Any] = {
        "satisfied": share,
        "satisfied_error": math.sqrt(share * (1 - share) / len(seen)),
        "accuracy": conditional_accuracy(ground.query, seen.values, vocabulary),
        "frequency_error": None,
        "diversity": None,
        "frechet": None,
    }
    if oracle.size < LEAST_ORACLE:
        return found
    counted = ground.cells.indicators
    error = frequency_error(counted(seen.values), counted(oracle.seen.values), oracle.weights)
    found["frequency_error"] = asdict(error) | {"cell": ground.cells.names[error.cell]}
    exact = oracle.draws(min(len(seen), MOST_NEIGHBOURS))
    found["diversity"] = {name: asdict(diversity(ours, theirs)) for name, ours, theirs in _pairs(seen, exact)}
    if seen.features is not None and oracle.seen.features is not None and ground.prior.features is not None:
        ours = Gaussian.of(seen.features)
        found["frechet"] = {
            "distance": frechet_distance(ours, Gaussian.of(oracle.seen.features, oracle.weights)),
            "floor": frechet_floor(oracle.seen.features, oracle.weights, len(seen)),
            "to_prior": frechet_distance(ours, Gaussian.of(ground.prior.features)),
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
