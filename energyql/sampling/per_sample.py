"""Solves one initial value problem for each sample, all in one batch that shrinks as samples end."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from energyql.sampling.base import Progress, SampleResult, Status
from energyql.sampling.runge_kutta import (
    Slope,
    Tableau,
    error_ratio,
    initial_step,
    interpolate,
    next_step,
    take_step,
)

_MOVING = -1
"""Stands beside the `Status` codes for a sample that has not ended."""


def solve(
    slope: Slope,
    z0: Tensor,
    start: float,
    stop: float,
    tableau: Tableau,
    *,
    rtol: float,
    atol: float,
    max_evaluations: int,
    enough: float = -math.inf,
    overshoot: bool = False,
    progress: Progress | None = None,
) -> SampleResult:
    """Follows `dz/ds = slope(s, z, rows)` from `start` up to `stop`, each sample with its own steps.

    A sample that ends, well or badly, leaves the batch at once and is never evaluated again. The samples that are left
    have all been evaluated equally often, so evaluations are counted on the host, and the device is waited for once a
    step: to learn how many samples still move.

    Args:
        slope: see `Slope`; dz/ds must be of the form c(s) g(z): a sample whose slope is exactly zero at the start is
            at rest, and ends after this one evaluation.
        z0: start latents (n, z_dim), float32 or float64; times are computed in the same dtype.
        start, stop: the clock, start < stop.
        tableau: the method.
        rtol, atol: a step passes when the RMS over z_dim of error / (atol + rtol max(abs(z))) is at most 1.
        max_evaluations: per sample; at least 2 and one step.
        enough: a sample ends well, wherever its clock stands, once the number that comes with its slope is this low
            after a step (or just beside its end, see `Attempt.last_slope`).
        overshoot: let the last step go beyond `stop` and interpolate back, instead of cutting it.
        progress: see `Progress`; the fraction is that of the clock, and a sample that ended counts as done.
    """
    limit = float("inf") if overshoot else stop
    record = _Record(z0)
    moving, value = _Moving.at_start(z0, start, slope)
    finite = torch.isfinite(moving.z).all(dim=-1) & torch.isfinite(moving.slope).all(dim=-1)
    outcome = torch.where((moving.slope == 0).all(dim=-1) | (value <= enough), Status.OK, _MOVING)
    outcome = torch.where(finite, outcome, Status.NON_FINITE)
    stay, leave, _ = _partition(outcome, moving.s)
    record.end(moving, leave, outcome, moving.z[leave], evaluations=1, attempts=0)
    moving = moving.rows(stay)

    evaluations, attempts = 2, 0
    if len(moving.s):
        moving.step = initial_step(slope, moving.index, moving.s, moving.z, moving.slope, tableau.order, rtol, atol)
        outcome = torch.where(moving.s + moving.step > moving.s, _MOVING, Status.STEP_UNDERFLOW)
        stay, leave, _ = _partition(outcome, moving.s)
        record.end(moving, leave, outcome, moving.z[leave], evaluations, attempts)
        moving = moving.rows(stay)

    while len(moving.s):
        attempt = take_step(slope, tableau, moving.index, moving.s, moving.step, moving.z, moving.slope, limit=limit)
        evaluations += tableau.evaluations
        attempts += 1
        # A step into a place without numbers is a step too long: it is tried again shorter, like any other.
        ratio = error_ratio(attempt, rtol, atol)
        finite = attempt.finite() & ~ratio.isnan()
        ratio = torch.where(finite, ratio, torch.inf)
        accept = ratio <= 1
        moving.accept(accept, attempt.s1, attempt.z1, attempt.last_slope)
        arrived = accept & ((moving.s >= stop) | (attempt.value <= enough))
        moving.step = next_step(attempt.step, ratio, tableau.order)

        stuck = torch.where(finite, Status.STEP_UNDERFLOW, Status.NON_FINITE)
        outcome = torch.where(moving.s + moving.step > moving.s, _MOVING, stuck)
        if evaluations + tableau.evaluations > max_evaluations:
            outcome = torch.where(outcome == _MOVING, Status.STEP_LIMIT, outcome)
        outcome = torch.where(arrived, Status.OK, outcome)

        stay, leave, clock = _partition(outcome, moving.s)
        if len(leave):
            z = moving.z[leave]
            if overshoot:
                beyond = (arrived & (moving.s > stop))[leave].unsqueeze(-1)
                z = torch.where(beyond, interpolate(attempt, tableau.midpoint, stop, leave), z)
            record.end(moving, leave, outcome, z, evaluations, attempts)
            moving = moving.rows(stay)
        if progress is not None:
            left = (len(stay) * stop - clock) / (stop - start)
            progress(1.0 - left / len(z0), len(stay))
    return record.result()


@dataclass(slots=True)
class _Moving:
    """The samples that have not ended; `index` (batch,) says which rows of z0 they are."""

    index: Tensor
    s: Tensor
    step: Tensor
    z: Tensor
    slope: Tensor
    accepted: Tensor

    @classmethod
    def at_start(cls, z0: Tensor, start: float, slope: Slope) -> tuple[_Moving, Tensor]:
        z = z0.detach()
        s = torch.full_like(z[:, 0], start)
        index = torch.arange(len(z), device=z.device)
        # An empty batch has no slope to ask for.
        first, value = slope(s, z, index) if len(z) else (torch.zeros_like(z), torch.zeros_like(s))
        return cls(index, s, torch.zeros_like(s), z, first, torch.zeros_like(index)), value

    def rows(self, rows: Tensor) -> _Moving:
        return _Moving(*(getattr(self, name.name)[rows] for name in fields(self)))

    def accept(self, accept: Tensor, s: Tensor, z: Tensor, slope: Tensor) -> None:
        self.s = torch.where(accept, s, self.s)
        self.z = torch.where(accept.unsqueeze(-1), z, self.z)
        self.slope = torch.where(accept.unsqueeze(-1), slope, self.slope)
        self.accepted = self.accepted + accept


class _Record:
    """What became of each row of z0."""

    def __init__(self, z0: Tensor) -> None:
        self._z = z0.detach().clone()
        # One column each: status, evaluations, accepted, rejected.
        self._numbers = torch.zeros(len(z0), 4, dtype=torch.int64, device=z0.device)

    def end(self, moving: _Moving, leave: Tensor, outcome: Tensor, z: Tensor, evaluations: int, attempts: int) -> None:
        index, accepted = moving.index[leave], moving.accepted[leave]
        self._z[index] = z
        columns = (outcome[leave], torch.full_like(accepted, evaluations), accepted, attempts - accepted)
        self._numbers[index] = torch.stack(columns, dim=1)

    def result(self) -> SampleResult:
        status, evaluations, accepted, rejected = self._numbers.cpu().unbind(dim=1)
        told = {"steps_accepted": accepted, "steps_rejected": rejected}
        return SampleResult(self._z, status, evaluations, evaluations, told)


def _partition(outcome: Tensor, s: Tensor) -> tuple[Tensor, Tensor, float]:
    """The rows that go on, the rows that end, and the summed clock of those that go on: the one wait of a step."""
    goes_on = outcome == _MOVING
    pair = torch.stack((goes_on.sum().to(s.dtype), torch.where(goes_on, s, 0.0).sum()))
    count, clock = pair.tolist()
    order = torch.argsort((~goes_on).to(torch.int32), stable=True)
    return order[: int(count)], order[int(count) :], clock
