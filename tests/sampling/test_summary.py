import pytest
import torch

from energyql.sampling import SampleResult, summarize
from energyql.sampling.base import effective_samples

COUNTS = torch.tensor([2, 4, 6])


def result(**diagnostics):
    zeros = torch.zeros(3, dtype=torch.int64)
    told = {name: torch.tensor(values) for name, values in diagnostics.items()}
    return SampleResult(torch.zeros(3, 1), zeros, COUNTS, zeros + 1, told)


def test_costs():
    assert summarize(result()) == {"evaluations_mean": 4.0, "evaluations_max": 6, "gradients_mean": 1.0}
    assert summarize(result(steps_rejected=[1, 0, 2]))["steps_rejected"] == 3


def test_exact_draws():
    found = summarize(
        result(exact=[1, 1, 1], proposals=[2, 1, 7], mass=[0.5, 1.0, 1.0], stages=[0] * 3, log_weight=[0.0] * 3)
    )
    assert found["acceptance"] == pytest.approx(0.3)
    assert found["exact"] == 1
    assert found["effective_samples"] == 3
    assert found["log_probability"] == pytest.approx(torch.tensor(0.25).log().item())


def test_annealed_samples_of_a_rare_query():
    found = summarize(
        result(exact=[0] * 3, proposals=[9] * 3, mass=[1e-9] * 3, stages=[4, 5, 6], log_weight=[-3.0, -3.0, -3.0])
    )
    assert found["log_probability"] == pytest.approx(-3.0)
    assert found["effective_samples"] == pytest.approx(3)
    assert found["stages_mean"] == 5


def test_effective_samples():
    assert effective_samples(torch.tensor([])) == 0
    assert effective_samples(torch.tensor([-500.0, -500.0]).double()) == pytest.approx(2)
    assert effective_samples(torch.tensor([0.0, -50.0])) == pytest.approx(1)
    assert effective_samples(torch.tensor([-float("inf")])) == 0
