"""Layers and normal probabilities in elementary operations, which compilers and exporters of torch modules know.

ONNX has no `erfcx`, `log_ndtr`, `expm1` or `logaddexp`, and packed products and derivatives by hand are for this
library's samplers. What is here gives the same values to float32 rounding, and autograd can differentiate it: no branch
that is not taken has a value or a derivative that is not finite. (`masked_fill` stands where `where` would have a
number, which older exporters take for float64.)
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from energyql.numerics.linear import Dense, DenseStack
from energyql.numerics.pullback import NORM_EPSILON
from energyql.numerics.shapes import Float

_SQRT_HALF = math.sqrt(0.5)
_LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
_CERTAIN = 9.0 * _SQRT_HALF
_PRECISION = 3e-10
"""Relative error of `_erfcx`."""
_CENTRE = 2.0
_ERFCX = (
    1.2769783814988358, -0.09276382251506479, -0.16603039056328614, 0.16405112686489373, -0.054220154023658165,
    -0.00803234488235431, 0.008723932090939393, 0.0012632910618867255, -0.0014621407710918742, -0.00043438789733342686,
    0.00021874067888890536, 0.00012454341791344323, -1.819717404009113e-05, -1.882275676542835e-05,
    -5.882329712948055e-07,
)  # fmt: skip
"""Coefficients of `(1 + 2 y) erfcx(y)` in powers of `(y - _CENTRE) / (y + _CENTRE)`, by a fit in Chebyshev polynomials;
off by less than `_PRECISION` of the value for every y >= 0. Shepherd and Laframboise 1981 have the form."""
_ATANH = tuple(1 / (2 * k + 1) for k in range(9))


class UnitMoment(nn.Module):
    """Scales the rows of x to unit second moment; see `energyql.numerics.pullback.normalized`."""

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the scaled rows."""
        return x * (x.square().mean(1, keepdim=True) + NORM_EPSILON).rsqrt()


class Affine(nn.Module):
    """The function `factor * x + offset`, with an offset for each column."""

    offset: Tensor

    def __init__(self, factor: float, offset: Float[Tensor, " dim"]) -> None:
        super().__init__()
        self.factor = factor
        self.register_buffer("offset", offset.clone())

    def forward(self, x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
        """Return the function of x."""
        return self.factor * x + self.offset


class Stack(nn.Module):
    """The same layer of several networks, with a leaky ReLU; see `energyql.numerics.linear.DenseStack`."""

    weight: Tensor
    bias: Tensor

    def __init__(self, layer: DenseStack) -> None:
        super().__init__()
        self.slope = layer.slope
        self.register_buffer("weight", layer.weight.clone())
        self.register_buffer("bias", layer.bias.clone())

    def forward(self, x: Float[Tensor, "networks batch in"]) -> Float[Tensor, "networks batch out"]:
        """Return the layer's values."""
        return F.leaky_relu(x @ self.weight.transpose(1, 2) + self.bias, self.slope)


def linear(weight: Float[Tensor, "out in"], bias: Float[Tensor, " out"] | None = None) -> nn.Linear:
    """Return a constant linear layer with copies of its parameters."""
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, device="meta").requires_grad_(False)
    layer.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
    return layer


def dense(layer: Dense) -> list[nn.Module]:
    """Return a linear layer and a leaky ReLU."""
    return [linear(layer.weight, layer.bias), nn.LeakyReLU(layer.slope)]


def log_cdf(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the logarithm of the normal distribution function, elementwise, for finite x."""
    y = _size(x) * _SQRT_HALF
    scaled = _erfcx(y)
    tail = 0.5 * scaled * torch.exp(-y * y)
    return torch.where(x < 0, (0.5 * scaled).log() - y * y, log1p(-tail))


def log_interval(middle: Float[Tensor, "*shape"], width: Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Return log P(a standard normal number is at most width / 2 from middle), elementwise, for finite numbers."""
    distance, half = middle.abs() * _SQRT_HALF, width * (0.5 * _SQRT_HALF)
    near, far = (distance - half).clamp(min=-_CERTAIN), distance + half
    drop = distance * width / _SQRT_HALF  # phi(far) = phi(near) exp(-drop)
    # A narrow interval has too few digits in a difference of tails, and the density hardly changes along it.
    narrow = width < (12 * max(_PRECISION, torch.finfo(middle.dtype).eps)) ** (1 / 3)
    # `where` blocks the value of the branch that is not taken, but not a NaN in its derivative.
    wide = _signed_erfcx(near) - torch.exp(-drop) * _erfcx(far)
    ratio = torch.where(narrow, width * _mean_decay(drop), wide.masked_fill(narrow, 1.0) * math.sqrt(math.pi / 2))
    return (ratio.log() - near * near - _LOG_SQRT_2PI).clamp(max=0)


def log1p(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(1 + x), elementwise, for x from -1/2 to 0."""
    ratio = x / (2 + x)
    return 2 * ratio * _polynomial(ratio * ratio, _ATANH)


def expm1(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return exp(x) - 1, elementwise, for x of at most 0."""
    return torch.tanh(0.5 * x) * (1 + x.exp())


def _mean_decay(t: Tensor) -> Tensor:
    """Return (1 - exp(-t)) / t for t >= 0, which is the mean of exp(-s) for s from 0 to t."""
    small = t < 0.1
    series = _polynomial(t.masked_fill(~small, 0.0), (1.0, -1 / 2, 1 / 6, -1 / 24, 1 / 120, -1 / 720))
    safe = t.clamp(min=0.1)
    return torch.where(small, series, -expm1(-safe) / safe)


def _erfcx(y: Tensor) -> Tensor:
    """Return exp(y^2) erfc(y) for y >= 0."""
    return _polynomial((y - _CENTRE) / (y + _CENTRE), _ERFCX) / (1 + 2 * y)


def _signed_erfcx(y: Tensor) -> Tensor:
    """Return exp(y^2) erfc(y) for y >= -`_CERTAIN`."""
    below = y.clamp(max=0)
    scaled = _erfcx(_size(y))
    return torch.where(y < 0, 2 * torch.exp(below * below) - scaled, scaled)


def _size(x: Tensor) -> Tensor:
    """Return the absolute value of x, with the slope 1 at 0, where that of `abs` is 0."""
    return torch.where(x < 0, -x, x)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """Return the polynomial with these coefficients, the constant one first."""
    *rest, last = coefficients
    value: Tensor = torch.full_like(x, last)
    for coefficient in reversed(rest):
        value = value * x + coefficient
    return value
