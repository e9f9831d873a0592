"""Embedded Runge-Kutta steps in which every sample has its own step size.

The rules (initial step, error norm, next step, interpolation) are those of torchdiffeq's adaptive solvers with its norm
taken over one sample instead of the whole batch, so that a lone sample takes the very same steps as under `odeint`.
Equation and chapter numbers: Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition.

`s` is a clock that runs forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from math import isclose
from typing import Any, NamedTuple

import torch
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError
from energyql.numerics.shapes import Bool, Float, Int

Slope = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`slope(s, z, rows)`: dz/ds (batch, z_dim) and energies (batch,) of the samples `rows` (batch,)."""

SAFETY = 0.9
"""The next step aims at this fraction of the size that would just pass."""
LARGEST_GROWTH = 10.0
"""A step is at most this many times the one before."""
LARGEST_CUT = 0.2
"""A step after a rejected one is at least this fraction of it."""


@dataclass(frozen=True, slots=True)
class Tableau:
    """An explicit embedded Runge-Kutta method, as plain numbers (so that no step waits for a device).

    Args:
        order: enters the step-size rule.
        nodes: c₂ … c_s, the place of each stage but the first as a fraction of the step.
        rows: a_ij, row i for stage i + 2.
        solution: b, weights of the stages in the new z.
        error: weights of the stages in the error estimate.
        midpoint: weights of the stages in z at the middle of the step.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    solution: tuple[float, ...]
    error: tuple[float, ...]
    midpoint: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        """Number of slopes to evaluate for one step; the first stage is the last one of the step before."""
        return len(self.nodes)

    @property
    def ends_on_last_stage(self) -> bool:
        """Whether the last stage is evaluated at the new z itself ("first same as last")."""
        return self.solution == (*self.rows[-1], 0.0)


@cache
def solvers() -> Mapping[str, Any]:
    """Return torchdiffeq's methods by name. It is imported when they are needed, because it takes SciPy along."""
    try:
        # There is no public name for them; `read_tableau` checks what it finds here.
        from torchdiffeq._impl.odeint import SOLVERS
    except ImportError:
        return {}
    found: Mapping[str, Any] = SOLVERS
    return found


def adaptive_methods() -> tuple[str, ...]:
    """Return the names of the methods that `ODESolver` accepts, in torchdiffeq's order."""
    return tuple(name for name, solver in solvers().items() if hasattr(solver, "tableau"))


