from __future__ import annotations

import numpy as np
import pytest
import torch

from energyql.evaluation.metrics import Gaussian, frechet_distance, frechet_floor


def gaussian(mean: list[float], covariance: list[list[float]]) -> Gaussian:
    return Gaussian(torch.tensor(mean).double(), torch.tensor(covariance).double())


def test_closed_forms() -> None:
    a = gaussian([0, 0], [[1, 0], [0, 4]])
    assert frechet_distance(a, a) == 0
    assert frechet_distance(a, gaussian([3, 4], [[1, 0], [0, 4]])) == pytest.approx(25)
    assert frechet_distance(a, gaussian([0, 0], [[9, 0], [0, 1]])) == pytest.approx(2**2 + 1**2)


def test_covariances_that_do_not_commute_and_symmetry() -> None:
    random = torch.Generator().manual_seed(0)
    one, two = (torch.randn(5, 5, generator=random).double() for _ in range(2))
    a, b = Gaussian(torch.zeros(5).double(), one @ one.T), Gaussian(torch.ones(5).double(), two @ two.T)
    product = torch.linalg.eigvals(a.covariance @ b.covariance).real.clamp(min=0).sqrt().sum()
    expected = 5 + a.covariance.trace() + b.covariance.trace() - 2 * product
    assert frechet_distance(a, b) == pytest.approx(expected.item())
    assert frechet_distance(b, a) == pytest.approx(expected.item())


def test_fitted_to_features() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    fitted = Gaussian.of(x)
    torch.testing.assert_close(fitted.mean, x.double().mean(0))
    torch.testing.assert_close(fitted.covariance, x.T.double().cov())


def test_a_weight_of_two_is_two_equal_rows_for_the_mean() -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(0))
    fitted = Gaussian.of(x, np.array([2.0, 1.0, 1.0]))
    torch.testing.assert_close(fitted.mean, x[[0, 0, 1, 2]].double().mean(0))
    assert Gaussian.of(x, np.ones(3)).covariance.allclose(Gaussian.of(x).covariance)


def test_fewer_samples_than_features_are_no_problem() -> None:
    x = torch.randn(4, 16, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(Gaussian.of(x), Gaussian.of(x)) == pytest.approx(0, abs=1e-6)


def test_the_floor_is_what_exact_samples_show() -> None:
    random = torch.Generator().manual_seed(0)
    oracle = torch.randn(4000, 8, generator=random)
    target = Gaussian.of(oracle)
    seen = [frechet_distance(Gaussian.of(torch.randn(200, 8, generator=random)), target) for _ in range(20)]
    floor = frechet_floor(oracle, np.ones(4000), 200)
    assert floor == pytest.approx(sum(seen) / 20, rel=0.15)
    assert frechet_floor(oracle, np.ones(4000), 2000) < floor / 4
