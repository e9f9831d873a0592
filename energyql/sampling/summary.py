"""What the diagnostics of a run come to."""

from __future__ import annotations

import math

import torch

from energyql.sampling.base import SampleResult


def summarize(result: SampleResult) -> dict[str, float]:
    """Costs, and how far the samples can be trusted to follow the posterior where the sampler aims at it.

    Returns:
        `evaluations_mean` and `evaluations_max` of the energy, and `gradients_mean` of them with a gradient, for every
        sampler. Where the sampler tells: `steps_rejected`, all together. Where it draws from the posterior:

        - `acceptance`: accepted proposals over proposals;
        - `exact`: fraction of samples that are exact draws;
        - `stages_mean`: stages of annealing of the others, if they were annealed;
        - `effective_samples`, if so: exact draws, and (Σw)²/Σw² of the annealed samples by their importance weights w
          (Kong 1992). Well below the number of samples says that annealing was too fast, and what the query leaves open
          may come in the wrong proportions: raise `moves`, or lower `growth`;
        - `log_probability`: estimate of log P(query) under the prior, in nats (of E[exp(-λE)], for a strength λ not 1),
          from the proposals (by Wald's identity, since samples stop looking once they accept) or, where too few of
          them came near and there are any, from the weights.
    """
    evaluations = result.evaluations.double()
    found = {
        "evaluations_mean": evaluations.mean().item(),
        "evaluations_max": evaluations.max().item(),
        "gradients_mean": result.gradients.double().mean().item(),
    }
    told = result.diagnostics
    if "steps_rejected" in told:
        found["steps_rejected"] = float(told["steps_rejected"].sum())
    if "exact" not in told:
        return found
    exact, proposals, mass = (told[name].double() for name in ("exact", "proposals", "mass"))
    estimate = mass.sum().log() - proposals.sum().log()
    found |= {"acceptance": (exact.sum() / proposals.sum()).item(), "exact": exact.mean().item()}
    if "log_weight" in told:
        log_weights = told["log_weight"].double()[exact == 0]
        annealed = effective_samples(log_weights)
        if len(log_weights) and mass.sum() < annealed:
            estimate = torch.logsumexp(log_weights, 0) - math.log(len(log_weights))
        found["stages_mean"] = told["stages"][exact == 0].double().mean().item() if len(log_weights) else 0.0
        found["effective_samples"] = exact.sum().item() + annealed
    return found | {"log_probability": estimate.item()}


def effective_samples(log_weights: torch.Tensor) -> float:
    """(Σw)²/Σw² of importance weights given by their logarithms, (n,), in nats; 0 if there are none."""
    if not len(log_weights) or not log_weights.isfinite().any():
        return 0.0
    return torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).item()
