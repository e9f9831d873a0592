import math
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import softplus

from energyql.sampling import DescentSampler, RandomStreams, SliceSampler, prior_latents, summarize
from energyql.sampling.base import Batch
from energyql.sampling.slice import FEWEST
from energyql.sampling.smc import (
    ANCESTORS,
    ANGLES,
    MORE_TRIALS,
    SAMPLES_OF_A_SET,
    SWEEPS,
    TRIALS,
    Particles,
    SurrogateProposals,
    draws_of_a_move,
    particles_of,
)

DIM = 4
DIRECTION = torch.tensor([[0.6, 0.8, 0.0, 0.0]])


@dataclass(frozen=True)
class Surrogate:
    """-log sigmoid(slope (v - threshold)), of v along `DIRECTION`."""

    threshold: float
    slope: float = 4.0

    basis = DIRECTION

    def __call__(self, v):
        return softplus(-self.slope * (v[:, 0] - self.threshold))

    def lift(self, v, z):
        return z + (v - z @ DIRECTION.t()) @ DIRECTION


class Energy:
    """-log sigmoid(8 (v - 3)), with v along `DIRECTION` turned a little: P is about 0.002."""

    def __init__(self, surrogate, threshold=3.0):
        self.threshold = threshold
        self.surrogate = lambda: surrogate

    def __call__(self, z):
        return softplus(-8 * (z @ DIRECTION[0] + 0.1 * z[:, 2] - self.threshold))


def truth():
    """log P, and mean and standard deviation of the posterior along the direction that the energy depends on."""
    x = torch.linspace(-9, 9, 200001, dtype=torch.float64)
    scale = math.sqrt(1.01)
    density = torch.exp(-0.5 * x**2 - softplus(-8 * (scale * x - 3))) / math.sqrt(2 * math.pi)
    mass = torch.trapezoid(density, x)
    mean = torch.trapezoid(density * x, x) / mass
    return mass.log().item(), mean.item(), (torch.trapezoid(density * (x - mean) ** 2, x) / mass).sqrt().item()


def draw(energy, n=4000, **settings):
    return SliceSampler(**settings).sample(energy, prior_latents(0, 0, n, DIM), noise=RandomStreams(0))


def along(z):
    return (z @ DIRECTION[0] + 0.1 * z[:, 2]) / math.sqrt(1.01)


@pytest.mark.parametrize("surrogate", [Surrogate(3.0, 8.0), Surrogate(2.9, 5.0), Surrogate(3.2, 6.0)])
def test_samples_follow_the_energy_whatever_the_surrogate(surrogate):
    result = draw(Energy(surrogate))
    log_probability, mean, std = truth()
    assert along(result.z).mean().item() == pytest.approx(mean, abs=0.1 * std)
    assert along(result.z).std().item() == pytest.approx(std, rel=0.12)
    assert result.z[:, 3].mean().abs() < 0.05
    assert result.z[:, 3].std().item() == pytest.approx(1, abs=0.04)
    found = summarize(result)
    assert found["log_probability"] == pytest.approx(log_probability, abs=0.15)
    assert found["exact"] > 0.9
    assert found["effective_samples"] > 2500
    assert found["evaluations_mean"] < 15


def test_a_surrogate_that_is_nearly_right_makes_every_proposal_count():
    batch = Batch.start(Energy(Surrogate(3.0, 8.0)), prior_latents(0, 0, 10, DIM))
    proposals = SurrogateProposals(batch, 1.0)
    assert proposals.satisfied > 0.3  # proposals are flatter than the surrogate
    assert proposals.cost < 3


def test_first_trials_that_promise_nothing_are_the_only_ones():
    counts = []

    class Counted(Energy):
        def __call__(self, z):
            counts.append(len(z))
            return super().__call__(z)

    # Promising at the first exponent, at the second only, at none.
    for guess, threshold, expected in (
        (1.5, 1.5, TRIALS + MORE_TRIALS), (3.0, 3.0, 2 * TRIALS + MORE_TRIALS), (3.0, 6.0, 2 * TRIALS)
    ):  # fmt: skip
        counts.clear()
        SurrogateProposals(Batch.start(Counted(Surrogate(guess, 8.0), threshold), prior_latents(0, 0, 1, DIM)), 1.0)
        assert sum(counts) == expected


@pytest.mark.parametrize("descent", [None, DescentSampler(enough=1.0)])
def test_a_surrogate_that_misleads_is_not_trusted(descent):
    misled = draw(Energy(Surrogate(-3.0, -4.0)), n=200, descent=descent)  # it sends samples the other way
    assert misled.ok.all()
    assert misled.diagnostics["proposals"].max() <= FEWEST
    assert ("stages" in misled.diagnostics) == (descent is None)
    assert descent is None or float(Energy(None)(misled.z).mean()) < 1


def test_common_queries_do_not_ask_for_a_surrogate():
    energy = Energy(None, threshold=1.0)
    energy.surrogate = lambda: pytest.fail("asked")
    assert draw(energy, n=20).diagnostics["exact"].all()


def test_rare_queries_without_a_surrogate_are_annealed():
    energy = Energy(None)
    energy.surrogate = None
    assert "stages" in draw(energy, n=20).diagnostics


