"""Functions with a derivative written by hand, evaluated in little more time than their matrix products."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.shapes import Float

Back = Callable[[Tensor], Tensor]
"""The step of the chain rule through a function f at x: from the gradient with respect to f(x) to that with respect to
x. It may be called only once, and may overwrite its argument; the caller may overwrite the result."""
Pullback = Callable[[Tensor], tuple[Tensor, Back]]
"""A function from x to the value f(x), and the `Back` of f at x."""
NORM_EPSILON = 1e-8
"""Added to the mean square of a row before the square root, as in StyleGAN, to avoid a division by 0."""


@runtime_checkable
class Differentiable(Protocol):
    """A function of a batch of independent rows with a derivative written by hand, besides that of autograd."""

    def __call__(self, x: Float[Tensor, "batch ..."], /) -> Float[Tensor, "batch ..."]:
        """Return the value of the function at x; autograd can differentiate it as well."""

    def pullback(self, x: Float[Tensor, "batch ..."], /) -> tuple[Float[Tensor, "batch ..."], Back]:
        """Return the value of the function at x and its `Back`, both without autograd; `x` is not overwritten."""


@runtime_checkable
class Convertible(Protocol):
    """A function of a tensor that can be computed in another dtype."""

    def computed_in(self, dtype: torch.dtype, /) -> Callable[[Tensor], Tensor]:
        """Return this function with matrix products, and all between, in `dtype`; inputs and outputs keep theirs."""


class Identity:
    """The function that returns its input, with the methods of `Differentiable` and `Convertible`."""

    def computed_in(self, dtype: torch.dtype) -> Identity:
        """Return this object: it computes nothing, so the dtype makes no difference."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def pullback(self, x: Tensor) -> tuple[Tensor, Back]:
        """Return x, and a `Back` that returns the gradient unchanged."""
        return x, lambda grad: grad


def pullback_of(function: Callable[[Tensor], Tensor]) -> Pullback:
    """Return the method `pullback` of `function`, if there is one, else the same by autograd."""
    return function.pullback if isinstance(function, Differentiable) else partial(by_autograd, function)


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Back]:
    """Return the value of any torch function at x, detached, and its `Back` by autograd.

    Raises:
        ArgumentError: autograd finds no path from the value back to x. The `Back` may raise it too.
    """
    # Autograd can differentiate a copy made outside inference mode, even if x was made inside.
    refusal = ArgumentError(
        "the energy does not depend on z as far as autograd can see",
        hint="remove a no_grad, detach or item between z and the energy, also in encode and predict, or give the "
        "energy a method gradient(z) -> (energy, gradient); an energy that is meant to be flat can be written "
        "0 * z.sum(-1)",
    )
    with torch.inference_mode(False), torch.enable_grad():
        variable = x.detach().clone().requires_grad_()
        try:
            value = function(variable)
        except RuntimeError as error:
            if "requires grad" not in str(error):  # torch's words about conversion to numpy, and about writing to z
                raise
            raise refusal from error
    if not value.requires_grad:
        raise refusal

    def back(grad: Tensor) -> Tensor:
        with torch.inference_mode(False):
            gradient: Tensor | None = torch.autograd.grad(value, variable, grad.clone(), allow_unused=True)[0]
        if gradient is None:
            raise refusal
        return gradient

    return value.detach(), back


def leaky_relu_back_(
    grad: Float[Tensor, "*shape"], result: Float[Tensor, "*shape"], slope: float
) -> Float[Tensor, "*shape"]:
    """Return the gradient with respect to the input of a leaky ReLU, written into `grad`, that of its `result`.

    The input is not needed, because it has the signs of the output; `slope` must be above 0.
    """
    torch.ops.aten.leaky_relu_backward.grad_input(grad, result, slope, True, grad_input=grad)
    return grad


def row_products(
    x: Float[Tensor, "batch dim"], y: Float[Tensor, "batch dim"], factor: float = 1.0
) -> Float[Tensor, " batch"]:
    """Return `factor` times the scalar product of row i of `x` and row i of `y`; a GPU rounds differently."""
    if x.device.type != "cpu":  # the empty tensor is not read
        return torch.baddbmm(x.new_empty(1, 1, 1), x[:, None], y[:, :, None], beta=0, alpha=factor)[:, 0, 0]
    products = (x * y).sum(1)
    return products if factor == 1 else factor * products


def inverse_norm(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch 1"]:
    """Return for each row of x the factor that scales it to a mean square of 1."""
    if x.device.type == "cpu":
        mean = torch.linalg.vector_norm(x, dim=1, keepdim=True).square() / x.shape[1]
    else:
        mean = row_products(x, x, 1 / x.shape[1])[:, None]
    inverse: Tensor = (mean + NORM_EPSILON).rsqrt()
    return inverse


def normalized(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Return the rows of x scaled to a mean square of 1, as StyleGAN's mapping network scales z."""
    return x * inverse_norm(x)


def normalized_back(
    grad: Float[Tensor, "batch dim"], scaled: Float[Tensor, "batch dim"], scale: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch dim"]:
    """Return the gradient with respect to x of `scaled = normalized(x)`, where `scale` is `inverse_norm(x)`."""
    along = row_products(grad, scaled)[:, None]
    return torch.addcmul(grad, along, scaled, value=-1 / scaled.shape[1]).mul_(scale)
