import pytest
import torch

from energyql.sampling.ode import (
    FlowState,
    error_ratio,
    initial_step,
    interpolate_step,
    next_step,
    read_tableau,
    take_step,
)

METHODS = ("dopri8", "dopri5", "bosh3", "fehlberg2", "adaptive_heun")


def decay(s, z):
    return -z, s


def one_step(method, step, limit=float("inf")):
    steps = torch.full((1,), step, dtype=torch.float64)
    z = torch.ones(1, 1, dtype=torch.float64)
    return take_step(decay, read_tableau(method), FlowState(torch.zeros_like(steps), steps, z, -z), limit=limit)


@pytest.mark.parametrize("method", METHODS)
def test_a_step_has_the_order_of_its_method(method):
    def error(step):
        return abs(float(one_step(method, step).z1) - float(torch.tensor(-step).double().exp()))

    order = read_tableau(method).order
    # torchdiffeq gives dopri8 to about eight digits, which only a long step can show the order of.
    step = 2.0 if method == "dopri8" else 0.4
    # Halving a step divides its error by 2^(order + 1), or by more.
    assert error(step / 2) / error(step) < 1.3 / 2 ** (order + 1)


def test_stages_are_evaluated_where_the_nodes_say():
    seen = []

    def slope(s, z):
        seen.append(s.tolist())
        return torch.zeros_like(z), s

    z = torch.zeros(2, 1)
    take_step(
        slope,
        read_tableau("bosh3"),
        FlowState(torch.tensor([0.0, 4.0]), torch.tensor([1.0, 2.0]), z, z),
        limit=5.0,
    )
    assert seen == [[0.5, 4.5], [0.75, 4.75], [1.0, 5.0]]


def test_a_cut_step_ends_exactly_at_the_limit():
    attempt = one_step("bosh3", 0.7, limit=0.3)
    assert attempt.s1.tolist() == [0.3]
    assert attempt.step.tolist() == [0.3]


def test_each_sample_has_its_own_error_ratio():
    slope = torch.tensor([[1.0], [5.0]])
    z, step = torch.zeros(2, 1), torch.full((2,), 0.1)
    attempt = take_step(
        lambda s, z: (-slope * z + slope, s),
        read_tableau("bosh3"),
        FlowState(0 * step, step, z, slope),
        limit=9.0,
    )
    ratio = error_ratio(attempt, 0.0, 1e-3)
    assert ratio[1] > 10 * ratio[0]


@pytest.mark.parametrize(
    ("ratio", "factor"),
    [(0.0, 10.0), (1e-9, 10.0), (0.9**3 / 8, 2.0), (0.99, 1.0), (1.0, 0.9), (8.0, 0.45), (1e9, 0.2)],
)
def test_the_next_step(ratio, factor):
    step = next_step(torch.tensor([2.0]), torch.tensor([ratio]), order=3)
    assert float(step) == pytest.approx(2.0 * factor)


def test_the_first_step_of_a_point_at_rest_is_tiny_but_not_zero():
    z = torch.ones(1, 3)
    step = initial_step(lambda s, z: (0 * z, s), FlowState(*torch.zeros(2, 1), z, 0 * z), 3, 1e-3, 1e-3)
    assert float(step) == pytest.approx(1e-6)


@pytest.mark.parametrize(("method", "tolerance"), [("dopri5", 1e-6), ("bosh3", 6e-3)])
def test_interpolation_inside_a_step(method, tolerance):
    attempt = one_step(method, 0.2)
    for s in (0.0, 0.05, 0.1, 0.2):
        exact = float(torch.tensor(-s).double().exp())
        assert float(interpolate_step(attempt, s)) == pytest.approx(exact, abs=tolerance)
    assert float(interpolate_step(attempt, 0.2)) == pytest.approx(float(attempt.z1))
