"""Exact samples for comparisons, made without a sampler: samples of the prior, and the oracle of a query.

The oracle of a query consists of the samples of the prior that satisfy the query by the judge. If the prior hardly ever
does, T₂ further latents z of the prior are drawn, and each is selected with probability sqrt(p), where p = P(query | z)
by the heads. Pictures of selected latents that satisfy the query by the judge are added. With T₁ pictures of the prior,
each sample has the weight 1 / (T₁ + T₂ sqrt(p)): importance sampling with the balance heuristic (Veach and Guibas 1995;
Owen and Zhou 2000).

Heads that are wrong do not bias the oracle: samples with a wrong p = 0 still occur among the T₁ pictures. Of all
functions of p that select equally many latents, sqrt(p) has the least variance if the heads are calibrated.
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

from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.metrics import Array, effective_size
from energyql.language import Expr
from energyql.progress import Report
from energyql.sampling import normals, uniforms

SHARD = 500
"""Samples of the prior in one file; an interruption loses at most so many."""
FIRST_LATENTS = 256
"""Number of latents in the first batch of further latents."""
LATENTS_AT_ONCE = 8192
"""Most further latents in one batch, for which the heads compute P(query)."""
PICTURES_AT_ONCE = 256
"""Further latents are drawn until so many are selected; their pictures are drawn and judged together."""
MOST_LATENTS = 1 << 24
"""Most further latents in a search for exact samples of a query."""
MOST_PICTURES = 8192
"""Most pictures in a search for exact samples of a query, without those of the prior."""


def prior_samples(model: EvaluatedModel, count: int, folder: Path, report: Report, *, seed: int = 0) -> JudgedSamples:
    """Judged samples of the prior, drawn with other random numbers than the latents from which samplers start.

    They are stored in `folder`, `SHARD` in a file, so that later calls read them; a larger `count` adds samples after
    the same first samples. The stage of `report` is "prior".
    """
    parts: list[JudgedSamples] = []
    place = folder / f"prior-{model.identity[:16]}-{seed}"
    for start in range(0, count, SHARD):
        path = place / f"{start:07d}.npz"
        if stored := JudgedSamples.load(path):
            parts.append(stored[0])
        else:
            parts.append(model.judge(normals(seed, start, SHARD, model.z_dim, stream="bench/prior")))
            parts[-1].save(path)
        report("prior", min(1.0, (start + SHARD) / count))
    return JudgedSamples.join(parts).select(np.arange(count))


@dataclass(frozen=True, eq=False)
class Oracle:
    """m exact samples of a query: draws that satisfy the query by the judge.

    Attributes:
        weights: (m,), above 0; all are equal if enough samples of the prior satisfy the query.
        prevalence: share of the prior that satisfies the query by the judge, 0 to 1.
        prevalence_error: standard error of the prevalence.
        pictures: number of pictures that were judged, including pictures of the prior.
        latents: number of further latents that were drawn; 0 if the samples of the prior were enough.
    """

    samples: JudgedSamples
    weights: Array
    prevalence: float
    prevalence_error: float
    pictures: int
    latents: int

    @property
    def size(self) -> float:
        """Effective number of samples: so many of equal weight would give estimates of the same precision."""
        return effective_size(self.weights)

    def draws(self, count: int) -> JudgedSamples:
        """Different samples, drawn at random in proportion to their weights, in random order.

        `count` are returned, but at most `size`, because a sample with a large weight cannot be drawn twice; and at
        least one. They are equally weighted exact samples only if all weights are equal.
        """
        count, shares = max(1, min(count, int(self.size))), self.weights / self.weights.sum()
        return self.samples.select(np.random.default_rng(0).choice(len(shares), count, replace=False, p=shares))


def plain_oracle(samples: JudgedSamples, count: int) -> Oracle:
    """Oracle of equal weights, from the samples of the prior that satisfy a query, found among `count`."""
    share = len(samples) / count
    return Oracle(samples, np.ones(len(samples)), share, math.sqrt(share * (1 - share) / count), count, 0)


def find_oracle(bench: Bench, query: Expr, energy: Callable[[Tensor], Tensor], prior: JudgedSamples) -> Oracle:
    """Find exact samples of a query: those of the prior that satisfy it, and more if these are too few.

    The search ends at the effective number `bench.counts.oracle`, or at `MOST_LATENTS` or `MOST_PICTURES`. A later call
    continues it.

    Args:
        query: the bound query.
        energy: function from latents to -log P(query | z) by the heads, by which further latents are selected.
    """
    model, target, seed = bench.model, bench.counts.oracle, bench.counts.seed
    rows = model.satisfied(query, prior.values).nonzero()[0]
    if len(rows) >= target:
        return plain_oracle(prior.select(rows), len(prior))
    key = f"{model.identity} {query} {len(prior)} {target} {seed} {MOST_LATENTS} {MOST_PICTURES}"
    path = bench.cache / "oracle" / f"oracle-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"

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
    while not finished:
        parts: list[tuple[Tensor, Tensor]] = []
        while not parts or (latents < MOST_LATENTS and sum(len(z) for z, _ in parts) < PICTURES_AT_ONCE):
            count = min(max(FIRST_LATENTS, latents), LATENTS_AT_ONCE)  # doubles their number, up to a limit
            z = normals(seed, latents, count, model.z_dim, stream="bench/proposal")
            level = uniforms(seed, latents, count, 1, stream="bench/propose")[:, 0]
            proposed = log_probability(z)
            chosen = level.log() < 0.5 * proposed
            parts.append((z[chosen], proposed[chosen]))
            latents += count
        z, proposed = map(torch.cat, zip(*parts, strict=True))
        if len(z):
            pictures += len(z)
            judged = model.judge(z)
            good = model.satisfied(query, judged.values).nonzero()[0]
            samples = JudgedSamples.join([samples, judged.select(good)])
            log_p = torch.cat([log_p, proposed[torch.from_numpy(good)]])
        weights = _balanced(log_p, len(prior), latents)
        size = effective_size(weights)
        finished = latents >= MOST_LATENTS or size >= target or pictures >= MOST_PICTURES
        facts = {"log_p": log_p, "pictures": pictures, "latents": latents, "finished": finished}
        arrays = {name: np.asarray(fact) for name, fact in facts.items()}
        samples.save(path, **arrays)
        bench.report("oracle", 1.0 if finished else size / target)
    error = math.sqrt(float(np.square(weights).sum()))  # for a Poisson distributed number of samples
    return Oracle(samples, weights, float(weights.sum()), error, len(prior) + pictures, latents)


Search = Callable[[Bench, Expr, Callable[[Tensor], Tensor], JudgedSamples], Oracle]
"""A search for exact samples, such as `find_oracle`."""


def _balanced(log_p: Tensor, prior: int, latents: int) -> Array:
    """Weights 1 / (T₁ + T₂ sqrt(p)) of samples of an oracle, (n,), where T₁ is `prior` and T₂ `latents`."""
    return np.asarray(1 / (prior + latents * np.exp(0.5 * log_p.numpy())), dtype=np.float64)
