"""Proposals for the posterior of a rare query, by sequential Monte Carlo on a surrogate of the energy.

A surrogate E_s(v) sees z through a few numbers, v = Qz. Particles of `N(v; 0, I) exp(-λ E_s(v))` are made by sequential
Monte Carlo (Del Moral, Doucet and Jasra 2006), the same in every run; every `SAMPLES_OF_A_SET` samples have a set of
their own. A proposal is one of them, moved on by random numbers of its own, with the rest of z from the prior. Its
weight `exp(-λ E(z)) / exp(-λ E_s(v))` makes rejection and importance sampling follow the posterior of E itself, however
wrong the surrogate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.random import RandomStreams, normals
from energyql.numerics.shapes import Float
from energyql.sampling.base import Batch, SurrogateEnergy, effective_samples, evaluate_points

ANCESTORS, FIRST_PARTICLES = 4096, 131_072
"""Number of particles that are chosen and moved in a stage, and of the draws from the prior among which the first are
chosen. All states on the way of a move are particles of the next stage (Dau and Chopin 2022, "Waste-free sequential
Monte Carlo", arXiv 2011.02328)."""
LEAST_EFFECTIVE = 0.5
"""Effective share of the particles by their weights that a stage keeps: how fast the exponent rises."""
ANGLES = (0.9, 0.5, 0.3)
"""Lengths of the moves of a particle, in radians: v becomes v cos + (a draw from the prior) sin."""
OWN_SWEEPS, FEW_SWEEPS = 4, 1
"""Moves at all angles by which a proposal leaves its particle; and where the surrogate is not trusted, so that
proposals are only starts of a descent."""
SAMPLES_OF_A_SET, SETS = 2048, 1 << 32
"""Samples that share their particles, by their number in the run, and how many sets there are until the first comes
again. Particles are worth some thousands of independent draws, and shared by many more samples they would keep these
from coming nearer to the posterior."""
SWEEPS, MOST_STAGES = 3, 100
"""Moves at all angles in a stage, and stages until the exponent jumps to the end."""
TRIALS, MORE_TRIALS, PROMISING = 256, 768, 0.15
"""Proposals that are evaluated to learn how good they are, which belong to no sample; and how many more where the first
satisfy the query in that share. A few hundred do not show how heavy the largest weights are."""
FORGONE, MOST_COST = 0.01, 16.0
"""Share of the posterior's mass, by the trials, that rejection may lose where weights are cut off at a ceiling. It may
lose more where a sample would take more than so many proposals on average; `lost` says how much."""
MOST_LOST = 0.5
"""Share from which on the surrogate is not trusted."""
TEMPERS = (0.25, 0.5)
"""Exponents of the surrogate's posterior, tried until one is promising and loses no more than `FORGONE`. A flat one
covers better what the surrogate takes for unlikely, but may seldom satisfy the query."""


class Particles(NamedTuple):
    """Equally weighted draws from `N(v; 0, I) exp(-λ E_s(v))`.

    Attributes:
        v: the draws.
        energies: λ E_s of each, in nats.
    """

    v: Float[Tensor, "particles r"]
    energies: Float[Tensor, " particles"]

    def moves(self, energy: Callable[[Tensor], Tensor], draws: Tensor) -> Iterator[Particles]:
        """Yield the state after a Metropolis move at each of `ANGLES`, which leaves `N(v; 0, I) exp(-energy)` as it is.

        By the random walk of Neal (1998, "Regression and classification using Gaussian process priors", equation 15),
        which leaves the prior as it is. `draws`, as many for each particle as `draws_of_a_move` says, are from N(0, 1).
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
        """Return the last state of as many `moves` as there are draws for."""
        state = self
        for some in draws.split(draws_of_a_move(self.v.shape[1]), 1):
            *_, state = state.moves(energy, some)
        return state


def draws_of_a_move(r: int) -> int:
    """Return how many random numbers a call of `Particles.moves` takes for each particle."""
    return len(ANGLES) * (r + 1)


def anneal_particles(
    particles: Particles, exponent: float, energy: Callable[[Tensor], Tensor], draws: Iterable[Tensor],
    effective: float,
) -> tuple[Particles, float, float]:  # fmt: skip
    """Take one stage of sequential Monte Carlo: raise the exponent, choose particles by their weights, and move them.

    Args:
        particles: equally weighted draws from `N(v; 0, I) exp(-exponent E(v))`, of which `energies` are E in nats.
        exponent: from 0 to below 1.
        energy: E of v, (particles, r), in nats.
        draws: from N(0, 1), for each sweep of moves (ANCESTORS, `draws_of_a_move(r)`).
        effective: number of particles that must be effective by their weights at the new exponent. With 0 it is 1.

    Returns:
        Equally weighted draws at the new exponent, as many as there are moves; that exponent, at most 1; and the
        logarithm of the mean weight, by which the mass of the density rises.
    """
    energies = particles.energies.cpu().double()
    risen = _exponent(energies, exponent, effective)
    log_weights = (exponent - risen) * energies
    log_mass = torch.logsumexp(log_weights, 0).item() - math.log(len(energies))
    levels = (torch.arange(ANCESTORS, dtype=torch.double) + 0.5) / ANCESTORS
    chosen = torch.searchsorted(torch.softmax(log_weights, 0).cumsum(0), levels)
    chosen = chosen.clamp(max=len(energies) - 1).to(particles.v.device)
    state = Particles(particles.v[chosen], risen * particles.energies[chosen])
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
    """Make a set of particles of a surrogate at strength λ; those of another number are independent.

    Beside them comes an estimate of the logarithm of the integral of `N(v; 0, I) exp(-λ E_s(v))`, log P of the query by
    the surrogate.
    """
    basis = surrogate.basis
    r = len(basis)

    def random(count: int, width: int, name: str) -> Tensor:
        return normals(0, number * count, count, width, stream=f"particles/{name}").to(basis.device, dtype)

    v = random(FIRST_PARTICLES, r, "first")
    found = Particles(v, strength * torch.cat([surrogate(some) for some in v.split(ANCESTORS)]))
    reached, stage, log_mass = 0.0, 0, 0.0
    while reached < 1:
        draws = [random(ANCESTORS, draws_of_a_move(r), f"{stage}/{sweep}") for sweep in range(SWEEPS)]
        wanted = 0 if stage == MOST_STAGES else ANCESTORS if stage == 0 else LEAST_EFFECTIVE * len(found.v)
        found, reached, risen = anneal_particles(found, reached, lambda v: strength * surrogate(v), draws, wanted)
        log_mass += risen
        stage += 1
    return found, log_mass


def _exponent(energies: Float[Tensor, " particles"], reached: float, wanted: float) -> float:
    """Return the largest exponent up to 1 at which as many particles as wanted are effective, by their weights."""

    def enough(exponent: float) -> bool:
        return effective_samples((reached - exponent) * energies) >= wanted

    if enough(1.0):
        return 1.0
    low, high = reached, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    return low


class _Quality(NamedTuple):
    """What trials say of proposals from a surrogate at some strength; see `SurrogateProposals`."""

    strength: float
    satisfied: float
    lost: float
    ceiling: float
    cost: float

    @classmethod
    def of(cls, strength: float, log_weights: Float[Tensor, " trials"], probabilities: Tensor) -> _Quality:
        """Choose the ceiling for proposals of these weights."""
        largest = log_weights.max().nan_to_num(neginf=0.0)
        weights = (log_weights - largest).exp().sort().values
        kept = torch.minimum(weights, weights[:, None]).mean(1)  # a row for each weight as the ceiling
        total = weights.mean().clamp(min=1e-300)
        enough, cheap = kept >= (1 - FORGONE) * total, weights <= MOST_COST * kept
        at = min(int((~enough).sum()), max(0, int(cheap.sum()) - 1))
        lost = 1 - (kept[at] / total).item()
        at = at if lost <= MOST_LOST else -1  # nothing that the trials have seen is cut off
        ceiling = (weights[at].clamp(min=1e-300).log() + largest).item()
        cost = (weights[at] / kept[at].clamp(min=1e-300)).item()
        return cls(strength, probabilities.mean().item(), lost, ceiling, cost)


class SurrogateProposals:
    """Draws from where a surrogate of the batch's energy is low.

    Args:
        batch: whose energy has a surrogate.
        strength: λ.

    Attributes:
        ceiling: see `Proposals`.
        satisfied: mean of exp(-λE) of the trials.
        lost: share of the posterior's mass, by the trials, in weights above the ceiling, if it is trusted.
        trusted: whether rejection with these proposals gives draws from the posterior, nearly.
        cost: expected number of proposals until one is accepted.
    """

    def __init__(self, batch: Batch, strength: float) -> None:
        assert batch.energy.surrogate is not None
        self._surrogate = batch.energy.surrogate()
        self._sweeps = OWN_SWEEPS
        found: list[_Quality] = []
        for temper in TEMPERS:
            self._strength = temper * strength
            log_weights, probabilities = self._try(batch, strength, TRIALS, "trials")
            if probabilities.mean() >= PROMISING:
                more = self._try(batch, strength, MORE_TRIALS, "more trials")
                log_weights, probabilities = torch.cat([log_weights, more[0]]), torch.cat([probabilities, more[1]])
            found.append(_Quality.of(self._strength, log_weights, probabilities))
            if found[-1].lost <= FORGONE and found[-1].satisfied >= PROMISING:
                break
        best = min(found, key=lambda one: (one.satisfied < PROMISING, max(one.lost, FORGONE), one.cost))
        self._strength, self.satisfied, self.lost, self.ceiling, self.cost = best
        self.trusted = self.lost <= MOST_LOST
        self._sweeps = OWN_SWEEPS if self.trusted else FEW_SWEEPS

    def _try(self, batch: Batch, strength: float, count: int, stream: str) -> tuple[Tensor, Tensor]:
        """Return the logarithms of the weights of proposals, and exp(-λE) of each, (count,) float64."""
        trials = Batch.start(batch.energy, batch.z.new_zeros(count, batch.z.shape[1]), RandomStreams().part(stream))
        z, ratios = self.draw(trials, trials.rows, torch.zeros_like(trials.rows)[:, None], 1)
        energies = strength * evaluate_points(batch.energy, z, torch.full_like(trials.rows, -batch.noise.start))
        log_weights, probabilities = ratios - energies, torch.exp(-energies).clamp(max=1)
        return log_weights[:, 0].cpu().double(), probabilities[:, 0].cpu().double()

    def _energy(self, v: Tensor) -> Tensor:
        """Return λE_s of v; a row of the result depends on its own row alone."""
        return in_batches(lambda part: (self._strength * self._surrogate(part),), v, few_sizes(len(v)))[0]

    def _starts(self, first: int, rows: Tensor, place: Tensor) -> tuple[Particles, Tensor]:
        """Return a particle for each of the rows, ascending, of the set of the sample `first` + row of the run.

        Beside them comes the estimate of each one's set. The place in the set is given as a draw from N(0, 1).
        """
        before, inside = divmod(first, SAMPLES_OF_A_SET)
        numbers, sizes = torch.unique_consecutive((inside + rows) // SAMPLES_OF_A_SET, return_counts=True)
        v, energies, masses = list[Tensor](), list[Tensor](), list[float]()
        for number, places in zip(numbers.tolist(), place.split(sizes.tolist()), strict=True):
            found, log_mass = particles_of(self._surrogate, self._strength, place.dtype, (before + number) % SETS)
            chosen = (torch.special.ndtr(places) * len(found.v)).long().clamp(max=len(found.v) - 1)
            v.append(found.v[chosen])
            energies.append(found.energies[chosen])
            masses.append(log_mass)
        return Particles(torch.cat(v), torch.cat(energies)), place.new_tensor(masses).repeat_interleave(sizes)

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """See `Proposals`."""
        z_dim, r = batch.z.shape[1], len(self._surrogate.basis)
        widths = [z_dim, 1, self._sweeps * draws_of_a_move(r)]
        like = batch.z.new_empty(1).expand(len(batch.z), sum(widths))
        drawn = batch.noise.several_normals(like, "surrogate", rows, numbers, of).flatten(0, 1)
        rest, place, draws = drawn.split(widths, 1)
        start, masses = self._starts(batch.noise.start, rows.repeat_interleave(numbers.shape[1]), place[:, 0])
        found = start.moved(self._energy, draws)
        z = self._surrogate.lift(found.v, rest)
        return z.view(*numbers.shape, z_dim), (found.energies + masses).view(numbers.shape)
