"""Descent of each sample to a low energy near its start, by the method L-BFGS, for many samples at once."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.pullback import row_products
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import (
    MOVING,
    Batch,
    BatchSampler,
    Endings,
    Status,
    StepEnergy,
    ValueAndGradient,
    check_counts,
    check_positive,
    check_strength,
    finite_rows,
    select,
)

MEMORY = 8
"""Number of last steps from which the curvature of the energy is estimated."""
ENOUGH_DECREASE = 1e-4
"""A step is accepted if the energy decreases by this fraction of what the slope predicts (rule of Armijo)."""
FIRST_MOVE = 0.3
"""Length in z of the first step, before the curvature can be estimated."""
AIM = 0.8
"""A step aims at `AIM` times the tolerance `DescentSampler.enough`: with 1, steps would get ever shorter near the end;
with a small factor, they would change the picture more than needed."""
LONGEST_MOVE = 1.0
"""Length of the longest step in z."""
LOOK_EVERY = 3
"""Number of steps after which a descent looks for samples that have ended, on other devices than the CPU."""


@dataclass(frozen=True, slots=True)
class DescentSampler(BatchSampler):
    """A `Sampler` that descends an energy until the query holds with a certain probability, by default 0.9.

    The method is L-BFGS (Liu and Nocedal 1989); a step is halved until the energy decreases enough. Samples end at or
    near the latents where `ODESolver` ends, but in fewer and longer steps. The energy at the end is never above that at
    the start, and a sample whose energy is low enough at the start does not move. The end depends on the start alone
    (no random numbers), and no term pulls samples back to the prior.

    Diagnostics of each sample: `value`, λE at the end, in nats.

    Args:
        strength: λ > 0, which multiplies the energy E.
        enough: energy tolerance, in nats. A sample is done once λE is at most this much above λ `Energy.least`, which
            is 0 for most queries; 0.1 nats above 0 are a probability of 0.9. Energies are then assumed to be -log P,
            and a step has the length that would reach the tolerance if the log-odds of P were linear in z. With `None`,
            a sample is done only at a minimum.
        tolerance: a sample is at a minimum when three steps in a row together decrease λE by less than this many nats.
        max_evaluations: most evaluations of the gradient for a sample; `descent_init` and `descent_step` ignore it.
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
        """Move every sample of a batch until its energy is low enough or at a minimum."""
        values = batch.diagnostics["value"] = self.strength * batch.energies
        if self.enough is not None:
            batch.leave_out(self.enough / self.strength + batch.energy.least)
        if not len(batch.rows):
            return
        energy = batch.energy.part(batch.rows)
        state, info = descent_init(batch.z[batch.rows], energy, self)
        ends, least = Endings(batch, energy, values, every=LOOK_EVERY), self.strength * batch.energy.least
        while True:
            limit = Status.STEP_LIMIT if energy.gradients >= self.max_evaluations else None
            value = state.value + least if least else state.value
            stay = ends.note(info.status, partial(getattr, state, "z"), value, limit=limit)
            if stay is not None:
                state = select(state, stay)
            batch.report(energy.gradients / self.max_evaluations)
            if not len(batch.rows):
                return
            state, info = descent_step(state, energy, self)


_Pair = tuple[Tensor, Tensor, Tensor]
"""A step, (rows, z_dim); the change of the gradient along it, (rows, z_dim); and 1 / (their scalar product), (rows,).
All three are 0 for samples that have taken fewer steps."""


class DescentState(NamedTuple):
    """State of samples that descend an energy E with strength λ, with a row for each sample.

    Attributes:
        values: λ(E - `Energy.least`) at the last four latents, the last of which is z, in nats; at first infinite.
        gradient: gradient of λE with respect to z.
        direction: next step in z, unless it must be shortened.
        slope: scalar product of `direction` and `gradient`.
        step: factor of `direction` in the step that is tried next: 1, then ½, ¼ and so on until a step is accepted.
        scale: inverse curvature along the last step, 0 before the first; not used on other devices than the CPU.
        pairs: the correction pairs of L-BFGS: the last `MEMORY` steps along which the curvature was positive, and the
            changes of the gradient along them, oldest first, each with 1 / (their scalar product). On other devices
            than the CPU, one tensor of the steps and then the changes, 0 where steps are missing.
    """

    z: Float[Tensor, "rows z_dim"]
    values: Float[Tensor, "rows 4"]
    gradient: Float[Tensor, "rows z_dim"]
    direction: Float[Tensor, "rows z_dim"]
    slope: Float[Tensor, " rows"]
    step: Float[Tensor, " rows"]
    scale: Float[Tensor, " rows"]
    pairs: tuple[_Pair, ...] | Float[Tensor, "rows twice_memory z_dim"]

    @property
    def value(self) -> Float[Tensor, " rows"]:
        """λ(E - `Energy.least`) at z, in nats."""
        return self.values[:, -1]


