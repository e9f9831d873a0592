"""Draws from the posterior: rejection while it is cheap, then elliptical slice sampling.

Both need draws from the prior, N(0, I).
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import (
    Batch,
    BatchSampler,
    PartEnergy,
    Status,
    StepEnergy,
    StepNoise,
    as_energy,
    check_counts,
    check_numbers,
    check_strength,
    evaluate_points,
    require,
    select,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.rejection import (
    MOST_AHEAD,
    PriorProposals,
    Proposals,
    acceptance,
    first_accepted,
    pick,
    points_ahead,
    reject,
)
from energyql.sampling.smc import FORGONE, SurrogateProposals

COMMON = 0.05
"""Least share of accepted draws from the prior at which rejection is cheaper than fitting a surrogate."""
PATIENCE = 3
"""Most proposals of a sample, as a multiple of the mean number until one is accepted: one in twenty accepts none."""
RARE, PER_SHARE, FEWEST = 0.04, 1600, 16
"""Below the share `RARE`, at most `PER_SHARE` times the share proposals from the prior are tried, so 32 for a share of
one in 50, and at least `FEWEST`."""
COSTLY_PILOT = 32
"""Most draws of a pilot if each of them is a picture: enough to distinguish shares of one in four and one in ten, and a
share below `RARE` from that of a common query."""
WHOLE = 2 * math.pi
MOST_SHRINKS = 100
"""Most shrinks of the bracket in one move, after which it is narrower than the resolution of a float."""


@dataclass(frozen=True, slots=True)
class SliceSampler(BatchSampler):
    """Draw from `N(z; 0, I) exp(-λ E(z))`, every sample on its own. A `Sampler`.

    *Rejection.* A sample tries up to `proposals` draws from the prior, its row of `z0` first, and takes the first that
    it accepts, with probability exp(-λE): an exact draw. Energies must be at least 0, as `-log P` is; below, exp(-λE)
    counts as 1. A `pilot`, draws that are the same in every run, estimates how common the query is. If it is rare and
    the energy has a surrogate, proposals are drawn from the surrogate (`SurrogateProposals`), and accepted with a
    probability in proportion to their weights. If trials show that the surrogate does not help, fewer proposals are
    tried for rarer queries. Evaluations of pilot and trials are not counted.

    A sample that accepted none picks one of its proposals by importance. From a surrogate that helps, it then makes
    `moves` elliptical slice moves, which leave `N(z; 0, I) exp(-λE)` as it is. Otherwise it goes on in one of two ways:

    *Annealing.* It picks at an exponent β at which the weights spread by about one nat. Then β rises to λ, each time by
    the factor `growth`, and after each rise come `moves` slice moves. This is annealed importance sampling (Neal 2001,
    arXiv physics/9803008), in which samples share no ancestor. They come without their weights, so they follow the
    posterior the better the more moves they get, and the weights say how well.

    *Descent*, if `descent` is set. It picks at β = λ, so that the branches of an OR get about their shares, descends by
    this sampler, and makes `moves` slice moves at λ from there. For rare queries that is cheaper than annealing, and
    nearer to the posterior. There are no weights.

    Diagnostics: the number of `proposals` tried, their `mass` (the sum of their weights), `exact` (1 for one that was
    accepted), the `log_weight`, in nats, of accepted and annealed samples (0 for draws from the prior), and, with
    annealing, the `stages`. `summarize` turns them into estimates.

    Args:
        strength: λ > 0.
        proposals: most proposals of a sample, at least 1.
        pilot: number of draws from the prior that estimate how common the query is; 0 to try all proposals from the
            prior. For an energy that draws pictures, at most `COSTLY_PILOT` are made.
        descent: sampler for samples that accept no proposal, in place of annealing.
        growth: factor of the exponent from stage to stage, above 1; for annealing.
        moves: slice moves, at least 1: in each stage of annealing, with two more in the last; otherwise in all.
        bracket: length of the arc from which a slice move draws first, in radians, above 0 and at most 2π. A shorter
            arc needs fewer evaluations, and its moves are shorter.
        max_evaluations: most evaluations of the energy for a sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    name = "slice"
    needs_floor = True
    _: KW_ONLY
    strength: float = 1.0
    proposals: int = 256
    pilot: int = 128
    descent: DescentSampler | None = None
    growth: float = 1.5
    moves: int = 1
    bracket: float = WHOLE
    max_evaluations: int = 1000

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_numbers(self, "growth", "bracket")
        known = self.descent is None or isinstance(self.descent, DescentSampler)
        require(known, "descent must be a DescentSampler, or None to anneal", self.descent)
        require(1 < self.growth < math.inf, "growth must be finite and above 1", self.growth)
        require(0 < self.bracket <= WHOLE, "bracket must be above 0 and at most 2π", self.bracket)
        check_counts(self, proposals=1, pilot=0, moves=1, max_evaluations=1)

    @property
    def needs_gradient(self) -> bool:
        """See `BatchSampler`."""
        return self.descent is not None

    def run(self, batch: Batch) -> None:
        """Draw every sample; see `BatchSampler`."""
        batch.noise = batch.noise.part("slice")
        proposals, most = self._proposals(batch)
        rounds = reject(batch, self.strength, proposals, most)
        trusted = proposals if isinstance(proposals, SurrogateProposals) and proposals.trusted else None
        if self.descent is None and trusted is None:
            self._anneal(batch, *pick(batch, rounds, proposals, most, self._first_exponents))
            return
        pick(batch, rounds, proposals, most, lambda e: torch.full_like(e[:, 0], self.strength))
        if trusted is not None and trusted.lost > FORGONE:  # accepted samples need moves too
            batch.rows = (batch.status == Status.OK).nonzero()[:, 0]
        if self.descent is not None and trusted is None:
            self._descend(batch, self.descent)
        for move in range(self.moves):
            exponents = torch.full_like(batch.energies[batch.rows], self.strength)
            slice_move(batch, batch.rows, exponents, f"move/{move}", self.bracket)
            batch.report(0.5 + 0.5 * (move + 1) / self.moves)

    def _proposals(self, batch: Batch) -> tuple[Proposals, int]:
        """Return the proposals, and the most that a sample tries."""
        # Pilot and trials belong to no sample, so they are the same in every run.
        once, like = batch.energy.once, (self.strength, batch.z.dtype, batch.z.device)
        share, pilot = 1.0, min(self.pilot, COSTLY_PILOT) if batch.energy.costly else self.pilot
        if pilot:
            share = once(("pilot", pilot, *like), lambda: acceptance(batch, self.strength, pilot))
        if share < COMMON and batch.energy.surrogate is not None:
            proposals = once(("proposals", *like), lambda: SurrogateProposals(batch, self.strength))
            if proposals.trusted and proposals.cost * share < 1:  # cheaper than the prior
                return proposals, min(self.proposals, math.ceil(PATIENCE * proposals.cost))
            if not proposals.trusted and self.descent and proposals.satisfied > share:  # annealing begins at the prior
                return proposals, min(self.proposals, FEWEST)
        few = max(FEWEST, math.ceil(PER_SHARE * share)) if share < RARE else self.proposals
        return PriorProposals(), min(self.proposals, few)

    def _first_exponents(self, energies: Float[Tensor, "rows proposals"]) -> Float[Tensor, " rows"]:
        # From proposals alone: exponents that depend on the later energy of the sample would bias the weights.
        mean = energies.nanmean(1, keepdim=True)
        spread = (energies - mean).square().nanmean(1).sqrt()
        return (1 / spread.clamp(min=1e-6)).clamp(max=self.strength)

    def _anneal(self, batch: Batch, beta: Float[Tensor, " rows"], log_weight: Float[Tensor, " rows"]) -> None:
        stages, weights = torch.zeros_like(batch.values), batch.diagnostics["log_weight"]
        batch.diagnostics["stages"] = stages
        stages[batch.rows], weights[batch.rows] = 1, log_weight
        stage = 0
        while len(batch.rows):
            rows, energy = batch.rows, PartEnergy(batch.energy, batch.rows)
            noise = StepNoise(batch.noise, batch.z, rows, f"stage/{stage}")
            state, info = annealing_stage(
                AnnealingState(batch.z[rows], batch.energies[rows], beta, weights[rows]), energy, noise, self
            )
            batch.z[rows], batch.energies[rows] = state.z, state.energies
            batch.values[rows] += info.evaluations
            spent = batch.values[rows] >= self.max_evaluations
            batch.status[rows[spent & ~info.last]] = Status.STEP_LIMIT
            goes_on = ~info.last & ~spent
            batch.rows, beta = rows[goes_on], state.beta[goes_on]
            weights[batch.rows] = state.log_weight[goes_on]
            stages[batch.rows] += 1
            stage += 1
            batch.report(0.5 + 0.5 * float(beta.sum()) / (self.strength * max(1, len(batch.rows))))

    def _descend(self, batch: Batch, descent: DescentSampler) -> None:
        rows = batch.rows
        result = descent.sample(as_energy(batch.energy, samples=rows), batch.z[rows])
        batch.z[rows] = result.z
        batch.energies[rows] = result.diagnostics["value"].to(batch.energies) / descent.strength
        batch.gradients[rows] += result.gradients.to(rows)


