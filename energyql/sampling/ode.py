"""Descent of an energy along the flow of a diffusion model, by Runge-Kutta steps with a size chosen for each sample.

The time t of the flow falls, so the solver uses the clock s = -t, which rises. Equation numbers refer to Hairer,
Nørsett, Wanner, "Solving Ordinary Differential Equations I", 2nd edition.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import cache
from importlib import metadata
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import (
    MOVING,
    Batch,
    BatchSampler,
    Endings,
    Status,
    StepEnergy,
    check_counts,
    check_positive,
    check_strength,
    finite_rows,
    require,
    select,
)

Slope = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Function from clocks s = -t and latents z to dz/ds and energies λE, (batch,), in nats."""

SAFETY = 0.9
"""The size of the next step is `SAFETY` times the size at which the estimated error would equal the tolerance."""
LARGEST_GROWTH = 10.0
"""Largest ratio of the size of a step to the size of the step before it."""
LARGEST_CUT = 0.2
"""Smallest ratio of the size of a step to the size of the rejected step before it."""


@dataclass(frozen=True, slots=True)
class Tableau:
    """Coefficients of an explicit embedded Runge-Kutta method, as Python numbers, so that no step waits for a GPU.

    `nodes` and `rows` are c₂, c₃, ... and the a_ij of all stages but the first. The other tuples weight the slopes of
    all stages in the new z (b_i), in the estimate of its error, and in z at the middle of the step.
    """

    order: int
    nodes: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    solution: tuple[float, ...]
    error: tuple[float, ...]
    midpoint: tuple[float, ...]

    @property
    def evaluations(self) -> int:
        """Slope evaluations per step: one for each stage but the first, whose slope is the last of the step before."""
        return len(self.nodes)

    @property
    def ends_on_last_stage(self) -> bool:
        """Whether the last stage of a step is evaluated at the new z ("first same as last")."""
        return self.solution == (*self.rows[-1], 0.0)


@cache
def solvers() -> Mapping[str, Any]:
    """Torchdiffeq's classes of solvers by method, such as "dopri5"; imported late, as torchdiffeq imports SciPy."""
    try:
        from torchdiffeq._impl.odeint import SOLVERS  # there is no public name for them
    except ImportError as error:
        raise _drift(error) from error
    return cast(Mapping[str, Any], SOLVERS)


def adaptive_methods() -> tuple[str, ...]:
    """Return the names of the methods that `ODESolver` accepts, such as "dopri5", in torchdiffeq's order."""
    return tuple(name for name, solver in solvers().items() if hasattr(solver, "tableau"))


@cache
def read_tableau(method: str) -> Tableau:
    """Read the coefficients of one of `adaptive_methods()`; raise an `ArgumentError` for another name."""
    if method not in (names := adaptive_methods()):
        raise ArgumentError(f"torchdiffeq has no adaptive method {method!r}", hint=f"choose one of {', '.join(names)}")
    solver = solvers()[method]
    try:
        return Tableau(
            int(solver.order), tuple(map(float, solver.tableau.alpha)),
            tuple(tuple(map(float, row)) for row in solver.tableau.beta), tuple(map(float, solver.tableau.c_sol)),
            tuple(map(float, solver.tableau.c_error)), tuple(map(float, solver.mid)),
        )  # fmt: skip
    except (AttributeError, TypeError, ValueError) as error:
        raise _drift(error) from error


def _drift(error: Exception) -> EnergyQLError:
    return EnergyQLError(
        f"torchdiffeq {metadata.version('torchdiffeq')} is not laid out as energyql expects: {error}",
        hint='install a version that it was tested with: pip install "torchdiffeq>=0.2.5,<0.3"',
    )


class FlowState(NamedTuple):
    """Samples on the flow: clocks s = -t, sizes `step` in s of the next steps to try, latents z, and slopes dz/ds."""

    s: Float[Tensor, " batch"]
    step: Float[Tensor, " batch"]
    z: Float[Tensor, "batch z_dim"]
    slope: Float[Tensor, "batch z_dim"]


class Attempt(NamedTuple):
    """One step that was tried for each sample, before it is decided which samples take it.

    The last of `slopes` is the first slope of the next step: the slope at z1 or, for adaptive_heun and fehlberg2, as in
    torchdiffeq, at a point O(step²) away. `energy` is λE at this point, in nats.
    """

    tableau: Tableau
    start: FlowState
    step: Float[Tensor, " batch"]
    s1: Float[Tensor, " batch"]
    z1: Float[Tensor, "batch z_dim"]
    slopes: tuple[Float[Tensor, "batch z_dim"], ...]
    error: Float[Tensor, "batch z_dim"]
    energy: Float[Tensor, " batch"]


