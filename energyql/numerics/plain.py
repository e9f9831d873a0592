"""Layers and normal probabilities in elementary operations, for compilers and exporters of torch modules.

ONNX lacks `erfcx`, `log_ndtr`, `expm1`, `logaddexp` and packed products. Values are those of the modules `linear` and
`normal`, up to rounding errors of float32, and autograd can differentiate them: in a `where`, the unused branch is
finite too.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from energyql.numerics.linear import Dense, DenseStack
from energyql.numerics.pullback import NORM_EPSILON
from energyql.numerics.shapes import Float

_SQRT_HALF = math.sqrt(0.5)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_CERTAIN = 9.0 * _SQRT_HALF
"""9 standard deviations divided by sqrt(2). Less than 1e-18 of the normal distribution is further from its mean."""
_PRECISION = 3e-10
"""Largest relative error of the function `_erfcx`."""
_CENTRE = 2.0
"""The value of y at which (y - _CENTRE) / (y + _CENTRE), the variable of the series `_ERFCX`, is 0."""
_ERFCX = (
    1.2769783814988358, -0.09276382251506479, -0.16603039056328614, 0.16405112686489373, -0.054220154023658165,
    -0.00803234488235431, 0.008723932090939393, 0.0012632910618867255, -0.0014621407710918742, -0.00043438789733342686,
    0.00021874067888890536, 0.00012454341791344323, -1.819717404009113e-05, -1.882275676542835e-05,
    -5.882329712948055e-07,
)  # fmt: skip
"""Coefficients of `(1 + 2 y) erfcx(y)` in powers of `(y - _CENTRE) / (y + _CENTRE)`, fitted by Chebyshev polynomials
for every y >= 0. The form is that of Shepherd and Laframboise 1981."""
_ATANH = tuple(1 / (2 * k + 1) for k in range(9))
"""Coefficients of `atanh(x) / x` in powers of x^2."""


class UnitMoment(nn.Module):
    """Module that scales each row to a mean square of 1, as the mapping network of a StyleGAN scales z."""

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the scaled rows of x."""
        return x * (x.square().mean(1, keepdim=True) + NORM_EPSILON).rsqrt()


class LeakyReLU(nn.Module):
    """The leaky ReLU, in float64 too: ONNX's own operator always rounds the slope (0 to 1) to float32."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return x where x is at least 0, else `slope * x`."""
        return torch.maximum(x, self.slope * x)


class Affine(nn.Module):
    """Module for `factor * x + offset`, with one factor for all numbers and an offset for each column of x."""

    offset: Tensor

    def __init__(self, factor: float, offset: Float[Tensor, " dim"]) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("offset", offset.clone())

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return `factor * x + offset`."""
        return self.factor * x + self.offset


class Stack(nn.Module):
    """A `DenseStack` as a module, with copies of its parameters."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: DenseStack) -> None:
        super().__init__()
        self.activation = LeakyReLU(layer.slope)
        self.register_buffer("weight", layer.weight.clone())
        self.register_buffer("bias", layer.bias.clone())

    def forward(self, x: Float[Tensor, "networks batch in"]) -> Float[Tensor, "networks batch out"]:
        """Return for each network i the output of its layer for the rows `x[i]`."""
        result: Tensor = self.activation(x @ self.weight.transpose(1, 2) + self.bias)
        return result


def linear(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None) -> nn.Linear:
    """Return a linear layer of torch with copies of `weight` and `bias`, for which autograd computes no gradients."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta").requires_grad_(False)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def dense(layer: Dense) -> list[nn.Module]:
    """Return a `Dense` layer as modules of torch: a linear layer and a leaky ReLU, with copies of the parameters."""
    return [linear(layer.weight, layer.bias), LeakyReLU(layer.slope)]


def log_cdf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the log-probability that a standard normal number is below x, elementwise, in nats, for finite x."""
    y = _size(x) * _SQRT_HALF
    scaled = _erfcx(y)
    tail = 0.5 * scaled * torch.exp(-y * y)
    return torch.where(x < 0, (0.5 * scaled).log() - y * y, log1p(-tail))


def log_interval(middle: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return the same as `log_normal_interval`, for finite `middle`, and `width` finite and positive."""
    distance, half = middle.abs() * _SQRT_HALF, width * (0.5 * _SQRT_HALF)
    near, far = (distance - half).clamp(min=-_CERTAIN), distance + half
    drop = distance * width / _SQRT_HALF  # phi(far) = phi(near) exp(-drop)
    # For a narrow interval the difference of tails has too few digits; the density hardly changes in it.
    narrow = width < (12 * max(_PRECISION, torch.finfo(middle.dtype).eps)) ** (1 / 3)
    # `where` ignores the value of the branch that is not used, but not a NaN in its derivative.
    wide = _signed_erfcx(near) - torch.exp(-drop) * _erfcx(far)
    ratio = torch.where(narrow, width * _mean_decay(drop), wide.masked_fill(narrow, 1.0) * math.sqrt(math.pi / 2))
    return (ratio.log() - near * near - _LOG_SQRT_2PI).clamp(max=0)


def log1p(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(1 + x), elementwise; x must be from -1/2 to 0."""
    ratio = x / (2 + x)
    return 2 * ratio * _polynomial(ratio * ratio, _ATANH)


def expm1(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return exp(x) - 1, elementwise, accurately for x near 0; x must be at most 0."""
    return torch.tanh(0.5 * x) * (1 + x.exp())


def _mean_decay(t: Tensor) -> Tensor:
    """(1 - exp(-t)) / t for t >= 0, the mean of exp(-s) for s from 0 to t."""
    small = t < 0.1
    series = _polynomial(t.masked_fill(~small, 0.0), (1.0, -1 / 2, 1 / 6, -1 / 24, 1 / 120, -1 / 720))
    safe = t.clamp(min=0.1)
    return torch.where(small, series, -expm1(-safe) / safe)


def _erfcx(y: Tensor) -> Tensor:
    """exp(y^2) erfc(y) for y >= 0."""
    return _polynomial((y - _CENTRE) / (y + _CENTRE), _ERFCX) / (1 + 2 * y)


def _signed_erfcx(y: Tensor) -> Tensor:
    """exp(y^2) erfc(y) for y >= -6.36, which is -`_CERTAIN`."""
    below = y.clamp(max=0)
    scaled = _erfcx(_size(y))
    return torch.where(y < 0, 2 * torch.exp(below * below) - scaled, scaled)


def _size(x: Tensor) -> Tensor:
    """Absolute value of x, with the derivative 1 at 0, where autograd gives `abs` the derivative 0."""
    return torch.where(x < 0, -x, x)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Polynomial at x, elementwise, with the coefficients of x⁰, x¹, and so on."""
    *rest, last = coefficients
    value: Tensor = torch.full_like(x, last)
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value
