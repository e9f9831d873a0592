import math

import pytest
import torch
from torch.nn.functional import softplus

from energyql.errors import ArgumentError
from energyql.sampling import NewtonSampler, Status

from .toys import Counting, Poisoned, Quadratic, Wall, start

ENOUGH = 0.01


class Half:
    """E = softplus(-(15 a·z)): the log-odds 15 a·z are linear."""

    def __call__(self, z):
        return softplus(-15 * z[:, 0])


class Valley:
    """A floor of one nat, far from enough."""

    def __call__(self, z):
        return 1 + z.square().sum(1) / 2


class Ripples:
    """Log-odds that are not linear at all, so that long steps lead up."""

    def __call__(self, z):
        return 3 + z[:, 0] + 2.5 * (4 * z[:, 0]).sin() + z[:, 1:].square().sum(1)


def test_linear_log_odds_take_one_step():
    z0 = start(50, 6)
    result = NewtonSampler(reach=100.0).sample(Half(), z0)
    left = 15 * z0[:, 0] < -math.log(math.expm1(ENOUGH))
    assert result.evaluations.tolist() == result.gradients.tolist() == (1 + left.long()).tolist()
    assert torch.equal(result.z[~left], z0[~left])
    assert torch.allclose(Half()(result.z[left]), torch.tensor(ENOUGH / 2), rtol=1e-3)
    assert torch.equal(result.z[:, 1:], z0[:, 1:])


def test_no_step_is_longer_than_the_reach():
    z0 = start(20, 6) - 5
    result = NewtonSampler(reach=0.25).sample(Half(), z0)
    steps = result.diagnostics["steps_accepted"]
    assert ((result.z - z0).norm(dim=1) <= 0.25 * steps + 1e-4).all()
    assert (steps >= (result.z - z0).norm(dim=1) / 0.25 - 1e-3).all()
    assert (Half()(result.z) <= ENOUGH).all()


def test_walls_are_passed_in_few_steps():
    result = NewtonSampler().sample(Wall(), start(100, 64))
    assert (Wall()(result.z) <= ENOUGH).all()
    assert result.ok.all()
    assert result.evaluations.double().mean() < 8


def test_energies_never_rise():
    z0 = start(30, 3)
    result = NewtonSampler(enough=1e-6, max_evaluations=60).sample(Ripples(), z0)
    assert (Ripples()(result.z) <= Ripples()(z0)).all()
    assert result.diagnostics["steps_rejected"].sum() > 0
    taken = result.diagnostics["steps_accepted"] + result.diagnostics["steps_rejected"]
    assert torch.equal(taken, result.gradients - 1)


def test_a_minimum_is_an_end():
    result = NewtonSampler().sample(Valley(), start(10, 4))
    assert result.ok.all()
    assert torch.allclose(Valley()(result.z), torch.tensor(1.0), atol=1e-2)


def test_strength_counts():
    weak, strong = (NewtonSampler(strength=strength).sample(Half(), start(9, 2) - 3) for strength in (0.5, 5.0))
    assert (0.5 * Half()(weak.z) <= ENOUGH).all()
    assert (5.0 * Half()(strong.z) <= ENOUGH).all()
    assert (weak.z[:, 0] != strong.z[:, 0]).all()


def test_samples_that_are_done_cost_nothing_more():
    energy = Counting(Wall())
    result = NewtonSampler().sample(energy, start(50, 64))
    assert energy.rows == sorted(energy.rows, reverse=True)
    assert sum(energy.rows) == result.evaluations.sum()


def test_how_samples_fail():
    z0 = start(40, 4)
    poisoned = NewtonSampler().sample(Poisoned(Quadratic(), edge=0.0, poison=math.nan), z0)
    assert ((poisoned.status == Status.NON_FINITE) == (z0[:, 0] < 0)).all()
    assert poisoned.z.isfinite().all()
    limited = NewtonSampler(max_evaluations=2, reach=0.01).sample(Wall(), start(5, 64) * 3)
    assert (limited.status[limited.evaluations == 2] == Status.STEP_LIMIT).any()


@pytest.mark.parametrize(
    "settings",
    [{"strength": 0.0}, {"enough": math.inf}, {"reach": -1.0}, {"max_evaluations": 0}, {"max_evaluations": 2.5}],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        NewtonSampler(**settings)
