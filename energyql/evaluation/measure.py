"""Measurements of one method on one query: its samples compared with exact samples, and its costs.

A method is a sampler with a semantics. The *oracle* of a query is a set of exact samples.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from energyql import __version__
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

Numbers = dict[str, Any]
"""Name of a measurement -> its value; `None` if the measurement was not made."""

MOST_NEIGHBOURS = 1000
"""Most samples between which distances are measured; their number grows with its square."""
LEAST_ORACLE = 30.0
"""Least effective number of exact samples for a comparison with them."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A bound query, and what the samples of methods are compared with."""

    query: Expr
    bins: AttributeBins
    oracle: Oracle
    prior: JudgedSamples


def measure(
    method: Method, model: EvaluatedModel, reference: Reference, n: int, seed: int, report: Report
) -> tuple[dict[str, Any], JudgedSamples]:
    """Draw n samples of a query by a method, and compare them with exact samples.

    Samples that the sampler could not finish count like all others.

    Returns:
        The outcome as JSON values, and the judged samples. The outcome has the entries of `describe` and `costs`, and
        `sampler`, name and settings of the sampler; `semantics`, its name; `heads`, the share of samples that satisfy
        the query by the heads.
    """
    energy = method.energy(model, reference.query)
    started = time.perf_counter()
    sampled = method.sample(energy, model, n, seed, report)
    seconds = time.perf_counter() - started
    samples = model.judge(sampled.z, report)
    heads = float(model.satisfied(reference.query, model.read_heads(sampled.z)).mean())
    named = {"sampler": describe_sampler(method.sampler), "semantics": method.semantics}
    return named | describe(samples, model, reference) | {"heads": heads} | costs(sampled, seconds), samples


def describe(samples: JudgedSamples, model: EvaluatedModel, reference: Reference) -> dict[str, Any]:
    """Measure samples of a query, at least 2, against its exact samples.

    Returns:
        - `satisfied`: share of samples that satisfy the query by the judge, with standard error `satisfied_error`;
        - `accuracy`: condition of the query -> share of samples that satisfy it (see `conditional_accuracy`); `None` if
          the query is no conjunction of conditions;
        - `frequency_error`: a dict with `largest`, the largest difference of the frequency of an attribute value
          between samples and exact samples; `cell`, the name of this value, such as "hair = black"; and `floor`, the
          mean of `largest` if the samples were exact too, by chance alone;
        - `diversity`: "z", "w" or "features" -> result of `diversity`, distances relative to those of exact samples;
        - `diversity_floor`: the same for one half of the exact samples relative to the other half;
        - `frechet`: a dict with `distance`, the Fréchet distance of the features from those of exact samples; `floor`,
          the distance of as many exact samples; and `to_prior`, the distance of the samples from the prior.

        The last four are `None` if the effective number of exact samples is below `LEAST_ORACLE`; `frechet` also
        without features.
    """
    oracle, prior = reference.oracle, reference.prior
    share = float(model.satisfied(reference.query, samples.values).mean())
    numbers: dict[str, Any] = {"satisfied": share, "satisfied_error": math.sqrt(share * (1 - share) / len(samples))}
    numbers["accuracy"] = conditional_accuracy(reference.query, samples.values, model.vocabulary)
    numbers |= dict.fromkeys(("frequency_error", "diversity", "diversity_floor", "frechet"))
    if oracle.size < LEAST_ORACLE:
        return numbers
    sampled, exact = (reference.bins.indicators(one.values) for one in (samples, oracle.samples))
    largest, worst, floor = frequency_error(sampled, exact, oracle.weights)
    numbers["frequency_error"] = {"largest": largest, "cell": reference.bins.names[worst], "floor": floor}
    draws = oracle.draws(2 * MOST_NEIGHBOURS)
    half = len(draws) // 2
    numbers["diversity"] = _diversity(samples.select(range(min(len(samples), MOST_NEIGHBOURS))), draws)
    numbers["diversity_floor"] = _diversity(draws.select(range(half)), draws.select(range(half, 2 * half)))
    if samples.features is not None and oracle.samples.features is not None and prior.features is not None:
        ours = Gaussian.of(samples.features)
        numbers["frechet"] = {
            "distance": frechet_distance(ours, Gaussian.of(oracle.samples.features, oracle.weights)),
            "floor": frechet_floor(oracle.samples.features, oracle.weights, len(samples)),
            "to_prior": frechet_distance(ours, Gaussian.of(prior.features)),
        }
    return numbers


