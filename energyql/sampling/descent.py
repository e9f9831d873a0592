"""A minimum near the start, for each sample by itself: L-BFGS in one batch that shrinks as samples end."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, SampleResult, Status, check_latents, check_strength
from energyql.sampling.energy import EnergyLike, GradientEnergy, as_energy
from energyql.sampling.noise import FIRST_RUN, Noise

MEMORY = 8
"""Pairs of steps and gradient changes that the curvature is taken from."""
ENOUGH_DECREASE = 1e-4
"""Share of the decrease that the slope promises which a step must bring (Armijo)."""
FIRST_MOVE = 0.3
"""Length of the first step in z, whose coordinates have a spread of 1, where nothing is known about its end."""
AIM = 0.8
"""Share of what is enough that steps aim at. Aimed at all of it, they would get ever shorter on the last of the way;
aimed far beyond, samples would be surer of the query than they need to be, and that shifts what they show."""
LONGEST_MOVE = 1.0
"""Length of the longest step in z."""
_MOVING = -1
_Pair = tuple[Tensor, Tensor, Tensor]  # move and change of the gradient, and 1 / (move . change), 0 if there is no pair


@dataclass(frozen=True, slots=True)
class DescentSampler:
    """Goes down an energy until the query holds with enough probability, and no further. A `Sampler`.

    It ends where the flow of `ODESolver` ends, or near there, in fewer and longer steps: those of `descend`. A sample
    that finds no way down ends at that minimum; one whose query holds already stays as it is. Deterministic: the end
    depends on the start alone, and nothing pulls samples back to the prior. Diagnostics: `value`, λE at the end.

    Args:
        strength: λ > 0, multiplies the energy.
        enough: a sample is done once λE is at most this many nats; 0.1 is a probability of 0.9.
        max_evaluations: of the energy's gradient, per sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    strength: float = 1.0
    enough: float = 0.1
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 0 < self.enough < math.inf:
            raise ArgumentError(f"enough must be finite and above 0; got {self.enough!r}")
        if not (isinstance(self.max_evaluations, int) and self.max_evaluations >= 2):
            raise ArgumentError(f"max_evaluations must be a whole number of at least 2; got {self.max_evaluations!r}")

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Goes down from every row of `z0`; see `Sampler.sample`."""
        adapted = as_energy(energy, first=noise.start)

        def scaled(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            value, gradient = adapted.gradient(z, rows)
            return self.strength * value, self.strength * gradient

        return descend(
            GradientEnergy(scaled), z0, enough=self.enough, max_evaluations=self.max_evaluations, progress=progress
        )


@torch.no_grad()
def descend(
    energy: EnergyLike,
    z0: Tensor,
    *,
    tolerance: float = 1e-3,
    enough: float = -math.inf,
    max_evaluations: int = 200,
    progress: Progress | None = None,
) -> SampleResult:
    """Goes downhill from every row of z0 to the nearest minimum (Liu and Nocedal 1989; steps halved until they pay).

    Args:
        energy: an `Energy`, or a function of z alone.
        z0: start latents (n, z_dim), float32 or float64.
        tolerance: a sample is done when three steps in a row bring less than this many nats together.
        enough: a sample is done when its value is this low, even at its start. Where it is above 0, values are taken
            for energies -log P, and steps are as long as would bring P there if its log-odds were linear in z.
        max_evaluations: of the energy, per sample; a sample that uses them up ends where it stands, which for a
            smooth energy is close to the minimum: it gets `Status.STEP_LIMIT`.
        progress: see `Progress`.

    Returns:
        The best latent that was found for each sample, never one that is worse than its start; diagnostics: its
        energy there, `value`.

    Raises:
        ArgumentError: z0 has the wrong shape or type.
    """
    check_latents(z0)
    adapted = as_energy(energy)
    n = len(z0)
    end, status = z0.detach().clone(), torch.full((n,), int(Status.OK), dtype=torch.int64)
    values, count = torch.zeros_like(end[:, 0]), torch.ones(n, dtype=torch.int64)
    rows = torch.arange(n, device=z0.device)
    if not n:
        return SampleResult(end, status, count, count, {"value": values.cpu()})
    state = _State(rows, end.clone(), *adapted.gradient(end, rows), enough)
    evaluations = 1
    while True:
        outcome = state.outcome(tolerance)
        if evaluations >= max_evaluations:
            outcome = torch.where(outcome == _MOVING, Status.STEP_LIMIT, outcome)
        leaving = outcome != _MOVING
        if leaving.any():
            gone = state.rows[leaving]
            end[gone], values[gone] = state.z[leaving], state.value[leaving]
            status[gone.cpu()] = outcome[leaving].cpu()
            count[gone.cpu()] = evaluations
            state = state.select(~leaving)
        if progress is not None:
            progress(max(1 - len(state.rows) / n, evaluations / max_evaluations), len(state.rows))
        if not len(state.rows):
            return SampleResult(end, status, count, count.clone(), {"value": values.cpu()})
        trial = state.z + state.step[:, None] * state.direction
        value, gradient = adapted.gradient(trial, state.rows)
        evaluations += 1
        promised = ENOUGH_DECREASE * state.step * state.slope
        usable = _finite(value, gradient)
        accept = usable & (value <= state.value + promised)
        state.advance(accept, trial, value, gradient)


class _State:
    """The samples that still move."""

    def __init__(self, rows: Tensor, z: Tensor, value: Tensor, gradient: Tensor, enough: float) -> None:
        self.rows, self.z, self.value, self.gradient, self.enough = rows, z, value, gradient, enough
        n = len(z)
        self.pairs: list[_Pair] = []  # the last of each sample, oldest first
        self.scale = z.new_zeros(n)  # of the inverse curvature, by a sample's last pair; 0 if it has none
        self.gains = z.new_full((3, n), torch.inf)  # what the last three steps brought
        self.direction, self.slope, self.step = z, value, value
        self.aim(torch.ones_like(rows, dtype=torch.bool))

    def advance(self, accept: Tensor, z: Tensor, value: Tensor, gradient: Tensor) -> None:
        """Take the steps that pay, halve the others."""
        move, change = z - self.z, gradient - self.gradient
        product, length = (move * change).sum(1), change.square().sum(1)
        # Only a pair of positive curvature keeps the next direction downhill.
        keep = accept & (product > 1e-10 * length)
        inverse = torch.where(keep, 1 / product, 0.0)
        self.remember(keep, (move, change, inverse))
        self.scale = torch.where(keep, product / length.clamp_min(1e-12), self.scale)
        gains = torch.cat([self.gains[1:], (self.value - value)[None]])
        self.gains = torch.where(accept, gains, self.gains)
        self.z, self.gradient = _new(accept, z, self.z), _new(accept, gradient, self.gradient)
        self.value = torch.where(accept, value, self.value)
        self.step = self.step / 2
        self.aim(accept)

    def remember(self, which: Tensor, pair: _Pair) -> None:
        """Add a pair to the memories of some samples; those of the others stay as they are."""
        longer = [*self.pairs, pair]
        if not bool(which.all()):
            none = (torch.zeros_like(pair[0]), torch.zeros_like(pair[1]), torch.zeros_like(pair[2]))
            longer = [
                (_new(which, new[0], old[0]), _new(which, new[1], old[1]), torch.where(which, new[2], old[2]))
                for new, old in zip(longer, [none, *self.pairs], strict=True)
            ]
        self.pairs = longer[-MEMORY:]

    def aim(self, which: Tensor) -> None:
        """A new direction for some samples: the two loops of L-BFGS."""
        direction, weights = -self.gradient, []
        for move, change, inverse in reversed(self.pairs):
            weight = inverse * (move * direction).sum(1)
            direction = torch.addcmul(direction, change, weight[:, None], value=-1)
            weights.append(weight)
        guess = FIRST_MOVE / self.gradient.norm(dim=1).clamp_min(1e-12)
        direction = direction * torch.where(self.scale > 0, self.scale, guess)[:, None]
        for (move, change, inverse), weight in zip(self.pairs, reversed(weights), strict=True):
            back = inverse * (change * direction).sum(1)
            direction = torch.addcmul(direction, move, (weight - back)[:, None])
        uphill = ~((direction * self.gradient).sum(1) < 0)
        direction = torch.where(uphill[:, None], -self.gradient * guess[:, None], direction)
        size = direction.norm(dim=1).clamp_min(1e-12)
        length = size if self.enough <= 0 else self.distance(-(direction * self.gradient).sum(1) / size)
        direction = direction * (length.clamp_max(LONGEST_MOVE) / size)[:, None]
        self.direction = _new(which, direction, self.direction)
        self.slope = torch.where(which, (direction * self.gradient).sum(1), self.slope)
        self.step = torch.where(which, torch.ones_like(self.step), self.step)

    def distance(self, descent: Tensor) -> Tensor:
        """How far it is to where the query holds with enough probability, if its log-odds are linear in z.

        That is Newton's method for one equation: log-odds -log(exp(e) - 1) have the slope -1 / (1 - exp(-e)).

        Args:
            descent: what a step of unit length brings, (n,), at least 0.
        """
        e = self.value.clamp_min(self.enough)
        lacking = e + torch.log1p(-torch.exp(-e)) - math.log(math.expm1(AIM * self.enough))
        return lacking * -torch.expm1(-e) / descent.clamp_min(1e-12)

    def outcome(self, tolerance: float) -> Tensor:
        """A status for each sample, or that it goes on."""
        flat = -self.slope * self.step < 1e-3 * tolerance  # not even a straight slope would bring anything
        done = (self.gains.sum(0) < tolerance) | flat | (self.value <= self.enough)
        finite = _finite(self.value, self.gradient)
        return torch.where(finite, torch.where(done, Status.OK, _MOVING), Status.NON_FINITE)

    def select(self, which: Tensor) -> _State:
        for name in ("rows", "z", "value", "gradient", "scale", "direction", "slope", "step"):
            setattr(self, name, getattr(self, name)[which])
        self.gains = self.gains[:, which]
        self.pairs = [(move[which], change[which], inverse[which]) for move, change, inverse in self.pairs]
        return self


def _new(which: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Rows of `new` where `which` says so, else of `old`; mostly it says so of all, and nothing is copied."""
    return new if bool(which.all()) else torch.where(which[:, None], new, old)


def _finite(value: Tensor, gradient: Tensor) -> Tensor:
    """Where both are; a norm takes a tenth of the time that a look at each number does."""
    return torch.isfinite(value) & torch.isfinite(gradient.norm(dim=1))
