"""Logarithms of normal probabilities, with values and gradients that are finite and accurate in far tails.

Phi and phi are distribution function and density of N(0, 1). Gradients and intervals use the Mills ratio `R(x) = Phi(x)
/ phi(x) = sqrt(pi / 2) erfcx(-x / sqrt(2))`, so that exponentials cancel in the formula, not in floating point. (The
gradient of `torch.special.log_ndtr` in float32 is noise at 1e3 standard deviations and infinite at 1e5.) Nothing is
computed in float64, which some devices lack.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from energyql.numerics.shapes import Float

_SQRT_HALF = math.sqrt(0.5)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_CERTAIN = 9.0
"""Number of standard deviations beyond which a normal distribution has less than 1e-18 of its probability."""


def log_normal_cdf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return `log Phi(x)`, elementwise: the log-probability that a standard normal number is below x."""
    return cast(Tensor, _LogCDF.apply(x)) if _needs_graph(x) else torch.special.log_ndtr(x)


def log_normal_cdf_slope(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the derivative of `log_normal_cdf` at x, elementwise. It is 0 where x is infinity."""
    slope: Tensor = math.sqrt(2 / math.pi) / torch.special.erfcx(x * -_SQRT_HALF)
    return slope


def log_normal_interval(middle: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return `log(Phi(middle + width / 2) - Phi(middle - width / 2))`, elementwise, in nats; `width` is positive."""
    if _needs_graph(middle) or _needs_graph(width):
        return cast(Tensor, _LogInterval.apply(middle, width))
    return _interval(middle, width)[0]


def log_normal_interval_and_slope(
    middle: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]
) -> tuple[Float[Tensor, "*shape"], Callable[[], Tensor]]:
    """Return `log_normal_interval`, and a function of no arguments for its derivative with respect to `middle`."""
    value, lost, ratio = _interval(middle, width)
    return value, lambda: middle.sign().mul_(lost).div_(ratio)


def _needs_graph(x: Tensor) -> bool:
    return x.requires_grad and torch.is_grad_enabled()


def _interval(middle: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]) -> tuple[Tensor, Tensor, Tensor]:
    """`log_normal_interval`, and factors of its derivatives: `phi(far) / phi(near) - 1`, and probability / `phi(near)`.

    `near` and `far` are the bounds of the interval, or of its mirror image if `middle` is negative.
    """
    info = torch.finfo(middle.dtype)
    width = width.clamp(min=info.tiny)
    distance, half = middle.abs().mul_(_SQRT_HALF), width * (0.5 * _SQRT_HALF)
    # Both are divided by sqrt(2). `near` is bounded below, where the probability beyond is less than any rounding
    # error, because erfcx would overflow further on.
    near, far = (distance - half).clamp_(min=-_CERTAIN * _SQRT_HALF), distance + half
    product = (distance * (width / -_SQRT_HALF)).clamp_(max=-info.tiny)  # phi(far) = phi(near) exp(product)
    lost = torch.expm1(product)
    beyond = torch.special.erfcx(far)
    difference = torch.addcmul(torch.special.erfcx(near).sub_(beyond), lost, beyond, value=-1)
    # For a narrow interval a straight line under the log-density is more accurate than that difference.
    narrow = width < (12 * info.eps) ** (1 / 3)
    ratio = torch.where(narrow, lost / product * width, difference.mul_(math.sqrt(math.pi / 2)))
    return torch.addcmul(ratio.log(), near, near, value=-1).sub_(_LOG_SQRT_2PI).clamp_(max=0), lost, ratio


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
        value, lost, ratio = _interval(middle, width)
        ctx.save_for_backward(middle, lost, ratio)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        middle, lost, ratio = ctx.saved_tensors
        pull = grad / ratio
        return pull * lost * middle.sign(), pull * (1 + 0.5 * lost)
