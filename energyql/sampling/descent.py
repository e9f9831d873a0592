"""Descent of each sample to a low energy near its start, by the method L-BFGS.

The samples of a batch are computed together; a sample that has ended is not evaluated again.
"""

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
"""A step is accepted if the energy decreases by at least this fraction of the decrease that the slope predicts, by the
rule of Armijo."""
FIRST_MOVE = 0.3
"""Length in z of the first step, before the curvature can be estimated."""
AIM = 0.8
"""A step aims at an energy of `AIM` times the tolerance `DescentSampler.enough`. With a factor of 1, steps would get
ever shorter near the end. With a small factor, the query would hold with more certainty than needed, which would change
other attributes of the picture."""
LONGEST_MOVE = 1.0
"""Length of the longest step in z."""
LOOK_EVERY = 3
"""Number of steps after which a descent looks for samples that have ended, on another device than the CPU."""


@dataclass(frozen=True, slots=True)
class DescentSampler(BatchSampler):
    """A `Sampler` that descends an energy until the query holds with a certain probability, by default 0.9.

    The method is L-BFGS (Liu and Nocedal 1989), where a step is halved until the energy decreases enough. Samples end
    at or near the latents where `ODESolver` ends, but in fewer and longer steps. A sample ends once its energy is low
    enough, or is at a minimum; a sample whose energy is low enough at the start does not move. The energy at the end is
    never above the energy at the start. The end depends on the start alone (no random numbers), and no term pulls
    samples back to the prior.

    Diagnostics of each sample: `value`, λE at the end, in nats.

    Args:
        strength: λ > 0, which multiplies the energy.
        enough: energy tolerance, in nats. A sample is done once λE is at most this much above λ `Energy.least`, which
            is 0 for most queries; 0.1 nats above 0 are a probability of 0.9. Energies are then assumed to be -log P,
            and a step has the length that would reach the tolerance if the log-odds of P were linear in z. With `None`,
            a sample is done only at a minimum.
        tolerance: a sample counts as at a minimum when three successive steps together decrease λE by less than this
            many nats.
        max_evaluations: largest number of evaluations of the gradient for a sample.

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
        """Move every sample of a batch until its energy is low enough or at a minimum; see `BatchSampler`."""
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
"""A triple: a step, (rows, z_dim); the change of the gradient along the step, (rows, z_dim); and 1 / (scalar product of
step and change), (rows,). All three are 0 in rows of samples that have taken fewer steps than other samples."""


class DescentState(NamedTuple):
    """State of samples that descend; every tensor has a row for each sample.

    E is the energy of a sample, and λ the strength by which it is multiplied.

    Attributes:
        z: current latents.
        values: λ(E - `Energy.least`) at the last four latents of the sample, of which z is the last, in nats. The
            numbers are infinite as long as the sample had fewer latents.
        gradient: gradient of λE with respect to z.
        direction: the next step in z, unless it must be shortened.
        slope: scalar product of `direction` and `gradient`.
        step: factor of `direction` in the step that is tried next: 1, then ½, ¼ and so on until a step is accepted.
        scale: inverse curvature, estimated from the last step of `pairs`. It is 0 if the sample has no such step yet,
            and always 0 on other devices than the CPU.
        pairs: the last steps along which the curvature was positive, oldest first, at most `MEMORY`. Each is a triple
            of the step, the change of the gradient along it, and 1 / (scalar product of the two). On other devices than
            the CPU it is one tensor, (rows, 2 `MEMORY`, z_dim): the steps, then the changes of the gradient along them,
            both 0 where a sample has taken fewer steps.
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
        """Energy of each sample at z, minus the least possible energy, times the strength, in nats."""
        return self.values[:, -1]


class DescentInfo(NamedTuple):
    """The outcome of a step of a descent, for each sample.

    Attributes:
        status: the `Status` with which the sample ends, or `MOVING` if it goes on.
        accepted: whether the sample took the step; if not, a step of half the length is tried next.
    """

    status: Int[Tensor, " rows"]
    accepted: Bool[Tensor, " rows"]


