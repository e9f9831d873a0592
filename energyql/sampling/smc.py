"""Proposals for the posterior of a rare query, by sequential Monte Carlo on a cheap approximation of the energy.

The approximation E_s(v), called surrogate, depends only on v, the coordinates of z along a few directions. Draws from
`N(v; 0, I) exp(-λ E_s(v))`, called particles, are made by sequential Monte Carlo (Del Moral, Doucet and Jasra 2006).
The particles are the same in every run; 2048 (`SAMPLES_OF_A_SET`) successive samples of a run use the same set of them.

To make a proposal for a sample, a particle is moved by random numbers of the sample, and all other coordinates of z are
drawn from the prior. Proposals have the weights `exp(-λ E(z)) / exp(-λ E_s(v))`. By these weights, rejection and
importance sampling follow the posterior of the energy E, even if the surrogate is wrong.
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
from energyql.sampling.base import Batch, SurrogateEnergy, effective_samples, evaluate_points

ANCESTORS = 4096
"""Number of particles that are chosen and moved in a stage of sequential Monte Carlo. The particles after each of
several moves, together, are the particles of the next stage (Dau and Chopin 2022, "Waste-free sequential Monte Carlo",
arXiv 2011.02328)."""
FIRST_PARTICLES = 131_072
"""Number of particles of the first stage of sequential Monte Carlo; they are draws from the prior."""
LEAST_EFFECTIVE = 0.5
"""The exponent of each stage after the first is the largest at which the effective number of particles, computed from
their weights, is at least `LEAST_EFFECTIVE` times the number of particles."""
ANGLES = (0.9, 0.5, 0.3)
"""Angles a of the moves of a particle, in radians: v becomes v cos a + d sin a, where d is a draw from the prior."""
OWN_SWEEPS = 4
"""Number of sweeps by which a particle is moved before it is proposed to a sample. A sweep has one move at each of the
angles `ANGLES`."""
FEW_SWEEPS = 1
"""Number of sweeps by which a particle is moved before it is proposed to a sample, if the surrogate (the cheap
approximation of the energy) is not good enough for rejection. Then a descent follows anyway."""
SAMPLES_OF_A_SET = 2048
"""Number of successive samples of a run that use the same set of particles. A set is worth some thousands of
independent draws; many more samples from one set would not follow the posterior more closely."""
SETS = 1 << 32
"""Number of different sets of particles; after so many sets, samples use the first sets again."""
SWEEPS = 3
"""Number of sweeps in a stage of sequential Monte Carlo. A sweep has one move at each angle of `ANGLES`."""
MOST_STAGES = 100
"""Largest number of stages of sequential Monte Carlo before the last one, in which the exponent becomes 1."""
TRIALS, MORE_TRIALS, PROMISING = 256, 768, 0.15
"""`TRIALS` proposals, which belong to no sample, are made to assess a surrogate. If at least the share `PROMISING` of
them satisfies the query, `MORE_TRIALS` follow, because a few hundred do not show how large the largest weights are."""
FORGONE, MOST_COST = 0.01, 16.0
"""Weights of proposals are cut off at a ceiling, by which a part of the posterior's mass is lost. The ceiling is chosen
so that at most the share `FORGONE` is lost, or, if this needs more than `MOST_COST` proposals for a sample on average,
so that this many suffice."""
MOST_LOST = 0.5
"""If a larger share of the posterior's mass would be lost by the ceiling of weights, proposals of the surrogate are not
used for exact draws; see `SurrogateProposals.trusted`."""
TEMPERS = (0.25, 0.5)
"""Factors by which λ is multiplied for the surrogate. They are tried in order, until trial proposals satisfy the query
often enough (`PROMISING`), and at most the share `FORGONE` of the posterior's mass is lost. With a small factor, more
proposals are drawn where the surrogate's energy is wrongly high, but fewer proposals satisfy the query."""