def take_step(slope: Slope, tableau: Tableau, state: FlowState, *, limit: float) -> Attempt:
    """Compute one Runge-Kutta step for each sample (eq. II.4.1 to II.4.3); steps beyond the clock `limit` end at it."""
    s1 = state.s + state.step
    step = torch.where(s1 > limit, limit - state.s, state.step)
    s1 = s1.clamp(max=limit)
    width = step.unsqueeze(-1)
    slopes = [state.slope]
    stage = state.z
    for node, weights in zip(tableau.nodes, tableau.rows, strict=True):
        stage = state.z + width * _weighted(weights, slopes)
        # s + 1 * step may round differently from s1, which is where the next step starts.
        last, energy = slope(s1 if node == 1.0 else state.s + node * step, stage)
        slopes.append(last)
    z1 = stage if tableau.ends_on_last_stage else state.z + width * _weighted(tableau.solution, slopes)
    return Attempt(tableau, state, step, s1, z1, tuple(slopes), width * _weighted(tableau.error, slopes), energy)


def error_ratio(attempt: Attempt, rtol: float, atol: float) -> Float[Tensor, " batch"]:
    """Ratio of estimated error to tolerance (eq. II.4.11; see `ODESolver`); up to 1, the step is accepted."""
    tolerance = atol + rtol * torch.maximum(attempt.start.z.abs(), attempt.z1.abs())
    return _rms(attempt.error / tolerance)


def next_step(step: Float[Tensor, " batch"], ratio: Float[Tensor, " batch"], order: int) -> Float[Tensor, " batch"]:
    """Size of the next step to try (eq. II.4.13), from the `error_ratio`; it never falls after an accepted step."""
    factor = (SAFETY / _root(ratio, order)).clamp(LARGEST_CUT, LARGEST_GROWTH)
    return step * torch.where(ratio < 1, factor.clamp(min=1.0), factor)


def initial_step(slope: Slope, state: FlowState, order: int, rtol: float, atol: float) -> Float[Tensor, " batch"]:
    """Size of the first step to try, by section II.4, p. 169; calls `slope` once."""
    scale = atol + rtol * state.z.abs()
    size, speed = _rms(state.z / scale), _rms(state.slope / scale)
    trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed)
    second, _ = slope(state.s + trial, state.z + trial.unsqueeze(-1) * state.slope)
    bend = _rms((second - state.slope) / scale) / trial
    fastest = torch.maximum(speed, bend)
    refined = torch.where(fastest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), _root(0.01 / fastest, order))
    # Where the trial itself gave no finite numbers, the first step is one after a rejected trial.
    return torch.where(torch.isfinite(bend), torch.minimum(100 * trial, refined), LARGEST_CUT * trial)