def descent_init(
    z: Float[Tensor, "rows z_dim"], energy: StepEnergy, settings: DescentSampler
) -> tuple[DescentState, DescentInfo]:
    """Return the state of samples that start to descend at the latents `z`, and which of the samples end at once.

    Args:
        z: start latents.
        energy: energy of these samples, in nats; it is called once, with a gradient.
        settings: settings of the sampler; `max_evaluations` is ignored.
    """
    value, gradient = _evaluate(z, energy, settings)
    zero = torch.zeros_like(value)
    pairs = () if z.device.type == "cpu" else z.new_zeros(len(z), 2 * MEMORY, z.shape[1])
    values = torch.cat([z.new_full((len(z), 3), torch.inf), value[:, None]], 1)
    state = _with_direction(DescentState(z, values, gradient, z, zero, zero + 1, zero, pairs), settings.enough)
    finite = finite_rows(value + gradient.norm(dim=1))  # fewer operations than of all numbers of the gradient
    status = torch.where(finite, _outcome(state, settings), Status.NON_FINITE)
    return state, DescentInfo(status, zero == 0)


def descent_step(state: DescentState, energy: StepEnergy, settings: DescentSampler) -> tuple[DescentState, DescentInfo]:
    """Try one step of L-BFGS for every sample, and return the new state of the samples and the outcome of the step.

    A sample whose energy does not decrease enough stays where it is, and tries half the step next time.

    Args:
        state: state that `descent_init` or an earlier step returned.
        energy: energy of these samples, in nats; it is called once, with a gradient.
        settings: settings of the sampler; `max_evaluations` is ignored.
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
    """Return the last steps of all samples, with one more step for the samples where `which` is true.

    The pairs of other samples stay the same. If there are more than `MEMORY` pairs, the oldest is left out.

    Args:
        pairs: the last steps, each with the change of the gradient along the step, as `DescentState.pairs`.
        which: for each sample whether the step is appended.
        step: the last step, (rows, z_dim).
        change: the change of the gradient along it, (rows, z_dim).
        product: the scalar products of `step` and `change`, (rows,).
    """
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
    """Return the state with the next step of each sample, computed by L-BFGS.

    A sample that did not move keeps its next step. `enough` is the setting of `DescentSampler`: the energy, in nats
    above the least possible energy, at which samples end. Near this energy, steps are shorter.
    """
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
    """Return the direction of L-BFGS: minus the estimated inverse curvature times the gradient.

    Args:
        gradient: the gradients.
        pairs: the last steps of the samples, oldest first. Each is a triple of the step, the change of the gradient
            along the step, and 1 / (scalar product of the two).
        scale: inverse curvature before any step is taken into account.
    """
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
    """Return the same as `two_loop_direction`, computed in a fifth of the operations.

    This function is used on devices on which the start of an operation takes longer than its arithmetic. It is formula
    3.1 of Byrd, Nocedal and Schnabel 1994, "Representations of quasi-Newton matrices and their use in limited memory
    methods", Mathematical Programming 63.

    Args:
        gradient: the gradients.
        pairs: the last `MEMORY` steps of each sample, oldest first, and then the changes of the gradient along them;
            both are 0 where a sample has taken fewer steps.
        guess: inverse curvature of samples that have no pairs.
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
    """Return the length of the next step of each sample, which aims at an energy of 0.8 (`AIM`) times the tolerance.

    The step would reach this energy if the log-odds of the query were linear in z, as in Newton's method. The log-odds
    of a query with the energy e are -log(exp(e) - 1), and their derivative by e is -1 / (1 - exp(-e)).

    Args:
        value: energies e of the samples, in nats.
        descent: decrease of the energy per unit of length in z, at least 0.
        enough: energy tolerance, in nats: a sample ends at this energy or below.
    """
    e = value.clamp_min(enough)
    lacking = e + torch.log1p(-torch.exp(-e)) - math.log(math.expm1(AIM * enough))
    return lacking * -torch.expm1(-e) / descent.clamp_min(1e-12)


def _outcome(state: DescentState, settings: DescentSampler) -> Int[Tensor, " rows"]:
    """Return for each sample of `state` the status `Status.OK` if it ends, or `MOVING` if it goes on.

    A sample ends if its energy is low enough, or is at a minimum, by the tolerances of `settings`.
    """
    done = state.values[:, 0] - state.value < settings.tolerance
    # Not even a straight slope would bring anything.
    done = done | (state.slope * state.step > -1e-3 * settings.tolerance)
    if settings.enough is not None:
        done = done | (state.value <= settings.enough)
    return done + MOVING  # `Status.OK` is 0


def _rows_of(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return the rows of `new` where `which` is true, and the rows of `old` elsewhere.

    If `which` is true everywhere, `new` itself may be returned, without a copy.
    """
    if _all(which):
        return new
    return torch.where(which if new.ndim == 1 else which[:, None], new, old)


def _all(which: Bool[Tensor, " rows"]) -> bool:
    """Return whether `which` is true everywhere; always false on other devices than the CPU, to avoid a wait."""
    return which.device.type == "cpu" and bool(which.all())
