"""`avatars` judged by the choices that its latents make, which its recipe knows, instead of by pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from energyql.evaluation.judged import EvaluatedModel, JudgedSamples
from energyql.pipeline.model import Values
from energyql.progress import Report
from recipes.avatars.factors import Factors

AT_ONCE = 4096


class ChoiceModel(EvaluatedModel):
    """The packaged model without drawing: a thousand times as fast, and right where a judge may err.

    Pictures that are blends of two choices count as one of them. Distances between pictures are not measured.
    """

    def __init__(self, model: str = "avatars", *, device: str = "auto") -> None:
        super().__init__(model, device=device)
        self.identity = f"choices-{self.identity}"
        self.features = None
        self._factors = Factors()

    def judge(self, z: Tensor, report: Report = lambda stage, fraction: None, *, shown: int = 0) -> JudgedSamples:
        """Return the choices of latents (n, z_dim), as they would be read off their pictures; none are kept."""
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
