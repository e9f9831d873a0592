"""Populations of each sample's own: what they draw, what they cost, and when a query is out of reach."""

import math
import re

import pytest
import torch

from energyql.errors import ArgumentError, UnreachableError
from energyql.sampling import (
    PopulationSampler,
    PopulationState,
    RandomStreams,
    Status,
    StepNoise,
    as_energy,
    population_stage,
    prior_latents,
    summarize,
)
from energyql.sampling.population import MOST_REACH, choose, next_exponents

DIMS = 64


class Beyond:
    """-log P of `z0 > edge`, as a reader that is surer with the distance: a costly energy that counts its calls."""

    costly, least, surrogate = True, 0.0, None

    def __init__(self, edge, slope=6.0):
        self.edge, self.slope, self.calls, self.sampler_cache = edge, slope, 0, {}

    def __call__(self, z):
        self.calls += len(z)
        return torch.nn.functional.softplus(-self.slope * (z[:, 0] - self.edge))

    def exact(self):
        """Return P, and the mean and standard deviation of z0 under the posterior, by quadrature."""
        grid = torch.linspace(-8, 8, 40_001, dtype=torch.double)
        density = torch.exp(-grid.square() / 2) / math.sqrt(2 * math.pi)
        weight = density * torch.sigmoid(self.slope * (grid - self.edge))
        mass = weight.sum() * (grid[1] - grid[0])
        mean = (weight * grid).sum() / weight.sum()
        return mass.item(), mean.item(), ((weight * (grid - mean).square()).sum() / weight.sum()).sqrt().item()


def draw(energy, n, sampler=None, seed=0):
    z0 = prior_latents(seed, 0, n, DIMS)
    return (sampler or PopulationSampler()).sample(energy, z0, noise=RandomStreams(seed))


@pytest.fixture(scope="module")
def rare():
    energy = Beyond(2.6)
    return energy, draw(energy, 300, PopulationSampler(enough=None))


class TestPosterior:
    def test_a_rare_query_is_drawn_as_often_as_exact_samples_would_be(self, rare):
        energy, result = rare
        share, mean, deviation = energy.exact()
        assert 0.004 < share < 0.008
        weights = result.diagnostics["log_weight"].double().exp()[result.diagnostics["exact"] == 0]
        annealed = result.z[result.diagnostics["exact"] == 0, 0].double()
        assert (weights * annealed).sum() / weights.sum() == pytest.approx(mean, abs=deviation / 3)
        assert result.z[:, 0].mean() == pytest.approx(
            mean, abs=0.9 * deviation
        )  # without weights: so few latents, so near
        assert result.z[:, 1:].mean(0).abs().max() < 4.5 / math.sqrt(300)  # the other coordinates keep the prior
        assert result.z[:, 1:].std(0).mean() == pytest.approx(1, abs=0.02)

    def test_it_takes_far_fewer_calls_than_rejection(self, rare):
        energy, result = rare
        assert result.ok.all()
        assert result.evaluations.double().mean() < 0.5 / energy.exact()[0]
        assert (result.gradients == 0).all()

    def test_weights_estimate_how_common_the_query_is(self, rare):
        energy, result = rare
        summary = summarize(result)
        assert summary["log_probability"] == pytest.approx(math.log(energy.exact()[0]), abs=0.35)
        assert 60 < summary["effective_samples"] <= 300

    def test_a_common_query_is_drawn_by_rejection_alone(self):
        result = draw(Beyond(1.0), 100, PopulationSampler(enough=None))
        assert result.diagnostics["exact"].all()
        assert result.evaluations.double().mean() < 12

    def test_samples_end_where_the_query_is_certain(self, rare):
        energy, result = rare
        sure = draw(energy, 100)
        assert (energy(result.z) > 0.105).double().mean() > 0.1
        assert (energy(sure.z) <= 0.105).double().mean() > 0.9
        assert PopulationSampler().descends
        assert not PopulationSampler(enough=None).descends


