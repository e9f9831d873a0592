"""Functions that come with their derivative, so that one evaluation costs little more than its matrix products.

Automatic differentiation records every operation and allocates for every one. A chain of linear layers and leaky ReLUs
is differentiated by hand in a line or two; see `FrozenMapping` and `FusedHeads`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from energyql.errors import ArgumentError

Back = Callable[[Tensor], Tensor]
"""From the gradient with respect to a function's value to the gradient with respect to its input.

Call it once: it may overwrite the gradient that it is given, and what it returns is the caller's."""
Pullback = Callable[[Tensor], tuple[Tensor, Back]]
"""From an input to the function's value and the way back."""


@runtime_checkable
class Differentiable(Protocol):
    """A function of a batch, row by row, that brings its derivative."""

    def __call__(self, x: Tensor, /) -> Tensor:
        """The value, `(batch, ...)`, of `x`, `(batch, ...)`; autograd can differentiate it too."""
        ...

    def pullback(self, x: Tensor, /) -> tuple[Tensor, Back]:
        """The value and the way back, without a graph. Neither writes to its input."""
        ...


@runtime_checkable
class Convertible(Protocol):
    """A function that can do its work in another type of number."""

    def computed_in(self, dtype: torch.dtype, /) -> Callable[[Tensor], Tensor]:
        """The same function, its matrix products and what lies between them in `dtype`.

        What goes in and what comes out stay what they are.
        """
        ...


class Identity:
    """The function that returns its input."""

    def computed_in(self, dtype: torch.dtype) -> Identity:
        """See `Convertible`."""
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return x

    def pullback(self, x: Tensor) -> tuple[Tensor, Back]:
        """See `Differentiable`."""
        return x, _same


def pullback_of(function: Callable[[Tensor], Tensor]) -> Pullback:
    """The function's own pullback where it has one, else autograd's."""
    return function.pullback if isinstance(function, Differentiable) else partial(by_autograd, function)


def by_autograd(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Back]:
    """The value of any torch function, and autograd's way back.

    Raises:
        ArgumentError: autograd finds no path from the value back to the input.
    """
    # A copy made outside inference mode can be differentiated wherever x comes from.
    with torch.inference_mode(False), torch.enable_grad():
        variable = x.detach().clone().requires_grad_()
        value = function(variable)
    if not value.requires_grad:
        raise ArgumentError(
            "the energy does not depend on z, so it has no gradient",
            hint="encode and predict must not detach their input or switch gradients off",
        )

    def back(grad: Tensor) -> Tensor:
        with torch.inference_mode(False):
            found: Tensor = torch.autograd.grad(value, variable, grad.clone())[0]
        return found

    return value.detach(), back


def leaky_relu_back_(grad: Tensor, result: Tensor, slope: float) -> Tensor:
    """Turns the gradient with respect to a leaky ReLU's `result` into that with respect to its input, in place.

    The result has the signs of the input, so nothing else needs to be kept.
    """
    torch.ops.aten.leaky_relu_backward.grad_input(grad, result, slope, True, grad_input=grad)
    return grad


def _same(grad: Tensor) -> Tensor:
    return grad
