"""The loop that gives each sample its own steps, driven through `ODESolver`."""

import pytest
import torch

from energyql.sampling import ODESolver, Status, VPSchedule, ode
from energyql.sampling.runge_kutta import read_tableau
from sampling.toys import Counting, Mixed, Poisoned, Quadratic, Wall, flat, start


def test_a_stiff_sample_does_not_raise_its_neighbours_evaluations():
    z0 = start(8, 5)
    z0[:, -1] = 1.0
    solver, energy = ODESolver(max_evaluations=10_000), Mixed(stiff=200.0)
    mild = solver.sample(energy, z0)
    z0[2, -1] = -1.0
    mixed = solver.sample(energy, z0)
    others = [0, 1, 3, 4, 5, 6, 7]
    assert mixed.ok.all()
    assert mixed.evaluations[others].tolist() == mild.evaluations[others].tolist()
    assert mixed.evaluations[2] > 10 * mild.evaluations.max()
    torch.testing.assert_close(mixed.z[others], mild.z[others], rtol=1e-6, atol=1e-6)


def test_a_sample_that_is_done_costs_nothing_more():
    z0 = start(8, 5)
    z0[:, -1] = 1.0
    z0[2, -1] = -1.0
    energy = Counting(Mixed())
    result = ODESolver().sample(energy, z0)
    assert sum(energy.rows) == result.evaluations.sum()
    assert energy.rows[-1] == 1


def test_evaluations_and_steps_agree():
    result = ODESolver("bosh3").sample(Wall(), start(16, 64))
    assert (
        result.evaluations == 2 + 3 * (result.diagnostics["steps_accepted"] + result.diagnostics["steps_rejected"])
    ).all()
    assert result.diagnostics["steps_rejected"].sum() > 0


def test_the_budget_is_kept_and_the_state_returned():
    z0, solver = start(4, 5), ODESolver("bosh3", max_evaluations=40)
    z0[:, -1] = torch.tensor([1.0, -1.0, 1.0, -1.0])
    result = solver.sample(Mixed(), z0)
    assert result.status.tolist() == [Status.OK, Status.STEP_LIMIT, Status.OK, Status.STEP_LIMIT]
    assert (result.evaluations <= 40).all()
    assert result.evaluations[1] > 40 - 3
    assert (Mixed()(result.z) < Mixed()(z0))[[1, 3]].all()


def test_a_sample_that_goes_bad_on_its_way_stops_at_its_last_finite_place():
    def cliff(z):  # E falls with z[:, 0] until there is no energy any more
        return torch.where(z[:, 0] > 2.0, torch.nan, 1.0) * -z[:, 0]

    z0 = torch.tensor([[0.0, 0.0], [-9.0, 0.0]])
    result = ODESolver().sample(cliff, z0)
    assert result.status.tolist() == [Status.NON_FINITE, Status.OK]
    assert result.z[0, 0] == pytest.approx(2.0, abs=1e-3)
    assert result.z[1, 0] == pytest.approx(-9.0 + VPSchedule().flow_time(1.0, 1e-3), abs=1e-3)


def test_a_step_that_only_tries_a_bad_place_is_tried_again_shorter():
    # z never changes sign, but a long first stage does.
    z0 = torch.full((1, 3), 1.0)
    result = ODESolver().sample(Poisoned(Quadratic(), edge=0.0), z0)
    assert result.ok.all()
    assert result.diagnostics["steps_rejected"] > 0
    torch.testing.assert_close(result.z, ODESolver().sample(Quadratic(), z0).z, rtol=0, atol=0.02)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_sample_bad_from_the_start_costs_one_evaluation(poison):
    z0 = torch.full((2, 3), 1.0)
    z0[0, 0] = -2.0
    result = ODESolver().sample(Poisoned(Quadratic(), edge=-1.0, poison=poison), z0)
    assert result.status.tolist() == [Status.NON_FINITE, Status.OK]
    assert result.evaluations[0] == 1
    assert torch.equal(result.z[0], z0[0])


def test_a_start_without_numbers_is_a_status():
    z0 = torch.tensor([[float("nan"), 0.0], [1.0, 1.0]])
    assert ODESolver().sample(flat, z0).status.tolist() == [Status.NON_FINITE, Status.OK]


def test_a_step_too_small_for_the_clock_is_a_status():
    # A slope that grows a millionfold within the first step leaves no step that float32 time can resolve.
    result = ODESolver(rtol=1e-6, atol=1e-6).sample(Quadratic(1e9), start(3, 4))
    assert result.status.tolist() == [Status.STEP_UNDERFLOW] * 3
    assert torch.isfinite(result.z).all()


def test_the_device_is_read_once_a_step(monkeypatch):
    bosh3, reads, read = read_tableau("bosh3"), [], torch.Tensor.tolist
    monkeypatch.setattr(ode, "read_tableau", lambda method: bosh3)  # these coefficients never leave the host
    monkeypatch.setattr(torch.Tensor, "tolist", lambda self: reads.append(1) or read(self))
    for name in ("item", "__bool__", "__float__", "__int__", "nonzero"):
        monkeypatch.setattr(torch.Tensor, name, lambda self, name=name: pytest.fail(f"{name} waits for the device"))
    steps = []
    ODESolver().sample(Mixed(), start(8, 5), progress=lambda done, active: steps.append(active))
    monkeypatch.undo()
    assert len(reads) == len(steps) + 2