def read_tableau(method: str) -> Tableau:
    """Return the coefficients of one of torchdiffeq's adaptive Runge-Kutta methods.

    Raises:
        ArgumentError: there is no such adaptive method.
        EnergyQLError: torchdiffeq no longer keeps its methods in the place and form of version 0.2.5.
    """
    names = adaptive_methods()
    if not names:
        raise _drift("it lists no adaptive method")
    if method not in names:
        raise ArgumentError(
            f"method {method!r} is not one of torchdiffeq's adaptive methods", hint=f"choose one of {', '.join(names)}"
        )
    solver = solvers()[method]
    try:
        tableau = Tableau(
            order=int(solver.order),
            nodes=tuple(map(float, solver.tableau.alpha)),
            rows=tuple(tuple(map(float, row)) for row in solver.tableau.beta),
            solution=tuple(map(float, solver.tableau.c_sol)),
            error=tuple(map(float, solver.tableau.c_error)),
            midpoint=tuple(map(float, solver.mid)),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise _drift(f"the coefficients of {method} cannot be read ({error})") from error
    if not _consistent(tableau):
        raise _drift(f"the coefficients of {method} do not make a Runge-Kutta method")
    return tableau


def _consistent(tableau: Tableau) -> bool:
    """Return whether shapes fit, row sums equal nodes, and a constant slope is integrated exactly."""
    stages = len(tableau.nodes) + 1
    weights = (tableau.solution, tableau.error, tableau.midpoint)
    if any(len(row) != stages for row in weights) or [len(row) for row in tableau.rows] != list(range(1, stages)):
        return False
    sums = [*map(sum, tableau.rows), *map(sum, weights)]
    targets = [*tableau.nodes, 1.0, 0.0, 0.5]
    return tableau.order >= 1 and all(isclose(a, b, abs_tol=1e-9) for a, b in zip(sums, targets, strict=True))


def _drift(finding: str) -> EnergyQLError:
    version = metadata.version("torchdiffeq")
    return EnergyQLError(
        f"torchdiffeq {version} is not laid out as energyql expects: {finding}",
        hint='install a version that it was tested with: pip install "torchdiffeq>=0.2.5,<0.3"',
    )


class FlowState(NamedTuple):
    """The samples that move, one row each.

    Attributes:
        s: clock.
        step: size of the next step to try.
        z: latents.
        slope: dz/ds there.
    """

    s: Float[Tensor, " batch"]
    step: Float[Tensor, " batch"]
    z: Float[Tensor, "batch z_dim"]
    slope: Float[Tensor, "batch z_dim"]


class Attempt(NamedTuple):
    """One step tried for each sample, from the state `start` to `z1` at `s1`, which is `step` later.

    Attributes:
        tableau: the method.
        slopes: of the stages. The last one starts the next step. In the methods that do not end on
            their last stage (adaptive_heun, fehlberg2) it belongs to a point beside z1, off by O(step²). torchdiffeq
            reuses it all the same: the order survives, and a step costs one slope less.
        error: estimated error of z1.
        energy: energies that came with the last slope.
    """

    tableau: Tableau
    start: FlowState
    step: Float[Tensor, " batch"]
    s1: Float[Tensor, " batch"]
    z1: Float[Tensor, "batch z_dim"]
    slopes: tuple[Float[Tensor, "batch z_dim"], ...]
    error: Float[Tensor, "batch z_dim"]
    energy: Float[Tensor, " batch"]

    def finite(self) -> Bool[Tensor, " batch"]:
        """Return whether all numbers of a sample are finite."""
        finite = [torch.isfinite(numbers).all(dim=-1) for numbers in (self.z1, *self.slopes)]
        return torch.stack(finite).all(dim=0)


def take_step(slope: Slope, tableau: Tableau, rows: Tensor, state: FlowState, *, limit: float) -> Attempt:
    """Try one step for each sample. Eq. II.4.1 to II.4.3.

    A step that would end after the clock time `limit` is cut so that it ends there exactly.
    """
    s1 = state.s + state.step
    step = torch.where(s1 > limit, limit - state.s, state.step)
    s1 = s1.clamp(max=limit)
    width = step.unsqueeze(-1)
    slopes = [state.slope]
    stage = state.z
    for node, weights in zip(tableau.nodes, tableau.rows, strict=True):
        stage = state.z + width * _weighted(weights, slopes)
        # s + 1 * step may round differently from s1, which is where the next step starts.
        last, energy = slope(s1 if node == 1.0 else state.s + node * step, stage, rows)
        slopes.append(last)
    z1 = stage if tableau.ends_on_last_stage else state.z + width * _weighted(tableau.solution, slopes)
    return Attempt(tableau, state, step, s1, z1, tuple(slopes), width * _weighted(tableau.error, slopes), energy)


def error_ratio(attempt: Attempt, rtol: float, atol: float) -> Float[Tensor, " batch"]:
    """Return estimated error over tolerance, RMS over z_dim; a step passes at 1 or below. Eq. II.4.11."""
    tolerance = atol + rtol * torch.maximum(attempt.start.z.abs(), attempt.z1.abs())
    return _rms(attempt.error / tolerance)


def next_step(step: Float[Tensor, " batch"], ratio: Float[Tensor, " batch"], order: int) -> Float[Tensor, " batch"]:
    """Return step sizes for the next attempt. Eq. II.4.13; after a step that passed they never fall."""
    factor = (SAFETY / _root(ratio, order)).clamp(LARGEST_CUT, LARGEST_GROWTH)
    return step * torch.where(ratio < 1, factor.clamp(min=1.0), factor)


def initial_step(slope: Slope, rows: Tensor, state: FlowState, order: int, rtol: float, atol: float) -> Tensor:
    """Return sizes for the first attempt, (batch,), at the price of one slope. Section II.4, p. 169."""
    scale = atol + rtol * state.z.abs()
    size, speed = _rms(state.z / scale), _rms(state.slope / scale)
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    second, _ = slope(state.s + trial, state.z + trial.unsqueeze(-1) * state.slope, rows)
    bend = _rms((second - state.slope) / scale) / trial
    fastest = torch.maximum(speed, bend)
    refined = torch.where(fastest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), _root(0.01 / fastest, order))
    # Where the trial itself gave no finite numbers, the first step is one after a rejected trial.
    return torch.where(torch.isfinite(bend), torch.minimum(100 * trial, refined), LARGEST_CUT * trial)


def interpolate_step(attempt: Attempt, s: float, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows z_dim"]:
    """Return z at the clock time `s` inside some steps: the quartic through both ends and the middle.

    `rows` are the indices of these steps in the attempt.
    """
    z0, s0 = attempt.start.z[rows], attempt.start.s[rows]
    width = attempt.step[rows].unsqueeze(-1)
    slopes = [k[rows] for k in attempt.slopes]
    # Everything relative to z0: the coefficients are large and cancel, so small numbers keep more digits.
    end, middle = attempt.z1[rows] - z0, width * _weighted(attempt.tableau.midpoint, slopes)
    rise0, rise1 = width * slopes[0], width * slopes[-1]
    quartic = 2 * (rise1 - rise0) - 8 * end + 16 * middle
    cubic = 5 * rise0 - 3 * rise1 + 14 * end - 32 * middle
    square = rise1 - 4 * rise0 - 5 * end + 16 * middle
    x = ((s - s0) / (attempt.s1[rows] - s0)).unsqueeze(-1)
    return z0 + x * (rise0 + x * (square + x * (cubic + x * quartic)))


def _weighted(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    # Sums of products, one after the other: a matrix product could run in reduced precision on a GPU, and its rounding
    # depends on the batch size.
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight != 0.0:
            total.add_(slope, alpha=weight)
    return total


def _root(x: Float[Tensor, " batch"], order: int) -> Float[Tensor, " batch"]:
    # PyTorch rounds powers of the last numbers of a tensor in another way, so they would depend on the batch.
    return (x.log() / order).exp()


def _rms(x: Float[Tensor, "batch z_dim"]) -> Float[Tensor, " batch"]:
    return x.square().mean(dim=-1).sqrt()
