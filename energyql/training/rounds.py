"""The gain of a round of labels: new heads against old ones, on pictures that neither was fitted to or chosen by."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from energyql.attributes.bank import AttributeBank
from energyql.attributes.predictions import Categorical, Prediction, YesNo
from energyql.attributes.quality import HeadReport
from energyql.numerics.shapes import Float
from energyql.training.drawn import Drawn

Z_95 = 1.96
"""Half the width of a 95 % interval of a normal distribution, in standard deviations."""


@torch.no_grad()
def with_gains(
    reports: Mapping[str, HeadReport],
    old: AttributeBank | None,
    new: AttributeBank,
    latents: Float[Tensor, "rows latent_dim"],
    labels: Mapping[str, Tensor],
    drawn: Drawn,
) -> dict[str, HeadReport]:
    """Compare new heads with the old ones of the same name on the held-out rows, and add the outcome to their reports.

    Heads are compared only if the old ones were fitted to labels of the same pictures, since other trainings may have
    used these rows.

    Args:
        reports: on the new heads.
        old: the heads before the round, if there are any.
        new: the heads after the round.
        latents: of the rows that are held out.
        labels: attribute -> (rows,), NaN where missing.
        drawn: how the pictures were drawn.

    Returns:
        Reports whose `details` have `drawn`, a text, and `round` where heads were compared: `measure`, "balanced
        accuracy" or "R2"; `before` and `now`; `gain`, their difference, with a 95 % interval from `low` to `high`;
        `samples`, the labelled rows; `labels_before` and `labels`, those of the old and of the new head.
    """
    found = {}
    for name, report in reports.items():
        details, known = {**report.details, "drawn": str(drawn)}, ~labels[name].isnan()
        earlier = None if old is None else old.reports.get(name)
        if old is not None and earlier is not None and known.any():
            same = old.vocabulary[name] == new.vocabulary[name] and earlier.details.get("drawn") == str(drawn)
            if same:
                before, now = (bank.predict(latents[known], (name,))[name] for bank in (old, new))
                details["round"] = _gain(before, now, labels[name][known]) | {
                    "labels_before": earlier.fitted + earlier.held_out, "labels": report.fitted + report.held_out
                }  # fmt: skip
        found[name] = replace(report, details=details)
    return found


def describe_gain(found: Mapping[str, Any]) -> str:
    """Return the gain of a round, as `with_gains` measures it, in one line."""
    unit, factor, digits = (" points", 100, 1) if found["measure"] == "balanced accuracy" else ("", 1, 2)
    before, now, gain, low, high = (factor * found[key] for key in ("before", "now", "gain", "low", "high"))
    change = f"{gain:+.{digits}f}{unit} ({low:+.{digits}f} to {high:+.{digits}f}, 95 %)"
    return (
        f"{found['measure']} {before:.{digits}f} with {found['labels_before']} labels, "
        f"{now:.{digits}f} with {found['labels']}: {change} on {found['samples']} random pictures held out"
    )


def _gain(before: Prediction, now: Prediction, labels: Float[Tensor, " rows"]) -> dict[str, Any]:
    """Return the paired difference of two heads, and its interval."""
    scores = [_scores(prediction, labels) for prediction in (before, now)]
    classified = isinstance(now, YesNo | Categorical)
    groups = (
        [labels == value for value in labels.unique()] if classified else [torch.ones_like(labels, dtype=torch.bool)]
    )
    gain = variance = 0.0
    for rows in groups:
        difference, count = (scores[1] - scores[0])[rows].double(), int(rows.sum())
        gain += float(difference.mean()) / len(groups)
        squares = float(difference.square().sum())
        if classified:  # half a pair more of each of the four outcomes (Agresti and Min 2005, doi 10.1002/sim.1781)
            squares, count = squares + 1, count + 2
        mean = float(difference.sum()) / count
        variance += max(squares / count - mean**2, 0.0) / count / len(groups) ** 2
    width = Z_95 * math.sqrt(variance)
    before_, now_ = (sum(float(score[rows].mean()) for rows in groups) / len(groups) for score in scores)
    return {
        "measure": "balanced accuracy" if classified else "R2", "before": before_, "now": now_,
        "gain": gain, "low": gain - width, "high": gain + width, "samples": len(labels),
    }  # fmt: skip


def _scores(prediction: Prediction, labels: Float[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """Return a score of each row whose mean, over the classes or over all rows, is the quality of the head."""
    if isinstance(prediction, YesNo):
        return ((prediction.logit > 0) == labels.bool()).float()
    if isinstance(prediction, Categorical):
        return (prediction.logits.argmax(1) == labels).float()
    spread = (labels - labels.mean()).square().mean().clamp(min=1e-12)
    return 1 - (labels - prediction.mean).square() / spread