class TestCost:
    def test_the_budget_ends_a_sample(self):
        energy = Beyond(3.5)
        energy.costly = False  # so that no population shows first that the query is out of reach
        result = draw(energy, 40, PopulationSampler(budget=24))
        assert (result.evaluations <= 24 + 40).all()
        assert Status.STEP_LIMIT in result.counts()

    def test_a_query_out_of_reach_ends_before_the_budget_is_spent(self):
        energy = Beyond(5.5)
        with pytest.raises(UnreachableError, match=r"not reachable under this prompt or model: about 1 in .*interval"):
            draw(energy, 1000)
        assert energy.calls < 32 + MOST_REACH + 200
        with pytest.raises(UnreachableError, match=r"fewer than 1 in [\d,]+ pictures satisfy"):
            draw(Beyond(9.0, slope=400.0), 1000)

    @pytest.mark.parametrize("edge", [3.6, 4.0])
    def test_the_interval_holds_the_truth(self, edge):
        energy = Beyond(edge)
        with pytest.raises(UnreachableError) as refused:
            draw(energy, 1, PopulationSampler(budget=40))
        ends = re.search(r"interval: 1 in ([\d,]+) to 1 in ([\d,]+)\)", refused.value.message).groups()
        common, rare = (int(end.replace(",", "")) for end in ends)
        assert common < 1 / energy.exact()[0] < rare

    def test_the_pilot_is_drawn_once_and_the_same_for_all_seeds(self):
        energy = Beyond(2.6)
        for seed in (0, 1):
            before = energy.calls
            result = draw(energy, 2, seed=seed)
            assert (energy.calls - before > result.evaluations.sum()) == (seed == 0)

    @pytest.mark.parametrize("wrong", [{"budget": 0}, {"ancestors": 0}, {"effective": 1.0}, {"enough": 0.0}])
    def test_wrong_settings(self, wrong):
        with pytest.raises(ArgumentError):
            PopulationSampler(**wrong)


class TestStage:
    def state(self, rows=200, latents=16):
        z = prior_latents(3, 0, rows * latents, DIMS).view(rows, latents, DIMS)
        zeros = torch.zeros(rows, dtype=torch.double)
        return PopulationState(z, Beyond(1.0)(z.flatten(0, 1)).view(rows, latents), zeros, zeros)

    def test_the_exponent_leaves_the_effective_share(self):
        state = self.state()
        exponents = next_exponents(state, 1.0, 0.5)
        log_weights = -exponents[:, None] * state.energies.double()
        effective = log_weights.exp().sum(1).square() / (2 * log_weights).exp().sum(1)
        below = exponents < 1
        assert below.any()
        assert effective[below].numpy() == pytest.approx(8, abs=1e-3)
        assert (effective >= 8 - 1e-3).all()

    def test_latents_are_chosen_in_proportion_to_their_weights(self):
        state = self.state(rows=4000)
        noise = StepNoise(RandomStreams(1), state.z[:, 0])
        numbers, log_weight = choose(state, torch.ones(4000, dtype=torch.double), noise, 1)
        shares = torch.softmax(-state.energies.double(), 1)
        found = torch.zeros_like(shares).scatter_(1, numbers, 1.0)
        assert (found.mean(0) - shares.mean(0)).abs().max() < 0.03
        assert log_weight.exp().mean() == pytest.approx(Beyond(1.0).exact()[0], rel=0.05)

    def test_a_stage_leaves_its_density_unchanged_and_its_arguments_alone(self):
        """From draws of the prior at β = 1, weights and moves lead to the posterior."""
        state, energy = self.state(rows=2000), Beyond(1.0)
        before = [part.clone() for part in state]
        after, info = population_stage(
            state, as_energy(energy), StepNoise(RandomStreams(2), state.z[:, 0]), torch.ones(2000, dtype=torch.double)
        )
        assert all(map(torch.equal, state, before))
        assert after.z.shape == (2000, 16, DIMS)
        assert (info.evaluations == 12).all()
        assert torch.allclose(after.energies.flatten(), energy(after.z.flatten(0, 1)))
        weights = after.log_weight.exp()  # populations count by these
        mean = (weights * after.z[..., 0].double().mean(1)).sum() / weights.sum()
        assert mean.item() == pytest.approx(energy.exact()[1], abs=0.03)
