"""Exact samples of a query: the prior, drawn and judged, and what satisfies the query kept. No sampler, no energy.

Where the prior hardly ever satisfies the query, the heads propose. Of further latents z of the prior, one is drawn with
probability sqrt(p), p = P(query | z) by the heads, and kept if the judge accepts its picture. With T₁ pictures of the
prior and T₂ latents that were proposed, a kept sample counts with the weight 1 / (T₁ + T₂ sqrt(p)), whichever way it
came: importance sampling with the balance heuristic (Veach and Guibas 1995; Owen and Zhou 2000). So the heads say where
to look and nothing else; what they wrongly rule out is still found among the T₁. Of all rules that draw equally many
pictures, sqrt(p) gives the least variance if the heads are calibrated.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from energyql.evaluation.frequencies import Array, effective_size
from energyql.evaluation.prior import read_arrays, read_seen, write_seen
from energyql.evaluation.subject import Seen, Subject
from energyql.language import Expr
from energyql.logic.truth import satisfied
from energyql.progress import Report
from energyql.sampling import normals, uniforms

LOOK_AT_ONCE = 8192
"""Latents that the heads are asked about together."""
DRAW_AT_ONCE = 256
"""Proposed latents that are drawn together."""
MOST_LATENTS, MOST_PICTURES = 1 << 24, 8192
"""Where the heads are asked no more, and where no more proposals are drawn."""


@dataclass(frozen=True, eq=False)
class Oracle:
    """Samples that satisfy a query by the judge.

    Attributes:
        seen: m of them.
        weights: (m,), above 0; equal where the prior alone was enough.
        prevalence: share of the prior that satisfies the query, by the judge.
        prevalence_error: its standard error.
        pictures: drawn for it, those of the shared prior included.
        latents: that the heads were asked about.
    """

    seen: Seen
    weights: Array
    prevalence: float
    prevalence_error: float
    pictures: int
    latents: int

    @property
    def size(self) -> float:
        """How many equally weighted samples it is worth."""
        return effective_size(self.weights)

    def draws(self, count: int, seed: int = 0) -> Seen:
        """At most `count` different samples, as if equally weighted, in random order.

        A sample with a large weight should come more than once and cannot, so no more are drawn than `size`, and the
        answer is exact only where the weights are equal.
        """
        random = np.random.default_rng(seed)
        count = max(1, min(count, int(self.size)))
        return self.seen.select(
            random.choice(len(self.weights), count, replace=False, p=self.weights / self.weights.sum())
        )


def find_oracle(
    subject: Subject,
    query: Expr,
    energy: Callable[[Tensor], Tensor],
    prior: Seen,
    wanted: int,
    folder: Path,
    report: Report,
    *,
    seed: int = 0,
) -> Oracle:
    """Collect exact samples of a query.

    Args:
        subject: the model.
        query: bound.
        energy: -log P(query | z) by the heads, which proposes where the prior is not enough.
        prior: judged samples of the prior.
        wanted: equally weighted samples that it should be worth. It can be less, where `MOST_LATENTS` or
            `MOST_PICTURES` end the search; `Oracle.size` tells.
        folder: where the outcome of a long search is kept.
        report: called with the stage "oracle".
        seed: of the further latents.
    """
    rows = _holding(query, prior, subject)
    if len(rows) >= wanted:
        share = len(rows) / len(prior)
        error = math.sqrt(share * (1 - share) / len(prior))
        return Oracle(prior.select(rows), np.ones(len(rows)), share, error, len(prior), 0)
    key = f"{subject.identity} {query} {len(prior)} {wanted} {seed} {MOST_LATENTS} {MOST_PICTURES}"
    path = folder / f"oracle-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npz"
    search = _Search(subject, query, energy, len(prior), seed, path)
    if not search.resume():
        search.begin(prior.select(rows))
    search.run(wanted, report)
    seen, log_p = search.found()
    weights = _weights(log_p, len(prior), search.latents)
    error = math.sqrt(float(np.square(weights).sum()))  # of a sum of Poisson many terms
    return Oracle(seen, weights, float(weights.sum()), error, len(prior) + search.pictures, search.latents)


class _Search:
    """Proposals of the heads, drawn and judged, until there are enough; kept on disk as it goes."""

    def __init__(
        self, subject: Subject, query: Expr, energy: Callable[[Tensor], Tensor], count: int, seed: int, path: Path
    ) -> None:
        self._subject, self._query, self._energy = subject, query, energy
        self._count, self._seed, self._path = count, seed, path
        self._kept: list[Seen] = []
        self._log_p: list[Tensor] = []
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._finished = False
        self.latents = self.pictures = 0

    def resume(self) -> bool:
        """Go on from where an earlier search ended or was interrupted, if there was one."""
        seen, arrays = read_seen(self._path), read_arrays(self._path)
        if seen is None or arrays is None:
            return False
        self._kept, self._log_p = [seen], [torch.from_numpy(arrays["log_p"])]
        self.latents, self.pictures = int(arrays["latents"]), int(arrays["pictures"])
        self._finished = bool(arrays["finished"])
        return True

    def begin(self, kept: Seen) -> None:
        """Start with the samples of the prior that satisfy the query."""
        self._kept, self._log_p = [kept], [self._ask(kept.z)]

    def run(self, wanted: int, report: Report) -> None:
        """Go on until the samples are worth `wanted`, or it takes too long."""
        while not self._finished:
            z = normals(self._seed, self.latents, LOOK_AT_ONCE, self._subject.z_dim, stream="bench/proposal")
            level = uniforms(self._seed, self.latents, LOOK_AT_ONCE, 1, stream="bench/propose")[:, 0]
            log_p = self._ask(z)
            chosen = level.log() < 0.5 * log_p
            self._waiting.append((z[chosen], log_p[chosen]))
            self.latents += LOOK_AT_ONCE
            last = self.latents >= MOST_LATENTS
            if last or sum(len(z) for z, _ in self._waiting) >= DRAW_AT_ONCE:
                self._draw()
                size = effective_size(_weights(self.found()[1], self._count, self.latents))
                self._finished = last or size >= wanted or self.pictures >= MOST_PICTURES
                self._keep()
                report("oracle", 1.0 if self._finished else size / wanted)

    def _keep(self) -> None:
        seen, log_p = self.found()
        numbers = {"pictures": self.pictures, "latents": self.latents, "finished": self._finished}
        facts = {name: np.array(number) for name, number in numbers.items()}
        write_seen(self._path, seen, ("z", "w", "values", "features"), log_p=log_p, **facts)

    def found(self) -> tuple[Seen, Array]:
        """The samples, and log P(query | z) of each by the heads."""
        return Seen.join(self._kept), torch.cat(self._log_p).numpy()

    def _ask(self, z: Tensor) -> Tensor:
        with torch.inference_mode():
            return -self._energy(z.to(self._subject.device)).double().cpu()

    def _draw(self) -> None:
        if not any(len(z) for z, _ in self._waiting):
            return
        z = torch.cat([z for z, _ in self._waiting])
        log_p = torch.cat([value for _, value in self._waiting])
        self._waiting.clear()
        self.pictures += len(z)
        seen = self._subject.look(z)
        rows = _holding(self._query, seen, self._subject)
        self._kept.append(seen.select(rows))
        self._log_p.append(log_p[torch.from_numpy(rows)])


def _holding(query: Expr, seen: Seen, subject: Subject) -> np.ndarray[Any, Any]:
    """Rows that satisfy the query by the judge."""
    return np.broadcast_to(satisfied(query, seen.values, subject.vocabulary), (len(seen),)).nonzero()[0]


def _weights(log_p: Array, pictures: int, latents: int) -> Array:
    return np.asarray(1 / (pictures + latents * np.exp(0.5 * log_p)), dtype=np.float64)
