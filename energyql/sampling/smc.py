"""Proposals for the posterior of a rare query, by sequential Monte Carlo on a cheap approximation of the energy.

The approximation E_s(v), called surrogate, depends only on v, the coordinates of z along a few directions. Draws from
`N(v; 0, I) exp(-λ E_s(v))`, called particles, are made by sequential Monte Carlo (Del Moral, Doucet and Jasra 2006). A
proposal for a sample is a particle, moved by random numbers of the sample, with all other coordinates of z from the
prior. With the weights `exp(-λ E(z)) / exp(-λ E_s(v))`, rejection follows the posterior of E even if the surrogate is
wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pool import to_cpu
from energyql.numerics.random import RandomStreams, normals
from energyql.numerics.shapes import Float
from energyql.sampling.base import Batch, SurrogateEnergy, evaluate_points
from energyql.sampling.rejection import Proposed
from energyql.sampling.weights import (
    cumulative_shares,
    effective_samples,
    log_mean,
    proposal_weights,
    raised_weights,
)

ANCESTORS = 4096
"""Number of particles that are chosen and moved in a stage; those after each move, together, are the next particles
(Dau and Chopin 2022, "Waste-free sequential Monte Carlo", arXiv 2011.02328)."""
FIRST_PARTICLES = 131_072
"""Number of particles of the first stage; they are draws from the prior."""
LEAST_EFFECTIVE = 0.5
"""Least effective number of particles, as a fraction of all, after a rise of the exponent in a stage but the first."""
ANGLES = (0.9, 0.5, 0.3)
"""Angles a of the moves of a particle, v cos a + d sin a, in radians; a sweep has one move at each."""
OWN_SWEEPS = 4
"""Number of sweeps by which a particle is moved before it is proposed to a sample."""
FEW_SWEEPS = 1
"""The same for a surrogate that is not good enough for rejection, so that a descent follows anyway."""
SAMPLES_OF_A_SET = 2048
"""Number of successive samples of a run that use the same set of particles."""
SETS = 1 << 32
"""Number of different sets of particles; after so many sets, samples use the first sets again."""
SWEEPS = 3
"""Number of sweeps in a stage."""
MOST_STAGES = 100
"""Largest number of stages before the last one, in which the exponent becomes 1."""
TRIALS, MORE_TRIALS, PROMISING = 256, 768, 0.15
"""A surrogate is assessed by `TRIALS` proposals, and by `MORE_TRIALS` more if the share `PROMISING` of them satisfies
the query, to see how large the largest weights are."""
FORGONE, MOST_COST = 0.01, 16.0
"""The ceiling at which weights are cut off is chosen so that the share `FORGONE` of the posterior's mass is lost, or
more, if a sample would need more than `MOST_COST` proposals on average."""
MOST_LOST = 0.5
"""Largest lost share of the posterior's mass with which proposals of the surrogate are used for exact draws."""
TEMPERS = (0.25, 0.5)
"""Factors of λ for the surrogate, tried in order until trials satisfy the query often enough (`PROMISING`) and little
mass is lost (`FORGONE`). A small factor finds more where the surrogate's energy is wrongly high, but satisfies less
often."""


class Particles(NamedTuple):
    """Draws v of equal weight from `N(v; 0, I) exp(-λ E_s(v))`, and λ E_s of each, in nats; E_s is a surrogate."""

    v: Float[Tensor, "particles r"]
    energies: Float[Tensor, " particles"]

    def moves(self, energy: Callable[[Tensor], Tensor], draws: Tensor) -> Iterator[Particles]:
        """Move all particles once at each angle of `ANGLES`, and yield them after every move.

        The Metropolis moves leave `N(v; 0, I) exp(-energy(v))` unchanged, and their proposals the prior (Neal 1998,
        "Regression and classification using Gaussian process priors", equation 15). `draws` are from N(0, 1),
        (particles, `draws_of_a_move(r)`).
        """
        v, energies = self.v, self.energies
        directions, chances = draws.split([len(ANGLES) * v.shape[1], len(ANGLES)], 1)
        levels = torch.special.log_ndtr(chances)  # the logarithm of a uniform number
        for k, angle in enumerate(ANGLES):
            trial = v * math.cos(angle) + directions[:, k * v.shape[1] : (k + 1) * v.shape[1]] * math.sin(angle)
            there = energy(trial)
            accept = levels[:, k] < energies - there
            v, energies = torch.where(accept[:, None], trial, v), torch.where(accept, there, energies)
            yield Particles(v, energies)

    def moved(self, energy: Callable[[Tensor], Tensor], draws: Tensor) -> Particles:
        """Return the particles after several sweeps of `moves`, whose `draws` are side by side."""
        state = self
        for some in draws.split(draws_of_a_move(self.v.shape[1]), 1):
            *_, state = state.moves(energy, some)
        return state


