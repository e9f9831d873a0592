"""Draws from the posterior `N(z; 0, I) exp(-λ E(z))`: by rejection as far as it is cheap, then by slice sampling."""

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
    Status,
    StepEnergy,
    StepNoise,
    check_counts,
    check_strength,
    evaluate_points,
    require,
    select,
)
from energyql.sampling.descent import DescentSampler
from energyql.sampling.rejection import (
    FEWEST,
    MOST_AHEAD,
    PriorProposals,
    Proposals,
    acceptance,
    first_accepted,
    pick,
    points_ahead,
    reject,
    trials_of,
)
from energyql.sampling.smc import FORGONE, SurrogateProposals
from energyql.sampling.weights import raised_weights

COMMON = 0.05
"""Share of accepted draws from the prior from which rejection is cheaper than fitting a surrogate."""
PATIENCE = 3
"""With a surrogate, a sample tries at most this multiple of the mean number of proposals until one is accepted."""
WHOLE = 2 * math.pi
"""Length of a whole ellipse, in radians."""
MOST_SHRINKS = 100
"""Most shrinks of the arc in one move; it is then narrower than the resolution of a float."""


@dataclass(frozen=True, slots=True)
class SliceSampler(BatchSampler):
    """A `Sampler` that draws from the posterior `N(z; 0, I) exp(-λ E(z))`, by rejection and then by slice sampling.

    *Rejection.* For each sample, up to `proposals` draws from the prior are tried; the first is the sample's row of
    `z0`. A draw is accepted with probability exp(-λE), and is then an exact draw from the posterior. Energies must be
    at least 0, as `-log P` is; a draw with a negative energy is always accepted.

    *Pilot.* Some further draws from the prior, the same in every run, show how common the query is. If it is rare, and
    the energy has a surrogate (a cheap approximation), trials show whether proposals from the posterior of the
    surrogate help; see `SurrogateProposals`. Otherwise proposals come from the prior, fewer for rarer queries, or, with
    a `descent`, a few from the surrogate if these satisfy the query more often. Evaluations for pilot and trials are
    not counted.

    A sample that accepted no proposal moves to one of its proposals, chosen at random by weight. If the surrogate
    helps, it then makes `moves` elliptical slice moves, which leave the posterior unchanged; accepted samples make them
    too if a notable part of the weights was cut off (`SurrogateProposals.lost`). Without its help, the sample goes on
    in one of two ways:

    *Annealing*, if `descent` is `None`. The proposals are weighted by exp(-βE), with an exponent β at which the
    log-weights spread by about one nat. Then β rises to λ, in each stage by the factor `growth`, and the sample makes
    `moves` slice moves in each stage, two more in the last: annealed importance sampling (Neal 2001, arXiv
    physics/9803008). Samples are returned as if their weights were equal. The more moves, the more closely they follow
    the posterior; `log_weight` shows how closely.

    *Descent*, if `descent` is a sampler. The proposals are weighted by exp(-λE), so that the branches of an OR get
    about their shares. Then the sample descends, and makes `moves` slice moves at λ. For rare queries this is cheaper
    than annealing, and nearer to the posterior, but samples have no weights.

    Diagnostics of each sample, from which `summarize` computes estimates: `proposals`, the number of proposals tried;
    `mass`, the sum of their weights; `exact`, 1 if a proposal was accepted, else 0; `log_weight`, the logarithm of the
    importance weight in nats, 0 for an accepted draw from the prior; and, only with annealing, `stages`, their number.

    Args:
        strength: λ > 0, which multiplies the energy.
        proposals: largest number of proposals of a sample, at least 1.
        pilot: number of draws for the pilot, at most 32 if the energy draws pictures. With 0, proposals always come
            from the prior, and up to `proposals` are tried.
        growth: factor by which the exponent β rises in a stage, above 1.
        moves: number of slice moves of a sample, or in each stage, at least 1.
        bracket: length of the arc of the ellipse from which a slice move draws its first point, in radians, above 0 and
            at most 2π. A shorter arc needs fewer evaluations, but moves are shorter too.
        max_evaluations: annealing of a sample ends with `Status.STEP_LIMIT` once this many evaluations of the energy,
            including those for proposals, are used up.
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
        require(1 < self.growth < math.inf, "growth must be finite and above 1", self.growth)
        require(0 < self.bracket <= WHOLE, "bracket must be above 0 and at most 2π", self.bracket)
        check_counts(self, proposals=1, pilot=0, moves=1, max_evaluations=1)

    @property
    def needs_gradient(self) -> bool:  # type: ignore[override]
        """Whether the gradient of the energy is used: whether `descent` is set."""
        return self.descent is not None

    def run(self, batch: Batch) -> None:
        """Move every sample of a batch to a draw from the posterior, or from nearly the posterior."""
        batch.noise = batch.noise.part("slice")
        proposals, most = self._proposals(batch)
        rounds = reject(batch, self.strength, proposals, most)
        trusted = proposals if isinstance(proposals, SurrogateProposals) and proposals.trusted else None
        if self.descent is None and trusted is None:
            self._anneal(batch, *pick(batch, rounds, proposals, most, self._first_exponents)[:2])
            return
        *_, here = pick(batch, rounds, proposals, most, lambda e: torch.full_like(e[:, 0], self.strength))
        if trusted is not None and trusted.lost > FORGONE:  # accepted samples need moves too
            here = (batch.status == Status.OK).cpu().nonzero()[:, 0]
            batch.rows = here.to(batch.z.device)
        if self.descent is not None and trusted is None:
            self._descend(batch, self.descent)
        for move in range(self.moves):
            exponents = torch.full_like(batch.energies[batch.rows], self.strength)
            slice_move(batch, batch.rows, here, exponents, f"move/{move}", self.bracket)
            batch.report(0.5 + 0.5 * (move + 1) / self.moves)

    def _proposals(self, batch: Batch) -> tuple[Proposals, int]:
        """Choose between proposals from the prior and from a surrogate, and how many a sample may try."""
        # Pilot and trials belong to no sample, so they are the same in every run.
        share = acceptance(batch, self.strength, self.pilot) if self.pilot else 1.0
        if share < COMMON and batch.energy.surrogate is not None:
            key = "proposals", self.strength, batch.z.dtype, batch.z.device
            proposals = batch.energy.once(key, lambda: SurrogateProposals(batch, self.strength))
            if proposals.trusted and proposals.cost * share < 1:  # cheaper than the prior
                return proposals, min(self.proposals, math.ceil(PATIENCE * proposals.cost))
            if not proposals.trusted and self.descent and proposals.satisfied > share:  # annealing begins at the prior
                return proposals, min(self.proposals, FEWEST)
        return PriorProposals(), trials_of(share, self.proposals)

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
            rows, energy = batch.rows, batch.energy.part(batch.rows)
            noise = StepNoise(batch.noise, batch.z, rows.cpu(), f"stage/{stage}")
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
        result = descent.sample(batch.energy.part(rows), batch.z[rows])
        batch.z[rows] = result.z
        batch.energies[rows] = result.diagnostics["value"].to(batch.energies) / descent.strength
        batch.gradients[rows] += result.gradients.to(rows)


class SliceInfo(NamedTuple):
    """Number of evaluations of the energy in a slice move for each sample, (rows,) int64."""

    evaluations: Int[Tensor, " rows"]


class SliceState(NamedTuple):
    """Latents before or after a slice move, and their energies in nats, which the move does not evaluate again."""

    z: Float[Tensor, "rows z_dim"]
    energies: Float[Tensor, " rows"]


def slice_step(
    state: SliceState, energy: StepEnergy, noise: StepNoise, *, exponents: Float[Tensor, " rows"] | float = 1.0,
    bracket: float = WHOLE,
) -> tuple[SliceState, SliceInfo]:  # fmt: skip
    """Make one elliptical slice move with every sample, which leaves the density `N(z; 0, I) exp(-βE)` unchanged.

    The method is that of Murray, Adams and MacKay 2010, arXiv 1001.0175, figure 2. Random points on an arc of a random
    ellipse through the sample are tried until exp(-βE) of a point is above a random threshold below that of the sample,
    which moves there. After each failure the arc shrinks towards the sample.

    Args:
        exponents: β of each sample, (rows,), or one number for all.
        bracket: length of the arc, in radians, from which the first point is drawn. The sample is at a random point of
            this arc (Neal 2003, "Slice sampling", section 4.1, without stepping out). 2π is the whole ellipse, as in
            Murray et al.
    """
    z, energies = state.z.clone(), state.energies.clone()
    evaluations = torch.zeros_like(energies, dtype=torch.int64)
    here, rows, dtype = torch.arange(len(z)), torch.arange(len(z), device=z.device), z.dtype
    direction = noise.normals("direction")
    chances = noise.uniforms(3, "level").to(dtype)
    beta = torch.as_tensor(exponents, dtype=dtype, device=z.device).expand(len(z))
    start, level = state.z, -beta * energies + chances[:, 0].log()
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
            chances = noise.uniforms(MOST_AHEAD, str(shrinks), here).to(dtype)
        trial_angles = []
        for k in range(min(points_ahead(energy, len(rows)), MOST_AHEAD - number)):
            trial_angles.append(angle)
            low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
            angle = low + chances[:, number + k] * (high - low)
        angles = torch.stack(trial_angles, 1)[..., None]
        points = start[:, None] * angles.cos() + direction[:, None] * angles.sin()
        there = evaluate_points(energy, points, rows)
        accepted, first, count = first_accepted(-beta[:, None] * there > level[:, None])
        evaluations[rows] += count
        inside = accepted.cpu()  # the one wait for a device
        here, moved, left = here[~inside], *(at.nonzero()[:, 0].to(z.device) for at in (inside, ~inside))
        movers, which = rows[moved], first[moved]
        z[movers], energies[movers] = points[moved, which], there[moved, which]
        shrinks += len(trial_angles)
        rows, beta, level, start, direction, chances, low, high, angle = select(
            (rows, beta, level, start, direction, chances, low, high, angle), left
        )
    return SliceState(z, energies), SliceInfo(evaluations)


def slice_move(
    batch: Batch, rows: Int[Tensor, " rows"], here: Int[Tensor, " rows"], exponents: Tensor | float, stream: str,
    bracket: float,
) -> None:  # fmt: skip
    """Make a `slice_step` with the samples `rows` (`here` on the CPU) of a batch, and record the result there."""
    energy, noise = batch.energy.part(rows), StepNoise(batch.noise, batch.z, here, stream)
    state = SliceState(batch.z[rows], batch.energies[rows])
    state, info = slice_step(state, energy, noise, exponents=exponents, bracket=bracket)
    batch.z[rows], batch.energies[rows] = state
    batch.values[rows] += info.evaluations


class AnnealingState(NamedTuple):
    """State of samples that are annealed, with a row for each sample.

    Attributes:
        beta: exponent β of the next stage, whose moves leave `N(z; 0, I) exp(-βE)` unchanged; above 0 and at most λ.
        log_weight: logarithm of the importance weight of each sample, in nats.
    """

    z: Float[Tensor, "rows z_dim"]
    energies: Float[Tensor, " rows"]
    beta: Float[Tensor, " rows"]
    log_weight: Float[Tensor, " rows"]


class AnnealingInfo(NamedTuple):
    """Outcome of a stage, for each sample: whether it was the `last`, at β = λ, and its number of evaluations."""

    last: Bool[Tensor, " rows"]
    evaluations: Int[Tensor, " rows"]


def annealing_stage(
    state: AnnealingState, energy: StepEnergy, noise: StepNoise, settings: SliceSampler
) -> tuple[AnnealingState, AnnealingInfo]:
    """Make the slice moves of one stage of annealing with every sample, and then raise its exponent β.

    β is multiplied by `growth`, but becomes at most λ, and the weight of the sample changes accordingly. A sample whose
    β is λ already makes two more moves, and keeps β and weight. Of `settings`, `strength` (λ), `growth`, `moves` and
    `bracket` are used.
    """
    last, evaluations = state.beta >= settings.strength, torch.zeros_like(state.beta, dtype=torch.int64)
    z, energies = state.z, state.energies
    everyone = torch.arange(len(z), device=z.device)
    for move in range(settings.moves + 2):
        rows = everyone if move < settings.moves else last.nonzero()[:, 0]
        if len(rows):
            part, own = energy.part(rows), noise.part(rows, str(move))
            after, info = slice_step(
                SliceState(z[rows], energies[rows]), part, own, exponents=state.beta[rows], bracket=settings.bracket
            )
            z, energies = z.index_copy(0, rows, after.z), energies.index_copy(0, rows, after.energies)
            evaluations[rows] += info.evaluations
    risen = (state.beta * settings.growth).clamp(max=settings.strength)
    log_weight = torch.where(last, state.log_weight, state.log_weight + raised_weights(energies, state.beta, risen))
    beta = torch.where(last, state.beta, risen)
    return AnnealingState(z, energies, beta, log_weight), AnnealingInfo(last, evaluations)