def test_a_sample_depends_on_its_index_alone():
    energy, sampler = Energy(Surrogate(2.8, 5.0)), SliceSampler()
    whole = draw(energy, n=50)
    parts = [
        sampler.sample(energy, prior_latents(0, first, count, DIM), noise=RandomStreams(0, first))
        for first, count in ((0, 7), (7, 1), (8, 42))
    ]
    assert torch.equal(whole.z, torch.cat([part.z for part in parts]))
    assert torch.equal(whole.evaluations, torch.cat([part.evaluations for part in parts]))
    other = sampler.sample(energy, prior_latents(1, 0, 50, DIM), noise=RandomStreams(1))
    assert not torch.isclose(whole.z, other.z).all(1).any()


def test_a_batch_across_two_sets_of_particles_is_as_its_parts():
    energy, sampler, first = Energy(Surrogate(2.8, 5.0)), SliceSampler(), SAMPLES_OF_A_SET - 5
    whole, before, after = (
        sampler.sample(energy, prior_latents(3, start, count, DIM), noise=RandomStreams(3, start))
        for start, count in ((first, 12), (first, 5), (SAMPLES_OF_A_SET, 7))
    )
    assert torch.equal(whole.z, torch.cat([before.z, after.z]))
    for name, numbers in whole.diagnostics.items():
        assert torch.equal(numbers, torch.cat([before.diagnostics[name], after.diagnostics[name]])), name


def test_the_last_samples_of_the_longest_run_have_particles():
    first = 2**58 - 3  # further on there are no random numbers for tens of proposals a sample
    found = SliceSampler().sample(
        Energy(Surrogate(2.8, 5.0)), prior_latents(0, first, 2, DIM), noise=RandomStreams(0, first)
    )
    assert found.ok.all()


def test_sets_of_particles_are_independent():
    (first, _), (second, _) = (particles_of(Surrogate(2.5, 3.0), 1.0, torch.float32, number) for number in (0, 1))
    assert torch.isclose(first.v, second.v).double().mean() < 0.01
    both = torch.stack([first.v[:, 0], second.v[:, 0]])
    assert torch.corrcoef(both)[0, 1].abs() < 0.05


@pytest.mark.parametrize(("threshold", "strength"), [(2.5, 0.5), (2.5, 1.0), (2.5, 6.0), (3.5, 6.0)])
def test_particles_are_draws_from_the_surrogates_posterior(threshold, strength):
    surrogate = Surrogate(threshold, 3.0)
    particles, log_mass = particles_of(surrogate, strength, torch.float32)
    x = torch.linspace(-9, 9, 200001, dtype=torch.float64)
    density = torch.exp(-0.5 * x**2 - strength * surrogate(x[:, None])) / math.sqrt(2 * math.pi)
    mass = torch.trapezoid(density, x)
    mean = torch.trapezoid(density * x, x) / mass
    std = (torch.trapezoid(density * (x - mean) ** 2, x) / mass).sqrt().item()
    assert log_mass == pytest.approx(mass.log().item(), abs=0.12)
    assert len(particles.v) == ANCESTORS * SWEEPS * len(ANGLES)  # no state on the way is wasted
    assert particles.v.mean().item() == pytest.approx(mean.item(), abs=0.06 * std)
    assert particles.v.std().item() == pytest.approx(std, rel=0.03)
    assert torch.allclose(particles.energies, strength * surrogate(particles.v), atol=1e-4)


def test_a_move_leaves_the_posterior_of_particles_as_it_is():
    # N(0, 1) times exp(-4 v²) is N(0, 1/9).
    def surrogate(v):
        return 4 * v.square().sum(1)

    v = torch.randn(20_000, 2, generator=torch.Generator().manual_seed(0)) / 3
    draws = torch.randn(20_000, draws_of_a_move(2), generator=torch.Generator().manual_seed(1))
    moved = Particles(v, surrogate(v)).moved(surrogate, draws)
    assert moved.v.std().item() == pytest.approx(1 / 3, rel=0.02)
    assert torch.allclose(moved.energies, surrogate(moved.v))
    share = (moved.v != v).any(1).double().mean().item()
    assert 0.8 < share < 1
    assert draws_of_a_move(2) == 3 * len(ANGLES)


def test_extreme_strengths_end():
    assert particles_of(Surrogate(2.5, 3.0), 1e6, torch.float32)[0].v.isfinite().all()


def test_an_energy_without_finite_values_is_reported():
    class Nowhere(Energy):
        def __call__(self, z):
            return torch.full_like(z[:, 0], math.inf)

    result = draw(Nowhere(Surrogate(3.0)), n=5)
    assert not result.ok.any()
    assert result.z.isfinite().all()


@pytest.mark.parametrize("keeps", [True, False])
def test_pilot_and_trials_are_evaluated_once_where_the_energy_never_changes(keeps):
    counts = []

    class Counted(Energy):
        def __call__(self, z):
            counts.append(len(z))
            return super().__call__(z)

    energy = Counted(Surrogate(3.0, 8.0))
    if keeps:
        energy.sampler_cache = {}
    first = draw(energy, n=20)
    before = sum(counts)
    again = draw(energy, n=20)
    assert torch.equal(first.z, again.z)
    assert torch.equal(first.z, draw(Energy(Surrogate(3.0, 8.0)), n=20).z)
    assert 2 * before - sum(counts) == (128 + 2 * TRIALS + MORE_TRIALS if keeps else 0)
    stronger = sum(counts)
    draw(energy, n=20, strength=2.0)  # what was found at another strength does not serve
    assert sum(counts) - stronger > 128 + TRIALS
