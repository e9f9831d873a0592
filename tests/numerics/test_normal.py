import math

import pytest
import torch

from energyql.numerics.normal import log_normal_cdf, log_normal_interval

# log P and its slopes in (middle, width), computed with 60 digits.
INTERVALS = [
    (0.0, 1.0),
    (1.0, 1.0),
    (5.0, 1.0),
    (-5.0, 8.0),
    (40.0, 1.0),
    (-40.0, 0.5),
    (200.0, 0.1),
    (3.0, 1e-3),
    (3.0, 7.0),
]


def reference(middle, width):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(60 + int(middle**2)):
        low, high = mpmath.mpf(middle) - mpmath.mpf(width) / 2, mpmath.mpf(middle) + mpmath.mpf(width) / 2
        p = (mpmath.erfc(-high / mpmath.sqrt(2)) - mpmath.erfc(-low / mpmath.sqrt(2))) / 2
        by_low, by_high = mpmath.npdf(low) / p, mpmath.npdf(high) / p
        return float(mpmath.log(p)), float(by_high - by_low), float((by_high + by_low) / 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("middle", "width"), [pair for pair in INTERVALS if abs(pair[0]) < 50])
def test_an_interval_against_many_digits(middle, width, dtype):
    m, w = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in (middle, width))
    value = log_normal_interval(m, w)
    value.backward()
    expected = reference(m.item(), w.item())
    tolerance = 1e-8 if dtype == torch.float64 else 5e-5
    for actual, right in zip((value, m.grad, w.grad), expected, strict=True):
        assert actual.item() == pytest.approx(right, rel=tolerance, abs=tolerance)


def test_very_far_and_very_narrow():
    m = torch.tensor([1e3, -1e5, 1e8, 0.0, 40.0], requires_grad=True)
    w = torch.tensor([0.01, 1e-4, 1e-6, 1e-20, 1e-6], requires_grad=True)
    value = log_normal_interval(m, w)
    value.sum().backward()
    torch.testing.assert_close(m.grad, torch.tensor([-1e3, 1e5, -1e8, 0.0, -40.0]), rtol=1e-3, atol=0)
    assert value.isfinite().all()
    assert w.grad.isfinite().all()


def test_the_cdf_and_its_slope():
    x = torch.tensor([0.0, 2.0, -2.0, -40.0, -1e3, -1e5, 1e5], requires_grad=True)
    value = log_normal_cdf(x)
    value.sum().backward()
    assert value[0].item() == pytest.approx(-math.log(2))
    torch.testing.assert_close(value[1].exp() + value[2].exp(), torch.tensor(1.0))
    expected = torch.tensor([math.sqrt(2 / math.pi), 0.05525, 2.37322, 40.02497, 1000.001, 1e5, 0.0])
    torch.testing.assert_close(x.grad, expected, rtol=1e-4, atol=1e-6)


def test_gradcheck():
    random = torch.Generator().manual_seed(0)
    middle = (torch.randn(40, dtype=torch.float64, generator=random) * 5).requires_grad_()
    width = (torch.rand(40, dtype=torch.float64, generator=random) * 5 + 1e-3).requires_grad_()
    assert torch.autograd.gradcheck(log_normal_interval, (middle, width))
    assert torch.autograd.gradcheck(log_normal_cdf, (middle,))