def interpolate_step(attempt: Attempt, s: float) -> Float[Tensor, "batch z_dim"]:
    """Latents at the clock `s` within each step, by a polynomial of degree 4 that has the slopes at both ends."""
    z0, s0, slopes = attempt.start.z, attempt.start.s, attempt.slopes
    width = attempt.step.unsqueeze(-1)
    # Everything relative to z0: the coefficients are large and cancel, so small numbers keep more digits.
    end, middle = attempt.z1 - z0, width * _weighted(attempt.tableau.midpoint, slopes)
    rise0, rise1 = width * slopes[0], width * slopes[-1]
    quartic = 2 * (rise1 - rise0) - 8 * end + 16 * middle
    cubic = 5 * rise0 - 3 * rise1 + 14 * end - 32 * middle
    square = rise1 - 4 * rise0 - 5 * end + 16 * middle
    x = ((s - s0) / (attempt.s1 - s0)).unsqueeze(-1)
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
    """The noise rate β(t) of a diffusion: linear in the time t, from t = 0 (clean) to t = 1 (noise).

    The diffusion is the VP-SDE `dz = -½ β(t) z dt + sqrt(β(t)) dW` (Song et al. 2021, arXiv 2011.13456, eq. 32 and 33).
    It leaves N(0, I) unchanged, whatever the rates. The default rates are those of Song et al. and of Nie et al. 2021.

    Args:
        beta_min: β(0), per unit of time, at least 0.
        beta_max: β(1), per unit of time, above 0 and at least `beta_min`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        ordered = 0.0 <= self.beta_min <= self.beta_max and 0.0 < self.beta_max < math.inf
        rule = "VPSchedule needs 0 <= beta_min <= beta_max with beta_max above 0 and finite"
        require(ordered, rule, (self.beta_min, self.beta_max))

    def beta(self, t: Time) -> Time:
        """Noise rate β(t); for t outside [0, 1] it can be below `beta_min` or above `beta_max`."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Time) -> Time:
        """∫₀ᵗ β(s) ds, without unit; 10.05 at t = 1 for the default rates."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def flow_time(self, t0: float, t1: float) -> float:
        """Duration ½ ∫ β(t) dt of the gradient descent dz/dτ = -∇E(z) that equals the flow from t0 down to t1."""
        return 0.5 * (self.integral(t0) - self.integral(t1))


@dataclass(frozen=True, slots=True)
class ODESolver(BatchSampler):
    """A `Sampler` that descends an energy along the flow `vp_flow` (Nie et al. 2021, arXiv 2110.10873).

    The flow runs from time t0 back to t1. Its end has low energy and depends on the start alone (no random numbers),
    but is not a draw from the posterior: no term pulls samples to the prior.

    Runge-Kutta methods, first step and step sizes are torchdiffeq's, but with the error norm of one sample instead of
    the batch. So in any batch, a sample takes the steps that `torchdiffeq.odeint` takes for it alone, with
    `options={"step_t": [t1]}` (docs/decisions/per-sample-steps.md). A sample that cannot be finished is returned with a
    `Status`; no error is raised. Low order and loose tolerances are the default, because a query holds in a region, so
    that the exact path does not matter; `published` has the settings of Nie et al.

    Diagnostics of each sample: `steps_accepted` and `steps_rejected`, numbers of steps.

    Args:
        method: name of a Runge-Kutta method, one of `adaptive_methods()`.
        rtol, atol: a step is accepted if the root mean square over z_dim of `error / (atol + rtol * |z|)` is at most 1,
            with the larger `|z|` of before and after the step.
        max_evaluations: most evaluations of the gradient for a sample; `flow_init` and `flow_step` ignore it.
        t0, t1: start and end of the flow in the schedule's time, 0 <= t1 < t0 <= 1.
        schedule: noise rate β(t) of the diffusion.
        strength: λ > 0, which multiplies the energy E.
        enough: energy tolerance, in nats. A sample is done, at any time t, once λE is at most this much above λ
            `Energy.least`, which is 0 for most queries; 0.01 nats above 0 are a probability of 0.99. With `None`, every
            sample follows the flow to t1.
        overshoot: if false, the last step ends exactly at t1. If true, it may go beyond, and z is interpolated at t1,
            as in plain `torchdiffeq.odeint` and the runs of Nie et al. At loose tolerances it can end far beyond t = 0,
            where β is negative and the energy rises.

    Raises:
        ArgumentError: an argument is outside its range.
        EnergyQLError: the installed torchdiffeq does not have its methods where version 0.2.5 has them.
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
        evaluations = read_tableau(self.method).evaluations
        require(0 <= self.rtol < math.inf, "rtol must be finite and at least 0", self.rtol)
        check_positive(self, "atol", "enough")
        require(0 <= self.t1 < self.t0 <= 1, "t0 and t1 must satisfy 0 <= t1 < t0 <= 1", (self.t0, self.t1))
        check_strength(self.strength)
        check_counts(self, max_evaluations=1)
        least = f"max_evaluations must be at least {2 + evaluations} for {self.method}: two to start, and a step"
        require(self.max_evaluations >= 2 + evaluations, least, self.max_evaluations)

    @classmethod
    def published(cls, *, strength: float = 1.0) -> ODESolver:
        """Sampler with the settings of Nie et al. 2021 (arXiv 2110.10873)."""
        return cls("dopri5", rtol=1e-3, atol=1e-3, strength=strength, overshoot=True)

    def run(self, batch: Batch) -> None:
        """Move every sample of a batch along the flow from t0 down to t1."""
        each = read_tableau(self.method).evaluations
        accepted = batch.diagnostics["steps_accepted"] = torch.zeros_like(batch.rows)
        if self.enough is not None:
            batch.leave_out(self.highest(batch.energy) / self.strength)
        energy = batch.energy.part(batch.rows)
        ends, taken = Endings(batch, energy, accepted, every=2), torch.zeros_like(batch.rows)
        if len(batch.rows):  # an empty batch has no slope to evaluate
            state, taken = self._end(ends, taken, *_at_start(batch.z[batch.rows], energy, self))
        if len(batch.rows):
            state, taken = self._end(ends, taken, *_with_step(state, energy, self))
        while len(batch.rows):
            state, info = flow_step(state, energy, self)
            taken = taken + info.accepted
            limit = Status.STEP_LIMIT if energy.gradients + each > self.max_evaluations else None
            state, taken = self._end(ends, taken, state, info.status, info.attempt, limit=limit)
            if ends.looked and batch.progress is not None:
                clock = -float(state.s.mean()) if len(batch.rows) else self.t1
                batch.report(1.0 - (clock - self.t1) / (self.t0 - self.t1))
        attempts = (batch.gradients - 2).clamp(min=0) // each
        batch.diagnostics["steps_rejected"] = attempts - accepted

    def highest(self, energy: StepEnergy) -> float:
        """λE, in nats, at or below which a sample is done: `enough` + λ `energy.least`; -infinity without `enough`."""
        return -math.inf if self.enough is None else self.enough + self.strength * energy.least

    def _end(
        self, ends: Endings, taken: Tensor, state: FlowState, outcome: Tensor, attempt: Attempt | None = None, *,
        limit: Status | None = None,
    ) -> tuple[FlowState, Tensor]:  # fmt: skip
        """Record the samples that end; return the state of the others and their numbers of steps."""

        def last() -> Tensor:
            if not self.overshoot or attempt is None:
                return state.z
            beyond = (outcome == Status.OK) & (state.s > -self.t1)
            return torch.where(beyond.unsqueeze(-1), interpolate_step(attempt, -self.t1), state.z)

        stay = ends.note(outcome, last, taken, limit=limit)
        return (state, taken) if stay is None else select((state, taken), stay)