class SliceInfo(NamedTuple):
    """The outcome of slice moves: the number of evaluations of the energy for each sample, (rows,) int64."""

    evaluations: Int[Tensor, " rows"]


class SliceState(NamedTuple):
    """Samples that make slice moves, one row each.

    Attributes:
        z: current latents.
        energies: energy at z, in nats.
    """

    z: Float[Tensor, "rows z_dim"]
    energies: Float[Tensor, " rows"]


def slice_step(
    state: SliceState, energy: StepEnergy, noise: StepNoise, *, exponents: Float[Tensor, " rows"] | float = 1.0,
    bracket: float = WHOLE,
) -> tuple[SliceState, SliceInfo]:  # fmt: skip
    """Make an elliptical slice move with every sample, which leaves `N(z; 0, I) exp(-βE)` as it is.

    Murray, Adams and MacKay 2010, arXiv 1001.0175, figure 2.

    Args:
        state: state of the samples.
        energy: energy of these samples, in nats.
        noise: random numbers of these samples for this move.
        exponents: β of each sample, (rows,), or one number for all.
        bracket: length of the arc around a sample, in radians, from which points are drawn first; the sample is at a
            random place in it (Neal 2003, "Slice sampling", section 4.1, without stepping out). 2π is the whole
            ellipse, as published.
    """
    z, energies = state.z.clone(), state.energies.clone()
    evaluations = torch.zeros_like(energies, dtype=torch.int64)
    rows, dtype = torch.arange(len(z), device=z.device), z.dtype
    direction = noise.normals("direction")
    chances = noise.uniforms(3, "level").to(dtype)
    beta = torch.as_tensor(exponents, dtype=dtype, device=z.device).expand(len(z))
    here, level = state.z, -beta * energies + chances[:, 0].log()
    if bracket < WHOLE:
        low = -bracket * chances[:, 1]
        high, angle = low + bracket, low + bracket * chances[:, 2]
    else:  # a whole ellipse has no ends, and is cut at the first angle
        angle = WHOLE * chances[:, 1]
        low, high = angle - WHOLE, angle
    shrinks = 0
    while len(rows) and shrinks < MOST_SHRINKS:
        number = shrinks % MOST_AHEAD
        if number == 0:
            chances = noise.uniforms(MOST_AHEAD, str(shrinks), rows).to(dtype)
        tried = []
        for k in range(min(points_ahead(energy, len(rows)), MOST_AHEAD - number)):
            tried.append(angle)
            low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
            angle = low + chances[:, number + k] * (high - low)
        angles = torch.stack(tried, 1)[..., None]
        points = here[:, None] * angles.cos() + direction[:, None] * angles.sin()
        there = evaluate_points(energy, points, rows)
        accepted, first, count = first_accepted(-beta[:, None] * there > level[:, None])
        evaluations[rows] += count
        moved, which = rows[accepted], first[accepted]
        z[moved], energies[moved] = points[accepted, which], there[accepted, which]
        shrinks += len(tried)
        rows, beta, level, here, direction, chances, low, high, angle = select(
            (rows, beta, level, here, direction, chances, low, high, angle), ~accepted
        )
    return SliceState(z, energies), SliceInfo(evaluations)


