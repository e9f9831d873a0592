"""What the judge reads off given pictures, as a term that leads the heads there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.labels import call_labeller
from energyql.attributes.predictions import Categorical, YesNo, output_count
from energyql.editing.latents import LatentSpace
from energyql.editing.terms import Term, keep_predictions
from energyql.pipeline.columns import concatenate
from energyql.pipeline.model import Model, Values
from energyql.vocabulary import Vocabulary

TARGET_LOGIT = 6.0
"""Log-odds that the heads should have for what the judge reads."""
CLEAR = 0.95
"""Probability from which a reading of the judge counts: what it is unsure of may be wrong, and lead elsewhere."""


def attribute_terms(targets: Tensor, space: LatentSpace) -> list[Term]:
    """Return the divergence of the heads from what the judge clearly reads off pictures; nothing without a judge."""
    values = concatenate([space.model.judge_images(part) for part in targets.split(64)])
    if not values:
        return []
    outputs = _as_outputs(values, space.model.vocabulary).to(targets)
    clear = torch.cat([_clear(space.model, part, list(values)) for part in targets.split(64)])
    return [keep_predictions(space.model.bank.raw_outputs(tuple(values)), outputs, clear.to(targets))]


@torch.inference_mode()
def _clear(model: Model, images: Tensor, names: Sequence[str]) -> Tensor:
    """Return whether the judge reads each attribute clearly off each picture, (n, names).

    Code that says no probability always does.
    """
    assert model.judge is not None
    read, columns = call_labeller(model.judge, images), []
    for name in names:
        found = read[name]
        if isinstance(found, YesNo):
            probability = found.logit.abs().sigmoid()
        elif isinstance(found, Categorical):
            probability = found.logits.softmax(1).amax(1)
        else:
            probability = images.new_ones(len(images))
        columns.append(probability.to(images.device) >= CLEAR)
    return torch.stack(columns, 1)


def _as_outputs(values: Values, vocabulary: Vocabulary) -> Tensor:
    """Return the outputs, (n, outputs), of heads that predict the values with certainty."""
    columns = []
    for name in values:
        spec = vocabulary[name]
        if spec.kind == "continuous":
            columns.append(torch.from_numpy(values[name]).float()[:, None])
        elif spec.kind == "categorical":
            columns.append(torch.from_numpy(values[name][:, None] == np.array(spec.values)).float() * 2 * TARGET_LOGIT)
        else:
            columns.append((torch.from_numpy(values[name]).float()[:, None] * 2 - 1) * TARGET_LOGIT)
        assert columns[-1].shape[1] == output_count(spec)
    return torch.cat(columns, 1)
