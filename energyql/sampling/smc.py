"""Proposals for the posterior of a rare query, by sequential Monte Carlo on a surrogate of the energy.

A surrogate E_s(v) depends on a few coordinates of z, v = Qz. Draws from `N(v; 0, I) exp(-λ E_s(v))`, called particles,
are made by sequential Monte Carlo (Del Moral, Doucet and Jasra 2006), the same in every run; every `SAMPLES_OF_A_SET`
samples share a set of particles. A proposal is a particle, moved by random numbers of its own, with the rest of z from
the prior. With the weights `exp(-λ E(z)) / exp(-λ E_s(v))` rejection and importance sampling follow the posterior of E,
even if the surrogate is wrong.
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

ANCESTORS = 4096
"""Number of particles that are chosen and moved in a stage. The states after each move are particles of the next stage
(Dau and Chopin 2022, "Waste-free sequential Monte Carlo", arXiv 2011.02328)."""
FIRST_PARTICLES = 131_072
"""Number of draws from the prior, the particles of the first stage."""
LEAST_EFFECTIVE = 0.5
"""Effective share of the particles, by their weights, at the next exponent, which is chosen by it."""
ANGLES = (0.9, 0.5, 0.3)
"""Lengths of the moves of a particle, in radians: v becomes v cos + (a draw from the prior) sin."""
OWN_SWEEPS = 4
"""Sweeps (a move at each angle) from a particle to a proposal."""
FEW_SWEEPS = 1
"""The same if the surrogate is not trusted, so that proposals are only starts of a descent."""
SAMPLES_OF_A_SET = 2048
"""Successive samples of a run that share a set of particles. A set is worth some thousands of independent draws; many
more samples that share it would not follow the posterior more closely."""
SETS = 1 << 32
"""Number of different sets; later samples use the first sets again."""
SWEEPS = 3
"""Sweeps (a move at each angle) in a stage."""
MOST_STAGES = 100
"""Stages after which the exponent is set to 1."""
TRIALS, MORE_TRIALS, PROMISING = 256, 768, 0.15
"""Number of trials: proposals of no sample, by which the proposals are assessed; and number of further trials if the
first satisfy the query in the share `PROMISING`. A few hundred do not show how heavy the largest weights are."""
FORGONE, MOST_COST = 0.01, 16.0
"""Share of the posterior's mass, by the trials, that may be lost because weights are cut off at a ceiling. More may be
lost so that a sample needs at most `MOST_COST` proposals on average; see `SurrogateProposals.lost`."""
MOST_LOST = 0.5
"""Lost share above which the surrogate is not trusted."""
TEMPERS = (0.25, 0.5)
"""Factors of λ for the surrogate, tried in order until one is promising and loses at most `FORGONE`. A small one covers
better the latents that the surrogate wrongly rates as unlikely, but its proposals satisfy the query less often."""


class Particles(NamedTuple):
    """Equally weighted draws from `N(v; 0, I) exp(-λ E_s(v))`.

    Attributes:
        v: the draws.
        energies: λ E_s of each, in nats.
    """

    v: Float[Tensor, "particles r"]
    energies: Float[Tensor, " particles"]

    def moves(self, energy: Callable[[Tensor], Tensor], draws: Tensor) -> Iterator[Particles]:
        """Yield the particles after a Metropolis move at each of `ANGLES`; the moves keep `N(v; 0, I) exp(-energy)`.

        The random walk leaves the prior invariant (Neal 1998, "Regression and classification using Gaussian process
        priors", equation 15). `draws` are from N(0, 1), (particles, draws_of_a_move(r)).
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
        """Return the particles after several calls of `moves`; `draws` holds those of all calls side by side."""
        state = self
        for some in draws.split(draws_of_a_move(self.v.shape[1]), 1):
            *_, state = state.moves(energy, some)
        return state


def draws_of_a_move(r: int) -> int:
    """Return the number of random numbers that a call of `Particles.moves` uses for each particle."""
    return len(ANGLES) * (r + 1)


def anneal_particles(
    particles: Particles, exponent: float, energy: Callable[[Tensor], Tensor], draws: Iterable[Tensor],
    effective: float,
) -> tuple[Particles, float, float]:  # fmt: skip
    """Take one stage of sequential Monte Carlo: raise the exponent, choose particles by their weights, and move them.

    Args:
        particles: equally weighted draws from `N(v; 0, I) exp(-exponent E(v))`, of which `energies` are E in nats.
        exponent: exponent before the stage, from 0 to below 1.
        energy: E of v, (particles, r), in nats.
        draws: for each sweep of moves, numbers from N(0, 1), (ANCESTORS, `draws_of_a_move(r)`).
        effective: least effective number of particles, by their weights, at the new exponent; 0 for the exponent 1.

    Returns:
        Equally weighted draws at the new exponent, `ANCESTORS` for each move; that exponent, at most 1; and the
        logarithm of the mean weight, the change in the logarithm of the mass of the density.
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
    """Make set `number` of particles of a surrogate at strength λ; different sets are independent.

    Returns:
        The particles, and an estimate of the logarithm of the integral of `N(v; 0, I) exp(-λ E_s(v))`: log P of the
        query by the surrogate.
    """
    basis = surrogate.basis
    r = len(basis)

    def random(count: int, width: int, name: str) -> Tensor:
        return normals(0, number * count, count, width, stream=f"particles/{name}").to(basis.device, dtype)

    v = random(FIRST_PARTICLES, r, "first")
    particles = Particles(v, strength * torch.cat([surrogate(some) for some in v.split(ANCESTORS)]))
    reached, stage, log_mass = 0.0, 0, 0.0
    while reached < 1:
        draws = [random(ANCESTORS, draws_of_a_move(r), f"{stage}/{sweep}") for sweep in range(SWEEPS)]
        least = 0 if stage == MOST_STAGES else ANCESTORS if stage == 0 else LEAST_EFFECTIVE * len(particles.v)
        particles, reached, rise = anneal_particles(particles, reached, lambda v: strength * surrogate(v), draws, least)
        log_mass += rise
        stage += 1
    return particles, log_mass


def _exponent(energies: Float[Tensor, " particles"], reached: float, least: float) -> float:
    """Return the largest exponent up to 1 at which the effective number of particles is at least `least`.

    They are equally weighted at the exponent `reached`.
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
    """Estimates for proposals from a surrogate at `strength`, from trials; see `SurrogateProposals` for the fields."""

    strength: float
    satisfied: float
    lost: float
    ceiling: float
    cost: float

    @classmethod
    def of(cls, strength: float, log_weights: Float[Tensor, " trials"], probabilities: Tensor) -> _Quality:
        """Choose the ceiling for proposals of these weights; `probabilities` are exp(-λE) of the trials."""
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
    """`Proposals` from the posterior of a surrogate of the batch's energy.

    Args:
        batch: samples, with an energy that has a surrogate.
        strength: λ.

    Attributes:
        ceiling: see `Proposals`.
        satisfied: mean of exp(-λE) of the trials.
        lost: share of the posterior's mass, by the trials, in weights above the ceiling of a trusted surrogate.
        trusted: whether that share is at most `MOST_LOST`, so that rejection nearly gives draws from the posterior.
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
        """Return log-weights and exp(-λE) of `count` proposals, which belong to no sample, both (count,) float64."""
        trials = Batch.start(batch.energy, batch.z.new_zeros(count, batch.z.shape[1]), RandomStreams().part(stream))
        z, ratios = self.draw(trials, trials.rows, torch.zeros_like(trials.rows)[:, None], 1)
        energies = strength * evaluate_points(batch.energy, z, torch.full_like(trials.rows, -batch.noise.start))
        log_weights, probabilities = ratios - energies, torch.exp(-energies).clamp(max=1)
        return log_weights[:, 0].cpu().double(), probabilities[:, 0].cpu().double()

    def _energy(self, v: Tensor) -> Tensor:
        """Return λE_s of v; a row of the result depends on its own row alone."""
        return in_batches(lambda part: (self._strength * self._surrogate(part),), v, few_sizes(len(v)))[0]

    def _starts(self, first: int, rows: Tensor, place: Tensor) -> tuple[Particles, Tensor]:
        """Return a particle for each of the rows, and the estimate of `particles_of` for its set, (rows,).

        The set is that of sample `first` + row of the run; rows are ascending. `place` holds a draw from N(0, 1) for
        each row, which selects the particle.
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
        return Particles(torch.cat(v), torch.cat(energies)), place.new_tensor(masses).repeat_interleave(sizes)

    def draw(self, batch: Batch, rows: Tensor, numbers: Tensor, of: int) -> tuple[Tensor, Tensor]:
        """See `Proposals`."""
        z_dim, r = batch.z.shape[1], len(self._surrogate.basis)
        widths = [z_dim, 1, self._sweeps * draws_of_a_move(r)]
        like = batch.z.new_empty(1).expand(len(batch.z), sum(widths))
        normal = batch.noise.several_normals(like, "surrogate", rows, numbers, of).flatten(0, 1)
        rest, place, draws = normal.split(widths, 1)
        start, masses = self._starts(batch.noise.start, rows.repeat_interleave(numbers.shape[1]), place[:, 0])
        end = start.moved(self._energy, draws)
        z = self._surrogate.lift(end.v, rest)
        return z.view(*numbers.shape, z_dim), (end.energies + masses).view(numbers.shape)