def draws_of_a_move(r: int) -> int:
    """Number of random numbers that `Particles.moves` uses for each particle of `r` coordinates."""
    return len(ANGLES) * (r + 1)


def anneal_particles(
    particles: Particles, exponent: float, energy: Callable[[Tensor], Tensor], draws: Iterable[Tensor],
    effective: float,
) -> tuple[Particles, float, float]:  # fmt: skip
    """Take one stage of sequential Monte Carlo: raise the exponent, choose particles by weight, and move them.

    The exponent is the factor of the energy E in the density `N(v; 0, I) exp(-exponent E(v))`.

    Args:
        particles: draws of equal weight from this density; their `energies` are E(v), in nats.
        exponent: exponent before the stage, at least 0 and below 1.
        draws: for each sweep (one move at each angle), draws from N(0, 1), (4096, 3 (r + 1)).
        effective: least effective number of particles at the new exponent; with 0, this becomes 1.

    Returns:
        Draws of equal weight from the density at the new exponent, this exponent (at most 1), and the rise of the
        logarithm of the density's integral.
    """
    energies = particles.energies.cpu().double()
    risen = _exponent(energies, exponent, effective)
    log_weights = raised_weights(energies, exponent, risen)
    log_mass = log_mean(log_weights).item()
    levels = (torch.arange(ANCESTORS, dtype=torch.double) + 0.5) / ANCESTORS
    ancestors = torch.searchsorted(cumulative_shares(log_weights), levels)
    ancestors = ancestors.clamp(max=len(energies) - 1).to(particles.v.device)
    state = Particles(particles.v[ancestors], risen * particles.energies[ancestors])
    states: list[Particles] = []
    for some in draws:
        states += state.moves(lambda v: risen * energy(v), some)
        state = states[-1]
    joined = torch.cat([one.energies for one in states])
    return Particles(torch.cat([one.v for one in states]), joined / risen), risen, log_mass


@lru_cache(maxsize=4)  # 0.15 MB for each number of v; a long run fills it with sets that do not come again
@torch.no_grad()
def particles_of(
    surrogate: SurrogateEnergy, strength: float, dtype: torch.dtype, number: int = 0
) -> tuple[Particles, float]:
    """Make a set of particles, the same in every run, and estimate log ∫ N(v; 0, I) exp(-λ E_s(v)) dv, in nats.

    For λ = 1, this approximates log P(query). Sets of different `number` are independent.
    """
    basis = surrogate.basis
    r = len(basis)

    def random(count: int, width: int, name: str) -> Tensor:
        return normals(0, number * count, count, width, stream=f"particles/{name}").to(basis.device, dtype)

    v = random(FIRST_PARTICLES, r, "first")
    together = ANCESTORS if v.device.type == "cpu" else FIRST_PARTICLES
    particles = Particles(v, strength * torch.cat([surrogate(some) for some in v.split(together)]))
    reached, stage, log_mass = 0.0, 0, 0.0
    while reached < 1:
        draws = [random(ANCESTORS, draws_of_a_move(r), f"{stage}/{sweep}") for sweep in range(SWEEPS)]
        least = 0 if stage == MOST_STAGES else ANCESTORS if stage == 0 else LEAST_EFFECTIVE * len(particles.v)
        particles, reached, rise = anneal_particles(particles, reached, lambda v: strength * surrogate(v), draws, least)
        log_mass += rise
        stage += 1
    return particles, log_mass


def _exponent(energies: Float[Tensor, " particles"], reached: float, least: float) -> float:
    """Largest exponent, at most 1, with an effective number of `least`, if weights are equal at `reached`."""

    def enough(exponent: float) -> bool:
        return effective_samples(raised_weights(energies, reached, exponent)) >= least

    if enough(1.0):
        return 1.0
    low, high = reached, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


class _Quality(NamedTuple):
    """Estimates, from trial proposals, of how good proposals by a surrogate are; see `SurrogateProposals`."""

    strength: float
    satisfied: float
    lost: float
    ceiling: float
    cost: float

    @classmethod
    def of(cls, strength: float, log_weights: Float[Tensor, " trials"], probabilities: Tensor) -> _Quality:
        """Choose the ceiling of weights by `FORGONE` and `MOST_COST`, and estimate the rest."""
        largest = log_weights.max().nan_to_num(neginf=0.0)
        weights = (log_weights - largest).exp().sort().values
        below = torch.minimum(weights, weights[:, None]).mean(1)  # mass below the ceiling, for each weight as ceiling
        total = weights.mean().clamp(min=1e-300)
        enough, cheap = below >= (1 - FORGONE) * total, weights <= MOST_COST * below
        at = min(int((~enough).sum()), max(0, int(cheap.sum()) - 1))
        lost = 1 - (below[at] / total).item()
        at = at if lost <= MOST_LOST else -1  # no weight of the trials is cut off
        ceiling = (weights[at].clamp(min=1e-300).log() + largest).item()
        cost = (weights[at] / below[at].clamp(min=1e-300)).item()
        return cls(strength, probabilities.mean().item(), lost, ceiling, cost)