def slice_move(batch: Batch, rows: Int[Tensor, " rows"], exponents: Tensor, stream: str, bracket: float) -> None:
    """Take a `slice_step` with the `rows` of a batch, ascending, each by its exponent β."""
    energy, noise = PartEnergy(batch.energy, rows), StepNoise(batch.noise, batch.z, rows, stream)
    state = SliceState(batch.z[rows], batch.energies[rows])
    state, info = slice_step(state, energy, noise, exponents=exponents, bracket=bracket)
    batch.z[rows], batch.energies[rows] = state
    batch.values[rows] += info.evaluations


class AnnealingState(NamedTuple):
    """Samples that are annealed, one row each.

    Attributes:
        z: current latents.
        energies: energy at z, in nats.
        beta: the exponent of the next stage, above 0 and at most λ.
        log_weight: logarithm of the importance weight, in nats.
    """

    z: Float[Tensor, "rows z_dim"]
    energies: Float[Tensor, " rows"]
    beta: Float[Tensor, " rows"]
    log_weight: Float[Tensor, " rows"]


class AnnealingInfo(NamedTuple):
    """The outcome of a stage, (rows,).

    Attributes:
        last: whether the exponent was λ, so that the sample has ended.
        evaluations: number of evaluations of the energy, int64.
    """

    last: Bool[Tensor, " rows"]
    evaluations: Int[Tensor, " rows"]


