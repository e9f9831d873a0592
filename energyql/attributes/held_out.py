"""Labelled samples that a verifier did not learn from, by which the threshold of its decisions is chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from energyql.attributes.predictions import Predictions


@dataclass(frozen=True)
class HeldOut:
    """Random samples of the prior with labels, from which a verifier did not learn.

    Attributes:
        labels: attribute -> labels of n samples, (n,) float: 0/1, class index or number; NaN where missing.
        heads: attribute -> predictions of the heads for the latents of the samples.
        readings: attribute -> predictions of the verifier for the pictures of the samples.
    """

    labels: Mapping[str, Tensor]
    heads: Predictions
    readings: Predictions
