"""Exact samples for comparisons: of the prior, and of a query (its oracle), without a sampler.

The oracle of a query consists of the samples of the prior that satisfy the query by the judge.

If the prior hardly ever satisfies the query, there are T₂ further latents z of the prior, of which the heads select
some: with probability sqrt(p), where p = P(query | z) by the heads, the picture is drawn, and it belongs to the oracle
if it satisfies the query by the judge. With T₁ pictures of the prior, each sample from either set has the weight
1 / (T₁ + T₂ sqrt(p)): importance sampling with the balance heuristic (Veach and Guibas 1995; Owen and Zhou 2000). So
heads that are wrong do not bias the oracle: samples with a wrong p of 0 are still among the T₁. Of all rules that draw
equally many pictures, sqrt(p) has the least variance if the heads are calibrated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.metrics import Array, effective_size
from energyql.language import Expr
from energyql.pipeline.model import Values
from energyql.progress import Report
from energyql.sampling import normals, uniforms

SHARD = 500
"""Samples of the prior in one file; an interruption loses at most so many."""
FIRST_LATENTS = 256
"""Latents whose p the heads compute together, at first."""
LATENTS_AT_ONCE = 8192
"""Most latents whose p the heads compute together."""
PICTURES_AT_ONCE = 256
"""Fewest selected latents whose pictures are drawn and judged together."""
MOST_LATENTS = 1 << 24
"""Most further latents of a search for an oracle, T₂."""
MOST_PICTURES = 8192
"""Most pictures of a search for an oracle, without those of the prior."""
PLAIN_AT_ONCE = 1 << 16
"""Latents that are read together by a model that needs no pictures."""
MOST_PLAIN = 1 << 27
"""Most latents that such a model reads for an oracle."""


def prior_samples(model: EvaluatedModel, count: int, folder: Path, report: Report, *, seed: int = 0) -> JudgedSamples:
    """Return judged samples of the prior, none of which has a z of `prior_latents`.

    Args:
        model: the model with its judge.
        count: number of samples; the first samples do not depend on it.
        folder: where the samples are stored, in files of `SHARD`, and read again by later calls.
        report: called with the stage "prior".
        seed: seed of the samples.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    parts: list[JudgedSamples] = []
    place = folder / f"prior-{model.identity[:16]}-{seed}"
    for start in range(0, count, SHARD):
        z = normals(seed, start, SHARD, model.z_dim, stream="bench/prior")
        path = place / f"{start:07d}.npz"
        if stored := JudgedSamples.load(path, z):
            parts.append(stored[0])
        else:
            parts.append(model.judge(z))
            parts[-1].save(path, ("values", "features", "w"))
        report("prior", min(1.0, (start + SHARD) / count))
    return JudgedSamples.join(parts).select(np.arange(count))


@dataclass(frozen=True, eq=False)
class Oracle:
    """Exact samples of a query: those that satisfy it by the judge.

    Attributes:
        samples: m samples.
        weights: their weights, (m,), above 0; equal if the prior alone was enough.
        prevalence: share of the prior that satisfies the query, by the judge.
        prevalence_error: standard error of the prevalence.
        pictures: number of pictures that were judged, with those of the prior.
        latents: number of further latents, T₂.
    """

    samples: JudgedSamples
    weights: Array
    prevalence: float
    prevalence_error: float
    pictures: int
    latents: int

    @property
    def size(self) -> float:
        """Effective number of samples: so many samples of equal weights are equally precise."""
        return effective_size(self.weights)

    def draws(self, count: int) -> JudgedSamples:
        """Return at most `count` different samples, drawn in proportion to their weights, in random order.

        At most `size` samples are returned, because one with a large weight cannot occur twice. They are exact samples
        only if the weights are equal.
        """
        count, shares = max(1, min(count, int(self.size))), self.weights / self.weights.sum()
        return self.samples.select(np.random.default_rng(0).choice(len(shares), count, replace=False, p=shares))


