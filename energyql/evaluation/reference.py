"""Exact samples for comparisons, made without a sampler: samples of the prior, and the oracle of a query.

The oracle of a query consists of the samples of the prior that satisfy the query by the judge.

If the prior hardly ever satisfies the query, T₂ further latents z of the prior are drawn. Each is selected with
probability sqrt(p), where p = P(query | z) by the heads. The pictures of selected latents are drawn, and those that
satisfy the query by the judge are added to the oracle. With T₁ pictures of the prior, each sample of the oracle has the
weight 1 / (T₁ + T₂ sqrt(p)): importance sampling with the balance heuristic (Veach and Guibas 1995; Owen and Zhou
2000).

Heads that are wrong do not bias the oracle: samples for which the heads wrongly compute p = 0 still occur among the T₁
pictures. Of all functions of p that select equally many latents, sqrt(p) has the least variance if the heads are
calibrated.
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
from energyql.progress import Report
from energyql.sampling import normals, uniforms

SHARD = 500
"""Number of samples of the prior in one file; an interruption loses at most this number of samples."""
FIRST_LATENTS = 256
"""Number of latents in the first batch of further latents, which are drawn if too few samples of the prior satisfy a
query. The heads compute P(query) for a whole batch."""
LATENTS_AT_ONCE = 8192
"""Largest number of further latents in one batch. Further latents are drawn if too few samples of the prior satisfy a
query; the heads compute P(query) for a whole batch."""
PICTURES_AT_ONCE = 256
"""Further latents are drawn until at least this many of them are selected by P(query). The pictures of the selected
latents are then drawn and judged together."""
MOST_LATENTS = 1 << 24
"""Largest number of further latents that are drawn in a search for exact samples of a query; the search ends there."""
MOST_PICTURES = 8192
"""Largest number of pictures that are drawn in a search for exact samples of a query; the search ends there. Pictures
of the samples of the prior do not count."""


def prior_samples(model: EvaluatedModel, count: int, folder: Path, report: Report, *, seed: int = 0) -> JudgedSamples:
    """Return judged samples of the prior.

    These samples and the latents from which samplers start (`prior_latents`) are drawn with different random numbers.
    So the results of samplers are independent of these samples.

    Args:
        model: the model with its judge.
        count: number of samples. A larger number adds samples after the same first samples.
        folder: where the samples are stored, `SHARD` in a file, so that later calls read them.
        report: called with the stage "prior".
        seed: seed of the samples.

    Raises:
        ArgumentError: the folder cannot be written.
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
        samples: the judged samples.
        weights: weights of the samples, (m,), above 0. All are equal if enough samples of the prior satisfy the query.
        prevalence: share of the prior that satisfies the query by the judge, from 0 to 1.
        prevalence_error: standard error of the prevalence.
        pictures: number of pictures that were judged, including pictures of the prior.
        latents: number of further latents that were drawn in addition to the prior samples; 0 if the prior samples were
            enough.
    """

    samples: JudgedSamples
    weights: Array
    prevalence: float
    prevalence_error: float
    pictures: int
    latents: int

    @property
    def size(self) -> float:
        """Effective number of samples: so many samples of equal weight would give estimates of the same precision."""
        return effective_size(self.weights)

    def draws(self, count: int) -> JudgedSamples:
        """Return different samples, drawn at random in proportion to their weights, in random order.

        `count` samples are returned, but at most `size`, because a sample with a large weight cannot be drawn twice;
        and at least one. The result is a set of equally weighted exact samples only if all weights are equal.
        """
        count, shares = max(1, min(count, int(self.size))), self.weights / self.weights.sum()
        return self.samples.select(np.random.default_rng(0).choice(len(shares), count, replace=False, p=shares))


def plain_oracle(samples: JudgedSamples, count: int) -> Oracle:
    """Return the oracle (exact samples of a query) that consists of prior samples only, with equal weights.

    Args:
        samples: the samples of the prior that satisfy the query.
        count: number of all samples of the prior among which `samples` were found.
    """
    share = len(samples) / count
    return Oracle(samples, np.ones(len(samples)), share, math.sqrt(share * (1 - share) / count), count, 0)


def find_oracle(
    model: EvaluatedModel, query: Expr, energy: Callable[[Tensor], Tensor], prior: JudgedSamples, target: int,
    folder: Path, report: Report, *, seed: int = 0,
) -> Oracle:  # fmt: skip
    """Return exact samples of a query.

    They are the samples of the prior that satisfy the query. If these are fewer than `target`, further latents are
    drawn, as the text at the beginning of this module describes.

    Args:
        model: the model with its judge.
        query: the bound query.
        energy: function from latents to -log P(query | z) by the heads, by which further latents are selected.
        prior: judged samples of the prior.
        target: effective number of samples at which the search ends. The limits `MOST_LATENTS` and `MOST_PICTURES` may
            end it earlier.
        folder: where the state of a search through further latents is stored, so that a later call continues the
            search.
        report: called with the stage "oracle".
        seed: seed of the further latents.

    Raises:
        ArgumentError: the folder cannot be written.
    """
    rows = model.satisfied(query, prior.values).nonzero()[0]
    if len(rows) >= target:
        return plain_oracle(prior.select(rows), len(prior))
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
        report("oracle", 1.0 if finished else size / target)
    error = math.sqrt(float(np.square(weights).sum()))  # for a Poisson distributed number of samples
    return Oracle(samples, weights, float(weights.sum()), error, len(prior) + pictures, latents)


def _balanced(log_p: Tensor, prior: int, latents: int) -> Array:
    """Return the weight of each sample of an oracle, 1 / (T₁ + T₂ sqrt(p)), (n,).

    Args:
        log_p: log p of each sample, where p = P(query | z) by the heads, (n,).
        prior: T₁, the number of samples of the prior.
        latents: T₂, the number of further latents that were drawn.
    """
    return np.asarray(1 / (prior + latents * np.exp(0.5 * log_p.numpy())), dtype=np.float64)
