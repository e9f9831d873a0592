"""A weight that grows until it is enough, on bowls whose minima are known."""

import pytest
import torch

from energyql.editing.step import PENALTY_FACTORS, penalty_method
from energyql.sampling import GradientEnergy, Status

TARGETS = torch.tensor([[0.2, 0.0], [3.0, 0.0], [40.0, 0.0]])


def weighted(factor):
    """`factor |z - target|² + |z|²`: the minimum is at `factor / (1 + factor)` of the way."""

    def objective(z, rows):
        away = z - TARGETS[rows]
        return factor * away.square().sum(1) + z.square().sum(1), 2 * (factor * away + z)

    return GradientEnergy(objective)


def cost(z, rows):
    return (z - TARGETS[rows]).square().sum(1)


def run(tolerance, cost=cost, rows=slice(None)):
    return penalty_method(weighted, cost, torch.zeros(3, 2)[rows], tolerance=tolerance, max_evaluations=50)


def share(result):
    return (result.z[:, 0] / TARGETS[:, 0]).tolist()


def test_each_sample_gets_the_weight_that_it_needs():
    result = run(tolerance=0.2)
    assert share(result) == pytest.approx([1 / 2, 9 / 10, 27 / 28], abs=1e-2)
    assert result.status.tolist() == [Status.OK] * 3
    assert result.evaluations[0] < result.evaluations[1] < result.evaluations[2]


def test_enough_at_once():
    assert share(run(tolerance=1e4)) == pytest.approx([1 / 2] * 3, abs=1e-2)


def test_a_weight_that_saves_nothing_is_not_kept():
    calls = []

    def floor(z, rows):
        calls.append(len(rows))
        return cost(z, rows).clamp_min(2.1)

    result = run(tolerance=0.2, cost=floor)
    assert share(result) == pytest.approx([1 / 2, 1 / 2, 27 / 28], abs=1e-2)
    assert calls == [3, 3, 1, 1]
    assert len(calls) == 1 + len(PENALTY_FACTORS)


def test_nobody():
    result = penalty_method(weighted, cost, torch.zeros(0, 2), tolerance=0.1, max_evaluations=5)
    assert result.z.shape == (0, 2)
