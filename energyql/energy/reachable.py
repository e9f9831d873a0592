"""The least energy that a query can reach with given heads, whatever the latent.

Heads predict a continuous attribute as a normal whose standard deviation is fixed, so an interval narrower than a few
of them is never sure: `0.4 < age < 0.6` with a standard deviation of 0.1 has a probability of at most 0.68. A yes/no or
categorical attribute can be as sure as one likes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from energyql.attributes.predictions import Continuous
from energyql.energy.exact import CircuitRule
from energyql.logic.nodes import Leaf

SURE = 0.9
"""Probability from which a sampler takes a query to hold, by default; what cannot reach it is worth a word."""
_NEVER = -700.0
"""Log-probability of a leaf that does not hold."""
_FAR = 40.0
"""Standard deviations beyond the outermost bound, where only the tail holds."""
_MOST_CENTRES = 256
"""Candidates for the mean of one attribute."""
_SWEEPS = 8


def least_energy(rule: CircuitRule, std: Mapping[str, Tensor]) -> float:
    """Return the least energy over all predictions, in nats, at least 0; 0 for a query without narrow intervals.

    The probability is linear in the distribution of each attribute, so it is raised attribute by attribute, from even
    odds, until nothing changes: the classes one by one, and means in the middle of every two bounds. The best of two
    orders counts. That energy is reached; in rare formulas with several alternatives a lesser one may be possible.

    Args:
        rule: of the query.
        std: standard deviation of the heads of the continuous attributes, by name.
    """
    fold = rule.fold
    if not rule.is_probability or not rule.circuit.has_intervals:
        return 0.0
    columns = {name: _candidates(name, fold.leaves, rule, std) for name in rule.attributes}
    of = {name: [i for i, leaf in enumerate(fold.leaves) if leaf.attribute == name] for name in rule.attributes}
    found = math.inf
    for order in (list(columns), list(reversed(columns))):
        leaves = torch.empty(len(fold.leaves), 1, dtype=torch.float64)
        for name, rows in of.items():
            leaves[rows, 0] = columns[name].exp().mean(1).log()
        energy = math.inf
        for _ in range(_SWEEPS):
            before = energy
            for name in order:
                tried = leaves.expand(-1, columns[name].shape[1]).clone()
                tried[of[name]] = columns[name]
                energies = fold.energy(-tried)
                leaves = tried[:, energies.argmin(), None]
                energy = energies.min().item()
            if energy > before - 1e-6:
                break
        found = min(found, energy)
    return max(found, 0.0)


def _candidates(name: str, leaves: list[Leaf], rule: CircuitRule, std: Mapping[str, Tensor]) -> Tensor:
    """Return the log-probabilities of an attribute's leaves, (leaves, candidates), for each candidate prediction."""
    own = [leaf for leaf in leaves if leaf.attribute == name]
    if name not in std:
        atoms = rule.circuit.cells[name]
        holds = [[0.0 if set(atom) <= set(leaf.cells) else _NEVER for atom in atoms] for leaf in own]
        return torch.tensor(holds, dtype=torch.float64)
    spread = float(std[name])
    intervals = [cast("tuple[float, float]", cell) for leaf in own for cell in leaf.cells]
    bounds = sorted({bound for interval in intervals for bound in interval if math.isfinite(bound)})
    pairs = [(low + high) / 2 for i, low in enumerate(bounds) for high in bounds[i + 1 :]]
    means = [bounds[0] - _FAR * spread, *pairs[:_MOST_CENTRES], bounds[-1] + _FAR * spread]
    prediction = Continuous(torch.tensor(means, dtype=torch.float64), spread)
    return torch.stack([prediction.log_probability(leaf.cells) for leaf in own]).clamp(min=_NEVER)