def _diversity(samples: JudgedSamples, exact: JudgedSamples) -> dict[str, dict[str, float]]:
    """Result of `diversity` for each of "z", "w" and, if both have features, "features"."""
    pairs = {"z": (samples.z, exact.z), "w": (samples.w, exact.w), "features": (samples.features, exact.features)}
    return {name: diversity(a, b) for name, (a, b) in pairs.items() if a is not None and b is not None}


def costs(sampled: SampleResult, seconds: float) -> dict[str, Any]:
    """Costs of samples that a sampler drew in `seconds`, without drawing pictures.

    Returns:
        - `evaluations`: evaluations of the energy for a sample, mean; `gradients`: those with a gradient;
        - `work`: the sum of both, so that an evaluation with a gradient counts 2;
        - `seconds`: the time of all samples together;
        - `failures`: number of samples that the sampler could not finish;
        - `statuses`: name of a status with which the sampler ended, such as "OK" -> number of samples.
    """
    evaluations, gradients = (x.double().mean().item() for x in (sampled.evaluations, sampled.gradients))
    statuses = {status.name: count for status, count in sampled.counts().items()}
    return {
        "evaluations": evaluations, "gradients": gradients, "work": evaluations + gradients, "seconds": seconds,
        "failures": int((~sampled.ok).sum()), "statuses": statuses,
    }  # fmt: skip


_MEASURES: dict[str, tuple[str, str, Callable[..., float]]] = {
    "satisfied": ("satisfied", "", min),
    "heads": ("heads", "", min),
    "frequency_error": ("frequency_error", "largest", max),
    "frequency_floor": ("frequency_error", "floor", max),
    "pairwise": ("diversity", "pairwise", min),
    "nearest": ("diversity", "nearest", min),
    "duplicates": ("diversity", "duplicates", max),
    "duplicates_floor": ("diversity_floor", "duplicates", max),
    "frechet": ("frechet", "distance", max),
    "frechet_floor": ("frechet", "floor", max),
    "work": ("work", "", max),
    "seconds": ("seconds", "", max),
    "failures": ("failures", "", max),
}
"""Name of a number in tables -> entry of an outcome of `measure`, key of the number in the entry ("" if the entry is
the number), and function for the worst of several queries or, in `diversity`, of z, w and features."""


def read_numbers(outcome: dict[str, Any]) -> Numbers:
    """Numbers of an outcome of `measure` by the names in `_MEASURES`; of those for z, w and features, the worst."""
    numbers: Numbers = {}
    for name, (entry, key, worst) in _MEASURES.items():
        value = outcome[entry]
        if value is not None and key:
            spaces = value.values() if entry.startswith("diversity") else [value]
            value = worst(space[key] for space in spaces)
        numbers[name] = value
    return numbers


def summarize(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, dict[str, Numbers]]:
    """Name of a method -> "mean" or "worst" over queries -> name of a number -> value, `None` if not measured.

    The entry `samplers` of each record, one for a query, is name of a method -> outcome of `measure`.
    """
    summary: dict[str, dict[str, Numbers]] = {}
    for name in names:
        rows = [read_numbers(record["samplers"][name]) for record in records]
        columns = {key: [row[key] for row in rows if row[key] is not None] for key in _MEASURES}
        worst = {key: _MEASURES[key][2](values) if values else None for key, values in columns.items()}
        summary[name] = {"mean": {key: average(values) for key, values in columns.items()}, "worst": worst}
    return summary


def average(values: Sequence[float]) -> float | None:
    """Mean of numbers; `None` if there are none."""
    return sum(values) / len(values) if values else None


def machine() -> dict[str, Any]:
    """Facts about this computer, for reports: processor, system, versions, number of threads, GPU."""
    try:  # platform.processor() is empty or a mere "x86_64" on Linux
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": f"{names[0]}, {len(names)} logical cores" if names else platform.machine(),
        "system": platform.platform(), "python": platform.python_version(), "torch": torch.__version__,
        "threads": torch.get_num_threads(), "energyql": __version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }  # fmt: skip
