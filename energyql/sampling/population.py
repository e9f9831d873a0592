"""Draws near the posterior `N(z; 0, I) exp(-λ E(z))` for energies that are costly to evaluate, without a gradient.

Sequential Monte Carlo with a population of latents for each sample, so that samples are independent.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.errors import BudgetError, UnreachableError
from energyql.numerics.random import RandomStreams
from energyql.numerics.shapes import Float, Int
from energyql.sampling.base import (
    Batch,
    BatchSampler,
    Status,
    StepEnergy,
    StepNoise,
    check_counts,
    check_positive,
    check_strength,
    evaluate_points,
    require,
    select,
)
from energyql.sampling.rejection import (
    COSTLY_PILOT,
    FEWEST,
    PriorProposals,
    acceptance,
    reject,
    trials_of,
    tried_energies,
)
from energyql.sampling.slice import slice_move
from energyql.sampling.weights import cumulative_shares, log_effective, log_mean, raised_weights

ANGLES = (0.7, 0.5, 0.35)
"""Angles of the moves of a latent in a stage, in radians; see `population_stage`."""
BRACKET = 1.5
"""Length of the arc of the slice moves after the last stage, in radians; see `slice_step`."""
SURE = 4.0
"""Factor of the strength in slice moves of samples for which the query is not yet certain."""
BISECTIONS = 40
"""Number of halvings in the search of an exponent."""
REACH = 8
"""Size of the population that shows whether any latent satisfies a query, as a multiple of that of a sample."""
GENTLE = 0.5
"""The setting `effective` for this population; its smaller stages estimate better how rare the query is."""
SPREAD = 0.5
"""Uncertainty of the estimated share p of pictures that satisfy a query out of reach: its interval goes from p^(1 +
`SPREAD`) to p^(1 - `SPREAD`) (docs/decisions/costly-evaluations.md)."""
MOST_REACH = 2048
"""Most evaluations of the energy for this estimate."""
REACHED = math.log(2)
"""A latent satisfies the query if its energy is at most this many nats above the least; if the least is 0, P is then at
least 0.5."""
HIGHEST = 1e12
"""Largest energy, in nats, from which a weight is computed, in place of larger ones: 0 times infinity is no number."""
NUMBERS_AT_ONCE = 1 << 26
"""Most numbers in the latents of populations that are moved together."""


@dataclass(frozen=True, slots=True)
class PopulationSampler(BatchSampler):
    """A `Sampler` for costly energies, such as those that draw a picture: rejection, then a population for each sample.

    *Rejection.* A pilot, which is some draws from the prior that are the same in every run, shows how common the query
    is. This decides how many draws each sample tries, as in `SliceSampler`. An accepted draw is an exact draw from the
    posterior.

    *Population.* If a sample accepts no draw, its draws are its population. The exponent β of `exp(-βE)` rises from 0
    to λ in stages (`population_stage`). Then one latent is chosen by weight, and makes `moves` slice moves.

    *Certainty.* While the energy of a sample is more than `enough` above the least, the sample makes further slice
    moves at four times the strength. So samples end where the query is certain, like samples of the default sampler.

    *Reach.* If the energy is costly, and hardly a draw of the pilot satisfies the query, a larger population that
    belongs to no sample shows whether the query can be reached. If none of its latents satisfies it, the run ends with
    an `UnreachableError`, which has an estimate of how rare the query is.

    Diagnostics of each sample are those of a `SliceSampler` that anneals. Evaluations that belong to no sample are not
    counted.

    Args:
        strength: λ > 0, which multiplies the energy E.
        budget: most evaluations of a sample, as calls of the generator; a move that has begun is finished. A sample
            whose exponent has not reached λ by then has the status `STEP_LIMIT`.
        pilot: number of draws for the pilot; at most 32 for a costly energy.
        ancestors: number of latents that are chosen and moved in a stage, at least 1.
        effective: least effective sample size of a population after a rise of β, as a fraction of its size; above 0 and
            below 1. A smaller fraction needs fewer stages.
        enough: energy above the least, in nats, at which a sample is certain; `None` for samples of the posterior.
    """

    name = "population"
    needs_gradient = False
    needs_floor = True
    _: KW_ONLY
    strength: float = 1.0
    budget: int = 128
    pilot: int = 128
    ancestors: int = 4
    effective: float = 0.3
    moves: int = 2
    enough: float | None = 0.105

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_counts(self, budget=1, pilot=1, ancestors=1, moves=1)
        check_positive(self, "enough")
        require(0 < self.effective < 1, "effective must be above 0 and below 1", self.effective)

    @property
    def descends(self) -> bool:  # type: ignore[override]
        """Whether samples end where the query is certain, instead of following the posterior."""
        return self.enough is not None

    def run(self, batch: Batch) -> None:
        """Move every sample of a batch, by rejection, by its population, and by slice moves until it is certain."""
        batch.noise = batch.noise.part("population")
        share = acceptance(batch, self.strength, self.pilot)
        if batch.energy.costly and share < 1 / min(self.pilot, COSTLY_PILOT):
            batch.energy.once(("reach", self, batch.z.dtype, batch.z.device), lambda: self._check_reach(batch))
        most, proposals = trials_of(share, max(1, self.budget // 2)), PriorProposals()
        rounds = reject(batch, self.strength, proposals, most)
        stages = batch.diagnostics["stages"] = torch.zeros_like(batch.values)
        if len(batch.rows):
            energies, _ = tried_energies(rounds, batch.z.device)
            finite = energies.isfinite().any(1)
            batch.drop(finite.cpu())
            size = max(1, NUMBERS_AT_ONCE // (most * batch.z.shape[1]))
            for rows, some in zip(batch.rows.split(size), energies[finite].split(size), strict=True):
                here = rows.cpu()
                z, _ = proposals.draw(batch, here, torch.arange(most).expand(len(here), -1), most)
                zeros = some.new_zeros(len(rows), dtype=torch.float64)
                stages[rows] = self._populate(batch, here, PopulationState(z, some, zeros, zeros))
        if self.enough is not None:
            self._make_sure(batch, self.enough)

    def _check_reach(self, batch: Batch) -> bool:
        """Raise an `UnreachableError` unless a large trial population gets an energy within `REACHED` of the least."""
        streams, count, ancestors = RandomStreams().part("reach"), REACH * FEWEST, REACH * self.ancestors
        like, first = batch.z[:1], torch.full((1,), -batch.noise.start, device=batch.z.device)
        energy = batch.energy.part(first)
        z = streams.several_normals(like, "prior", torch.zeros(1).long(), torch.arange(count)[None], count)
        zero = torch.zeros(1, dtype=torch.float64, device=z.device)
        state = PopulationState(z, evaluate_points(energy, z, first * 0), zero, zero)
        if not state.energies.isfinite().any():
            return True  # every sample will end with a status that says so
        stage = 0
        while True:
            of_sample, calls = FEWEST + stage * self._cost, count + REACH * stage * self._cost
            if of_sample <= self.budget and (state.energies <= batch.energy.least + REACHED).any():
                return True
            exponents = next_exponents(state, self.strength, GENTLE)
            noise, complete = StepNoise(streams, like, step=f"stage/{stage}"), bool(exponents >= self.strength)
            if complete or calls > MOST_REACH:
                raise _out_of_reach(choose(state, exponents, noise, 1)[1].item(), complete)
            try:
                state, _ = population_stage(state, energy, noise, exponents, ancestors=ancestors)
            except BudgetError:
                raise _out_of_reach(choose(state, exponents, noise, 1)[1].item(), False) from None
            stage += 1

    @property
    def _cost(self) -> int:
        """Evaluations of the energy that a stage needs for each sample."""
        return self.ancestors * len(ANGLES)

    def _populate(self, batch: Batch, here: Tensor, state: PopulationState) -> Int[Tensor, " rows"]:
        """Anneal each sample's population, move the sample to one latent of it, and return numbers of stages."""
        weights, stage = batch.diagnostics["log_weight"], 0
        stages = torch.zeros(len(here), dtype=torch.int64, device=batch.z.device)
        left = torch.arange(len(here))
        while len(left):
            rows = here[left].to(batch.z.device)
            noise, energy = StepNoise(batch.noise, batch.z, here[left], f"stage/{stage}"), batch.energy.part(rows)
            exponents = next_exponents(state, self.strength, self.effective)
            spent = batch.values[rows] + self._cost > self.budget
            batch.status[rows[spent & (exponents < self.strength)]] = Status.STEP_LIMIT
            last = spent | (exponents >= self.strength)
            exponents = torch.where(last, self.strength, exponents)
            stages[left.to(rows.device)] += 1
            ends, on = (at.nonzero()[:, 0] for at in (last, ~last))
            if len(ends):
                numbers, log_weights = choose(select(state, ends), exponents[ends], noise.part(ends, "pick"), 1)
                ended = rows[ends]
                batch.z[ended] = state.z[ends, numbers[:, 0]]
                batch.energies[ended] = state.energies[ends, numbers[:, 0]]
                weights[ended] = log_weights.to(weights)
                for move in range(self.moves):
                    slice_move(batch, ended, ended.cpu(), self.strength, f"last/{stage}/{move}", BRACKET)
            if not len(on):
                break
            state, info = population_stage(
                select(state, on), energy.part(on), noise.part(on, "move"), exponents[on], ancestors=self.ancestors
            )
            batch.values[rows[on]] += info.evaluations
            left, stage = left[on.cpu()], stage + 1
            batch.report(0.5 + 0.4 * (1 - len(left) / len(here)))
        return stages

    def _make_sure(self, batch: Batch, enough: float) -> None:
        """Make slice moves until energies are at most `enough` nats above the least, or the budget is used up."""
        move = 0
        usable = batch.status != Status.NON_FINITE
        while True:
            unsure = usable & (batch.energies > batch.energy.least + enough) & (batch.values < self.budget)
            rows = unsure.nonzero()[:, 0]
            if not len(rows):
                break
            slice_move(batch, rows, rows.cpu(), SURE * self.strength, f"sure/{move}/0", BRACKET)
            move += 1
        batch.rows = batch.rows[:0]
        batch.report(1.0)


