"""The state of a running batch, shared by all samplers, and the selection of rows of any state."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.base import Progress, SampleResult, Status, check_latents
from energyql.sampling.energy import AdaptedEnergy, EnergyLike, as_energy

MOVING = -1
"""Stands beside the `Status` codes for a sample that has not ended."""


def select(state: Any, which: Tensor) -> Any:
    """Return the rows `which` (indices or a mask) of a state: a tensor, or a tuple of states, named or plain."""
    if isinstance(state, Tensor):
        return state[which]
    parts = [select(part, which) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


@dataclass(slots=True, eq=False)
class Batch:
    """The samples of one run of a sampler, one row each.

    Attributes:
        energy: called with latents and with the rows of this batch that they belong to.
        noise: random numbers of these samples.
        z: latents where each sample stands, or stood when it ended.
        rows: indices of the samples that still move, ascending.
        status: `Status` codes; OK unless something else is recorded.
        values: evaluations of the energy without its gradient.
        gradients: evaluations with its gradient.
        energies: the energy at z, in nats, for samplers that keep it; +inf where it is not known.
        diagnostics: numbers (n,) by name, which become those of the result.
        progress: see `Progress`.
        follows: whether another sampler came before, so that some energies may be known at the start.
    """

    energy: AdaptedEnergy
    noise: RandomStreams
    z: Float[Tensor, "n z_dim"]
    rows: Int[Tensor, " rows"]
    status: Int[Tensor, " n"]
    values: Int[Tensor, " n"]
    gradients: Int[Tensor, " n"]
    energies: Float[Tensor, " n"]
    progress: Progress | None
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    follows: bool = False
    _reported: float = 0.0

    @classmethod
    def start(
        cls, energy: EnergyLike, z0: Tensor, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> Batch:
        """Return a batch of which every sample moves, from its row of `z0`; arguments as for `Sampler.sample`."""
        check_latents(z0)
        z, rows = z0.detach().clone(), torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(rows)
        adapted = as_energy(energy, first=noise.start)
        energies = torch.full_like(z[:, 0], math.inf)
        return cls(adapted, noise, z, rows, counts, counts.clone(), counts.clone(), energies, progress)

    def end(self, leave: Tensor, stay: Tensor, status: Int[Tensor, " ended"], z: Tensor, gradients: int) -> None:
        """Record the samples that end, in a sampler that evaluates all that move equally often.

        `leave` and `stay`, indices or masks of `rows`, say which end and which go on; the rest is of those that end.
        """
        ended = self.rows[leave]
        self.z[ended], self.status[ended], self.gradients[ended] = z, status, gradients
        self.energies[ended] = math.inf
        self.rows = self.rows[stay]

    def leave_out(self, enough: float) -> None:
        """End the samples that are known to have an energy of at most `enough`, in nats, where they stand."""
        if self.follows:  # else nothing is known, and a device would be waited for
            self.rows = (self.energies > enough).nonzero()[:, 0]

    def drop(self, finite: Bool[Tensor, " rows"]) -> None:
        """End those of `rows` for which `finite` is False, where they stand."""
        self.status[self.rows[~finite]] = Status.NON_FINITE
        self.rows = self.rows[finite]

    def move(self, step: Float[Tensor, "rows z_dim"]) -> None:
        """Add `step` to the latents that move; a sample whose sum is not finite ends before it."""
        moved = self.z[self.rows] + step
        finite = moved.isfinite().all(1)
        self.drop(finite)
        self.z[self.rows], self.energies[self.rows] = moved[finite], math.inf

    def evaluate(
        self, z: Float[Tensor, "rows points z_dim"], rows: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows points"]:
        """Return the energies of points of the `rows`; NaN and -inf become +inf, which is never accepted."""
        samples = rows[:, None].expand(z.shape[:2]).flatten()
        energies = self.energy(z.flatten(0, 1), samples)
        return torch.nan_to_num(energies, nan=math.inf, posinf=math.inf, neginf=math.inf).view(z.shape[:2])

    def report(self, fraction: float) -> None:
        """Report progress, given the mean fraction done in [0, 1] of the samples that move."""
        if self.progress is not None:
            share = len(self.rows) / max(1, len(self.z))
            self._reported = max(self._reported, 1.0 - share * (1.0 - fraction))
            self.progress(self._reported, len(self.rows) if fraction < 1 else 0)

    def result(self) -> SampleResult:
        """Return the end of the run."""
        diagnostics = {name: numbers.cpu() for name, numbers in self.diagnostics.items()}
        gradients = self.gradients.cpu()
        return SampleResult(self.z, self.status.cpu(), self.values.cpu() + gradients, gradients, diagnostics)


class BatchSampler(ABC):
    """A `Sampler` that is written as a function of a `Batch`."""

    __slots__ = ()

    @property
    def needs_gradient(self) -> bool:
        """Whether the sampler follows the gradient of the energy."""
        return True

    @property
    def needs_floor(self) -> bool:
        """Whether the sampler must know the least energy that a latent can reach; see `Energy`."""
        return False

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Sample from every row of `z0`; see `Sampler.sample`."""
        batch = Batch.start(energy, z0, noise, progress)
        self.run(batch)
        return batch.result()

    @abstractmethod
    def run(self, batch: Batch) -> None:
        """Move the samples of a batch to their end."""
