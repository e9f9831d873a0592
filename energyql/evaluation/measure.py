"""Measurements of one method on one query: a comparison of its samples with the oracle's, and their cost."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.methods import Method
from energyql.evaluation.metrics import (
    AttributeBins,
    Gaussian,
    conditional_accuracy,
    diversity,
    frechet_distance,
    frechet_floor,
    frequency_error,
)
from energyql.evaluation.reference import Oracle
from energyql.language import Expr
from energyql.progress import Report
from energyql.sampling import SampleResult
from energyql.sampling.registry import describe_sampler
from energyql.version import __version__

Numbers = Mapping[str, float | None]
"""Name of a measurement -> its value; `None` if it was not measured."""
Read = Callable[[dict[str, Any]], float | None]
"""A function from an outcome of `measure` to one of its numbers."""

MOST_NEIGHBOURS = 1000
"""Most samples of a set in which distances are measured; the number of distances grows with the square."""
LEAST_ORACLE = 30.0
"""Smallest effective number of samples of an oracle with which samples are compared."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Exact samples with which the samples of a query are compared.

    Attributes:
        query: the bound query.
        bins: bins of attribute values.
        oracle: exact samples of the query.
        prior: exact samples of the prior.
    """

    query: Expr
    bins: AttributeBins
    oracle: Oracle
    prior: JudgedSamples


def measure(
    method: Method,
    model: EvaluatedModel,
    reference: Reference,
    n: int,
    seed: int,
    report: Report,
    *,
    picture_count: int = 0,
) -> tuple[dict[str, Any], JudgedSamples]:
    """Draw n samples of a query by a method, and compare them with exact samples.

    Samples that the sampler could not finish count like all others. `report` is called with the stages "sampling" and
    "judging".

    Returns:
        - The outcome, fit for JSON: `sampler`, its description; `semantics`; the entries of `describe` and `costs`; and
          `heads`, the share of samples that satisfies the query by the attribute heads.
        - The samples, with the first `picture_count` pictures.
    """
    energy = method.energy(model, reference.query)
    started = time.perf_counter()
    sampled = method.sample(energy, model, n, seed, report)
    seconds = time.perf_counter() - started
    samples = model.judge(sampled.z, report, picture_count=picture_count)
    outcome = {
        "sampler": describe_sampler(method.sampler),
        "semantics": method.semantics,
        **describe(samples, model, reference),
        "heads": float(model.satisfied(reference.query, model.read_heads(sampled.z)).mean()),
        **costs(sampled, seconds),
    }
    return outcome, samples


def describe(samples: JudgedSamples, model: EvaluatedModel, reference: Reference) -> dict[str, Any]:
    """Return measurements of samples of a query, compared with exact samples.

    Returns:
        - `satisfied`: share that satisfies the query by the judge, and `satisfied_error`, its standard error;
        - `accuracy`: see `conditional_accuracy`;
        - `frequency_error`: `largest` and `floor`, see `frequency_error`, and `cell`, the name of the bin;
        - `diversity`: the result of `diversity` for each of z, w and the features; `diversity_floor`: the same for one
          half of the oracle compared with the other, which shows the differences of two sets of exact samples;
        - `frechet`: `distance` of the features to those of the oracle, its `floor` for equally many exact samples, and
          `to_prior`, the distance to the prior.

        An entry is `None` if the oracle is too small, or, for `frechet`, if there are no features.
    """
    oracle, prior = reference.oracle, reference.prior
    share = float(model.satisfied(reference.query, samples.values).mean())
    numbers: dict[str, Any] = {
        "satisfied": share,
        "satisfied_error": math.sqrt(share * (1 - share) / len(samples)),
        "accuracy": conditional_accuracy(reference.query, samples.values, model.vocabulary),
        "frequency_error": None,
        "diversity": None,
        "diversity_floor": None,
        "frechet": None,
    }
    if oracle.size < LEAST_ORACLE:
        return numbers
    indicators = reference.bins.indicators
    largest, worst, floor = frequency_error(
        indicators(samples.values), indicators(oracle.samples.values), oracle.weights
    )
    numbers["frequency_error"] = {"largest": largest, "cell": reference.bins.names[worst], "floor": floor}
    exact = oracle.draws(2 * MOST_NEIGHBOURS)
    half = len(exact) // 2
    numbers["diversity"] = _diversity(samples.select(range(min(len(samples), MOST_NEIGHBOURS))), exact)
    numbers["diversity_floor"] = _diversity(exact.select(range(half)), exact.select(range(half, 2 * half)))
    if samples.features is not None and oracle.samples.features is not None and prior.features is not None:
        ours = Gaussian.of(samples.features)
        numbers["frechet"] = {
            "distance": frechet_distance(ours, Gaussian.of(oracle.samples.features, oracle.weights)),
            "floor": frechet_floor(oracle.samples.features, oracle.weights, len(samples)),
            "to_prior": frechet_distance(ours, Gaussian.of(prior.features)),
        }
    return numbers


def _diversity(samples: JudgedSamples, exact: JudgedSamples) -> dict[str, dict[str, float]]:
    """Return the result of `diversity` for each of "z", "w" and, if both have them, "features"."""
    pairs = {"z": (samples.z, exact.z), "w": (samples.w, exact.w), "features": (samples.features, exact.features)}
    return {name: diversity(a, b) for name, (a, b) in pairs.items() if a is not None and b is not None}


def costs(sampled: SampleResult, seconds: float) -> dict[str, Any]:
    """Return the cost of samples, which took `seconds` without drawing pictures.

    Returns:
        - `evaluations`: evaluations of the energy, mean over samples;
        - `gradients`: how many of them were with a gradient;
        - `work`: the sum of both, so that an evaluation with a gradient counts 2;
        - `seconds`;
        - `failures`: number of samples that the sampler could not finish;
        - `statuses`: name of a status -> number of samples.
    """
    evaluations = sampled.evaluations.double().mean().item()
    gradients = sampled.gradients.double().mean().item()
    return {
        "evaluations": evaluations,
        "gradients": gradients,
        "work": evaluations + gradients,
        "seconds": seconds,
        "failures": int((~sampled.ok).sum()),
        "statuses": {status.name: count for status, count in sampled.counts().items()},
    }


def _part(group: str, key: str) -> Read:
    """Return the function that reads the number `key` of a group of an outcome, `None` if the group is missing."""
    return lambda outcome: None if outcome[group] is None else float(outcome[group][key])


def _over_spaces(key: str, extreme: Callable[[list[float]], float], group: str = "diversity") -> Read:
    """Return the function that reads the number `key` of each space (z, w, features) of a group: their `extreme`."""

    def read(outcome: dict[str, Any]) -> float | None:
        spaces = outcome[group]
        return extreme([float(space[key]) for space in spaces.values()]) if spaces else None

    return read


_MEASURES: dict[str, tuple[Read, Callable[[list[float]], float]]] = {
    "satisfied": (itemgetter("satisfied"), min),
    "heads": (itemgetter("heads"), min),
    "frequency_error": (_part("frequency_error", "largest"), max),
    "frequency_floor": (_part("frequency_error", "floor"), max),
    "pairwise": (_over_spaces("pairwise", min), min),
    "nearest": (_over_spaces("nearest", min), min),
    "duplicates": (_over_spaces("duplicates", max), max),
    "duplicates_floor": (_over_spaces("duplicates", max, "diversity_floor"), max),
    "frechet": (_part("frechet", "distance"), max),
    "frechet_floor": (_part("frechet", "floor"), max),
    "work": (itemgetter("work"), max),
    "seconds": (itemgetter("seconds"), max),
    "failures": (itemgetter("failures"), max),
}
"""Name of a number of a summary -> the function that reads it from an outcome of `measure`, and the one that returns
the worst of several values."""


def read_numbers(outcome: dict[str, Any]) -> Numbers:
    """Return the numbers of tables from an outcome of `measure`."""
    return {key: read(outcome) for key, (read, _) in _MEASURES.items()}


def summarize(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Numbers]]:
    """Return for each method `mean` and `worst` over queries of every number of tables.

    Args:
        records: a record for each query, with outcomes of `measure` in `samplers`.
        names: names of the methods.
    """
    summary: dict[str, dict[str, Numbers]] = {}
    for name in names:
        outcomes = [record["samplers"][name] for record in records if name in record["samplers"]]
        mean: dict[str, float | None] = {}
        worst: dict[str, float | None] = {}
        for key, (read, extreme) in _MEASURES.items():
            values = [value for outcome in outcomes if (value := read(outcome)) is not None]
            mean[key], worst[key] = average(values), extreme(values) if values else None
        summary[name] = {"mean": mean, "worst": worst}
    return summary


def average(values: Sequence[float]) -> float | None:
    """Return the mean; `None` if there are no values."""
    return sum(values) / len(values) if values else None


def machine() -> dict[str, Any]:
    """Return facts about this computer, for reports: processor, system, versions, number of threads, GPU."""
    try:  # platform.processor() is empty or a mere "x86_64" on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    processor = f"{names[0]}, {len(names)} logical cores" if names else platform.processor() or platform.machine()
    return {
        "processor": processor,
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "energyql": __version__,
    }