def _out_of_reach(log_share: float, complete: bool) -> UnreachableError:
    """Error for a query out of reach; `log_share` is log P(query) or, if not `complete`, an upper bound of it."""
    lower, middle, upper = (f"{math.exp(min(-scale * log_share, 700)):,.0f}" for scale in (1 - SPREAD, 1, 1 + SPREAD))
    if complete:
        share = f"about 1 in {middle} pictures satisfies the query (interval: 1 in {lower} to 1 in {upper})"
    else:
        share = f"fewer than 1 in {middle} pictures satisfy the query"
    return UnreachableError(
        f"not reachable under this prompt or model: {share}",
        hint="change the prompt, or ask for less: no noise leads out of what a model draws",
    )


class PopulationState(NamedTuple):
    """Populations of latents, one for each sample.

    Attributes:
        beta: exponent β of each sample; the latents of its population follow `N(z; 0, I) exp(-βE)`.
        log_weight: log of the importance weight of each sample: an estimate of log ∫ N(z; 0, I) exp(-βE(z)) dz, in
            nats.
    """

    z: Float[Tensor, "rows latents z_dim"]
    energies: Float[Tensor, "rows latents"]
    beta: Float[Tensor, " rows"]
    log_weight: Float[Tensor, " rows"]

    def log_weights(self, exponents: Float[Tensor, " rows"]) -> Float[Tensor, "rows latents"]:
        """Log-weights (β - exponent) E, float64, with which the latents follow the density at `exponents`."""
        return raised_weights(self.energies.double().clamp(max=HIGHEST), self.beta[:, None], exponents[:, None])


