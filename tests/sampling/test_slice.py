import math

import pytest
import torch

from energyql.sampling import DescentSampler, RandomStreams, SliceSampler, Status, prior_latents, summarize
from energyql.sampling.base import Batch
from energyql.sampling.rejection import ROWS_AHEAD
from energyql.sampling.slice import FEWEST, slice_move
from sampling.toys import Counting, Quadratic, flat

NEAR = DescentSampler(enough=1.0)


@pytest.fixture
def never_ahead(monkeypatch):
    """Every sample is evaluated at one point at a time."""
    monkeypatch.setattr("energyql.sampling.rejection.ROWS_AHEAD", 1)


def halfspace(threshold, slope=20.0):
    """E = -log sigmoid(slope (z_0 - threshold)): nearly the event z_0 > threshold."""
    return lambda z: torch.nn.functional.softplus(-slope * (z[:, 0] - threshold))


def truth(energy):
    """log E[exp(-E)], and mean and standard deviation of z_0 under the posterior, by quadrature."""
    x = torch.linspace(-9, 9, 200001, dtype=torch.float64)
    density = torch.exp(-0.5 * x**2 - energy(x[:, None])) / math.sqrt(2 * math.pi)
    mass = torch.trapezoid(density, x)
    mean = torch.trapezoid(density * x, x) / mass
    return mass.log().item(), mean.item(), (torch.trapezoid(density * (x - mean) ** 2, x) / mass).sqrt().item()


def draw(energy, n=4000, z_dim=3, seed=0, **settings):
    return SliceSampler(**settings).sample(energy, prior_latents(seed, 0, n, z_dim), noise=RandomStreams(seed))


@pytest.mark.parametrize("threshold", [-1.0, 0.5, 1.5])
def test_common_events_are_drawn_exactly(threshold):
    energy = halfspace(threshold)
    result = draw(energy, proposals=200)
    log_probability, mean, std = truth(energy)
    assert result.diagnostics["exact"].all()
    assert result.z[:, 0].mean().item() == pytest.approx(mean, abs=4 * std / math.sqrt(4000))
    assert result.z[:, 0].std().item() == pytest.approx(std, rel=0.06)
    assert result.z[:, 1:].mean(0).abs().max() < 4 / math.sqrt(4000)
    assert result.z[:, 1:].std().item() == pytest.approx(1, abs=0.03)
    assert summarize(result)["log_probability"] == pytest.approx(log_probability, abs=0.1)


@pytest.mark.parametrize("threshold", [2.5, 3.5])
def test_rare_events_are_annealed(threshold):
    energy = halfspace(threshold)
    result = draw(energy, growth=1.2, moves=3, proposals=16)
    log_probability, mean, std = truth(energy)
    assert result.diagnostics["exact"].double().mean() < 0.15
    assert result.ok.all()
    assert result.z[:, 0].mean().item() == pytest.approx(mean, abs=0.4 * std)
    assert result.z[:, 0].std().item() == pytest.approx(std, rel=0.35)
    assert result.z[:, 1:].std().item() == pytest.approx(1, abs=0.04)
    found = summarize(result)
    assert found["log_probability"] == pytest.approx(log_probability, abs=0.5)
    assert 0 < found["effective_samples"] <= 4000


def test_moves_after_a_descent_are_half_of_the_work():
    done = []
    sampler = SliceSampler(proposals=1, pilot=0, descent=NEAR, moves=4)
    sampler.sample(halfspace(2.5), prior_latents(0, 0, 5, 3), progress=lambda share, moving: done.append(share))
    assert done[-4:] == [0.625, 0.75, 0.875, 1.0]


@pytest.mark.parametrize("threshold", [2.5, 3.5])
def test_rare_events_are_descended_to(threshold):
    energy = halfspace(threshold)
    result = draw(energy, descent=NEAR, moves=10, proposals=16)
    _, mean, std = truth(energy)
    assert result.ok.all()
    assert result.z[:, 0].mean().item() == pytest.approx(mean, abs=0.3 * std)
    assert result.z[:, 0].std().item() == pytest.approx(std, rel=0.35)
    assert result.z[:, 1:].std().item() == pytest.approx(1, abs=0.04)
    found = summarize(result)
    assert found["exact"] < 0.15
    assert "stages_mean" not in found
    exact = result.diagnostics["exact"] == 1
    assert found["effective_samples"] == pytest.approx(float(exact.sum()))  # the others have no weights
    assert (result.gradients[exact] == 0).all()
    assert (result.gradients[~exact] > 0).all()


def test_a_pilot_spares_proposals_where_hardly_any_is_accepted():
    common, rare = (
        SliceSampler(descent=NEAR, proposals=64).sample(halfspace(threshold), prior_latents(2, 0, 200, 3))
        for threshold in (1.0, 3.5)
    )
    assert common.diagnostics["exact"].all()
    assert rare.diagnostics["proposals"].max() == FEWEST
    patient = SliceSampler(descent=NEAR, proposals=64, pilot=0).sample(halfspace(1.0), prior_latents(2, 0, 200, 3))
    assert torch.equal(common.z, patient.z)


