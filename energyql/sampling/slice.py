"""Draws from the posterior: rejection while it is cheap, then elliptical slice sampling.

Both lean on what is special here: the prior is N(0, I) and can be drawn from at will.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, SampleResult, Status, check_latents, check_strength
from energyql.sampling.descent import DescentSampler
from energyql.sampling.draws import Draws
from energyql.sampling.ellipse import WHOLE, slice_move
from energyql.sampling.energy import EnergyLike, as_energy
from energyql.sampling.noise import FIRST_RUN, Noise
from energyql.sampling.rejection import acceptance, pick, reject

NEAR = 1.0
"""λE in nats from where slice moves can take over: a probability of 0.37."""


@dataclass(frozen=True, slots=True)
class SliceSampler:
    """Draws from `N(z; 0, I) exp(-λ E(z))`, every sample on its own. A `Sampler`.

    *Rejection.* A sample looks at up to `proposals` draws from the prior, its row of `z0` first, and takes the first
    that it accepts, with probability exp(-λE): an exact draw. With a `pilot`, so many draws that are the same in every
    run first tell how common the query is, and the rarer it is the fewer proposals are looked at. What the pilot costs
    is not counted.

    *Annealing.* A sample that accepted none picks one of its proposals by importance, at an exponent β at which their
    weights spread by about one nat. Then β rises to λ, each time by the factor `growth`, and after each rise `moves`
    elliptical slice moves (Murray, Adams and MacKay 2010, arXiv 1001.0175) leave `N(z; 0, I) exp(-βE)` as it is. (The
    ladder is set before the sample climbs it: one that followed its energy would spoil the weights.) This is annealed
    importance sampling (Neal 2001, arXiv physics/9803008): samples come without their weights, so they follow the
    posterior the better the more moves they get, and the weights say how well. Unlike a population that resamples,
    samples never share an ancestor, so there are no near-duplicates.

    *Descent* instead, with `then="descend"`. Such a sample picks one of its proposals by importance at λ, so that the
    branches of an OR get about their shares, goes down the gradient until λE is at most `NEAR`, and makes `moves` slice
    moves at λ from there. It costs a few gradients and far fewer evaluations, and for rare queries it is nearer to the
    posterior than an annealing of several times its cost, whose ladder would have to be climbed slowly. There are no
    weights.

    Energies must be at least 0 where the samples go, as `-log P` is; below, exp(-λE) is taken as 1 by rejection.

    Diagnostics: `proposals` looked at, their `mass` (the sum of exp(-λE) over them), `exact` (1 for an exact draw),
    and, with annealing, the `stages` and the `log_weight`, in nats, of the annealed samples (0 for exact ones).
    `summarize` makes sense of them.

    Args:
        strength: λ > 0.
        proposals: at most, at least 1.
        pilot: draws from which the number of proposals is taken; 0 for all of them.
        then: "anneal" or "descend", for samples that accept no proposal.
        growth: of the exponent from stage to stage, above 1; for annealing.
        moves: slice moves, at least 1: in a stage, of which the last makes two more; or all there are.
        bracket: length of the arc in which a slice move looks first, in radians, above 0 and at most 2π. A shorter one
            needs fewer evaluations, and its moves are shorter.
        max_evaluations: of the energy, per sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    strength: float = 1.0
    proposals: int = 16
    pilot: int = 0
    then: Literal["anneal", "descend"] = "anneal"
    growth: float = 1.5
    moves: int = 1
    bracket: float = WHOLE
    max_evaluations: int = 1000

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 1 < self.growth < math.inf:
            raise ArgumentError(f"growth must be finite and above 1; got {self.growth!r}")
        if self.then not in ("anneal", "descend"):
            raise ArgumentError(f'then must be "anneal" or "descend"; got {self.then!r}')
        if not 0 < self.bracket <= WHOLE:
            raise ArgumentError(f"bracket must be above 0 and at most 2π; got {self.bracket!r}")
        for name, least in (("proposals", 1), ("pilot", 0), ("moves", 1), ("max_evaluations", 1)):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= least):
                raise ArgumentError(f"{name} must be a whole number of at least {least}; got {getattr(self, name)!r}")

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Draws one sample a row; see `Sampler.sample`. The rows of `z0` must be draws from the prior."""
        check_latents(z0)
        draws = Draws(as_energy(energy, first=noise.start), z0.detach(), noise.part("slice"), progress)
        share = acceptance(draws, self.strength, self.pilot) if self.pilot else None
        rounds = reject(draws, self.strength, self.proposals, share)
        if self.then == "anneal":
            self._anneal(draws, pick(draws, rounds, self.proposals, self._first_exponents))
            return draws.result("proposals", "mass", "exact", "stages", "log_weight")
        self._descend(draws, pick(draws, rounds, self.proposals, self._last_exponents))
        return draws.result("proposals", "mass", "exact")

    def _first_exponents(self, energies: Tensor) -> Tensor:
        mean = energies.nanmean(1, keepdim=True)
        spread = (energies - mean).square().nanmean(1).sqrt()
        return (1 / spread.clamp(min=1e-6)).clamp(max=self.strength)

    def _last_exponents(self, energies: Tensor) -> Tensor:
        return torch.full_like(energies[:, 0], self.strength)

    def _anneal(self, draws: Draws, beta: Tensor) -> None:
        rows = draws.rows
        draws.stages[rows] = 1
        stage = 0
        while len(rows):
            last = beta >= self.strength
            for move in range(self.moves + 2):
                moving = torch.ones_like(last) if move < self.moves else last
                if moving.any():
                    slice_move(draws, rows[moving], beta[moving], f"stage/{stage}/{move}", self.bracket)
            spent = draws.evaluations[rows] >= self.max_evaluations
            draws.status[rows[spent & ~last]] = Status.STEP_LIMIT
            going = ~last & ~spent
            rows, beta = rows[going], beta[going]
            risen = (beta * self.growth).clamp(max=self.strength)
            draws.log_weight[rows] -= (risen - beta) * draws.e[rows]
            draws.stages[rows] += 1
            draws.rows, beta = rows, risen
            stage += 1
            draws.report(0.5 + 0.5 * float(beta.sum()) / (self.strength * max(1, len(rows))))

    def _descend(self, draws: Draws, beta: Tensor) -> None:
        rows = draws.rows
        found = DescentSampler(strength=self.strength, enough=NEAR).sample(
            as_energy(draws.energy, samples=rows), draws.z[rows]
        )
        draws.z[rows], draws.e[rows] = found.z, found.diagnostics["value"].to(draws.e) / self.strength
        for counts, more in ((draws.evaluations, found.evaluations), (draws.gradients, found.gradients)):
            counts[rows] += more.to(counts)
        for move in range(self.moves):
            slice_move(draws, rows, beta, f"descended/{move}", self.bracket)
            draws.report(0.5 + 0.5 * (move + 1) / self.moves)
