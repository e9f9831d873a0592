"""Choose the pictures whose labels teach the heads most: those near the boundaries between their predicted values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from energyql.attributes.predictions import Categorical, Continuous, Prediction, YesNo
from energyql.numerics.shapes import Float

BINS = 5
"""Parts of equal width into which the predicted range of a continuous attribute is cut."""


def choose_unsure(predictions: Mapping[str, Prediction], count: int) -> list[int]:
    """Choose the rows about which the heads are least sure, as many for one value of an attribute as for another.

    Each value of each attribute has a queue of all rows, and the queues take turns. In the queue of a class come first
    the rows that are predicted to be of this class, the least certain in front; then the others, the most probable in
    front. So a rare class gets as many labels as a common one. The head of a continuous attribute does not say where
    it is less sure; its queues are `BINS` parts of the predicted range, in the order of the rows.

    Args:
        predictions: of the heads, by attribute, for all rows.
        count: number of rows to choose, at most as many as there are.

    Returns:
        Different rows, the most informative first.
    """
    queues = [iter(queue.tolist()) for prediction in predictions.values() for queue in _queues(prediction)]
    chosen: dict[int, None] = {}
    while len(chosen) < count:
        for queue in queues:
            row = next((row for row in queue if row not in chosen), None)
            if row is not None and len(chosen) < count:
                chosen[row] = None
    return list(chosen)


def _queues(prediction: Prediction) -> Iterator[Tensor]:
    """Yield an order of all rows for each value of an attribute."""
    if isinstance(prediction, Continuous):
        mean = prediction.mean.contiguous()
        edges = torch.linspace(float(mean.min()), float(mean.max()), BINS + 1, device=mean.device)
        part = torch.bucketize(mean, edges[1:-1])
        for k in range(BINS):
            yield (part != k).long().argsort(stable=True)
        return
    for lead in _leads(prediction):
        size = lead.abs()
        # Rows of the class lie in [0, 1), the others in [1, 2).
        yield torch.where(lead >= 0, size / (1 + size), 1 + size / (1 + size)).argsort(stable=True)


def _leads(prediction: YesNo | Categorical) -> list[Float[Tensor, " rows"]]:
    """Return the logit of each class minus that of the best other class."""
    if isinstance(prediction, YesNo):
        return [prediction.logit, -prediction.logit]
    logits = prediction.logits
    leads = []
    for k in range(logits.shape[1]):
        others = torch.cat([logits[:, :k], logits[:, k + 1 :]], 1)
        leads.append(logits[:, k] - others.amax(1))
    return leads
