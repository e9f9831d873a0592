"""A minimum near the start, for each sample by itself: L-BFGS in one batch that shrinks as samples end."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import (
    MOVING,
    Batch,
    BatchSampler,
    PartEnergy,
    Status,
    StepEnergy,
    ValueAndGradient,
    check_counts,
    check_positive,
    check_strength,
    select,
)

MEMORY = 8
"""Pairs of steps and gradient changes from which the curvature is estimated."""
ENOUGH_DECREASE = 1e-4
"""Share of the decrease predicted by the slope that a step must reach to be accepted (Armijo)."""
FIRST_MOVE = 0.3
"""Length in z of the first step, before the curvature can be estimated."""
AIM = 0.8
"""Share of the energy tolerance that steps aim at. With a share of 1, steps get ever shorter near the end; with a small
one, samples satisfy the query with more certainty than needed, which shifts other attributes."""
LONGEST_MOVE = 1.0
"""Length of the longest step in z."""


@dataclass(frozen=True, slots=True)
class DescentSampler(BatchSampler):
    """Descend an energy until the query holds with a given probability, and no further. A `Sampler`.

    L-BFGS (Liu and Nocedal 1989), where steps are halved until the energy decreases enough. It ends at or near the end
    of the flow of `ODESolver`, in fewer and longer steps. A sample at a minimum ends there; one whose energy is low
    enough at the start does not move. The energy at the end is never above that at the start. Deterministic: the end
    depends on the start alone, and no term pulls samples back to the prior. Diagnostics: `value`, λE at the end.

    Args:
        strength: λ > 0, multiplies the energy.
        enough: energy tolerance: a sample is done once λE is at most this many nats above its least value
            (`Energy.least`, 0 for most queries); 0.1 above 0 is a probability of 0.9. Energies are then assumed to be
            -log P, and the length of a step is that which reaches the tolerance if the log-odds of P are linear in z.
            With `None` a sample is done at a minimum.
        tolerance: a sample is at a minimum when three successive steps decrease λE by less than this many nats.
        max_evaluations: most evaluations of the gradient for a sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    name = "descent"
    descends = needs_floor = True
    _: KW_ONLY
    strength: float = 1.0
    enough: float | None = 0.1
    tolerance: float = 1e-3
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_positive(self, "enough", "tolerance")
        check_counts(self, max_evaluations=1)

    def run(self, batch: Batch) -> None:
        """Descend with every sample; see `BatchSampler`."""
        values = batch.diagnostics["value"] = self.strength * batch.energies
        if self.enough is not None:
            batch.leave_out(self.enough / self.strength + batch.energy.least)
        if not len(batch.rows):
            return
        energy = PartEnergy(batch.energy, batch.rows)
        state, info = descent_init(batch.z[batch.rows], energy, self)
        while True:
            outcome = info.status
            if energy.gradients >= self.max_evaluations:
                outcome = torch.where(outcome == MOVING, Status.STEP_LIMIT, outcome)
            leave = outcome != MOVING
            if leave.any():
                values[batch.rows[leave]] = state.value[leave] + self.strength * batch.energy.least
                batch.end(leave, ~leave, outcome[leave], state.z[leave], energy.gradients)
                state, energy.rows = select(state, ~leave), batch.rows
            batch.report(energy.gradients / self.max_evaluations)
            if not len(batch.rows):
                return
            state, info = descent_step(state, energy, self)


_Pair = tuple[Float[Tensor, "rows z_dim"], Float[Tensor, "rows z_dim"], Float[Tensor, " rows"]]
"""A step, the change of the gradient along it, and 1 / (step . change), 0 for a sample without such a pair."""


class DescentState(NamedTuple):
    """The samples that descend, one row each in every tensor.

    Attributes:
        z: current latents.
        value: λ(E - least) at z, in nats.
        gradient: gradient of the value.
        direction: the next step, before halving.
        slope: product of direction and gradient.
        step: share of the direction that is tried next.
        scale: inverse curvature, estimated from the last pair; 0 if there is none.
        gains: decrease of the value in each of the last three steps.
        pairs: the last steps, see `_Pair`; oldest first.
    """

    z: Float[Tensor, "rows z_dim"]
    value: Float[Tensor, " rows"]
    gradient: Float[Tensor, "rows z_dim"]
    direction: Float[Tensor, "rows z_dim"]
    slope: Float[Tensor, " rows"]
    step: Float[Tensor, " rows"]
    scale: Float[Tensor, " rows"]
    gains: tuple[Float[Tensor, " rows"], ...]
    pairs: tuple[_Pair, ...]


class DescentInfo(NamedTuple):
    """The outcome of a step of a descent.

    Attributes:
        status: a `Status` with which a sample ends, or `MOVING`.
        accepted: whether the step was taken; else a shorter one is tried next.
    """

    status: Int[Tensor, " rows"]
    accepted: Bool[Tensor, " rows"]


def descent_init(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, settings: DescentSampler
) -> tuple[DescentState, DescentInfo]:
    """Return the state of samples that start to descend at `z`, after one evaluation of the gradient there."""
    value, gradient = _evaluate(z, energy, settings)
    zero, unknown = torch.zeros_like(value), torch.full_like(value, torch.inf)
    state = DescentState(z, value, gradient, z, zero, zero, zero, (unknown,) * 3, ())
    state = _aimed(state, zero == 0, settings.enough)
    return state, DescentInfo(_outcome(state, settings.tolerance, settings.enough), zero == 0)