def annealing_stage(
    state: AnnealingState, energy: StepEnergy, noise: StepNoise, settings: SliceSampler
) -> tuple[AnnealingState, AnnealingInfo]:
    """Make the slice moves of a stage with every sample, two more at λ, and then raise β of those that are below λ.

    Args:
        state: state of the samples.
        energy: energy of these samples, in nats.
        noise: random numbers of these samples for this stage.
        settings: settings of the sampler; only `strength`, `growth`, `moves` and `bracket` are used.
    """
    last, evaluations = state.beta >= settings.strength, torch.zeros_like(state.beta, dtype=torch.int64)
    z, energies = state.z, state.energies
    everyone = torch.arange(len(z), device=z.device)
    for move in range(settings.moves + 2):
        rows = everyone if move < settings.moves else last.nonzero()[:, 0]
        if len(rows):
            part, own = energy.part(rows), noise.part(rows, str(move))
            moved, info = slice_step(
                SliceState(z[rows], energies[rows]), part, own, exponents=state.beta[rows], bracket=settings.bracket
            )
            z, energies = z.index_copy(0, rows, moved.z), energies.index_copy(0, rows, moved.energies)
            evaluations[rows] += info.evaluations
    risen = (state.beta * settings.growth).clamp(max=settings.strength)
    log_weight = torch.where(last, state.log_weight, state.log_weight - (risen - state.beta) * energies)
    beta = torch.where(last, state.beta, risen)
    return AnnealingState(z, energies, beta, log_weight), AnnealingInfo(last, evaluations)
