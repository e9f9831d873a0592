"""Raises the odds of a query along their gradient, by Newton's method, until they suffice."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, SampleResult, Status, check_latents, check_strength
from energyql.sampling.flow import Energy, energy_and_gradient
from energyql.sampling.noise import FIRST_RUN, Noise

SHORTEST = 1e-3
"""Length of a step in z; where none this long leads down, the sample is at a minimum."""


@dataclass(frozen=True, slots=True)
class NewtonSampler:
    """Steps down the gradient of an energy until the query holds with enough probability. A `Sampler`.

    It goes where the flow of `ODESolver` goes, in a few long steps. An energy -log P is nearly flat where P is nearly
    1 and steep where P is small, but the log-odds `log P / (1 - P)` of a query are nearly linear in z: those of one
    yes/no head are its logit. So each step goes down the gradient as far as would bring the log-odds to their target
    if they were linear (Newton's method for one equation, the shortest such step), at most `reach` far. A step that
    leads up is tried again at a quarter of its length.

    Deterministic: the end depends on the start alone. A sample that finds no way down ends at that minimum. Samples
    whose query holds already stay as they are. Nothing pulls samples back to the prior.

    Diagnostics: `steps_accepted` and `steps_rejected`.

    Args:
        strength: λ > 0, multiplies the energy.
        enough: a sample is done once λE is at most this many nats; 0.01 is a probability of 0.99.
        reach: longest step in z, in standard deviations of the prior.
        max_evaluations: of the energy's gradient, per sample.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    strength: float = 1.0
    enough: float = 0.01
    reach: float = 1.0
    max_evaluations: int = 200

    def __post_init__(self) -> None:
        check_strength(self.strength)
        for name in ("enough", "reach"):
            if not 0 < getattr(self, name) < math.inf:
                raise ArgumentError(f"{name} must be finite and above 0; got {getattr(self, name)!r}")
        if not (isinstance(self.max_evaluations, int) and self.max_evaluations >= 1):
            raise ArgumentError(f"max_evaluations must be a whole number of at least 1; got {self.max_evaluations!r}")

    @torch.no_grad()
    def sample(
        self, energy: Energy, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Goes down from every row of `z0`; see `Sampler.sample`. Progress is the fraction of samples that are done."""
        check_latents(z0)
        run = _Run(self, energy, z0)
        while len(run.rows):
            run.step()
            if progress is not None:
                progress(1 - len(run.rows) / len(z0), len(run.rows))
        return run.result()


class _Run:
    """One call of `sample`. `rows` are the indices of the samples that go on; the lists below hold a row for each."""

    def __init__(self, settings: NewtonSampler, energy: Energy, z0: Tensor) -> None:
        self.settings, self.energy = settings, energy
        self.ends = z0.detach().clone()
        self.rows = torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(self.rows)
        self.status, self.gradients, self.accepted = torch.full_like(counts, Status.OK), counts, counts.clone()
        self.z = self.ends.clone()
        self.length = torch.full_like(self.z[:, 0], settings.reach)
        if len(z0):
            self.e, self.gradient = self.evaluate(self.z)
            self.gradients += 1
            finite = self.e.isfinite() & self.gradient.isfinite().all(1)
            self.status[~finite] = Status.NON_FINITE
            self.keep(finite & (self.e > settings.enough) & (self.gradient != 0).any(1))

    def evaluate(self, z: Tensor) -> tuple[Tensor, Tensor]:
        e, gradient = energy_and_gradient(self.energy, z)
        return self.settings.strength * e, self.settings.strength * gradient

    def step(self) -> None:
        """One evaluation of each sample that goes on."""
        limit, enough = self.settings.max_evaluations, self.settings.enough
        spent = self.gradients[self.rows] >= limit
        self.status[self.rows[spent]] = Status.STEP_LIMIT
        self.keep(~spent)
        if not len(self.rows):
            return
        # From the energy to the log-odds: e -> -log(exp(e) - 1), whose slope is -1 / (1 - exp(-e)). The target lies a
        # little beyond what is enough, or the last of the way would be done in ever shorter steps.
        lacking = self.e + torch.log1p(-torch.exp(-self.e)) - math.log(math.expm1(enough / 2))
        slope = self.gradient.norm(dim=1)
        length = torch.minimum(lacking * -torch.expm1(-self.e) / slope, self.length)
        z = self.z - (length / slope)[:, None] * self.gradient
        e, gradient = self.evaluate(z)
        self.gradients[self.rows] += 1
        finite = e.isfinite() & gradient.isfinite().all(1)
        down = finite & (e < self.e)
        self.accepted[self.rows] += down
        self.z, self.gradient = (
            torch.where(down[:, None], new, old) for new, old in ((z, self.z), (gradient, self.gradient))
        )
        self.e = torch.where(down, e, self.e)
        self.length = torch.where(down, (2 * length).clamp(SHORTEST, self.settings.reach), length / 4)
        lost = ~down & (self.length < SHORTEST)
        self.status[self.rows[lost & ~finite]] = Status.NON_FINITE
        self.keep(~lost & (self.e > enough) & (self.gradient != 0).any(1))

    def keep(self, goes_on: Tensor) -> None:
        """Note where all samples are, and drop those that do not go on."""
        self.ends[self.rows] = self.z
        self.rows, self.z, self.e, self.gradient, self.length = (
            x[goes_on] for x in (self.rows, self.z, self.e, self.gradient, self.length)
        )

    def result(self) -> SampleResult:
        gradients, accepted = self.gradients.cpu(), self.accepted.cpu()
        told = {"steps_accepted": accepted, "steps_rejected": (gradients - 1).clamp(min=0) - accepted}
        return SampleResult(self.ends, self.status.cpu(), gradients, gradients, told)
