"""Functions with a derivative of their own, so that one evaluation costs little more than its matrix products.

Autograd records every operation and allocates memory for it. The derivative of a chain of linear layers and leaky ReLUs
needs only a line or two; see `FrozenMapping` and `FusedHeads`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.shapes import Float

Back = Callable[[Tensor], Tensor]
"""A function from the gradient with respect to the value of another function to that with respect to its input.

It may be called once: it may overwrite its argument, and the caller may overwrite its result."""
Pullback = Callable[[Tensor], tuple[Tensor, Back]]
"""A function from an input to the value of another function and its `Back`."""
NORM_EPSILON = 1e-8
"""Added to the mean square of a row before the square root, as in StyleGAN."""


@runtime_checkable
class Differentiable(Protocol):
    """A function of a batch, row by row, with a derivative of its own."""

    def __call__(self, x: Float[Tensor, "batch ..."], /) -> Float[Tensor, "batch ..."]:
        """Return the value; autograd can differentiate it too."""
        ...

    def pullback(self, x: Float[Tensor, "batch ..."], /) -> tuple[Float[Tensor, "batch ..."], Back]:
        """Return the value and its `Back`, computed without autograd. Neither computation writes to `x`."""
        ...


@runtime_checkable
class Convertible(Protocol):
    """A function that can compute in another dtype."""

    def computed_in(self, dtype: torch.dtype, /) -> Callable[[Tensor], Tensor]:
        """Return the same function, computed in `dtype` from the first matrix product to the last.

        Inputs and outputs keep their dtype.
        """
        ...


class Identity:
    """The function that returns its input; `Differentiable` and `Convertible`."""

    def computed_in(self, dtype: torch.dtype) -> Identity:
        """Return the function itself; see `Convertible`."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def pullback(self, x: Tensor) -> tuple[Tensor, Back]:
        """Return x and the `Back` that returns its argument; see `Differentiable`."""
        return x, lambda grad: grad


def pullback_of(function: Callable[[Tensor], Tensor]) -> Pullback:
    """Return the pullback of a function: its own if it has one, else one by autograd (see `by_autograd`)."""
    return function.pullback if isinstance(function, Differentiable) else partial(by_autograd, function)


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Back]:
    """Return the value of any torch function at x, and its `Back` by autograd.

    Raises:
        ArgumentError: autograd cannot follow how the value depends on x; also raised by the `Back`.
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
    """Return the gradient with respect to the input of a leaky ReLU from `grad`, that with respect to its `result`.

    `grad` is overwritten with it. The input is not needed, because the result has the same signs.
    """
    torch.ops.aten.leaky_relu_backward.grad_input(grad, result, slope, True, grad_input=grad)
    return grad


def inverse_norm(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch 1"]:
    """Return for each row of x the factor that scales it to a mean square of 1."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    inverse: Tensor = (norm.square() / x.shape[1] + NORM_EPSILON).rsqrt()
    return inverse


def normalized(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Return the rows of x scaled to a mean square of 1, as StyleGAN's mapping network scales z."""
    return x * inverse_norm(x)


def normalized_back(
    grad: Float[Tensor, "batch dim"], scaled: Float[Tensor, "batch dim"], scale: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch dim"]:
    """Return the gradient with respect to x from `grad`, that with respect to `scaled`, in a new tensor.

    `scale` is the `inverse_norm` of x, and `scaled` is `x * scale`. Each row of the result is orthogonal to that of x.
    """
    along = (grad * scaled).sum(1, keepdim=True)
    return torch.addcmul(grad, along, scaled, value=-1 / scaled.shape[1]).mul_(scale)
