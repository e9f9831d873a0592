"""Importance weights: how much a draw counts, so that all that a rare query leaves open keeps the frequencies it has.

A draw z of another density than the posterior `N(z; 0, I) exp(-λ E(z))` has the weight posterior / density, up to a
factor that is the same for all. Weights are logarithms, in nats, and are used relative to their sum (self-normalised).

- A proposal weighs exp(-λE) times prior density / density of proposals (`proposal_weights`). Rejection accepts it with
  a probability in proportion, so accepted proposals weigh the same; of proposals that were all rejected, one is picked
  by weight (`cumulative_shares`). The density is that of the prior or, for a rare query, of the posterior of a
  surrogate (`energyql.sampling.smc`).
- A draw at one exponent β of exp(-βE) weighs exp((β - β')E) at another, β' (`raised_weights`): annealing, populations
  and particles rise from the prior, or from proposals, to λ.
- Where a verifier decides which pictures are kept, draws follow a clipped energy instead, which leaves the prior as it
  is wherever the heads give the query a P of at least the clip. `energyql.energy.clipped.clipped_density` is their
  density relative to the prior, and `energyql.pipeline.clips` chooses the clip by quotients of two such densities.

From weights come the estimate of P(query) (`log_mean`) and how many samples of equal weight they are worth
(`effective_samples`); `energyql.sampling.summarize` reports both.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from energyql.numerics.shapes import Float


def proposal_weights(
    energies: Float[Tensor, "*rows proposals"], log_ratios: Float[Tensor, "*rows proposals"], strength: Tensor | float
) -> Float[Tensor, "*rows proposals"]:
    """Log-weights of proposals; `log_ratios` are log(prior density / density of proposals)."""
    return log_ratios - strength * energies


def raised_weights(energies: Tensor, before: Tensor | float, after: Tensor | float) -> Tensor:
    """Log-weights of draws at the exponent `before` for the density at `after`: (before - after) E."""
    return (before - after) * energies


def cumulative_shares(log_weights: Float[Tensor, "*rows draws"]) -> Float[Tensor, "*rows draws"]:
    """Sums of the weights up to each draw, as fractions of the sum of all, float64: where a random level falls."""
    return torch.softmax(log_weights, -1).double().cumsum(-1)


def log_mean(log_weights: Float[Tensor, "*rows draws"], before: Tensor | None = None) -> Float[Tensor, "*rows"]:
    """Logarithm of the mean weight, added to the log-weight `before` that all draws had: of log P from the prior."""
    total = torch.logsumexp(log_weights, -1)
    return (total if before is None else before + total) - math.log(log_weights.shape[-1])


def log_effective(log_weights: Float[Tensor, "*rows draws"]) -> Float[Tensor, "*rows"]:
    """Logarithm of the effective sample size, (Σw)²/Σw² (Kong 1992)."""
    return 2 * torch.logsumexp(log_weights, -1) - torch.logsumexp(2 * log_weights, -1)


def effective_samples(log_weights: Float[Tensor, " n"]) -> float:
    """Effective sample size, (Σw)²/Σw² (Kong 1992), from log-weights; 0 if none of them is finite."""
    if not len(log_weights) or not log_weights.isfinite().any():
        return 0.0
    return torch.exp(log_effective(log_weights)).item()
