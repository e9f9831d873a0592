"""What the judge reads off given pictures, as a term that leads the heads there."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from energyql.attributes.labels import ImageLabeller, call_labeller, read_images
from energyql.attributes.predictions import Categorical, YesNo, output_count
from energyql.editing.latents import LatentSpace
from energyql.editing.terms import Term, keep_predictions
from energyql.pipeline.columns import concatenate
from energyql.pipeline.model import Values
from energyql.vocabulary import Vocabulary

TARGET_LOGIT = 6.0
"""Log-odds that the heads should have for what the judge reads."""
CLEAR = 0.95
"""Probability from which a reading of the judge counts: what it is unsure of may be wrong, and lead elsewhere."""
AT_ONCE = 64
"""Pictures that are read together."""


def attribute_terms(targets: Tensor, space: LatentSpace) -> list[Term]:
    """Return the divergence of the heads from what the judge clearly reads off pictures; nothing without a judge."""
    judge, names = space.model.judge, space.model.judged_names
    if judge is None or not names:
        return []
    vocabulary = Vocabulary(space.model.vocabulary[name] for name in names)
    parts = [_read(judge, part, vocabulary) for part in targets.split(AT_ONCE)]
    values, clear = concatenate([part[0] for part in parts]), torch.cat([part[1] for part in parts])
    outputs = _as_outputs(values, space.model.vocabulary).to(targets)
    return [keep_predictions(space.bank.raw_outputs(tuple(values)), outputs, clear.to(targets))]


@torch.inference_mode()
def _read(judge: ImageLabeller, images: Tensor, vocabulary: Vocabulary) -> tuple[Values, Tensor]:
    """Return what a judge reads off n pictures, and whether it reads each attribute clearly, (n, attributes).

    Code that says no probability always does.
    """
    read, columns = call_labeller(judge, images, "the judge"), []
    values = read_images(lambda _: read, images, vocabulary)
    for name in values:
        found = read[name]
        if isinstance(found, YesNo):
            probability = found.logit.abs().sigmoid()
        elif isinstance(found, Categorical):
            probability = found.logits.softmax(1).amax(1)
        else:
            probability = images.new_ones(len(images))
        columns.append(probability.to(images.device) >= CLEAR)
    return values, torch.stack(columns, 1)


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
