import pytest
import torch

from energyql.errors import ArgumentError
from energyql.sampling import Status
from energyql.sampling.descent import descend

RANDOM = torch.Generator().manual_seed(3)
TARGETS = torch.randn(6, 5, generator=RANDOM)
SCALES = torch.tensor([1.0, 30.0, 0.2, 5.0, 100.0])


def valley(z, rows):
    away = z - TARGETS[rows]
    return (SCALES * away.square()).sum(1) / 2, SCALES * away


def test_each_row_finds_its_own_minimum():
    result = descend(valley, torch.zeros(6, 5), tolerance=1e-7)
    assert torch.allclose(result.z, TARGETS, atol=1e-2)
    assert result.status.tolist() == [Status.OK] * 6
    assert result.evaluations.max() < 60


def test_a_row_does_not_depend_on_its_batch():
    together = descend(valley, torch.zeros(6, 5))

    def only_third(z, rows):
        return valley(z, rows + 3)

    assert torch.allclose(descend(only_third, torch.zeros(1, 5)).z, together.z[3:4], atol=1e-5)


def test_a_curved_valley():
    def rosenbrock(z, rows):
        with torch.enable_grad():
            x = z.detach().requires_grad_()
            value = (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()
            (gradient,) = torch.autograd.grad(value.sum(), x)
        return value.detach(), gradient

    start = torch.tensor([[-1.2, 1.0]], dtype=torch.float64)
    end = descend(rosenbrock, start, tolerance=1e-9)
    assert torch.allclose(end.z, torch.ones(1, 2, dtype=torch.float64), atol=1e-3)


def test_the_budget_ends_a_sample_where_it_stands():
    result = descend(valley, torch.zeros(6, 5), max_evaluations=4)
    assert result.status.tolist() == [Status.STEP_LIMIT] * 6
    start, end = valley(torch.zeros(6, 5), torch.arange(6))[0], valley(result.z, torch.arange(6))[0]
    assert (end < start).all()


def test_a_sample_without_numbers_gets_a_status_and_the_others_go_on():
    def broken(z, rows):
        value, gradient = valley(z, rows)
        return torch.where(rows == 1, torch.nan, value), gradient

    result = descend(broken, torch.zeros(3, 5), tolerance=1e-7)
    assert result.status.tolist() == [Status.OK, Status.NON_FINITE, Status.OK]
    assert torch.allclose(result.z[[0, 2]], TARGETS[[0, 2]], atol=1e-2)
    assert torch.equal(result.z[1], torch.zeros(5))


def test_nothing_to_do():
    assert descend(valley, torch.zeros(0, 5)).z.shape == (0, 5)
    at_rest = descend(valley, TARGETS.clone())
    assert torch.equal(at_rest.z, TARGETS)


def test_bad_latents():
    with pytest.raises(ArgumentError, match="z0 must have shape"):
        descend(valley, torch.zeros(5))