def find_oracle(
    model: EvaluatedModel,
    query: Expr,
    energy: Callable[[Tensor], Tensor],
    prior: JudgedSamples,
    target: int,
    folder: Path,
    report: Report,
    *,
    seed: int = 0,
) -> Oracle:
    """Return exact samples of a query; see the beginning of this module.

    Args:
        model: the model with its judge. If it has `read_latents`, all samples are of the prior, with equal weights.
        query: the bound query.
        energy: function from latents to -log P(query | z) by the heads, for further latents.
        prior: judged samples of the prior.
        target: effective number of samples at which the search ends. `MOST_LATENTS`, `MOST_PICTURES`, or with
            `read_latents` `MOST_PLAIN`, may end it earlier.
        folder: where the state of a long search is stored, so that a later call continues it.
        report: called with the stage "oracle".
        seed: seed of the further latents.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    rows = model.satisfied(query, prior.values).nonzero()[0]
    if len(rows) >= target:
        share = len(rows) / len(prior)
        error = math.sqrt(share * (1 - share) / len(prior))
        return Oracle(prior.select(rows), np.ones(len(rows)), share, error, len(prior), 0)
    if model.read_latents is not None:
        return _plain_oracle(model, model.read_latents, query, prior.select(rows), len(prior), target, report, seed)
    key = f"{model.identity} {query} {len(prior)} {target} {seed} {MOST_LATENTS} {MOST_PICTURES}"
    path = folder / f"oracle-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

    def log_probability(z: Tensor) -> Tensor:
        with torch.inference_mode():
            return -energy(z.to(model.device)).double().cpu()

    if stored := JudgedSamples.load(path):
        samples, arrays = stored
        log_p = torch.from_numpy(arrays["log_p"])
        latents, pictures, finished = (arrays[name].item() for name in ("latents", "pictures", "finished"))
    else:
        samples, latents, pictures, finished = prior.select(rows), 0, 0, False
        log_p = log_probability(samples.z)
    weights = _balanced(log_p, len(prior), latents)
    waiting: list[tuple[Tensor, Tensor]] = []
    while not finished:
        count = min(max(FIRST_LATENTS, latents), LATENTS_AT_ONCE)  # doubles their number, up to a limit
        z = normals(seed, latents, count, model.z_dim, stream="bench/proposal")
        level = uniforms(seed, latents, count, 1, stream="bench/propose")[:, 0]
        proposed = log_probability(z)
        chosen = level.log() < 0.5 * proposed
        waiting.append((z[chosen], proposed[chosen]))
        latents += count
        last = latents >= MOST_LATENTS
        if not last and sum(len(z) for z, _ in waiting) < PICTURES_AT_ONCE:
            continue
        z, proposed = map(torch.cat, zip(*waiting, strict=True))
        waiting.clear()
        if len(z):
            pictures += len(z)
            judged = model.judge(z)
            good = model.satisfied(query, judged.values).nonzero()[0]
            samples = JudgedSamples.join([samples, judged.select(good)])
            log_p = torch.cat([log_p, proposed[torch.from_numpy(good)]])
        weights = _balanced(log_p, len(prior), latents)
        size = effective_size(weights)
        finished = last or size >= target or pictures >= MOST_PICTURES
        numbers = {"log_p": log_p, "pictures": pictures, "latents": latents, "finished": finished}
        facts = {name: np.asarray(number) for name, number in numbers.items()}
        samples.save(path, ("z", "w", "values", "features"), **facts)
        report("oracle", 1.0 if finished else size / target)
    error = math.sqrt(float(np.square(weights).sum()))  # for a Poisson distributed number of samples
    return Oracle(samples, weights, float(weights.sum()), error, len(prior) + pictures, latents)


def _plain_oracle(
    model: EvaluatedModel,
    read: Callable[[Tensor], Values],
    query: Expr,
    samples: JudgedSamples,
    count: int,
    target: int,
    report: Report,
    seed: int,
) -> Oracle:
    """Return an oracle of samples of the prior alone, for a model that needs no pictures; see `find_oracle`.

    Args:
        model: the model.
        read: its `read_latents`.
        query: the bound query.
        samples: samples that satisfy the query, out of the first `count` ones of the prior.
        count: number of these.
        target: number of samples at which the search ends, unless `MOST_PLAIN` further latents are read before.
        report: called with the stage "oracle".
        seed: seed of the further latents.
    """
    parts, first = [samples], 0
    while (size := sum(map(len, parts))) < target and first < MOST_PLAIN:
        z = normals(seed, first, PLAIN_AT_ONCE, model.z_dim, stream="bench/plain")
        parts.append(model.judge(z[torch.from_numpy(model.satisfied(query, read(z)).copy())]))
        first += PLAIN_AT_ONCE
        report("oracle", min(1.0, size / target))
    samples, count = JudgedSamples.join(parts), count + first
    share = len(samples) / count
    error = math.sqrt(share * (1 - share) / count)
    return Oracle(samples, np.ones(len(samples)), share, error, count, 0)


def _balanced(log_p: Tensor, prior: int, latents: int) -> Array:
    """Return the weights 1 / (T₁ + T₂ sqrt(p)) of samples, (n,).

    Args:
        log_p: log p of each sample, (n,).
        prior: T₁.
        latents: T₂.
    """
    return np.asarray(1 / (prior + latents * np.exp(0.5 * log_p.numpy())), dtype=np.float64)