class PopulationInfo(NamedTuple):
    """Number of evaluations of the energy in a stage for each sample, (rows,) int64."""

    evaluations: Int[Tensor, " rows"]


def next_exponents(state: PopulationState, strength: float, effective: float) -> Float[Tensor, " rows"]:
    """Largest exponents, at most `strength`, with an effective sample size of at least `effective` times the size."""
    least = effective * state.energies.shape[1]

    def enough(exponents: Tensor) -> Tensor:
        return log_effective(state.log_weights(exponents)) >= math.log(least)

    low, high = state.beta, torch.full_like(state.beta, strength)
    whole = enough(high)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        good = enough(middle)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return torch.where(whole, strength, low)


def choose(
    state: PopulationState, exponents: Float[Tensor, " rows"], noise: StepNoise, count: int
) -> tuple[Int[Tensor, "rows count"], Float[Tensor, " rows"]]:
    """Choose latents of each population by weight (systematic sampling); also return new log-weights of samples."""
    log_weights = state.log_weights(exponents)
    shares = cumulative_shares(log_weights)
    levels = (torch.arange(count, device=shares.device) + noise.uniforms(1, "choose").to(shares)) / count
    numbers = torch.searchsorted(shares, levels * shares[:, -1:]).clamp(max=shares.shape[1] - 1)
    return numbers, log_mean(log_weights, state.log_weight)


def population_stage(
    state: PopulationState, energy: StepEnergy, noise: StepNoise, exponents: Float[Tensor, " rows"], *,
    ancestors: int = 4,
) -> tuple[PopulationState, PopulationInfo]:  # fmt: skip
    """Raise the exponents of populations, choose some latents of each, called ancestors, by weight, and move these.

    A Metropolis move for each of `ANGLES` has a proposal `z cos a + d sin a`, with d from N(0, I), that leaves the
    prior unchanged (preconditioned Crank-Nicolson; Neal 1998). The ancestors and all latents after each move are the
    new population (Dau and Chopin 2022, arXiv 2011.02328).
    """
    numbers, log_weight = choose(state, exponents, noise, ancestors)
    z = state.z.take_along_dim(numbers[..., None], 1)
    energies = state.energies.take_along_dim(numbers, 1)
    rows = torch.arange(len(z), device=z.device)
    latents, values = [z], [energies]
    for move, angle in enumerate(ANGLES):
        fresh = torch.stack([noise.normals(f"{move}/{number}") for number in range(ancestors)], 1)
        trials = z * math.cos(angle) + fresh * math.sin(angle)
        there = evaluate_points(energy, trials, rows)
        levels = noise.uniforms(ancestors, f"{move}").log().to(z.device)
        accepted = levels < exponents[:, None] * (energies.double() - there.double())
        z, energies = torch.where(accepted[..., None], trials, z), torch.where(accepted, there, energies)
        latents.append(z)
        values.append(energies)
    state = PopulationState(torch.cat(latents, 1), torch.cat(values, 1), exponents, log_weight)
    return state, PopulationInfo(torch.full_like(rows, ancestors * len(ANGLES)))
