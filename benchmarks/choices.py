"""Packaged models judged by the choices that their latents make, which the recipes know, instead of by pictures.

`avatars` and `postcards` are hidden functions of latents w for `benchmarks.own_models`. The mapping network of a
packaged generator puts the scores that make the choices into w, so these are known but for rounding: two of a million
classes lie so close to a threshold that they are read wrongly.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.evaluation.bench import Bench
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.evaluation.reference import Oracle, plain_oracle
from energyql.language import Expr
from energyql.pipeline.model import Values
from energyql.progress import Report
from energyql.sampling import normals
from energyql.vocabulary import Vocabulary
from recipes.avatars.domain import DOMAIN as AVATARS
from recipes.common.domain import Domain
from recipes.common.factors import Factors
from recipes.common.mapping import read_scores
from recipes.postcards.domain import DOMAIN as POSTCARDS

AT_ONCE = 4096
READ_TOGETHER = 1 << 16
"""Latents whose choices are read together in the search for exact samples."""
MOST_LATENTS = 1 << 27
"""Most latents of such a search."""
DOMAINS = {domain.name: domain for domain in (AVATARS, POSTCARDS)}


class ChoiceModel(EvaluatedModel):
    """A packaged model without drawing: a thousand times as fast, and right where a judge may err.

    Pictures that are blends of two choices count as one of them. Distances between pictures are not measured.
    """

    def __init__(self, model: str = "avatars", *, device: str = "auto") -> None:
        if model not in DOMAINS:
            raise ArgumentError(
                f"nothing knows the choices of {model!r}", hint=f"models with a recipe: {', '.join(DOMAINS)}"
            )
        super().__init__(model, device=device)
        self.identity = f"choices-{self.identity}"
        self.features = None
        self._factors = Factors(DOMAINS[model])

    def judge(self, z: Tensor, report: Report = lambda stage, fraction: None) -> JudgedSamples:
        """Return the samples with latents z (n, z_dim) and the values in their pictures; no picture is drawn."""
        parts = []
        for at, rows in enumerate(z.cpu().float().split(AT_ONCE)):
            with torch.inference_mode():
                w = self.encode(rows.to(self.device)).cpu()
            parts.append(JudgedSamples(rows, w, self.read_latents(rows), None))
            report("judging", min(1.0, (at + 1) * AT_ONCE / len(z)))
        return JudgedSamples.join(parts)

    def read_latents(self, z: Tensor) -> Values:
        """Return the values in the pictures of latents (n, z_dim)."""
        return named_values(self._factors(z).labels, self.vocabulary)


def named_values(labels: Mapping[str, Tensor], vocabulary: Vocabulary) -> Values:
    """Return the labels of `Scenes` as bools, names of classes and numbers."""
    values: Values = {}
    for name, spec in vocabulary.items():
        column = labels[name].numpy()
        if spec.kind == "categorical":
            column = np.array(spec.values)[column.astype(np.int64)]
        values[name] = column.astype(bool) if spec.kind == "yes/no" else column
    return values


def _encoded(domain: Domain, w: Tensor) -> Values:
    return named_values(Factors(domain).scenes(read_scores(domain, w.cpu())).labels, domain.vocabulary)


def avatars(w: Tensor) -> Values:
    """Return the values in the pictures of latents w (n, w_dim) of the packaged generator `avatars`."""
    return _encoded(AVATARS, w)


def postcards(w: Tensor) -> Values:
    """Return the values in the pictures of latents w (n, w_dim) of the packaged generator `postcards`."""
    return _encoded(POSTCARDS, w)


def find_choices(bench: Bench, query: Expr, energy: object, prior: JudgedSamples) -> Oracle:
    """Return the samples of the prior that satisfy a query by the choices of a `ChoiceModel`.

    Args:
        bench: the model, which is a `ChoiceModel`, and the number of samples at which the search ends, unless
            `MOST_LATENTS` further latents are read before.
        query: the bound query.
        energy: not used, unlike in `find_oracle`, which has the same arguments.
        prior: judged samples of the prior.
    """
    model, target, seed = bench.model, bench.counts.oracle, bench.counts.seed
    assert isinstance(model, ChoiceModel)
    parts, latents = [prior.select(model.satisfied(query, prior.values).nonzero()[0])], 0
    while (size := sum(map(len, parts))) < target and latents < MOST_LATENTS:
        z = normals(seed, latents, READ_TOGETHER, model.z_dim, stream="bench/plain")
        parts.append(model.judge(z[torch.from_numpy(model.satisfied(query, model.read_latents(z)).copy())]))
        latents += READ_TOGETHER
        bench.report("oracle", min(1.0, size / target))
    return plain_oracle(JudgedSamples.join(parts), len(prior) + latents)