class DescentInfo(NamedTuple):
    """Outcome of a step: each sample's `Status` or `MOVING`, and whether it moved; if not, half the step is next."""

    status: Int[Tensor, " rows"]
    accepted: Bool[Tensor, " rows"]


def descent_init(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, settings: DescentSampler
) -> tuple[DescentState, DescentInfo]:
    """First state of a descent from `z`, and which samples end at once; calls `energy` once, with a gradient."""
    value, gradient = _evaluate(z, energy, settings)
    zero = torch.zeros_like(value)
    pairs = () if z.device.type == "cpu" else z.new_zeros(len(z), 2 * MEMORY, z.shape[1])
    values = torch.cat([z.new_full((len(z), 3), torch.inf), value[:, None]], 1)
    state = _with_direction(DescentState(z, values, gradient, z, zero, zero + 1, zero, pairs), settings.enough)
    finite = finite_rows(value + gradient.norm(dim=1))  # fewer operations than of all numbers of the gradient
    status = torch.where(finite, _outcome(state, settings), Status.NON_FINITE)
    return state, DescentInfo(status, zero == 0)


def descent_step(state: DescentState, energy: StepEnergy, settings: DescentSampler) -> tuple[DescentState, DescentInfo]:
    """Try one step of L-BFGS for every sample; calls `energy` once, with a gradient.

    A sample whose energy does not decrease enough stays where it is, and tries half the step next time.
    """
    z = torch.addcmul(state.z, state.step[:, None], state.direction)  # exact products: `step` is a power of two
    value, gradient = _evaluate(z, energy, settings)
    step, change = torch._foreach_sub((z, gradient), (state.z, state.gradient))  # in one operation
    product, length = row_products(step, change), row_products(change, change)
    bound = torch.addcmul(state.value, state.step, state.slope, value=ENOUGH_DECREASE)
    # `value`, or NaN if value or gradient is not finite; takes fewer operations than `isfinite`.
    accept = torch.addcmul(value, value, length, value=0) <= bound
    # Only a pair of positive curvature keeps the next direction downhill.
    keep = accept & (product > 1e-10 * length)
    values = torch.cat([state.values[:, 1:], value[:, None]], 1)
    scale = state.scale
    if isinstance(state.pairs, tuple):
        scale = torch.where(keep, product / length.clamp_min(1e-12), scale)
    state = state._replace(
        z=_rows_of(accept, z, state.z),
        values=torch.where(accept[:, None], values, state.values),
        gradient=_rows_of(accept, gradient, state.gradient),
        step=(state.step / 2).masked_fill_(accept, 1.0),
        scale=scale,
        pairs=_with_pair(state.pairs, keep, step, change, product),
    )
    state = _with_direction(state, settings.enough)
    return state, DescentInfo(_outcome(state, settings), accept)


def _evaluate(z: Float[Tensor, "rows z_dim"], energy: StepEnergy, settings: DescentSampler) -> ValueAndGradient:
    value, gradient = energy.gradient(z)
    value = value - energy.least if energy.least else value
    return (value, gradient) if settings.strength == 1 else (settings.strength * value, settings.strength * gradient)


def _with_pair(
    pairs: tuple[_Pair, ...] | Tensor, which: Tensor, step: Tensor, change: Tensor, product: Tensor
) -> tuple[_Pair, ...] | Tensor:
    """Append a step to `DescentState.pairs`, for the samples where `which` is true; the oldest is dropped."""
    if isinstance(pairs, Tensor):
        longer = torch.cat([pairs[:, 1:MEMORY], step[:, None], pairs[:, MEMORY + 1 :], change[:, None]], 1)
        return torch.where(which[:, None, None], longer, pairs)
    several: tuple[_Pair, ...] = (*pairs, (step, change, torch.where(which, 1 / product, 0.0)))
    if not _all(which):
        none = (torch.zeros_like(step), torch.zeros_like(change), torch.zeros_like(product))
        several = tuple(
            (_rows_of(which, new[0], old[0]), _rows_of(which, new[1], old[1]), _rows_of(which, new[2], old[2]))
            for new, old in zip(several, (none, *pairs), strict=True)
        )
    return several[-MEMORY:]


