"""Energies as samplers call them: latents, and which sample of the run each latent belongs to."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, MutableMapping
from dataclasses import dataclass
from inspect import signature
from pkgutil import resolve_name
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.numerics.pullback import by_autograd
from energyql.numerics.shapes import Float, Int

Kept = TypeVar("Kept")
ValueAndGradient = tuple[Float[Tensor, " batch"], Float[Tensor, "batch z_dim"]]
"""Energies, in nats, and their gradients with respect to z."""


class SurrogateEnergy(Protocol):
    """An energy that is cheap and roughly right, of v, a part of z of few numbers: draws from it are good proposals.

    Equal ones give equal energies.
    """

    def __hash__(self) -> int:
        """Return the same number for equal ones."""

    @property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal rows: v is `basis` z."""

    def __call__(self, v: Float[Tensor, "batch r"], /) -> Float[Tensor, " batch"]:
        """Return the energies of v, in nats."""

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"], /) -> Float[Tensor, "batch z_dim"]:
        """Return z with its part along the basis replaced by v."""


class Energy(Protocol):
    """An energy in nats, lower is better, that may differ from sample to sample.

    Row i of a result may depend on row i of the arguments only: samplers evaluate batches whose members come and go.

    An attribute `least`, where there is one, is the least energy that a latent can reach, in nats, or -infinity where
    none is the least; samplers that end where the energy is low enough measure from there. An attribute `surrogate`,
    where there is one and it is not None, is a function without arguments that makes a `SurrogateEnergy`. An attribute
    `kept`, where there is one and it is not None, says that the energy never changes: a dictionary of its own, empty at
    first, in which samplers keep what they find out about it and what is the same in every run. An attribute `costly`,
    where there is one and it is true, says that an evaluation takes as long as drawing a picture: samplers then
    evaluate no point before it is needed, and try out few.
    """

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> Float[Tensor, " batch"]:
        """Return the energies (batch,) of latents z (batch, z_dim).

        `rows`, int64 on the device of z, are the indices in the run of the samples that the latents belong to.
        """
        ...

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> ValueAndGradient:
        """Return the energies and their gradients with respect to z, both detached."""
        ...


EnergyLike = Energy | Callable[[Tensor], Tensor]
"""An `Energy`, or a function from latents (batch, z_dim) to energies (batch,), which autograd differentiates."""


@dataclass(frozen=True, slots=True, eq=False)
class GradientEnergy:
    """An energy given by one function of z and rows that returns values and gradients."""

    gradient: Callable[[Tensor, Tensor], ValueAndGradient]

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energies alone; see `Energy`."""
        return self.gradient(z, rows)[0]


def as_energy(energy: EnergyLike, *, first: int = 0, samples: Tensor | None = None) -> AdaptedEnergy:
    """Adapt an energy to the protocol `Energy`, with results of checked shape, detached, gradients in the dtype of z.

    Args:
        energy: a function of z, or of z and a parameter called `rows`; or an object with a method `gradient` of the
            same parameters. Without that method the gradient is taken by autograd, in every grad mode.
        first: index in the run of the first sample of the batch, added to the rows.
        samples: of a part of a batch, the row of each of its members in the batch, (rows,).

    Returns:
        An energy of z and the rows of the batch or part, with `least`, `surrogate`, `kept` and `costly`. It raises
        `ArgumentError` where a shape is wrong, or autograd finds no path from the energy back to z.
    """
    own = getattr(energy, "gradient", None)
    gradient = None if own is None else _with_rows(own, first, samples)
    value = _with_rows(energy, first, samples) if callable(energy) or gradient is None else GradientEnergy(gradient)
    least, surrogate = float(getattr(energy, "least", 0.0)), getattr(energy, "surrogate", None)
    kept, costly = getattr(energy, "kept", None), bool(getattr(energy, "costly", False))
    return AdaptedEnergy(value, gradient, least, surrogate, kept, costly)


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedEnergy:
    """An `Energy` as `as_energy` returns it."""

    value: Callable[[Tensor, Tensor], Tensor]
    value_and_gradient: Callable[[Tensor, Tensor], ValueAndGradient] | None
    least: float
    surrogate: Callable[[], SurrogateEnergy] | None
    kept: MutableMapping[Hashable, Any] | None
    costly: bool

    def once(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return what `make` returns, which must be the same for equal keys; an energy that never changes keeps it."""
        if self.kept is None:
            return make()
        if key not in self.kept:
            self.kept[key] = make()
        return cast(Kept, self.kept[key])

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energies; see `Energy`."""
        value = self.value(z, rows)
        _check_shape("energy(z)", value, z.shape[:1])
        return value.detach()

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> ValueAndGradient:
        """Return the energies and their gradients; see `Energy`."""
        if self.value_and_gradient is not None:
            value, gradient = self.value_and_gradient(z, rows)
            _check_shape("energy.gradient(z)[0]", value, z.shape[:1])
            _check_shape("energy.gradient(z)[1]", gradient, z.shape)
        else:
            value, back = by_autograd(lambda leaf: self.value(leaf, rows), z)
            _check_shape("energy(z)", value, z.shape[:1])
            gradient = back(torch.ones_like(value))
        return value.detach(), gradient.detach().to(z.dtype)


def check_floor(least: float) -> None:
    """Raise an `ArgumentError` if there is no least energy, from which a sampler could tell how low one is."""
    if least == -math.inf:
        samplers = resolve_name("energyql.sampling.registry:SAMPLERS")  # by name, because the registry imports this
        *others, last = [name for name, make in samplers.items() if not make().needs_floor]
        raise ArgumentError(
            "this energy has no lower bound, and this sampler needs one",
            hint=f"choose one that needs none: {', '.join(others)} or {last}",
        )


def _with_rows(function: Callable[..., Any], first: int, samples: Tensor | None) -> Callable[[Tensor, Tensor], Any]:
    """Return the function as one of z and of rows of the batch or part."""
    described = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        takes_rows = "rows" in signature(described).parameters
    except (TypeError, ValueError):  # a built-in function
        takes_rows = False
    if not takes_rows:
        return lambda z, rows: function(z)
    if samples is not None:
        return lambda z, rows: function(z, samples[rows] + first)
    return (lambda z, rows: function(z, rows + first)) if first else function


def _check_shape(what: str, tensor: Tensor, expected: torch.Size) -> None:
    if tensor.shape != expected:
        raise ArgumentError(
            f"{what} must have shape {tuple(expected)}, one row for each latent; got {tuple(tensor.shape)}"
        )
