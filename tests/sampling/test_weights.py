"""Importance weights: draws of another density keep the frequencies of the posterior."""

import math

import pytest
import torch

from energyql.sampling.weights import (
    cumulative_shares,
    effective_samples,
    log_mean,
    proposal_weights,
    raised_weights,
)

MOVED = 1.5
"""Mean of the proposals, which are from N(1.5, 1) in place of the prior N(0, 1)."""


def energy(z):
    """-log P of a query that is true above about 1: rare under the prior."""
    return torch.nn.functional.softplus(4 - 4 * z)


@pytest.fixture
def exact():
    """P(query), and the share of its posterior above 2, by integration."""
    z = torch.linspace(-12, 12, 200_001, dtype=torch.double)
    density = torch.exp(-energy(z) - z.square() / 2)
    return (density.sum() * (z[1] - z[0]) / math.sqrt(2 * math.pi)).item(), (
        density[z > 2].sum() / density.sum()
    ).item()


def test_weights_of_proposals_give_the_frequencies_of_the_posterior(exact):
    z = torch.randn(200_000, dtype=torch.double, generator=torch.Generator().manual_seed(0)) + MOVED
    log_ratios = ((z - MOVED).square() - z.square()) / 2
    weights = proposal_weights(energy(z), log_ratios, 1.0)
    shares = weights.softmax(0)
    assert log_mean(weights).exp().item() == pytest.approx(exact[0], rel=0.01)
    assert shares[z > 2].sum().item() == pytest.approx(exact[1], rel=0.02)
    assert (z > 2).double().mean().item() > 1.5 * exact[1]
    levels = (torch.arange(10_000).double() + 0.5) / 10_000
    picked = z[torch.searchsorted(cumulative_shares(weights), levels)]
    assert (picked > 2).double().mean().item() == pytest.approx(exact[1], rel=0.02)


def test_a_rise_in_two_stages_weighs_as_much_as_one():
    energies = torch.tensor([[0.0, 1.0, 5.0], [2.0, 2.0, 2.0]]).double()
    twice = raised_weights(energies, 0.0, 0.25) + raised_weights(energies, 0.25, 1.0)
    assert twice.allclose(raised_weights(energies, 0, 1)) and twice.allclose(
        proposal_weights(energies, 0 * energies, 1)
    )
    before = torch.tensor([-1.0, -3.0]).double()
    assert log_mean(twice, before).allclose(log_mean(twice) + before)
    assert log_mean(twice)[1].item() == pytest.approx(-2)


def test_effective_samples():
    assert effective_samples(torch.tensor([])) == 0
    assert effective_samples(torch.tensor([-500.0, -500.0]).double()) == pytest.approx(2)
    assert effective_samples(torch.tensor([0.0, -50.0])) == pytest.approx(1)
    assert effective_samples(torch.tensor([-float("inf")])) == 0
