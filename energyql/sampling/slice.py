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
from energyql.sampling.flow import Energy, checked_energy
from energyql.sampling.noise import FIRST_RUN, Noise

MOST_SHRINKS = 100
"""Of one slice move; the bracket then is narrower than a float can tell."""
NEAR = 0.5
"""λE in nats from where slice moves can take over: a probability of 0.6."""
SHRINKS_AT_ONCE = 16
"""Uniform numbers that are drawn together."""
ROWS_AHEAD = 64
"""Where fewer samples are left, each is evaluated at the next points that it would try too: a small batch hardly takes
less time than one of this size. No result depends on it."""


@dataclass(frozen=True, slots=True)
class SliceSampler:
    """Draws from `N(z; 0, I) exp(-λ E(z))`, every sample on its own. A `Sampler`.

    *Rejection.* A sample looks at up to `proposals` draws from the prior, its row of `z0` first, and takes the first
    that it accepts, with probability exp(-λE): an exact draw.

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
        proposals: at least 1.
        then: "anneal" or "descend", for samples that accept no proposal.
        growth: of the exponent from stage to stage, above 1; for annealing.
        moves: slice moves, at least 1: in a stage, of which the last makes two more; or all there are.
        max_evaluations: of the energy, per sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    strength: float = 1.0
    proposals: int = 16
    then: Literal["anneal", "descend"] = "anneal"
    growth: float = 1.5
    moves: int = 1
    max_evaluations: int = 1000

    def __post_init__(self) -> None:
        check_strength(self.strength)
        if not 1 < self.growth < math.inf:
            raise ArgumentError(f"growth must be finite and above 1; got {self.growth!r}")
        if self.then not in ("anneal", "descend"):
            raise ArgumentError(f'then must be "anneal" or "descend"; got {self.then!r}')
        for name in ("proposals", "moves", "max_evaluations"):
            if not (isinstance(getattr(self, name), int) and getattr(self, name) >= 1):
                raise ArgumentError(f"{name} must be a whole number of at least 1; got {getattr(self, name)!r}")

    @torch.no_grad()
    def sample(
        self, energy: Energy, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Draws one sample a row; see `Sampler.sample`. The rows of `z0` must be draws from the prior."""
        check_latents(z0)
        run = _Run(self, energy, z0.detach(), noise.part("slice"), progress)
        run.reject()
        run.anneal() if self.then == "anneal" else run.descend()
        return run.result()


