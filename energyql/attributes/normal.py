"""Logarithms of normal probabilities, with values and gradients that stay finite and accurate in far tails.

Written around the Mills ratio `R(x) = Phi(x) / phi(x) = sqrt(pi / 2) erfcx(-x / sqrt(2))`: in every ratio that a
gradient needs the exponentials cancel on paper, not in floating point. (Differentiating `torch.special.log_ndtr`
subtracts numbers of size x^2 / 2, and its gradient is noise at 1e3 standard deviations and infinite at 1e5, in
float32.) No float64 inside, which some devices lack.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_CERTAIN = 9.0
"""Standard deviations beyond which a normal has less than 1e-18 of its mass."""


def log_normal_cdf(x: Tensor) -> Tensor:
    """`log Phi(x)`, elementwise, for the standard normal; -infinity and infinity are allowed."""
    return cast(Tensor, _LogCDF.apply(x)) if _needs_graph(x) else torch.special.log_ndtr(x)


def log_normal_cdf_slope(x: Tensor) -> Tensor:
    """The derivative of `log_normal_cdf`, `1 / R(x)`; 0 at infinity."""
    slope: Tensor = math.sqrt(2 / math.pi) / torch.special.erfcx(x * -math.sqrt(0.5))
    return slope


def log_normal_interval(middle: Tensor, width: Tensor) -> Tensor:
    """`log(Phi(middle + width / 2) - Phi(middle - width / 2))`, elementwise; finite, `width` positive."""
    if _needs_graph(middle) or _needs_graph(width):
        return cast(Tensor, _LogInterval.apply(middle, width))
    return _interval(middle, width)[0]


def log_normal_interval_and_slope(middle: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """`log_normal_interval` and its derivative with respect to `middle`."""
    value, product, ratio = _interval(middle, width)
    return value, torch.expm1(-product) * middle.sign() / ratio


def _needs_graph(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _interval(middle: Tensor, width: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The value, and what its derivatives are made of: `-log(phi(far) / phi(near))` and `P / phi(near)`.

    Reflected so that the interval lies left of 0, with bounds `far` and `near`.
    """
    info = torch.finfo(middle.dtype)
    distance, width = middle.abs(), width.clamp(min=info.tiny)
    half = 0.5 * width
    # Capped where what lies beyond is below every rounding error, because R(near) would overflow further on.
    near, far = (half - distance).clamp(max=_CERTAIN), -distance - half
    product = (distance * width).clamp(min=info.tiny)  # phi(far) = phi(near) exp(-product)
    scaled_near = torch.special.erfcx(near * -math.sqrt(0.5))
    scaled_far = torch.special.erfcx(far * -math.sqrt(0.5))
    difference = math.sqrt(math.pi / 2) * (scaled_near - torch.exp(-product) * scaled_far)
    # A narrow interval has fewer digits in that difference than in a straight line under the log-density.
    line = width * (torch.expm1(-product) / -product)
    ratio = torch.where(width < (12 * info.eps) ** (1 / 3), line, difference)
    return (ratio.log() - 0.5 * near * near - _LOG_SQRT_2PI).clamp(max=0), product, ratio


class _LogCDF(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        value: Tensor = torch.special.log_ndtr(x)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * log_normal_cdf_slope(x)


class _LogInterval(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, middle: Tensor, width: Tensor) -> Tensor:
        value, product, ratio = _interval(middle, width)
        ctx.save_for_backward(middle, product, ratio)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        middle, product, ratio = ctx.saved_tensors
        pull = grad / ratio
        lost = torch.expm1(-product)
        return pull * lost * middle.sign(), pull * (1 + 0.5 * lost)
