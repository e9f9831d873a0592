"""Packaged models judged by the choices that their latents make, which the recipes know, instead of by pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.pipeline.model import Values
from energyql.progress import Report
from recipes.avatars.domain import DOMAIN as AVATARS
from recipes.common.factors import Factors
from recipes.postcards.domain import DOMAIN as POSTCARDS

AT_ONCE = 4096
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
        self.read_latents = self._choices
        self._factors = Factors(DOMAINS[model])

    def judge(
        self, z: Tensor, report: Report = lambda stage, fraction: None, *, picture_count: int = 0
    ) -> JudgedSamples:
        """Return the samples with latents z (n, z_dim) and the values in their pictures; no picture is drawn."""
        parts = []
        for at, rows in enumerate(z.cpu().float().split(AT_ONCE)):
            with torch.inference_mode():
                w = self.encode(rows.to(self.device)).cpu()
            parts.append(JudgedSamples(rows, w, self._choices(rows), None))
            report("judging", min(1.0, (at + 1) * AT_ONCE / len(z)))
        return JudgedSamples.join(parts)

    def _choices(self, z: Tensor) -> Values:
        labels = self._factors(z).labels
        values: Values = {}
        for name, spec in self.vocabulary.items():
            column = labels[name].numpy()
            if spec.kind == "categorical":
                column = np.array(spec.values)[column.astype(np.int64)]
            values[name] = column.astype(bool) if spec.kind == "yes/no" else column
        return values
