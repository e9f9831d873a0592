"""The flow under the variance-preserving (VP) noise schedule, solved by Runge-Kutta steps of a size for each sample.

The rules (initial step, error norm, next step, interpolation) are those of torchdiffeq's adaptive solvers with its norm
taken over one sample instead of the whole batch, so that a lone sample takes the very same steps as under `odeint`.
Equation and chapter numbers: Hairer, Nørsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition.

The variable `s` of the solver increases. Samples leave the batch when they end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from importlib import metadata
from math import isclose
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import (
    MOVING,
    Batch,
    BatchSampler,
    PartEnergy,
    Status,
    StepEnergy,
    check_counts,
    check_numbers,
    check_positive,
    check_strength,
    require,
    select,
)

Slope = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""`slope(s, z, rows)`: dz/ds (batch, z_dim) and energies (batch,) of the samples `rows` (batch,), by default of all."""

SAFETY = 0.9
"""Size of the next step, as a share of the size at which the error would equal the tolerance."""
LARGEST_GROWTH = 10.0
"""Largest ratio of a step to the step before."""
LARGEST_CUT = 0.2
"""Smallest ratio of a step to a rejected step before."""


@dataclass(frozen=True, slots=True)
class Tableau:
    """An explicit embedded Runge-Kutta method, as plain numbers (so that no step waits for a device).

    Args:
        order: order of the method, for the step-size rule.
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
    """Return torchdiffeq's methods by name. Torchdiffeq is imported here, at need, because it imports SciPy."""
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


_tableau = cache(read_tableau)  # of a method that a solver has checked


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
        s: clock of each sample.
        step: size of the next step to try.
        z: latents.
        slope: dz/ds at z.
    """

    s: Float[Tensor, " batch"]
    step: Float[Tensor, " batch"]
    z: Float[Tensor, "batch z_dim"]
    slope: Float[Tensor, "batch z_dim"]


class Attempt(NamedTuple):
    """One step tried for each sample, from the state `start` to `z1` at `s1`, which is `step` later.

    Attributes:
        tableau: the method.
        slopes: slope at each stage. The last one is the first of the next step. In methods that do not end on their
            last stage (adaptive_heun, fehlberg2) it is the slope at a point that differs from z1 by O(step²).
            torchdiffeq reuses it too: the order stays the same, and a step needs one slope less.
        error: estimated error of z1.
        energy: energies at the point of the last slope.
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


def take_step(slope: Slope, tableau: Tableau, rows: Tensor | None, state: FlowState, *, limit: float) -> Attempt:
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


def initial_step(
    slope: Slope, rows: Tensor | None, state: FlowState, order: int, rtol: float, atol: float
) -> Float[Tensor, " batch"]:
    """Return sizes for the first attempt, (batch,), after one evaluation of the slope. Section II.4, p. 169."""
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


Time = TypeVar("Time", float, Tensor)


