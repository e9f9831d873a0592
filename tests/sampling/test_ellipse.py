import math

import pytest
import torch

from energyql.sampling import RandomStreams, as_energy, prior_latents
from energyql.sampling.draws import Draws
from energyql.sampling.ellipse import slice_move
from sampling.toys import Quadratic


@pytest.mark.parametrize("bracket", [0.1, math.pi / 2, 2 * math.pi])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_move_leaves_the_posterior_as_it_is(bracket, beta):
    # N(0, 1) times exp(-z²/2 · κβ) is N(0, 1 / (1 + κβ)).
    n, energy = 20_000, Quadratic(8.0)
    draws = Draws(as_energy(energy), prior_latents(0, 0, n, 2) / math.sqrt(1 + 8 * beta), RandomStreams(1), None)
    before, draws.e = draws.z.clone(), energy(draws.z)
    for move in range(3):
        slice_move(draws, draws.rows, torch.full((n,), beta), str(move), bracket)
    assert draws.z.square().mean().item() == pytest.approx(1 / (1 + 8 * beta), rel=0.03)
    assert draws.z.mean(0).abs().max() < 0.02
    assert torch.equal(draws.e, energy(draws.z))
    assert not torch.isclose(draws.z, before).any(1).all()


def test_a_shorter_arc_costs_fewer_evaluations_and_moves_less():
    n, energy = 2000, Quadratic(50.0)
    costs, lengths = [], []
    for bracket in (math.pi / 8, math.pi / 2, 2 * math.pi):
        draws = Draws(as_energy(energy), prior_latents(0, 0, n, 2) / math.sqrt(51), RandomStreams(1), None)
        before, draws.e = draws.z.clone(), energy(draws.z)
        slice_move(draws, draws.rows, torch.ones(n), "", bracket)
        costs.append(draws.evaluations.double().mean().item())
        lengths.append((draws.z - before).norm(dim=1).mean().item())
    assert costs == sorted(costs)
    assert costs[0] < costs[2] - 2
    assert lengths[0] < lengths[2]
