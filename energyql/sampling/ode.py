"""The flow under the variance-preserving (VP) noise schedule, solved by torchdiffeq's adaptive methods.

Each sample has its own steps, in a batch that shrinks.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import TypeVar

import torch
from torch import Tensor

from energyql.sampling.base import Status, check_counts, check_numbers, check_positive, check_strength, require
from energyql.sampling.batch import MOVING, Batch, BatchSampler, select
from energyql.sampling.energy import Energy
from energyql.sampling.runge_kutta import (
    Attempt,
    FlowState,
    Slope,
    error_ratio,
    initial_step,
    interpolate_step,
    next_step,
    read_tableau,
    take_step,
)

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
        """Return ½ ∫ β from t1 to t0: the autonomous time that the flow dz/dt = ½ β ∇E covers from t0 down to t1.

        In that time the flow is plain gradient descent, dz/dτ = -∇E(z). 5.025 from t = 1 to 0 for the default rates.
        """
        return 0.5 * (self.integral(t0) - self.integral(t1))


@dataclass(frozen=True, slots=True)
class ODESolver(BatchSampler):
    """Descend an energy along the VP flow (Nie et al. 2021, arXiv 2110.10873), from t0 back to t1. A `Sampler`.

    Deterministic: the end depends on the start alone. Methods, first step and step control are torchdiffeq's, with the
    error norm taken over one sample instead of the batch: a single sample takes the steps that `torchdiffeq.odeint`
    takes with `options={"step_t": [t1]}`, in a batch of any size. A sample that cannot be finished is returned with a
    `Status`, never raised. Measurements: docs/decisions/per-sample-steps.md.

    Low order and loose tolerances are the default because a query is satisfied in a region: the exact path does not
    matter. The paper's settings are `ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True)`.

    The end has low energy but is not a draw from the posterior: the flow has no term that pulls samples to the prior.

    Args:
        method: one of `adaptive_methods()`.
        rtol, atol: a step passes when the RMS over z_dim of error / (atol + rtol max(abs(z))) is at most 1.
        max_evaluations: of the energy's gradient, per sample.
        t0, t1: start and end of the flow in the schedule's time, 0 <= t1 < t0 <= 1.
        schedule: β(t).
        strength: λ > 0, multiplies the energy.
        enough: energy tolerance: a sample is done, at any time t, once λE is at most this many nats above the least
            that the energy says it can reach (`least`, 0 for most queries); 0.01 above 0 is a query that holds with
            probability 0.99. None follows the flow to its end.
        overshoot: False ends the last step exactly at t1. True does as plain `odeint`: the last step may go beyond t1
            and z is interpolated back. At loose tolerances it can end far beyond t = 0, where β is negative and the
            flow climbs; this is there to reproduce published runs.

    Raises:
        ArgumentError: an argument is outside its range.
        EnergyQLError: the installed torchdiffeq is not laid out as expected.
    """

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

        A sample that ends, well or badly, leaves the batch at once and is never evaluated again. The samples that are
        left have all been evaluated equally often, so evaluations are counted on the host, and the device is waited for
        once a step, to count the samples that move.

        The slope is of the form c(s) g(z), so a sample whose slope is exactly zero at the start never moves, and ends
        after this one evaluation.
        """
        tableau, flow = read_tableau(self.method), vp_flow(batch.energy, self.schedule, self.strength)

        def slope(s: Tensor, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            velocity, energy = flow(-s, z, rows)
            return -velocity, energy

        start, stop, rtol, atol = -self.t0, -self.t1, self.rtol, self.atol
        enough = -math.inf if self.enough is None else self.enough + self.strength * batch.energy.least
        accepted = batch.diagnostics["steps_accepted"] = torch.zeros_like(batch.rows)
        batch.leave_out(enough / self.strength)
        z = batch.z[batch.rows]
        s = torch.full_like(z[:, 0], start)
        # An empty batch has no slope to evaluate.
        first, energy = slope(s, z, batch.rows) if len(s) else (z, s)
        state = FlowState(s, torch.zeros_like(s), z, first)
        finite = torch.isfinite(state.z).all(dim=-1) & torch.isfinite(first).all(dim=-1)
        outcome = torch.where((first == 0).all(dim=-1) | (energy <= enough), Status.OK, MOVING)
        state, _ = self._end(batch, state, torch.where(finite, outcome, Status.NON_FINITE), evaluations=1)

        evaluations = 2
        if len(batch.rows):
            state = state._replace(step=initial_step(slope, batch.rows, state, tableau.order, rtol, atol))
            outcome = torch.where(state.s + state.step > state.s, MOVING, Status.STEP_UNDERFLOW)
            state, _ = self._end(batch, state, outcome, evaluations)

        while len(batch.rows):
            attempt = take_step(slope, tableau, batch.rows, state, limit=math.inf if self.overshoot else stop)
            evaluations += tableau.evaluations
            # A step to a point without finite numbers is a step too long: it is tried again shorter, like any other.
            ratio = error_ratio(attempt, rtol, atol)
            finite = attempt.finite() & ~ratio.isnan()
            ratio = torch.where(finite, ratio, torch.inf)
            accept = ratio <= 1
            state = FlowState(
                s=torch.where(accept, attempt.s1, state.s),
                step=next_step(attempt.step, ratio, tableau.order),
                z=torch.where(accept.unsqueeze(-1), attempt.z1, state.z),
                slope=torch.where(accept.unsqueeze(-1), attempt.slopes[-1], state.slope),
            )
            accepted[batch.rows] += accept
            arrived = accept & ((state.s >= stop) | (attempt.energy <= enough))
            stuck = torch.where(finite, Status.STEP_UNDERFLOW, Status.NON_FINITE)
            outcome = torch.where(state.s + state.step > state.s, MOVING, stuck)
            if evaluations + tableau.evaluations > self.max_evaluations:
                outcome = torch.where(outcome == MOVING, Status.STEP_LIMIT, outcome)
            outcome = torch.where(arrived, Status.OK, outcome)
            state, clock = self._end(batch, state, outcome, evaluations, attempt)
            batch.report(1.0 - (stop - clock) / (stop - start))
        attempts = (batch.gradients - 2).clamp(min=0) // tableau.evaluations
        batch.diagnostics["steps_rejected"] = attempts - accepted

    def _end(
        self, batch: Batch, state: FlowState, outcome: Tensor, evaluations: int, attempt: Attempt | None = None
    ) -> tuple[FlowState, float]:
        """Record the samples that end by their `outcome`, and return those that go on, with their mean clock."""
        moves = outcome == MOVING
        # The one wait of a step.
        sums = torch.stack((moves.sum().to(state.s.dtype), torch.where(moves, state.s, 0.0).sum())).tolist()
        count = int(sums[0])
        clock = sums[1] / count if count else -self.t1
        order = torch.argsort((~moves).to(torch.int32), stable=True)
        stay, leave = order[:count], order[count:]
        if not len(leave):
            return state, clock
        z = state.z[leave]
        if self.overshoot and attempt is not None:
            beyond = (outcome[leave] == Status.OK) & (state.s[leave] > -self.t1)
            z = torch.where(beyond.unsqueeze(-1), interpolate_step(attempt, -self.t1, leave), z)
        batch.end(leave, stay, outcome[leave], z, evaluations)
        return select(state, stay), clock


def vp_flow(energy: Energy, schedule: VPSchedule, strength: float = 1.0) -> Slope:
    """Return the flow of Nie et al. 2021 (arXiv 2110.10873): `dz/dt = ½ β(t) λ ∇E(z)`.

    N(0, I) is stationary under the VP-SDE, so the prior's score cancels its drift and only the energy of the clean
    latent is left, at every t. With the clock `τ = ½ ∫ β` the flow reads `dz/dτ = -λ ∇E(z)`: from t = 1 back
    to t = 1e-3 it is gradient descent for a time of `schedule.flow_time(1, 1e-3)` = 5.025.

    Returns:
        A function of times (batch,), latents (batch, z_dim) and rows (batch,), to velocities dz/dt (batch, z_dim) and
        energies λE (batch,). Where an energy is not finite, neither is the velocity.
    """

    def flow(t: Tensor, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = energy.gradient(z, rows)
        rate = (0.5 * strength) * schedule.beta(t)
        rate = torch.where(torch.isfinite(value), rate, torch.nan)
        return rate.unsqueeze(-1) * gradient, strength * value

    return flow