@dataclass(frozen=True, slots=True)
class VPSchedule:
    """Linear noise rate of the VP-SDE `dz = -½ β(t) z dt + sqrt(β(t)) dW`, t from 0 (clean) to 1 (noise).

    N(0, I) is stationary under this equation, whatever the rates. Song et al. 2021 (arXiv 2011.13456), eq. 32 and 33;
    Nie et al. 2021 (arXiv 2110.10873) use the same rates in latent space.

    Args:
        beta_min: β(0), per unit of time, at least 0.
        beta_max: β(1), per unit of time, above 0 and at least `beta_min`.

    Raises:
        ArgumentError: the rates are not finite or not in that order.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        ordered = 0.0 <= self.beta_min <= self.beta_max and 0.0 < self.beta_max < math.inf
        rule = "VPSchedule needs 0 <= beta_min <= beta_max with beta_max above 0 and finite"
        require(ordered, rule, (self.beta_min, self.beta_max))

    def beta(self, t: Time) -> Time:
        """Return β(t), the noise rate at time t, which is linear outside [0, 1] too."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Time) -> Time:
        """Return ∫₀ᵗ β(s) ds, without unit: 10.05 at t = 1 for the default rates."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def flow_time(self, t0: float, t1: float) -> float:
        """Return τ = ½ ∫ β from t1 to t0: the time of the flow dz/dt = ½ β ∇E from t0 down to t1, without the rates.

        By τ the flow is gradient descent, dz/dτ = -∇E(z). It is 5.025 from t = 1 to 0 for the default rates.
        """
        return 0.5 * (self.integral(t0) - self.integral(t1))


@dataclass(frozen=True, slots=True)
class ODESolver(BatchSampler):
    """Descend an energy along the VP flow (Nie et al. 2021, arXiv 2110.10873), from t0 back to t1. A `Sampler`.

    Deterministic: the end depends on the start alone. Methods, first step and step control are torchdiffeq's, with the
    error norm taken over one sample instead of the batch: a single sample takes the steps that `torchdiffeq.odeint`
    takes with `options={"step_t": [t1]}`, in a batch of any size. A sample that cannot be finished is returned with a
    `Status`; no error is raised. Measurements: docs/decisions/per-sample-steps.md.

    Low order and loose tolerances are the default because a query is satisfied in a region: the exact path does not
    matter. The paper's settings are `ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True)`.

    The end has low energy but is not a draw from the posterior: the flow has no term that pulls samples to the prior.

    Args:
        method: one of `adaptive_methods()`.
        rtol, atol: a step passes when the RMS over z_dim of error / (atol + rtol max(abs(z))) is at most 1.
        max_evaluations: most evaluations of the gradient for a sample.
        t0, t1: start and end of the flow in the schedule's time, 0 <= t1 < t0 <= 1.
        schedule: β(t).
        strength: λ > 0, multiplies the energy.
        enough: energy tolerance: a sample is done, at any time t, once λE is at most this many nats above its least
            value (`Energy.least`, 0 for most queries); 0.01 above 0 is a probability of 0.99. With `None` the flow is
            followed to its end.
        overshoot: if false, the last step ends exactly at t1. If true, it may go beyond t1, and z is interpolated at
            t1, as in `odeint`. At loose tolerances the step can end far beyond t = 0, where β is negative and the
            energy rises; this setting is for reproducing published runs.

    Raises:
        ArgumentError: an argument is outside its range.
        EnergyQLError: the installed torchdiffeq is not laid out as expected.
    """

    name = "ode"
    descends = True
    method: str = "bosh3"
    _: KW_ONLY
    rtol: float = 1e-2
    atol: float = 1e-2
    max_evaluations: int = 1000
    t0: float = 1.0
    t1: float = 1e-3
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0
    enough: float | None = None
    overshoot: bool = False

    def __post_init__(self) -> None:
        least = 2 + read_tableau(self.method).evaluations
        check_numbers(self, "rtol", "t0", "t1")
        check_counts(self, max_evaluations=1)
        require(self.rtol >= 0, "rtol must be finite and at least 0", self.rtol)
        check_positive(self, "atol", "enough")
        require(0 <= self.t1 < self.t0 <= 1, "t0 and t1 must satisfy 0 <= t1 < t0 <= 1", (self.t0, self.t1))
        check_strength(self.strength)
        rule = f"max_evaluations must be at least {least} for {self.method}, two to choose the first step and one step"
        require(self.max_evaluations >= least, rule, self.max_evaluations)

    def run(self, batch: Batch) -> None:
        """Follow the flow from t0 down to t1, by the clock s = -t; see `BatchSampler`.

        Progress is the mean fraction of t covered. Diagnostics: `steps_accepted` and `steps_rejected`.

        A sample that ends, with any status, leaves the batch at once and is not evaluated again. The others have all
        been evaluated equally often, so evaluations are counted on the host. The host waits for the device once a step,
        to count the samples that move.

        The slope has the form c(s) g(z), so a sample whose slope is exactly zero at the start never moves, and ends
        after this one evaluation.
        """
        each = read_tableau(self.method).evaluations
        accepted = batch.diagnostics["steps_accepted"] = torch.zeros_like(batch.rows)
        if self.enough is not None:
            batch.leave_out(self.highest(batch.energy) / self.strength)
        energy = PartEnergy(batch.energy, batch.rows)
        if len(batch.rows):  # an empty batch has no slope to evaluate
            state, _ = self._end(batch, energy, *_at_start(batch.z[batch.rows], energy, self))
        if len(batch.rows):
            state, _ = self._end(batch, energy, *_with_step(state, energy, self))
        while len(batch.rows):
            state, info = flow_step(state, energy, self)
            accepted[batch.rows] += info.accepted
            outcome = info.status
            if energy.gradients + each > self.max_evaluations:
                outcome = torch.where(outcome == MOVING, Status.STEP_LIMIT, outcome)
            state, clock = self._end(batch, energy, state, outcome, info.attempt)
            batch.report(1.0 - (clock - self.t1) / (self.t0 - self.t1))
        attempts = (batch.gradients - 2).clamp(min=0) // each
        batch.diagnostics["steps_rejected"] = attempts - accepted

    def highest(self, energy: StepEnergy) -> float:
        """Return the largest λE, in nats, at which a sample is done."""
        return -math.inf if self.enough is None else self.enough + self.strength * energy.least

    def _end(
        self, batch: Batch, energy: PartEnergy, state: FlowState, outcome: Tensor, attempt: Attempt | None = None
    ) -> tuple[FlowState, float]:
        """Record the samples that end by their `outcome`, and return those that go on, with their mean time t."""
        moves = outcome == MOVING
        # The one wait of a step.
        sums = torch.stack((moves.sum().to(state.s.dtype), torch.where(moves, state.s, 0.0).sum())).tolist()
        count = int(sums[0])
        time = -sums[1] / count if count else self.t1
        order = torch.argsort((~moves).to(torch.int32), stable=True)
        stay, leave = order[:count], order[count:]
        if not len(leave):
            return state, time
        z = state.z[leave]
        if self.overshoot and attempt is not None:
            beyond = (outcome[leave] == Status.OK) & (state.s[leave] > -self.t1)
            z = torch.where(beyond.unsqueeze(-1), interpolate_step(attempt, -self.t1, leave), z)
        batch.end(leave, stay, outcome[leave], z, energy.gradients)
        energy.rows = batch.rows
        return select(state, stay), time


class FlowInfo(NamedTuple):
    """The outcome of a step of the flow.

    Attributes:
        status: a `Status` with which a sample ends, or `MOVING`.
        accepted: whether the step was taken; else a shorter one is tried next.
        attempt: the step.
    """

    status: Int[Tensor, " batch"]
    accepted: Bool[Tensor, " batch"]
    attempt: Attempt


def flow_init(
    z: Float[Tensor, "batch z_dim"], energy: StepEnergy, settings: ODESolver
) -> tuple[FlowState, Int[Tensor, " batch"]]:
    """Return the state of samples that start at `z`, and a `Status` or `MOVING` for each, after two evaluations.

    The state is for `flow_step`. A sample whose slope is zero never moves.
    """
    state, first = _at_start(z, energy, settings)
    state, second = _with_step(state, energy, settings)
    return state, torch.where(first == MOVING, second, first)


def _at_start(z: Tensor, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, Tensor]:
    s = torch.full_like(z[:, 0], -settings.t0)
    first, value = _slope(energy, settings)(s, z, None)
    finite = torch.isfinite(z).all(dim=-1) & torch.isfinite(first).all(dim=-1)
    outcome = torch.where((first == 0).all(dim=-1) | (value <= settings.highest(energy)), Status.OK, MOVING)
    return FlowState(s, torch.zeros_like(s), z, first), torch.where(finite, outcome, Status.NON_FINITE)


def _with_step(state: FlowState, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, Tensor]:
    slope, order = _slope(energy, settings), _tableau(settings.method).order
    state = state._replace(step=initial_step(slope, None, state, order, settings.rtol, settings.atol))
    return state, torch.where(state.s + state.step > state.s, MOVING, Status.STEP_UNDERFLOW)


def flow_step(state: FlowState, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, FlowInfo]:
    """Try one Runge-Kutta step for every sample, each of its own size, along the flow of `vp_flow`.

    A step is taken if its estimated error is within the tolerances. The size of the next step follows from the error.

    Args:
        state: state from `flow_init` or an earlier step; its clock s is -t.
        energy: energy of these samples, in nats; called with a gradient for each stage of the method but the first.
        settings: settings of the sampler; `max_evaluations` is ignored. With `overshoot` a sample may end beyond t1.
    """
    tableau, stop = _tableau(settings.method), -settings.t1
    attempt = take_step(_slope(energy, settings), tableau, None, state, limit=math.inf if settings.overshoot else stop)
    # A step to a point without finite numbers is a step too long: it is tried again shorter, like any other.
    ratio = error_ratio(attempt, settings.rtol, settings.atol)
    finite = attempt.finite() & ~ratio.isnan()
    ratio = torch.where(finite, ratio, torch.inf)
    accept = ratio <= 1
    state = FlowState(
        s=torch.where(accept, attempt.s1, state.s),
        step=next_step(attempt.step, ratio, tableau.order),
        z=torch.where(accept.unsqueeze(-1), attempt.z1, state.z),
        slope=torch.where(accept.unsqueeze(-1), attempt.slopes[-1], state.slope),
    )
    arrived = accept & ((state.s >= stop) | (attempt.energy <= settings.highest(energy)))
    stuck = torch.where(finite, Status.STEP_UNDERFLOW, Status.NON_FINITE)
    outcome = torch.where(state.s + state.step > state.s, MOVING, stuck)
    return state, FlowInfo(torch.where(arrived, Status.OK, outcome), accept, attempt)


def _slope(energy: StepEnergy, settings: ODESolver) -> Slope:
    """Return the function that computes the slope dz/ds of the flow at the clock s = -t."""
    flow = vp_flow(energy, settings.schedule, settings.strength)

    def slope(s: Tensor, z: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        velocity, value = flow(-s, z, rows)
        return -velocity, value

    return slope


def vp_flow(energy: StepEnergy, schedule: VPSchedule, strength: float = 1.0) -> Slope:
    """Return the flow of Nie et al. 2021 (arXiv 2110.10873): `dz/dt = ½ β(t) λ ∇E(z)`.

    N(0, I) is stationary under the VP-SDE, so the prior's score cancels its drift and only the energy of the clean
    latent is left, at every t. With the clock `τ = ½ ∫ β` the flow reads `dz/dτ = -λ ∇E(z)`: from t = 1 back
    to t = 1e-3 it is gradient descent for a time of `schedule.flow_time(1, 1e-3)` = 5.025.

    Returns:
        A function of times (batch,), latents (batch, z_dim) and rows (batch,), to velocities dz/dt (batch, z_dim) and
        energies λE (batch,). Where an energy is not finite, neither is the velocity.
    """

    def flow(t: Tensor, z: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(z, rows)
        rate = (0.5 * strength) * schedule.beta(t)
        rate = torch.where(torch.isfinite(value), rate, torch.nan)
        return rate.unsqueeze(-1) * gradient, strength * value

    return flow
