"""Low-pass filters of StyleGAN3, and resampling with them.

Kaiser's window and its two design formulas are in Oppenheim and Schafer, "Discrete-Time Signal Processing", section
7.5.3; the radial filter is in appendix C of Karras et al., "Alias-Free Generative Adversarial Networks" (2021).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from energyql.numerics.shapes import Float


def kaiser_beta(taps: int, width: float) -> float:
    """Return the shape parameter of the Kaiser window for a filter of `taps` numbers.

    The full width of its transition band is a fraction of half the sampling rate.
    """
    attenuation = 2.285 * (taps - 1) * math.pi * width + 7.95  # decibels that a filter of this length can reach
    if attenuation > 50:
        return 0.1102 * (attenuation - 8.7)
    if attenuation > 21:
        return 0.5842 * math.pow(attenuation - 21, 0.4) + 0.07886 * (attenuation - 21)
    return 0.0


def lowpass_filter(taps: int, cutoff: float, width: float, sampling_rate: float, *, radial: bool = False) -> Tensor:
    """Return a Kaiser-windowed ideal low-pass filter of unit gain at frequency zero, in float32 on the CPU.

    Args:
        taps: length of the filter.
        cutoff: frequency at which the amplitude is halved, below half the sampling rate.
        width: full width of the transition band around `cutoff`.
        sampling_rate: in the unit of `cutoff` and `width`.
        radial: whether to pass a disc of frequencies rather than a square.

    Returns:
        Shape (taps,), to apply along both axes; (taps, taps) where `radial`.
    """
    beta = kaiser_beta(taps, 2 * width / sampling_rate)
    position = torch.arange(taps, dtype=torch.float64, device="cpu") - (taps - 1) / 2
    # The window in terms of its edge: I0(beta sqrt(1 - (position / edge)^2)) up to scale. One tap is its own edge.
    edge = max((taps - 1) / 2, 1.0)
    window = torch.special.i0(beta * (1 - (position / edge) ** 2).clamp(min=0).sqrt())
    band = 2 * cutoff / sampling_rate
    if radial:
        radius = math.pi * torch.hypot(position[:, None], position[None, :])
        # J1(band r) / r, the transform of a disc, whose limit at the centre is band / 2
        ideal = torch.where(radius > 0, torch.special.bessel_j1(band * radius) / radius.clamp(min=1e-9), band / 2)
        kernel = ideal * window.outer(window)
    else:
        kernel = torch.special.sinc(band * position) * window
    normalized: Tensor = kernel / kernel.sum()
    return normalized.float()


def upsample(
    x: Float[Tensor, "batch channels side side"],
    kernel: Tensor | None,
    factor: int,
    padding: tuple[int, int],
    gain: float = 1.0,
) -> Float[Tensor, "batch channels new_side new_side"]:
    """Insert zeros so that samples are `factor` apart, pad, and filter without further padding.

    Args:
        x: samples.
        kernel: symmetric filter of unit gain, (taps,); `None` for the identity.
        factor: ratio of new samples to old ones along each axis.
        padding: zeros before and after, counted in the new samples; a negative number crops. So new_side is
            side * factor + sum(padding) - taps + 1.
        gain: factor of the result.
    """
    if kernel is None:
        kernel = x.new_ones(1)
    taps, channels = len(kernel), x.shape[1]
    # The zeros between samples dilute the signal.
    weight = (kernel * (factor * math.sqrt(gain))).to(x.dtype).expand(channels, 1, 1, taps).contiguous()
    # A transposed convolution skips the zeros. It pads by taps - 1 and leaves out the zeros after the last sample.
    low, high = padding[0] - (taps - 1), padding[1] - (taps - 1) + (factor - 1)
    crop = max(0, -max(low, high))  # what both sides lose is never computed
    x = F.conv_transpose2d(x, weight, stride=(1, factor), padding=(0, crop), groups=channels)
    x = F.conv_transpose2d(x, weight.transpose(2, 3), stride=(factor, 1), padding=(crop, 0), groups=channels)
    return F.pad(x, (low + crop, high + crop) * 2) if low + crop or high + crop else x


def downsample(
    x: Float[Tensor, "batch channels side side"], kernel: Tensor | None, factor: int
) -> Float[Tensor, "batch channels new_side new_side"]:
    """Filter x without padding and keep every `factor`-th sample along each axis.

    The symmetric filter is (taps,), (taps, taps), or `None` for the identity. The new side is
    (side - taps) // factor + 1.
    """
    if kernel is None:
        return x[:, :, ::factor, ::factor]
    channels = x.shape[1]
    kernel = kernel.to(x.dtype)
    if kernel.ndim == 2:
        return F.conv2d(x, kernel.expand(channels, 1, -1, -1).contiguous(), stride=factor, groups=channels)
    weight = kernel.expand(channels, 1, 1, -1).contiguous()
    x = F.conv2d(x, weight, stride=(1, factor), groups=channels)
    return F.conv2d(x, weight.transpose(2, 3), stride=(factor, 1), groups=channels)
