"""A minimum near the start, for each sample by itself: L-BFGS in one batch that shrinks as samples end."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from energyql.sampling import Progress, SampleResult, Status
from energyql.sampling.base import check_latents

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`objective(z, rows)`: latents (batch, z_dim) and which of the samples they belong to (batch,) -> values (batch,) in
nats, lower is better, and gradients (batch, z_dim). A row of the answer depends on its own row alone."""

MEMORY = 8
"""Pairs of steps and gradient changes that the curvature is taken from."""
ENOUGH_DECREASE = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo)."""
FIRST_MOVE = 0.3
"""Length of the first step in z, whose coordinates have a spread of 1."""
LONGEST_MOVE = 1.0
"""Length of the longest step in z."""
_MOVING = -1


@torch.no_grad()
def descend(
    objective: Objective,
    z0: Tensor,
    *,
    tolerance: float = 1e-3,
    max_evaluations: int = 200,
    progress: Progress | None = None,
) -> SampleResult:
    """Goes downhill from every row of z0 to the nearest minimum (Liu and Nocedal 1989; steps halved until they pay).

    Args:
        objective: see `Objective`.
        z0: start latents (n, z_dim), float32 or float64.
        tolerance: a sample is done when three steps in a row bring less than this many nats together.
        max_evaluations: of the objective, per sample; a sample that uses them up ends where it stands, which for a
            smooth objective is close to the minimum: it gets `Status.STEP_LIMIT`.
        progress: see `Progress`.

    Returns:
        The best latent that was found for each sample, never one that is worse than its start.

    Raises:
        ArgumentError: z0 has the wrong shape or type.
    """
    check_latents(z0)
    n = len(z0)
    end, status = z0.detach().clone(), torch.full((n,), int(Status.OK), dtype=torch.int64)
    count = torch.ones(n, dtype=torch.int64)
    rows = torch.arange(n, device=z0.device)
    if not n:
        return SampleResult(end, status, count[:0], count[:0])
    state = _State.at(objective, end.clone(), rows)
    evaluations = 1
    while len(state.rows):
        trial = state.z + state.step[:, None] * state.direction
        value, gradient = objective(trial, state.rows)
        evaluations += 1
        promised = ENOUGH_DECREASE * state.step * state.slope
        usable = torch.isfinite(value) & torch.isfinite(gradient).all(1)
        accept = usable & (value <= state.value + promised)
        state.advance(accept, trial, value, gradient)
        outcome = state.outcome(tolerance)
        if evaluations >= max_evaluations:
            outcome = torch.where(outcome == _MOVING, Status.STEP_LIMIT, outcome)
        leaving = outcome != _MOVING
        if leaving.any():
            gone = state.rows[leaving]
            end[gone] = state.z[leaving]
            status[gone.cpu()] = outcome[leaving].cpu()
            count[gone.cpu()] = evaluations
            state = state.select(~leaving)
        if progress is not None:
            progress(max(1 - len(state.rows) / n, evaluations / max_evaluations), len(state.rows))
    return SampleResult(end, status, count, count.clone())


class _State:
    """The samples that still move."""

    def __init__(self, rows: Tensor, z: Tensor, value: Tensor, gradient: Tensor) -> None:
        self.rows, self.z, self.value, self.gradient = rows, z, value, gradient
        n, size = z.shape
        self.moves = z.new_zeros(MEMORY, n, size)
        self.changes = z.new_zeros(MEMORY, n, size)
        self.curvature = z.new_zeros(MEMORY, n)  # 1 / (move . change), 0 where there is no pair
        self.gains = z.new_full((3, n), torch.inf)  # what the last three steps brought
        self.direction, self.slope, self.step = z, value, value
        self.aim(torch.ones_like(rows, dtype=torch.bool))

    @classmethod
    def at(cls, objective: Objective, z: Tensor, rows: Tensor) -> _State:
        value, gradient = objective(z, rows)
        return cls(rows, z, value, gradient)

    def advance(self, accept: Tensor, z: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Take the steps that pay, halve the others."""
        move, change = z - self.z, gradient - self.gradient
        product = (move * change).sum(1)
        # Only a pair of positive curvature keeps the next direction downhill.
        keep = accept & (product > 1e-10 * change.square().sum(1))
        for memory, new in ((self.moves, move), (self.changes, change)):
            memory.copy_(torch.where(keep[:, None], torch.cat([memory[1:], new[None]]), memory))
        fresh = torch.cat([self.curvature[1:], (1 / torch.where(keep, product, 1.0))[None]])
        self.curvature = torch.where(keep, fresh, self.curvature)
        gains = torch.cat([self.gains[1:], (self.value - value)[None]])
        self.gains = torch.where(accept, gains, self.gains)
        self.z = torch.where(accept[:, None], z, self.z)
        self.gradient = torch.where(accept[:, None], gradient, self.gradient)
        self.value = torch.where(accept, value, self.value)
        self.step = self.step / 2
        self.aim(accept)

    def aim(self, which: Tensor) -> None:
        """A new direction for some samples: the two loops of L-BFGS."""
        direction, weights = -self.gradient, []
        for i in reversed(range(MEMORY)):
            weight = self.curvature[i] * (self.moves[i] * direction).sum(1)
            direction = torch.addcmul(direction, self.changes[i], weight[:, None], value=-1)
            weights.append(weight)
        known = self.curvature[-1] > 0
        scale = 1 / (self.curvature[-1] * self.changes[-1].square().sum(1)).clamp_min(1e-12)
        length = self.gradient.norm(dim=1).clamp_min(1e-12)
        direction = direction * torch.where(known, scale, FIRST_MOVE / length)[:, None]
        for i, weight in zip(range(MEMORY), reversed(weights), strict=True):
            back = self.curvature[i] * (self.changes[i] * direction).sum(1)
            direction = torch.addcmul(direction, self.moves[i], (weight - back)[:, None])
        slope = (direction * self.gradient).sum(1)
        uphill = ~(slope < 0)
        direction = torch.where(uphill[:, None], -self.gradient * (FIRST_MOVE / length)[:, None], direction)
        size = direction.norm(dim=1).clamp_min(1e-12)
        direction = direction * (LONGEST_MOVE / size).clamp_max(1.0)[:, None]
        self.direction = torch.where(which[:, None], direction, self.direction)
        self.slope = torch.where(which, (direction * self.gradient).sum(1), self.slope)
        self.step = torch.where(which, torch.ones_like(self.step), self.step)

    def outcome(self, tolerance: float) -> Tensor:
        """A status for each sample, or that it goes on."""
        flat = -self.slope * self.step < 1e-3 * tolerance  # not even a straight slope would bring anything
        done = (self.gains.sum(0) < tolerance) | flat
        finite = torch.isfinite(self.value) & torch.isfinite(self.gradient).all(1)
        return torch.where(finite, torch.where(done, Status.OK, _MOVING), Status.NON_FINITE)

    def select(self, which: Tensor) -> _State:
        for name in ("rows", "z", "value", "gradient", "direction", "slope", "step"):
            setattr(self, name, getattr(self, name)[which])
        for name in ("moves", "changes", "curvature", "gains"):
            setattr(self, name, getattr(self, name)[:, which])
        return self
