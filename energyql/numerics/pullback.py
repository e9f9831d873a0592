"""Functions that come with their derivative, so that one evaluation costs little more than its matrix products.

Automatic differentiation records and allocates for every operation. A chain of linear layers and leaky ReLUs is
differentiated by hand in a line or two; see `FrozenMapping` and `FusedHeads`.
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
"""From the gradient with respect to a function's value to the gradient with respect to its input.

Call it once: it may overwrite its argument, and the caller may overwrite its result."""
Pullback = Callable[[Tensor], tuple[Tensor, Back]]
"""From an input to the function's value and its `Back`."""
NORM_EPSILON = 1e-8
"""Added to the second moment of a row before its root is taken, as in StyleGAN."""


@runtime_checkable
class Differentiable(Protocol):
    """A function of a batch, row by row, with a derivative of its own."""

    def __call__(self, x: Float[Tensor, "batch ..."], /) -> Float[Tensor, "batch ..."]:
        """Return the value; autograd can differentiate it too."""
        ...

    def pullback(self, x: Float[Tensor, "batch ..."], /) -> tuple[Float[Tensor, "batch ..."], Back]:
        """Return the value and its `Back`, without a graph. Neither writes to `x`."""
        ...


@runtime_checkable
class Convertible(Protocol):
    """A function that can compute in another dtype."""

    def computed_in(self, dtype: torch.dtype, /) -> Callable[[Tensor], Tensor]:
        """Return the same function with its matrix products, and everything between them, in `dtype`.

        Inputs and outputs keep their dtype.
        """
        ...


class Identity:
    """The function that returns its input; `Differentiable` and `Convertible`."""

    def computed_in(self, dtype: torch.dtype) -> Identity:
        """See `Convertible`."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def pullback(self, x: Tensor) -> tuple[Tensor, Back]:
        """See `Differentiable`."""
        return x, lambda grad: grad


def pullback_of(function: Callable[[Tensor], Tensor]) -> Pullback:
    """Return the function's own pullback if it has one, else one by autograd."""
    return function.pullback if isinstance(function, Differentiable) else partial(by_autograd, function)


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Back]:
    """Return the value of any torch function, and its `Back` by autograd.

    Raises:
        ArgumentError: the value does not depend on x in autograd's graph.
    """
    # A copy made outside inference mode can be differentiated wherever x comes from.
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
            if "requires grad" not in str(error):  # as numpy and writing to z are refused
                raise
            raise refusal from error
    if not value.requires_grad:
        raise refusal

    def back(grad: Tensor) -> Tensor:
        with torch.inference_mode(False):
            found: Tensor | None = torch.autograd.grad(value, variable, grad.clone(), allow_unused=True)[0]
        if found is None:
            raise refusal
        return found

    return value.detach(), back


def leaky_relu_back_(
    grad: Float[Tensor, "*shape"], result: Float[Tensor, "*shape"], slope: float
) -> Float[Tensor, "*shape"]:
    """Turn the gradient with respect to a leaky ReLU's `result` into that with respect to its input, in place.

    The result has the signs of the input, so the input need not be kept.
    """
    torch.ops.aten.leaky_relu_backward.grad_input(grad, result, slope, True, grad_input=grad)
    return grad


def inverse_norm(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch 1"]:
    """Return the factor that scales each row of x to unit second moment."""
    norm = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    inverse: Tensor = (norm.square() / x.shape[1] + NORM_EPSILON).rsqrt()
    return inverse


def normalized(x: Float[Tensor, "batch dim"]) -> Float[Tensor, "batch dim"]:
    """Return the rows of x scaled to unit second moment, as StyleGAN's mapping network scales z."""
    return x * inverse_norm(x)


def normalized_back(
    grad: Float[Tensor, "batch dim"], scaled: Float[Tensor, "batch dim"], scale: Float[Tensor, "batch 1"]
) -> Float[Tensor, "batch dim"]:
    """Turn the gradient with respect to `scaled` into that with respect to x, in a new tensor, orthogonal to x.

    `scale` is the `inverse_norm` of x, and `scaled` is `x * scale`.
    """
    along = (grad * scaled).sum(1, keepdim=True)
    return torch.addcmul(grad, along, scaled, value=-1 / scaled.shape[1]).mul_(scale)
