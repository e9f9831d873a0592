"""Embedded Runge-Kutta steps in which every sample has its own step size.

The rules (initial step, error norm, next step, interpolation) are those of torchdiffeq's adaptive solvers with its norm
taken over one sample instead of the whole batch, so that a lone sample takes the very same steps as under `odeint`.
Equation and chapter numbers: Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition.

Shapes: `s` and `step` (batch,), `z` and slopes (batch, z_dim). `s` is a clock that runs forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Slope = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""`slope(s, z, rows)`: dz/ds, and a number for each sample that does not change the steps. `rows` (batch,) says which
samples these are."""

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
        nodes: c₂ … c_s, where each stage but the first stands inside the step.
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
        """Slopes to evaluate for one step; the first stage is the last one of the step before."""
        return len(self.nodes)

    @property
    def ends_on_last_stage(self) -> bool:
        """Whether the last stage is evaluated at the new z itself ("first same as last")."""
        return self.solution == (*self.rows[-1], 0.0)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One step tried for each sample: from `z0` at `s0` to `z1` at `s1`, which is `step` later.

    `value` is the number that came with the last slope, (batch,).
    """

    s0: Tensor
    step: Tensor
    s1: Tensor
    z0: Tensor
    z1: Tensor
    slopes: tuple[Tensor, ...]
    error: Tensor
    value: Tensor

    @property
    def last_slope(self) -> Tensor:
        """The slope that starts the next step.

        In the methods that do not end on their last stage (adaptive_heun, fehlberg2) it belongs to a point beside z1,
        off by O(step²). torchdiffeq reuses it all the same: the order survives, and a step costs one slope less.
        """
        return self.slopes[-1]

    def finite(self) -> Tensor:
        """Which samples met finite numbers only, (batch,) bool."""
        finite = torch.isfinite(self.z1).all(dim=-1)
        for slope in self.slopes:
            finite = finite & torch.isfinite(slope).all(dim=-1)
        return finite


def take_step(
    slope: Slope, tableau: Tableau, rows: Tensor, s: Tensor, step: Tensor, z: Tensor, first: Tensor, *, limit: float
) -> Attempt:
    """Tries one step for each sample, `first` being the slope at its start. Eq. II.4.1 to II.4.3.

    A step that would go beyond the clock time `limit` is cut so that it ends there exactly.
    """
    s1 = s + step
    step = torch.where(s1 > limit, limit - s, step)
    s1 = s1.clamp(max=limit)
    width = step.unsqueeze(-1)
    slopes = [first]
    stage = z
    for node, row in zip(tableau.nodes, tableau.rows, strict=True):
        stage = z + width * _weighted(row, slopes)
        # s + 1 * step may round differently from s1, which is where the next step starts.
        last, value = slope(s1 if node == 1.0 else s + node * step, stage, rows)
        slopes.append(last)
    z1 = stage if tableau.ends_on_last_stage else z + width * _weighted(tableau.solution, slopes)
    return Attempt(s, step, s1, z, z1, tuple(slopes), width * _weighted(tableau.error, slopes), value)


def error_ratio(attempt: Attempt, rtol: float, atol: float) -> Tensor:
    """Estimated error over tolerance, RMS over z_dim, (batch,); a step passes at 1 or below (II.4.10 and II.4.11)."""
    tolerance = atol + rtol * torch.maximum(attempt.z0.abs(), attempt.z1.abs())
    return _rms(attempt.error / tolerance)


def next_step(step: Tensor, ratio: Tensor, order: int) -> Tensor:
    """Step sizes for the next attempt, (batch,). Eq. II.4.13; a step that passed is never followed by a smaller one."""
    factor = (SAFETY / ratio ** (1 / order)).clamp(LARGEST_CUT, LARGEST_GROWTH)
    return step * torch.where(ratio < 1, factor.clamp(min=1.0), factor)


def initial_step(
    slope: Slope, rows: Tensor, s: Tensor, z: Tensor, first: Tensor, order: int, rtol: float, atol: float
) -> Tensor:
    """Sizes for the first attempt, (batch,), at the price of one slope. Section II.4, p. 169."""
    scale = atol + rtol * z.abs()
    size, speed = _rms(z / scale), _rms(first / scale)
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    second, _ = slope(s + trial, z + trial.unsqueeze(-1) * first, rows)
    bend = _rms((second - first) / scale) / trial
    fastest = torch.maximum(speed, bend)
    refined = torch.where(fastest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / fastest) ** (1 / order))
    # Where the trial itself left the numbers, the first step is one after a rejected trial.
    return torch.where(torch.isfinite(bend), torch.minimum(100 * trial, refined), LARGEST_CUT * trial)


def interpolate(attempt: Attempt, midpoint: Sequence[float], s: float, rows: Tensor) -> Tensor:
    """z at the clock time `s` inside the steps of the samples `rows`: the quartic through both ends and the middle."""
    z0 = attempt.z0[rows]
    width = attempt.step[rows].unsqueeze(-1)
    slopes = [k[rows] for k in attempt.slopes]
    # Everything relative to z0: the coefficients are large and cancel, so small numbers keep more digits.
    end, middle = attempt.z1[rows] - z0, width * _weighted(midpoint, slopes)
    rise0, rise1 = width * slopes[0], width * slopes[-1]
    quartic = 2 * (rise1 - rise0) - 8 * end + 16 * middle
    cubic = 5 * rise0 - 3 * rise1 + 14 * end - 32 * middle
    square = rise1 - 4 * rise0 - 5 * end + 16 * middle
    x = ((s - attempt.s0[rows]) / (attempt.s1[rows] - attempt.s0[rows])).unsqueeze(-1)
    return z0 + x * (rise0 + x * (square + x * (cubic + x * quartic)))


def _weighted(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
    # Sums of products, one after the other: a matrix product could run in reduced precision on a GPU, and its rounding
    # depends on the batch size.
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight != 0.0:
            total.add_(slope, alpha=weight)
    return total


def _rms(x: Tensor) -> Tensor:
    return x.square().mean(dim=-1).sqrt()