def descent_step(state: DescentState, energy: StepEnergy, settings: DescentSampler) -> tuple[DescentState, DescentInfo]:
    """Try one step of L-BFGS for every sample: it is taken if the energy decreases enough, else halved next time.

    Args:
        state: state from `descent_init` or an earlier step.
        energy: energy of these samples, in nats; it is called once, with a gradient.
        settings: settings of the sampler; `max_evaluations` is ignored.
    """
    trial = state.z + state.step[:, None] * state.direction
    value, gradient = _evaluate(trial, energy, settings)
    promised = ENOUGH_DECREASE * state.step * state.slope
    accept = _finite(value, gradient) & (value <= state.value + promised)
    state = _advance(state, accept, trial, value, gradient, settings.enough)
    return state, DescentInfo(_outcome(state, settings.tolerance, settings.enough), accept)


def _evaluate(z: Float[Tensor, "rows z_dim"], energy: StepEnergy, settings: DescentSampler) -> ValueAndGradient:
    value, gradient = energy.gradient(z)
    return settings.strength * (value - energy.least), settings.strength * gradient


def _advance(
    state: DescentState, accept: Tensor, z: Tensor, value: Tensor, gradient: Tensor, enough: float | None
) -> DescentState:
    """Take the accepted steps, and halve the others."""
    step, change = z - state.z, gradient - state.gradient
    product, length = (step * change).sum(1), change.square().sum(1)
    # Only a pair of positive curvature keeps the next direction downhill.
    keep = accept & (product > 1e-10 * length)
    gains = (*state.gains[1:], state.value - value)
    moved = state._replace(
        z=_rows_of(accept, z, state.z),
        value=torch.where(accept, value, state.value),
        gradient=_rows_of(accept, gradient, state.gradient),
        step=state.step / 2,
        scale=torch.where(keep, product / length.clamp_min(1e-12), state.scale),
        gains=tuple(torch.where(accept, new, old) for new, old in zip(gains, state.gains, strict=True)),
        pairs=_remembered(state.pairs, keep, (step, change, torch.where(keep, 1 / product, 0.0))),
    )
    return _aimed(moved, accept, enough)


def _remembered(pairs: tuple[_Pair, ...], which: Tensor, pair: _Pair) -> tuple[_Pair, ...]:
    """Append a pair to the memories of some samples; those of the others stay as they are."""
    longer = (*pairs, pair)
    if not bool(which.all()):
        none = (torch.zeros_like(pair[0]), torch.zeros_like(pair[1]), torch.zeros_like(pair[2]))
        longer = tuple(
            (_rows_of(which, new[0], old[0]), _rows_of(which, new[1], old[1]), _rows_of(which, new[2], old[2]))
            for new, old in zip(longer, (none, *pairs), strict=True)
        )
    return longer[-MEMORY:]


def _aimed(state: DescentState, which: Bool[Tensor, " rows"], enough: float | None) -> DescentState:
    """Return the state with a new direction for some samples, by the two loops of L-BFGS."""
    gradient = state.gradient
    direction, weights = -gradient, []
    for step, change, inverse in reversed(state.pairs):
        weight = inverse * (step * direction).sum(1)
        direction = torch.addcmul(direction, change, weight[:, None], value=-1)
        weights.append(weight)
    guess = FIRST_MOVE / gradient.norm(dim=1).clamp_min(1e-12)
    direction = direction * torch.where(state.scale > 0, state.scale, guess)[:, None]
    for (step, change, inverse), weight in zip(state.pairs, reversed(weights), strict=True):
        back = inverse * (change * direction).sum(1)
        direction = torch.addcmul(direction, step, (weight - back)[:, None])
    uphill = ~((direction * gradient).sum(1) < 0)
    direction = torch.where(uphill[:, None], -gradient * guess[:, None], direction)
    size = direction.norm(dim=1).clamp_min(1e-12)
    length = size
    if enough is not None:
        length = _distance(state.value, -(direction * gradient).sum(1) / size, enough)
    direction = direction * (length.clamp_max(LONGEST_MOVE) / size)[:, None]
    return state._replace(
        direction=_rows_of(which, direction, state.direction),
        slope=torch.where(which, (direction * gradient).sum(1), state.slope),
        step=torch.where(which, torch.ones_like(state.step), state.step),
    )


def _distance(value: Float[Tensor, " rows"], descent: Float[Tensor, " rows"], enough: float) -> Float[Tensor, " rows"]:
    """Return the distance at which the energy is `AIM * enough`, if the log-odds of the query are linear in z.

    That is Newton's method for one equation: of energies e = `value` the log-odds -log(exp(e) - 1) have the slope
    -1 / (1 - exp(-e)). `descent` is the decrease of the energy per unit of length, at least 0.
    """
    e = value.clamp_min(enough)
    lacking = e + torch.log1p(-torch.exp(-e)) - math.log(math.expm1(AIM * enough))
    return lacking * -torch.expm1(-e) / descent.clamp_min(1e-12)


def _outcome(state: DescentState, tolerance: float, enough: float | None) -> Int[Tensor, " rows"]:
    """Return a `Status` code or `MOVING` for each sample."""
    flat = -state.slope * state.step < 1e-3 * tolerance  # not even a straight slope would bring anything
    first, second, third = state.gains
    done = (first + second + third < tolerance) | flat
    if enough is not None:
        done = done | (state.value <= enough)
    return torch.where(_finite(state.value, state.gradient), torch.where(done, Status.OK, MOVING), Status.NON_FINITE)


def _rows_of(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return `new` in the rows `which`, else `old`; no copy is made in the usual case that all rows are new."""
    if bool(which.all()):
        return new
    return torch.where(which if new.ndim == 1 else which[:, None], new, old)


def _finite(value: Float[Tensor, " rows"], gradient: Float[Tensor, "rows z_dim"]) -> Bool[Tensor, " rows"]:
    """Return whether value and gradient are finite, by a norm: a tenth of the time of a test of each number."""
    return torch.isfinite(value) & torch.isfinite(gradient.norm(dim=1))
