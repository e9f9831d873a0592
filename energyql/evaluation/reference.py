"""Exact samples to compare with: of the prior, and of a query (its oracle). Neither uses a sampler or an energy.

The oracle of a query is the prior, drawn and judged, of which the rows that satisfy the query are kept.

Where the prior hardly ever satisfies the query, the heads choose among T₂ further latents z of the prior: a picture is
drawn with probability sqrt(p), p = P(query | z) by the heads, and kept if the judge accepts it. With T₁ pictures of the
prior, each kept sample, from either set, has the weight 1 / (T₁ + T₂ sqrt(p)): importance sampling with the balance
heuristic (Veach and Guibas 1995; Owen and Zhou 2000). So the heads only direct the search: samples to which they
wrongly give probability 0 are still found among the T₁. Of all rules that draw equally many pictures, sqrt(p) gives the
least variance if the heads are calibrated.
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
FIRST_LATENTS, LATENTS_AT_ONCE, PICTURES_AT_ONCE = 256, 8192, 256
"""Latents whose log P the heads compute together, at first and at most; proposed latents that are drawn together."""
MOST_LATENTS, MOST_PICTURES = 1 << 24, 8192
"""Limits of the search for an oracle."""
PLAIN_AT_ONCE, MOST_PLAIN = 1 << 16, 1 << 27
"""Latents that are read together where latents are read without pictures, and the most for an oracle."""


def prior_samples(model: EvaluatedModel, count: int, folder: Path, report: Report, *, seed: int = 0) -> JudgedSamples:
    """Return exact samples of the prior, other ones than `prior_latents` draws. A longer run begins with a shorter one.

    They are kept on disk, in files of `SHARD`. `report` is called with the stage "prior".

    Raises:
        ArgumentError: the folder cannot be written.
    """
    parts: list[JudgedSamples] = []
    place = folder / f"prior-{model.identity[:16]}-{seed}"
    for start in range(0, count, SHARD):
        z = normals(seed, start, SHARD, model.z_dim, stream="bench/prior")
        path = place / f"{start:07d}.npz"
        if kept := JudgedSamples.load(path, z):
            parts.append(kept[0])
        else:
            parts.append(model.judge(z))
            parts[-1].save(path, ("values", "features", "w"))
        report("prior", min(1.0, (start + SHARD) / count))
    return JudgedSamples.join(parts).select(np.arange(count))


@dataclass(frozen=True, eq=False)
class Oracle:
    """Exact samples of a query: those that satisfy it by the judge.

    Attributes:
        samples: m of them.
        weights: (m,), above 0; equal where the prior alone was enough.
        prevalence: share of the prior that satisfies the query, by the judge.
        prevalence_error: its standard error.
        pictures: number of pictures drawn for it, those of the shared prior included.
        latents: number of further latents whose log P the heads computed.
    """

    samples: JudgedSamples
    weights: Array
    prevalence: float
    prevalence_error: float
    pictures: int
    latents: int

    @property
    def size(self) -> float:
        """Effective number of samples: as many equally weighted ones would be as precise."""
        return effective_size(self.weights)

    def draws(self, count: int) -> JudgedSamples:
        """Draw at most `count` different samples in proportion to their weights, in random order.

        A sample with a large weight should come more than once and cannot, so at most `size` are drawn. The result is
        exact only where the weights are equal.
        """
        count, shares = max(1, min(count, int(self.size))), self.weights / self.weights.sum()
        return self.samples.select(np.random.default_rng(0).choice(len(shares), count, replace=False, p=shares))


def find_oracle(
    model: EvaluatedModel,
    query: Expr,
    energy: Callable[[Tensor], Tensor],
    prior: JudgedSamples,
    wanted: int,
    folder: Path,
    report: Report,
    *,
    seed: int = 0,
) -> Oracle:
    """Collect exact samples of a bound query, of the effective number that is wanted.

    They are fewer where `MOST_LATENTS` or `MOST_PICTURES` end the search. If the model reads latents without pictures,
    all are of the prior, equally weighted, and `MOST_PLAIN` is the limit. The energy -log P(query | z) by the heads is
    needed for proposals where the samples of the prior are not enough. The state of a long search is kept in the
    folder, so that an interrupted one resumes. `report` is called with the stage "oracle".
    """
    rows = model.satisfied(query, prior.values).nonzero()[0]
    if len(rows) >= wanted:
        share = len(rows) / len(prior)
        error = math.sqrt(share * (1 - share) / len(prior))
        return Oracle(prior.select(rows), np.ones(len(rows)), share, error, len(prior), 0)
    if model.read_latents is not None:
        return _plain_oracle(model, model.read_latents, query, prior.select(rows), len(prior), wanted, report, seed)
    key = f"{model.identity} {query} {len(prior)} {wanted} {seed} {MOST_LATENTS} {MOST_PICTURES}"
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
        count = min(max(FIRST_LATENTS, latents), LATENTS_AT_ONCE)  # twice as many in all, as long as they are few
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
        finished = last or size >= wanted or pictures >= MOST_PICTURES
        numbers = {"log_p": log_p, "pictures": pictures, "latents": latents, "finished": finished}
        facts = {name: np.asarray(number) for name, number in numbers.items()}
        samples.save(path, ("z", "w", "values", "features"), **facts)
        report("oracle", 1.0 if finished else size / wanted)
    error = math.sqrt(float(np.square(weights).sum()))  # of a sum of Poisson many terms
    return Oracle(samples, weights, float(weights.sum()), error, len(prior) + pictures, latents)


def _plain_oracle(
    model: EvaluatedModel,
    read: Callable[[Tensor], Values],
    query: Expr,
    found: JudgedSamples,
    looked_at: int,
    wanted: int,
    report: Report,
    seed: int,
) -> Oracle:
    """Go on drawing from the prior until as many samples are found as wanted, or `MOST_PLAIN` are looked at."""
    parts, first = [found], 0
    while (size := sum(map(len, parts))) < wanted and first < MOST_PLAIN:
        z = normals(seed, first, PLAIN_AT_ONCE, model.z_dim, stream="bench/plain")
        parts.append(model.judge(z[torch.from_numpy(model.satisfied(query, read(z)).copy())]))
        first += PLAIN_AT_ONCE
        report("oracle", min(1.0, size / wanted))
    samples, looked_at = JudgedSamples.join(parts), looked_at + first
    share = len(samples) / looked_at
    error = math.sqrt(share * (1 - share) / looked_at)
    return Oracle(samples, np.ones(len(samples)), share, error, looked_at, 0)


def _balanced(log_p: Tensor, prior: int, latents: int) -> Array:
    """Return the weights 1 / (T₁ + T₂ sqrt(p)) of samples, from log P of their query by the heads, (n,)."""
    return np.asarray(1 / (prior + latents * np.exp(0.5 * log_p.numpy())), dtype=np.float64)
