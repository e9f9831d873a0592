"""Normal probabilities in elementary operations against those of the samplers, and their derivatives."""

import pytest
import torch

from energyql.numerics.normal import log_normal_cdf, log_normal_interval
from energyql.numerics.plain import expm1, log1p, log_cdf, log_interval


def with_slope(function, x, *others):
    x = x.clone().requires_grad_()
    value = function(x, *others)
    value.sum().backward()
    return value.detach(), x.grad


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-7)])
def test_the_distribution_function(dtype, tolerance):
    x = torch.cat([torch.linspace(-40, 12, 5201), torch.tensor([-1e4, -1e6, 0.0, 100.0])]).to(dtype)
    for ours, theirs in zip(with_slope(log_cdf, x), with_slope(log_normal_cdf, x), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", [1e-7, 1e-3, 0.00999, 0.01001, 0.3, 2.0, 7.0, 30.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-5)])
def test_an_interval(dtype, tolerance, width):
    others = torch.tensor([-1e4, 3e3, 0.0, 1e-30, -1e-7, width / 2, -width / 2])  # the last ones have a bound at 0
    middle = torch.cat([torch.linspace(-40, 40, 4001), others]).to(dtype)
    wide = torch.full_like(middle, width)
    for ours, theirs in zip(
        with_slope(log_interval, middle, wide), with_slope(log_normal_interval, middle, wide), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("exponent", [-30, -12, -7, -3, -1])
def test_near_zero_all_digits_are_kept(exponent):
    x = torch.tensor([-(10.0**exponent), -0.5 * 10.0**exponent])
    torch.testing.assert_close(expm1(x), torch.expm1(x), rtol=3e-7, atol=0)
    torch.testing.assert_close(log1p(x), torch.log1p(x), rtol=3e-7, atol=0)
    for function in (expm1, log1p):
        assert with_slope(function, x)[1].isfinite().all()


def test_far_from_zero():
    x = torch.tensor([-1e9, -100.0, -20.0, -2.0])
    torch.testing.assert_close(expm1(x), torch.expm1(x))
    torch.testing.assert_close(log1p(torch.tensor([-0.5, -0.25])), torch.log1p(torch.tensor([-0.5, -0.25])))
