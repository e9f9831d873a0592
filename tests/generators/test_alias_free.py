import math

import numpy as np
import pytest
import torch

from energyql.generators.stylegan3 import downsample, kaiser_beta, lowpass_filter, upsample

DESIGNS = [(12, 2.0, 5.0, 32.0), (24, 11.3, 9.5, 128.0), (36, 3.0, 4.0, 64.0)]


def response(kernel: torch.Tensor, frequency: float, sampling_rate: float) -> float:
    """Amplitude that a wave of this frequency along x keeps."""
    if kernel.ndim == 2:
        kernel = kernel.sum(0)
    position = torch.arange(len(kernel)) - (len(kernel) - 1) / 2
    return abs(float((kernel * torch.cos(2 * math.pi * frequency / sampling_rate * position)).sum()))


@pytest.mark.parametrize("radial", [False, True])
@pytest.mark.parametrize(("taps", "cutoff", "width", "rate"), DESIGNS)
def test_filter_design(taps, cutoff, width, rate, radial):
    kernel = lowpass_filter(taps, cutoff, width, rate, radial=radial)
    assert kernel.shape == ((taps, taps) if radial else (taps,))
    assert kernel.dtype == torch.float32
    assert torch.equal(kernel, kernel.flip(*range(kernel.ndim)))
    assert float(kernel.sum()) == pytest.approx(1, abs=1e-6)
    assert 0.4 < response(kernel, cutoff, rate) < 0.65
    stop = cutoff + width / 2
    attenuation = 2.285 * (taps - 1) * math.pi * 2 * width / rate + 7.95
    ripple = 10 ** (-(attenuation - 6) / 20)  # a radial filter's ripple is spread a little differently
    for frequency in np.linspace(stop, rate / 2, 9):
        assert response(kernel, frequency, rate) < max(ripple, 2e-6) * (3 if radial else 1)


def test_a_radial_filter_treats_directions_alike():
    rate, cutoff = 64.0, 8.0
    kernel = lowpass_filter(24, cutoff, 8.0, rate, radial=True)
    position = torch.arange(24) - 11.5
    y, x = torch.meshgrid(position, position, indexing="ij")
    kept = []
    for angle in torch.linspace(0, math.pi / 4, 5).tolist():
        along = x * math.cos(angle) + y * math.sin(angle)
        kept.append(float((kernel * torch.cos(2 * math.pi * cutoff / rate * along)).sum()))
    assert max(kept) - min(kept) < 0.01
    assert torch.allclose(kernel, kernel.T)


@pytest.mark.parametrize(("taps", "width"), [(4, 0.05), (12, 0.2), (24, 0.15), (24, 0.4), (48, 0.9)])
def test_windows_agree_with_numpy(taps, width):
    """NumPy has the window, so the filter over the ideal one must be it, up to scale."""
    kernel = lowpass_filter(taps, 0.2, width / 2, 1.0).double().numpy()
    position = np.arange(taps) - (taps - 1) / 2
    expected = np.sinc(0.4 * position) * np.kaiser(taps, kaiser_beta(taps, width))
    assert kernel == pytest.approx(expected / expected.sum(), abs=1e-7)


def test_kaiser_beta_has_three_regimes():
    """Kaiser's formula, at attenuations of 60, 40 and 15 dB."""
    for attenuation, beta in ((60, 5.65326), (40, 3.395321), (15, 0.0)):
        width = (attenuation - 7.95) / (2.285 * math.pi * 10)
        assert kaiser_beta(11, width) == pytest.approx(beta, abs=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
@pytest.mark.parametrize("padding", [(0, 0), (3, 2), (-2, -1), (30, 25)])
@pytest.mark.parametrize("taps", [1, 5, 12])
def test_upsample_by_its_definition(factor, padding, taps):
    low, high = padding
    x = torch.randn(2, 3, 15, 15, dtype=torch.float64)
    kernel = torch.rand(taps, dtype=torch.float64)
    kernel = kernel + kernel.flip(0)
    spread = torch.zeros(2, 3, 15 * factor, 15 * factor, dtype=torch.float64)
    spread[:, :, ::factor, ::factor] = x
    spread = torch.nn.functional.pad(spread, (low, high, low, high))
    weight = (kernel * factor).outer(kernel * factor).expand(3, 1, -1, -1)
    expected = torch.nn.functional.conv2d(spread, weight, groups=3)
    assert torch.allclose(upsample(x, kernel, factor, padding), expected)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_downsample_by_its_definition(factor):
    x = torch.randn(2, 3, 21, 21, dtype=torch.float64)
    kernel = torch.rand(6, dtype=torch.float64)
    square = kernel.outer(kernel)
    expected = torch.nn.functional.conv2d(x, square.expand(3, 1, -1, -1), groups=3)[:, :, ::factor, ::factor]
    assert torch.allclose(downsample(x, kernel, factor), expected)
    assert torch.allclose(downsample(x, square, factor), expected)
    assert torch.equal(downsample(x, None, factor), x[:, :, ::factor, ::factor])
