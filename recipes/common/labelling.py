"""Latents with the attributes of their drawings, which the factors of a latent give without a picture."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from energyql.sampling import prior_latents
from energyql.vocabulary import Vocabulary
from recipes.common.factors import Factors

LATENT_SEED = 404
MOVED = 6
"""Scores that are moved at once in latents beside the prior."""
SPREAD = 1.5
"""Standard deviation of such a move; a score has a standard deviation of 1."""


def label_tensors(labels: Mapping[str, Tensor], vocabulary: Vocabulary) -> dict[str, Tensor]:
    """Return the true attributes as float class indices and numbers, (batch,) each."""
    return {name: labels[name].float() for name in vocabulary}


def beyond_prior(factors: Factors, z: Tensor, generator: torch.Generator) -> Tensor:
    """Return the latents z (n, z_dim), six random scores of each moved to where the prior has few samples."""
    order = torch.rand(len(z), len(factors.matrix), generator=generator).argsort(1)
    moves = SPREAD * torch.randn(order.shape, generator=generator) * (order < MOVED)
    return z + moves @ factors.matrix


def prior_and_beyond(factors: Factors, prior: int, beyond: int) -> Tensor:
    """Return latents z (beyond + prior, z_dim): samples of the prior, after others beyond it.

    Samplers are drawn to such latents, and heads that never saw them would be confident and wrong there.
    """
    z = prior_latents(LATENT_SEED, 0, beyond + prior, factors.matrix.shape[1])
    generator = torch.Generator().manual_seed(LATENT_SEED)
    return torch.cat([beyond_prior(factors, z[:beyond], generator), z[beyond:]])