class FlowInfo(NamedTuple):
    """Outcome of a step: each sample's `Status` or `MOVING`, whether it moved, and the steps that were tried."""

    status: Int[Tensor, " batch"]
    accepted: Bool[Tensor, " batch"]
    attempt: Attempt


def flow_init(
    z: Float[Tensor, "batch z_dim"], energy: StepEnergy, settings: ODESolver
) -> tuple[FlowState, Int[Tensor, " batch"]]:
    """First state of a descent along the flow from `z`, and each sample's status, `MOVING` unless it ends at once.

    A sample whose slope is zero, or whose energy is low enough, ends with `Status.OK`. The gradient is evaluated twice.
    """
    state, first = _at_start(z, energy, settings)
    state, second = _with_step(state, energy, settings)
    return state, torch.where(first == MOVING, second, first)


def _at_start(z: Tensor, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, Tensor]:
    s = torch.full_like(z[:, 0], -settings.t0)
    first, value = _slope(energy, settings)(s, z)
    finite = finite_rows(z, first)
    outcome = torch.where((first == 0).all(dim=-1) | (value <= settings.highest(energy)), Status.OK, MOVING)
    return FlowState(s, torch.zeros_like(s), z, first), torch.where(finite, outcome, Status.NON_FINITE)


def _with_step(state: FlowState, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, Tensor]:
    slope, order = _slope(energy, settings), read_tableau(settings.method).order
    state = state._replace(step=initial_step(slope, state, order, settings.rtol, settings.atol))
    return state, torch.where(state.s + state.step > state.s, MOVING, Status.STEP_UNDERFLOW)


def flow_step(state: FlowState, energy: StepEnergy, settings: ODESolver) -> tuple[FlowState, FlowInfo]:
    """Try one Runge-Kutta step for every sample; it is taken if the estimated error is within the tolerances.

    The gradient is evaluated for each stage but the first. With `overshoot`, new latents may be beyond t1.
    """
    tableau, stop = read_tableau(settings.method), -settings.t1
    attempt = take_step(_slope(energy, settings), tableau, state, limit=math.inf if settings.overshoot else stop)
    # A step to a point without finite numbers is a step too long: it is tried again shorter, like any other.
    ratio = error_ratio(attempt, settings.rtol, settings.atol)
    finite = finite_rows(torch.cat([attempt.z1, *attempt.slopes], 1)) & ~ratio.isnan()
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
    """The function that the solver integrates: the slope dz/ds of the flow at the clock s = -t."""
    flow = vp_flow(energy, settings.schedule, settings.strength)

    def slope(s: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        velocity, value = flow(-s, z, None)
        return -velocity, value

    return slope


def vp_flow(
    energy: StepEnergy, schedule: VPSchedule, strength: float = 1.0
) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]:
    """Return the flow `dz/dt = ½ β(t) λ ∇E(z)` of Nie et al. 2021 (arXiv 2110.10873), as a function.

    The VP-SDE of `VPSchedule` leaves the prior N(0, I) unchanged, so the score of the prior cancels its drift, and at
    every t only the energy of the clean latent is left. Backward in time, the flow is a gradient descent
    (`VPSchedule.flow_time`).

    Returns:
        A function of times (batch,), latents (batch, z_dim), and rows of samples (batch,) or `None`, that returns dz/dt
        (batch, z_dim), NaN where the energy is not finite, and energies λE (batch,).
    """

    def flow(t: Tensor, z: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(z, rows)
        rate = (0.5 * strength) * schedule.beta(t)
        rate = rate + (value - value).to(rate.dtype)  # NaN where the energy is not finite
        return rate.unsqueeze(-1) * gradient, value if strength == 1 else strength * value

    return flow