class SurrogateProposals:
    """Proposals for rejection from the posterior of a surrogate, assessed by trial proposals that belong to no sample.

    Attributes:
        ceiling: logarithm of the weight from which proposals are always accepted; see `Proposals`.
        satisfied: mean of exp(-λE) over the trials, about the share of proposals that satisfy the query.
        lost: share of the posterior's mass that is lost because weights above the ceiling count as the ceiling. A lower
            ceiling needs fewer proposals, but loses more.
        trusted: whether `lost` is at most 0.5, so that accepted proposals are nearly draws from the posterior; if not,
            the ceiling is the largest weight of the trials.
        cost: expected number of proposals until one is accepted.
    """

    def __init__(self, batch: Batch, strength: float) -> None:
        assert batch.energy.surrogate is not None
        self._surrogate = batch.energy.surrogate()
        self._sweeps = OWN_SWEEPS
        tries: list[_Quality] = []
        for temper in TEMPERS:
            self._strength = temper * strength
            log_weights, probabilities = self._try(batch, strength, TRIALS, "trials")
            if probabilities.mean() >= PROMISING:
                more = self._try(batch, strength, MORE_TRIALS, "more trials")
                log_weights, probabilities = torch.cat([log_weights, more[0]]), torch.cat([probabilities, more[1]])
            tries.append(_Quality.of(self._strength, log_weights, probabilities))
            if tries[-1].lost <= FORGONE and tries[-1].satisfied >= PROMISING:
                break
        best = min(tries, key=lambda one: (one.satisfied < PROMISING, max(one.lost, FORGONE), one.cost))
        self._strength, self.satisfied, self.lost, self.ceiling, self.cost = best
        self.trusted = self.lost <= MOST_LOST
        self._sweeps = OWN_SWEEPS if self.trusted else FEW_SWEEPS

    def _try(self, batch: Batch, strength: float, count: int, stream: str) -> tuple[Tensor, Tensor]:
        """Draw trial proposals that belong to no sample; return log-weights and exp(-λE), both (count,) float64."""
        trials = Batch.start(batch.energy, batch.z.new_zeros(count, batch.z.shape[1]), RandomStreams().part(stream))
        z, ratios = self.draw(trials, torch.arange(count), torch.zeros(count, 1, dtype=torch.int64), 1)
        energies = evaluate_points(batch.energy, z, torch.full_like(trials.rows, -batch.noise.start))
        weights = proposal_weights(energies, ratios, strength)
        log_weights, probabilities = to_cpu([weights, torch.exp(-strength * energies).clamp(max=1)])
        return log_weights[:, 0].double(), probabilities[:, 0].double()

    def _energy(self, v: Tensor) -> Tensor:
        """λ E_s(v); row i depends only on row i of v, to the last bit, so that samples do not depend on their batch."""
        return in_batches(lambda part: (self._strength * self._surrogate(part),), v, few_sizes(len(v)))[0]

    def _starts(self, first: int, rows: Tensor, place: Tensor) -> tuple[Particles, Tensor]:
        """Choose a particle for each proposal by `place`, from N(0, 1); also return its set's log-integral."""
        before, inside = divmod(first, SAMPLES_OF_A_SET)
        numbers, sizes = torch.unique_consecutive((inside + rows) // SAMPLES_OF_A_SET, return_counts=True)
        v, energies, masses = list[Tensor](), list[Tensor](), list[float]()
        for number, places in zip(numbers.tolist(), place.split(sizes.tolist()), strict=True):
            particles, log_mass = particles_of(self._surrogate, self._strength, place.dtype, (before + number) % SETS)
            picks = (torch.special.ndtr(places) * len(particles.v)).long().clamp(max=len(particles.v) - 1)
            v.append(particles.v[picks])
            energies.append(particles.energies[picks])
            masses.append(log_mass)
        each = torch.tensor(masses, dtype=place.dtype).repeat_interleave(sizes).to(place.device)
        return Particles(torch.cat(v), torch.cat(energies)), each

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> Proposed:
        """See `Proposals.draw`."""
        z_dim, r = batch.z.shape[1], len(self._surrogate.basis)
        widths = [z_dim, 1, self._sweeps * draws_of_a_move(r)]
        like = batch.z.new_empty(1).expand(len(batch.z), sum(widths))
        normal = batch.noise.several_normals(like, "surrogate", rows, numbers, of).flatten(0, 1)
        rest, place, draws = normal.split(widths, 1)
        samples = batch.noise.offsets(rows).repeat_interleave(numbers.shape[1])
        start, masses = self._starts(batch.noise.start, samples, place[:, 0])
        end = start.moved(self._energy, draws)
        z = self._surrogate.lift(end.v, rest)
        return Proposed(z.view(*numbers.shape, z_dim), (end.energies + masses).view(numbers.shape))