def _with_direction(state: DescentState, enough: float | None) -> DescentState:
    """State with the next step of each sample by L-BFGS, of a length that aims at `enough` (`_distance`)."""
    gradient, pairs = state.gradient, state.pairs
    guess = FIRST_MOVE / gradient.norm(dim=1).clamp_min(1e-12)
    if isinstance(pairs, Tensor):
        direction = compact_direction(gradient, pairs, guess)
    else:
        direction = two_loop_direction(gradient, pairs, torch.where(state.scale > 0, state.scale, guess)[:, None])
    downhill = row_products(direction, gradient) < 0
    direction = torch.where(downhill[:, None], direction, -gradient * guess[:, None])
    if enough is None and direction.device.type != "cpu":
        direction = direction.renorm(2, 0, LONGEST_MOVE)  # in one operation, which rounds differently
    else:
        size = direction.norm(dim=1).clamp_min(1e-12)
        length = size
        if enough is not None:
            length = _distance(state.value, -row_products(direction, gradient) / size, enough)
        direction = direction * (length.clamp_max(LONGEST_MOVE) / size)[:, None]
    return state._replace(direction=direction, slope=row_products(direction, gradient))


def two_loop_direction(
    gradient: Float[Tensor, "rows z_dim"], pairs: tuple[_Pair, ...], scale: Float[Tensor, "rows 1"]
) -> Float[Tensor, "rows z_dim"]:
    """L-BFGS direction from `pairs`, as in `DescentState`; `scale` is the inverse curvature without any pair."""
    direction, weights = -gradient, []
    for step, change, inverse in reversed(pairs):
        weight = inverse * (step * direction).sum(1)
        direction = torch.addcmul(direction, change, weight[:, None], value=-1)
        weights.append(weight)
    direction = direction * scale
    for (step, change, inverse), weight in zip(pairs, reversed(weights), strict=True):
        back = inverse * (change * direction).sum(1)
        direction = torch.addcmul(direction, step, (weight - back)[:, None])
    return direction


def compact_direction(
    gradient: Float[Tensor, "rows z_dim"],
    pairs: Float[Tensor, "rows twice_memory z_dim"],
    guess: Float[Tensor, " rows"],
) -> Float[Tensor, "rows z_dim"]:
    """Same direction as `two_loop_direction` in a fifth of the operations, for devices that are slow to start each.

    It is formula 3.1 of Byrd, Nocedal and Schnabel 1994, "Representations of quasi-Newton matrices and their use in
    limited memory methods", Mathematical Programming 63. `guess` is the inverse curvature of samples without pairs.
    """
    steps, changes = pairs.chunk(2, 1)
    memory = steps.shape[1]
    products = pairs @ changes.mT
    along, changed = (pairs @ gradient[:, :, None]).split(memory, 1)
    upper, curvature = products.split(memory, 1)  # below the diagonal, `upper` is not read
    curved = upper.diagonal(dim1=1, dim2=2)[:, :, None]
    ratio = curved[:, -1:] / curvature[:, -1:, -1:]  # NaN where there is no pair
    scale = torch.where(ratio > 0, ratio, guess[:, None, None])
    curved.clamp_(min=torch.finfo(upper.dtype).tiny)  # 0 where there is no step; after `ratio`, as it changes `upper`
    first = torch.linalg.solve_triangular(upper, along, upper=True)
    inner = torch.baddbmm(changed, curvature, first, beta=-1)
    inner = torch.addcmul(curved * first, scale, inner)
    second = torch.linalg.solve_triangular(upper.mT, inner, upper=False)
    direction = scale * torch.baddbmm(gradient[:, :, None], changes.mT, first, beta=-1)
    return torch.baddbmm(direction, steps.mT, second, alpha=-1)[:, :, 0]


def _distance(value: Float[Tensor, " rows"], descent: Float[Tensor, " rows"], enough: float) -> Float[Tensor, " rows"]:
    """Length of a step to an energy of `AIM` times `enough`, if the log-odds of the query were linear in z.

    As in Newton's method. The log-odds of a query with energy e are -log(exp(e) - 1), with derivative -1 / (1 -
    exp(-e)). `descent` is the decrease of the energy per unit of length.
    """
    e = value.clamp_min(enough)
    lacking = e + torch.log1p(-torch.exp(-e)) - math.log(math.expm1(AIM * enough))
    return lacking * -torch.expm1(-e) / descent.clamp_min(1e-12)


def _outcome(state: DescentState, settings: DescentSampler) -> Int[Tensor, " rows"]:
    """`Status.OK` for samples whose energy is low enough or at a minimum, `MOVING` for others."""
    done = state.values[:, 0] - state.value < settings.tolerance
    # Not even a straight slope would bring anything.
    done = done | (state.slope * state.step > -1e-3 * settings.tolerance)
    if settings.enough is not None:
        done = done | (state.value <= settings.enough)
    return done + MOVING  # `Status.OK` is 0


def _rows_of(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of `new` where `which` is true, else of `old`; may return `new` itself."""
    if _all(which):
        return new
    return torch.where(which if new.ndim == 1 else which[:, None], new, old)


def _all(which: Bool[Tensor, " rows"]) -> bool:
    """Whether `which` is true everywhere; always false on other devices than the CPU, to avoid a wait."""
    return which.device.type == "cpu" and bool(which.all())