def points_ahead(rows: int) -> int:
    """How many points of each of so many samples to evaluate together."""
    return max(1, min(SHRINKS_AT_ONCE, ROWS_AHEAD // rows))


class _Run:
    """One call of `sample`. Tensors hold a row for each sample; `rows` are the indices of those still looking."""

    def __init__(
        self, settings: SliceSampler, energy: Energy, z0: Tensor, noise: Noise, progress: Progress | None
    ) -> None:
        self.settings, self.energy, self.noise, self.progress = settings, energy, noise, progress
        self.z = z0.clone()
        self.e = torch.full_like(z0[:, 0], math.inf)
        self.rows = torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(self.rows)
        self.status = torch.full_like(counts, Status.OK)
        self.evaluations, self.gradients, self.proposals, self.stages, self.exact = (counts.clone() for _ in range(5))
        self.log_weight, self.beta, self.mass = (torch.zeros_like(self.e) for _ in range(3))
        self.reported = 0.0
        self.pool: list[tuple[Tensor, Tensor, Tensor]] = []  # of each round: rows, proposals, energies

    def evaluate(self, z: Tensor) -> Tensor:
        """Energies (rows, points) of (rows, points, z_dim). No number counts as infinite, so that nobody goes there."""
        e = torch.nan_to_num(checked_energy(self.energy, z.flatten(0, 1)), nan=math.inf, neginf=math.inf)
        return e.view(z.shape[:2])

    def count(self, rows: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        """For each row whether a point passed, and which was the first; evaluations count up to it.

        Args:
            rows: indices of samples.
            passed: (rows, points).
        """
        found, first = passed.any(1), passed.to(torch.uint8).argmax(1)
        self.evaluations[rows] += torch.where(found, first + 1, passed.shape[1])
        return found, first

    def reject(self) -> None:
        most = self.settings.proposals
        chances = self.noise.uniforms(self.z, most, "accept")
        number = 0
        while number < most and len(self.rows):
            rows, ahead = self.rows, min(points_ahead(len(self.rows)), most - number)
            drawn = torch.stack([self.proposal(number + k, rows) for k in range(ahead)], 1)
            e = self.evaluate(drawn)
            chance = torch.exp(-self.settings.strength * e)
            accept, first = self.count(rows, chances[rows, number : number + ahead] < chance)
            looked_at = torch.where(accept, first + 1, ahead)
            unseen = torch.arange(ahead, device=rows.device) >= looked_at[:, None]
            self.mass[rows] += chance.clamp(max=1).masked_fill(unseen, 0).sum(1)
            self.proposals[rows] += looked_at
            taken, which = rows[accept], first[accept]
            self.z[taken], self.e[taken], self.exact[taken] = drawn[accept, which], e[accept, which], 1
            self.rows = rows[~accept]
            self.pool += [(self.rows, drawn[~accept, k], e[~accept, k]) for k in range(ahead)]
            number += ahead
            self.report(0.5 * number / most)

    def proposal(self, number: int, rows: Tensor) -> Tensor:
        return self.noise.normals(self.z, f"proposal/{number}", rows) if number else self.z[rows]

    def anneal(self) -> None:
        rows = self.start()
        stage = 0
        while len(rows):
            last = self.beta[rows] >= self.settings.strength
            for move in range(self.settings.moves + 2):
                moving = rows if move < self.settings.moves else rows[last]
                if len(moving):
                    self.move(moving, f"stage/{stage}/{move}")
            spent = self.evaluations[rows] >= self.settings.max_evaluations
            self.status[rows[spent & ~last]] = Status.STEP_LIMIT
            rows = rows[~last & ~spent]
            self.raise_exponent(rows)
            stage += 1
            self.rows = rows
            self.report(0.5 + 0.5 * float(self.beta[rows].sum()) / (self.settings.strength * max(1, len(rows))))

    def descend(self) -> None:
        rows = self.start()
        sampler = DescentSampler(strength=self.settings.strength, enough=NEAR)
        found = sampler.sample(self.energy, self.z[rows])
        self.z[rows], self.beta[rows] = found.z, self.settings.strength
        for counts, more in ((self.evaluations, found.evaluations), (self.gradients, found.gradients)):
            counts[rows] += more.to(counts)
        if len(rows):
            self.e[rows] = self.evaluate(found.z[:, None])[:, 0]
            self.evaluations[rows] += 1
        for move in range(self.settings.moves):
            self.move(rows, f"descended/{move}")
            self.report(0.5 + 0.5 * (move + 1) / self.settings.moves)

    def start(self) -> Tensor:
        """Let the samples that accepted nothing pick a proposal; returns those that found a finite one."""
        rows = self.rows
        if not len(rows):
            return rows
        waiting = torch.zeros_like(self.status, dtype=torch.bool)
        waiting[rows] = True
        energies = torch.stack([e[waiting[of]] for of, _, e in self.pool], 1)
        finite = energies.isfinite()
        usable = finite.any(1)
        self.status[rows[~usable]] = Status.NON_FINITE
        known = torch.where(finite, energies, torch.nan)
        mean = known.nanmean(1, keepdim=True)
        spread = (known - mean).square().nanmean(1).sqrt()
        beta = (1 / spread.clamp(min=1e-6)).clamp(max=self.settings.strength)
        if self.settings.then == "descend":  # no ladder starts here, and at λ the branches of an OR get their shares
            beta = torch.full_like(beta, self.settings.strength)
        log_weights = torch.where(finite, -beta[:, None] * energies, -math.inf)
        log_weight = torch.logsumexp(log_weights, 1) - math.log(len(self.pool))
        level = self.noise.uniforms(self.z, 1, "pick", rows)
        shares = torch.softmax(log_weights, 1).double().cumsum(1)
        chosen = (shares < level * shares[:, -1:]).sum(1).clamp(max=len(self.pool) - 1)
        for number, (of, drawn, e) in enumerate(self.pool):
            picked = usable & (chosen == number)
            self.z[rows[picked]], self.e[rows[picked]] = drawn[waiting[of]][picked], e[waiting[of]][picked]
        self.pool.clear()
        rows = rows[usable]
        self.beta[rows], self.log_weight[rows], self.stages[rows] = beta[usable], log_weight[usable], 1
        self.rows = rows
        return rows

    def raise_exponent(self, rows: Tensor) -> None:
        risen = (self.beta[rows] * self.settings.growth).clamp(max=self.settings.strength)
        self.log_weight[rows] -= (risen - self.beta[rows]) * self.e[rows]
        self.beta[rows] = risen
        self.stages[rows] += 1

    def move(self, rows: Tensor, stream: str) -> None:
        """One elliptical slice move of each of the rows: Murray, Adams and MacKay 2010, figure 2."""
        direction = self.noise.normals(self.z, f"{stream}/direction", rows)
        chances = self.noise.uniforms(self.z, 2, f"{stream}/level", rows).to(self.z.dtype)
        beta, here = self.beta[rows], self.z[rows]
        level = -beta * self.e[rows] + chances[:, 0].log()
        angle = 2 * math.pi * chances[:, 1]
        low, high = angle - 2 * math.pi, angle
        left, shrinks = rows, 0
        while len(left) and shrinks < MOST_SHRINKS:
            number = shrinks % SHRINKS_AT_ONCE
            if number == 0:
                chances = self.noise.uniforms(self.z, SHRINKS_AT_ONCE, f"{stream}/{shrinks}", left).to(self.z.dtype)
            tried = []
            for k in range(min(points_ahead(len(left)), SHRINKS_AT_ONCE - number)):
                tried.append(angle)
                low, high = torch.where(angle < 0, angle, low), torch.where(angle < 0, high, angle)
                angle = low + chances[:, number + k] * (high - low)
            angles = torch.stack(tried, 1)[..., None]
            z = here[:, None] * angles.cos() + direction[:, None] * angles.sin()
            e = self.evaluate(z)
            found, first = self.count(left, -beta[:, None] * e > level[:, None])
            moved, which = left[found], first[found]
            self.z[moved], self.e[moved] = z[found, which], e[found, which]
            shrinks += len(tried)
            left, beta, level, here, direction, chances, low, high, angle = (
                x[~found] for x in (left, beta, level, here, direction, chances, low, high, angle)
            )

    def report(self, fraction: float) -> None:
        if self.progress is not None:
            done = 1 - len(self.rows) / len(self.z)
            self.reported = max(self.reported, done + (1 - done) * fraction)
            self.progress(self.reported, len(self.rows))

    def result(self) -> SampleResult:
        told = {"proposals": self.proposals, "mass": self.mass, "exact": self.exact}
        if self.settings.then == "anneal":
            told |= {"stages": self.stages, "log_weight": self.log_weight}
        return SampleResult(
            self.z,
            self.status.cpu(),
            self.evaluations.cpu(),
            self.gradients.cpu(),
            {name: tensor.cpu() for name, tensor in told.items()},
        )