def test_more_moves_lead_nearer_to_the_posterior():
    energy = halfspace(3.0)
    _, mean, _ = truth(energy)
    few, many = (draw(energy, growth=growth, moves=moves).z[:, 0].mean().item() for growth, moves in ((2, 1), (1.2, 3)))
    assert abs(many - mean) < 0.5 * abs(few - mean)


def test_the_conjugate_posterior():
    # N(0, 1) times exp(-z²/2 · κ) is N(0, 1 / (1 + κ)).
    result = draw(Quadratic(3.0), z_dim=2, growth=1.2, moves=3)
    assert result.z.std().item() == pytest.approx(0.5, rel=0.04)
    assert summarize(result)["log_probability"] == pytest.approx(math.log(1 / 4), abs=0.1)


def test_strength_is_an_exponent():
    result = draw(Quadratic(1.0), z_dim=1, strength=8.0, proposals=200)
    assert result.z.std().item() == pytest.approx(1 / 3, rel=0.05)


def test_a_flat_energy_keeps_the_prior_draws():
    z0 = prior_latents(0, 0, 5, 3)
    result = SliceSampler().sample(flat, z0)
    assert torch.equal(result.z, z0)
    assert result.evaluations.tolist() == result.diagnostics["exact"].tolist() == [1] * 5


@pytest.mark.parametrize("descent", [None, NEAR])
def test_every_evaluation_is_counted(never_ahead, descent):
    energy = Counting(Quadratic(50.0))
    result = SliceSampler(descent=descent, proposals=16, pilot=0).sample(energy, prior_latents(0, 0, 20, 3))
    assert sum(energy.rows) == result.evaluations.sum()
    assert (result.gradients.sum() == 0) == (descent is None)


@pytest.mark.parametrize("rows", [1, 7, 64, 100_000])
def test_evaluating_points_ahead_saves_calls_and_changes_nothing(monkeypatch, rows):
    z0, energy = prior_latents(0, 0, 20, 3), Counting(Quadratic(50.0))
    sampler = SliceSampler(proposals=16, pilot=0)
    usual = sampler.sample(energy, z0)
    monkeypatch.setattr("energyql.sampling.rejection.ROWS_AHEAD", rows)
    other_energy = Counting(Quadratic(50.0))
    other = sampler.sample(other_energy, z0)
    assert torch.equal(usual.z, other.z)
    assert usual.evaluations.tolist() == other.evaluations.tolist()
    assert usual.diagnostics["proposals"].tolist() == other.diagnostics["proposals"].tolist()
    assert torch.allclose(usual.diagnostics["mass"], other.diagnostics["mass"])
    assert (len(other_energy.rows) <= len(energy.rows)) == (rows >= ROWS_AHEAD)


def test_a_sample_that_is_done_costs_nothing_more(never_ahead):
    energy = Counting(Quadratic(0.5))
    SliceSampler(proposals=100, pilot=0).sample(energy, prior_latents(0, 0, 50, 3))
    assert energy.rows == sorted(energy.rows, reverse=True)
    assert energy.rows[-1] < 10


def test_the_budget_is_kept_and_the_state_returned():
    result = draw(halfspace(4.0), n=50, max_evaluations=25)
    limited = result.status == Status.STEP_LIMIT
    assert limited.any()
    assert (result.evaluations[~limited] < 60).all()
    assert torch.isfinite(result.z).all()


def test_places_without_energy_are_avoided():
    result = draw(lambda z: torch.where(z[:, 0] > 0, torch.nan, 0.0) + 0.5 * z[:, 1].square(), n=500)
    assert result.ok.all()
    assert (result.z[:, 0] <= 0).all()


@pytest.mark.parametrize("bracket", [0.1, math.pi / 2, 2 * math.pi])
@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_a_move_leaves_the_posterior_as_it_is(bracket, beta):
    # N(0, 1) times exp(-z²/2 · κβ) is N(0, 1 / (1 + κβ)).
    n, energy = 20_000, Quadratic(8.0)
    batch = Batch.start(energy, prior_latents(0, 0, n, 2) / math.sqrt(1 + 8 * beta), RandomStreams(1))
    before, batch.energies = batch.z.clone(), energy(batch.z)
    for move in range(3):
        slice_move(batch, batch.rows, batch.rows, torch.full((n,), beta), str(move), bracket)
    assert batch.z.square().mean().item() == pytest.approx(1 / (1 + 8 * beta), rel=0.03)
    assert batch.z.mean(0).abs().max() < 0.02
    assert torch.equal(batch.energies, energy(batch.z))
    assert not torch.isclose(batch.z, before).any(1).all()


def test_a_shorter_arc_costs_fewer_evaluations_and_moves_less():
    n, energy = 2000, Quadratic(50.0)
    costs, lengths = [], []
    for bracket in (math.pi / 8, math.pi / 2, 2 * math.pi):
        batch = Batch.start(energy, prior_latents(0, 0, n, 2) / math.sqrt(51), RandomStreams(1))
        before, batch.energies = batch.z.clone(), energy(batch.z)
        slice_move(batch, batch.rows, batch.rows, torch.ones(n), "", bracket)
        costs.append(batch.values.double().mean().item())
        lengths.append((batch.z - before).norm(dim=1).mean().item())
    assert costs == sorted(costs)
    assert costs[0] < costs[2] - 2
    assert lengths[0] < lengths[2]
