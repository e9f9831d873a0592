"""Labels of the judge for pictures of the prior, and for pictures that a sampler finds for random queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from energyql import sample_latents
from energyql.attributes.judge import Judge
from energyql.attributes.labels import encode_column
from energyql.attributes.predictions import decide
from energyql.errors import Contradiction
from energyql.generators.stylegan2 import StyleGAN2
from energyql.pipeline.model import Model
from energyql.sampling import prior_latents
from recipes.avatars.queries import random_query
from recipes.avatars.vocabulary import VOCABULARY

LATENT_SEED, QUERY_SEED = 404, 101
BATCH = 64
KEPT_TOGETHER = 100
"""Number of batches, or queries, whose labels are in one file of the run folder."""
PER_QUERY = 16
"""Latents sampled for each random query."""


@dataclass(frozen=True)
class Labelled:
    """Latents z (n, z_dim), and the judge's decision on their pictures for each attribute, (n,) float."""

    latents: Tensor
    labels: dict[str, Tensor]

    @classmethod
    def join(cls, parts: Sequence[Labelled]) -> Labelled:
        """Concatenate parts, in that order."""
        labels = {name: torch.cat([part.labels[name] for part in parts]) for name in VOCABULARY}
        return cls(torch.cat([part.latents for part in parts]), labels)


class Labeller:
    """Draws latents and labels their pictures by the judge; files keep the labels, so that a run can be interrupted."""

    def __init__(self, generator: StyleGAN2, judge: Judge) -> None:
        self.generator, self.judge = generator, judge

    @torch.no_grad()
    def label(self, latents: Tensor) -> Labelled:
        """Return z (n, z_dim) with the judge's decisions: 0/1, class index or number."""
        parts = []
        for z in latents.split(BATCH):
            w = self.generator.encode(z)
            images = self.generator.synthesize(w)  # in bfloat16, 3 % of the hair colours would differ
            seen = decide(self.judge(images))
            parts.append(Labelled(z, {name: encode_column(seen[name].tolist(), VOCABULARY[name]) for name in seen}))
        return Labelled.join(parts)

    def label_prior(self, folder: Path, count: int) -> Labelled:
        """Label `count` samples of the prior; `folder` keeps the labels."""

        def draw(first: int, last: int) -> Tensor:
            first, last = first * BATCH, min(last * BATCH, count)
            return prior_latents(LATENT_SEED, first, last - first, self.generator.z_dim)

        return self._keep(folder, -(-count // BATCH), draw)

    def label_found(self, folder: Path, model: Model, queries: int) -> Labelled:
        """Label the samples that the default sampler finds for random queries, by the heads of a model.

        Queries that contradict themselves have no samples. `folder` keeps the labels.
        """

        def find(first: int, last: int) -> Tensor:
            return torch.cat([z for index in range(first, last) for z in _found(model, index)])

        return self._keep(folder, queries, find)

    def _keep(self, folder: Path, count: int, latents: Callable[[int, int], Tensor]) -> Labelled:
        folder.mkdir(parents=True, exist_ok=True)
        parts = []
        for first in range(0, count, KEPT_TOGETHER):
            last = min(first + KEPT_TOGETHER, count)
            path = folder / f"{first}-{last}.pt"
            if not path.exists():
                part = self.label(latents(first, last))
                torch.save({"latents": part.latents, "labels": part.labels}, path.with_suffix(".partial"))
                path.with_suffix(".partial").replace(path)
                print(f"{folder.name} labels {last}/{count}", flush=True)
            parts.append(Labelled(**torch.load(path, weights_only=True)))
        return Labelled.join(parts)


def _found(model: Model, index: int) -> list[Tensor]:
    try:
        batches = sample_latents(random_query(QUERY_SEED, index), PER_QUERY, model=model, seed=index, progress=False)
    except Contradiction:
        return []
    return [batch.z for batch in batches]