class Particles(NamedTuple):
    """Draws of equal weight from `N(v; 0, I) exp(-λ E_s(v))`.

    E_s is a surrogate, a cheap approximation of an energy, λ is the strength by which it is multiplied, and v are the
    coordinates of z on which E_s depends.

    Attributes:
        v: the draws.
        energies: λ E_s of each draw, in nats.
    """

    v: Float[Tensor, "particles r"]
    energies: Float[Tensor, " particles"]

    def moves(self, energy: Callable[[Tensor], Tensor], draws: Tensor) -> Iterator[Particles]:
        """Move all particles several times, once at each angle of `ANGLES`, and yield them after every move.

        The moves are Metropolis moves, which leave `N(v; 0, I) exp(-energy(v))` unchanged. The proposals of the moves
        leave the prior unchanged (Neal 1998, "Regression and classification using Gaussian process priors", equation
        15).

        Args:
            energy: function from v to energies, in nats; its values at the particles are the attribute `energies`.
            draws: random numbers from N(0, 1), (particles, `draws_of_a_move(r)`), where r is the number of coordinates
                in v.
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
        """Return the particles after several sweeps of Metropolis moves. A sweep has one move for each of `ANGLES`.

        A move at the angle a proposes cos(a) v + sin(a) n for each particle, with n from N(0, I).

        Args:
            energy: function from v to energies, in nats; its values at the particles are the attribute `energies`.
            draws: random numbers from N(0, 1) for all sweeps side by side, (particles, sweeps * `draws_of_a_move(r)`),
                where r is the number of coordinates in v.
        """
        state = self
        for some in draws.split(draws_of_a_move(self.v.shape[1]), 1):
            *_, state = state.moves(energy, some)
        return state


def draws_of_a_move(r: int) -> int:
    """Return how many random numbers a call of `Particles.moves` uses for each particle.

    `r` is the number of coordinates of a particle.
    """
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
        energy: function from v, (particles, r), to E(v), in nats.
        draws: for each sweep (one move at each angle of `ANGLES`), random numbers from N(0, 1), (`ANCESTORS`,
            `draws_of_a_move(r)`), where `ANCESTORS` is the number of particles that are chosen and moved.
        effective: the new exponent is the largest at which the effective number of particles, computed from their
            weights, is at least this; with 0, the new exponent is 1.

    Returns:
        Draws of equal weight from the density at the new exponent, those after all moves together; the new exponent, at
        most 1; and the change of the logarithm of the density's integral over v.
    """
    energies = particles.energies.cpu().double()
    risen = _exponent(energies, exponent, effective)
    log_weights = (exponent - risen) * energies
    log_mass = torch.logsumexp(log_weights, 0).item() - math.log(len(energies))
    levels = (torch.arange(ANCESTORS, dtype=torch.double) + 0.5) / ANCESTORS
    ancestors = torch.searchsorted(torch.softmax(log_weights, 0).cumsum(0), levels)
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
    """Make a set of particles: draws from `N(v; 0, I) exp(-λ E_s(v))`, which are the same in every run.

    Args:
        surrogate: the energy E_s, a cheap approximation of an energy.
        strength: λ, which multiplies E_s.
        dtype: dtype of the particles.
        number: number of the set, from 0 on; sets of different numbers are independent.

    Returns:
        The particles, and an estimate of log ∫ N(v; 0, I) exp(-λ E_s(v)) dv, in nats. For λ = 1, this approximates
        log P(query).
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
    """Return the largest exponent, at most 1, at which the effective number of particles is at least `least`.

    The density of the particles is the prior times exp(-exponent * energy). Each stage raises the exponent.

    Args:
        energies: energies of the particles, in nats.
        reached: the present exponent, at which all particles have equal weights.
        least: least effective number, computed from the weights exp((reached - exponent) * energies).
    """

    def enough(exponent: float) -> bool:
        return effective_samples((reached - exponent) * energies) >= least

    if enough(1.0):
        return 1.0
    low, high = reached, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


class _Quality(NamedTuple):
    """Estimates, from trial proposals, of how good proposals by a surrogate are.

    Attributes:
        strength: λ, the factor by which the surrogate's energy is multiplied.
        satisfied: mean of exp(-λE) over the trials, by the true energy E.
        lost: share of the posterior's mass that is lost if weights above a ceiling count as the ceiling. The ceiling is
            chosen so that little is lost and few proposals are needed.
        ceiling: logarithm of this ceiling; a proposal with a weight of at least the ceiling is always accepted. But if
            `lost` is above 0.5 (`MOST_LOST`), it is the logarithm of the largest weight of the trials.
        cost: expected number of proposals until one is accepted.
    """

    strength: float
    satisfied: float
    lost: float
    ceiling: float
    cost: float

    @classmethod
    def of(cls, strength: float, log_weights: Float[Tensor, " trials"], probabilities: Tensor) -> _Quality:
        """Choose the ceiling of weights, and return all estimates.

        Args:
            strength: λ, the factor by which the surrogate's energy is multiplied.
            log_weights: logarithms of the weights of the trial proposals.
            probabilities: exp(-λE) of each trial proposal, by the true energy E.
        """
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
    """Proposals for rejection that are drawn from the posterior of a surrogate, a cheap approximation of an energy.

    When an object is made, some trial proposals, which belong to no sample, are evaluated to estimate its attributes.

    Args:
        batch: a batch whose energy has a surrogate.
        strength: strength λ of the posterior that rejection draws from.

    Attributes:
        ceiling: logarithm of a weight; proposals of this weight or more are always accepted. See `Proposals`.
        satisfied: mean of exp(-λE) over the trials, about the share of proposals that satisfy the query.
        lost: share of the posterior's mass that is lost because weights above the ceiling count as the ceiling. A
            lower ceiling needs fewer proposals, but loses more.
        trusted: whether `lost` is at most 0.5 (`MOST_LOST`). Only then accepted proposals are nearly draws from the
            posterior. If it is false, `ceiling` is the logarithm of the largest weight of the trials instead.
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
        """Draw trial proposals, which belong to no sample, and return log-weights and exp(-λE), both (count,) float64.

        E is the energy of the batch, and λ the strength by which it is multiplied.

        Args:
            batch: the batch, whose energy is evaluated.
            strength: λ, which multiplies the energy.
            count: number of trial proposals.
            stream: name of the random numbers of these proposals.
        """
        trials = Batch.start(batch.energy, batch.z.new_zeros(count, batch.z.shape[1]), RandomStreams().part(stream))
        z, ratios = self.draw(trials, torch.arange(count), torch.zeros(count, 1, dtype=torch.int64), 1)
        energies = strength * evaluate_points(batch.energy, z, torch.full_like(trials.rows, -batch.noise.start))
        log_weights, probabilities = to_cpu([ratios - energies, torch.exp(-energies).clamp(max=1)])
        return log_weights[:, 0].double(), probabilities[:, 0].double()

    def _energy(self, v: Tensor) -> Tensor:
        """Return λ E_s(v), where E_s is the surrogate and λ its strength.

        Row i of the result depends only on row i of v, to the last bit, so that samples do not depend on their batch.
        """
        return in_batches(lambda part: (self._strength * self._surrogate(part),), v, few_sizes(len(v)))[0]

    def _starts(self, first: int, rows: Tensor, place: Tensor) -> tuple[Particles, Tensor]:
        """Choose a particle for each proposal, from the set of particles that the sample of the proposal uses.

        Args:
            first: index in the run of the first sample of the batch.
            rows: for each proposal, the row of its sample in the batch, ascending, on the CPU.
            place: for each proposal, a draw from N(0, 1), which determines the particle in the set.

        Returns:
            The particles, one for each proposal; and for each proposal the log-integral that `particles_of` returns for
            the set of its particle, (rows,).
        """
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

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """Return some proposals for some samples, and log(prior density / density of proposals) at each proposal.

        The arguments are explained in `Proposals.draw`: indices of samples, and numbers of their proposals.
        """
        z_dim, r = batch.z.shape[1], len(self._surrogate.basis)
        widths = [z_dim, 1, self._sweeps * draws_of_a_move(r)]
        like = batch.z.new_empty(1).expand(len(batch.z), sum(widths))
        normal = batch.noise.several_normals(like, "surrogate", rows, numbers, of).flatten(0, 1)
        rest, place, draws = normal.split(widths, 1)
        samples = batch.noise.offsets(rows).repeat_interleave(numbers.shape[1])
        start, masses = self._starts(batch.noise.start, samples, place[:, 0])
        end = start.moved(self._energy, draws)
        z = self._surrogate.lift(end.v, rest)
        return z.view(*numbers.shape, z_dim), (end.energies + masses).view(numbers.shape)
