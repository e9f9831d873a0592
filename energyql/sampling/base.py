"""What every sampler takes and gives back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.energy import EnergyLike
from energyql.sampling.noise import FIRST_RUN, Noise

Progress = Callable[[float, int], None]
"""Called with the fraction done in [0, 1] (mean over samples, never falling) and the number of samples still moving."""


MOST_STRENGTH = 1_000_000


class Status(IntEnum):
    """How one sample ended. An integer, so that a tensor can hold it."""

    OK = 0
    STEP_LIMIT = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3

    @property
    def sentence(self) -> str:
        """What happened, and what to change."""
        return _SENTENCES[self]


_SENTENCES = {
    Status.OK: "The sample reached the end.",
    Status.STEP_LIMIT: (
        "The sample used up its evaluations and is returned as it stood: raise max_evaluations, lower strength, or "
        "loosen rtol and atol if the sampler has them."
    ),
    Status.NON_FINITE: (
        "The energy or its gradient is infinite or NaN where the sample starts or where it was heading, and the sample "
        "is returned from the last place where they were finite: check the energy there, or lower strength so that "
        "latents stay where the heads were trained."
    ),
    Status.STEP_UNDERFLOW: (
        "The step became too small to advance time in this precision, and the sample is returned as it stood: loosen "
        "rtol and atol, lower strength, smooth the energy, or pass z0 as float64."
    ),
}


@dataclass(frozen=True, slots=True, eq=False)
class SampleResult:
    """The end of a run, one row for each row of `z0`, whatever became of it.

    Args:
        z: latents (n, z_dim), on the device and in the dtype of `z0`. Finite wherever `z0` was.
        status: a `Status` code for each sample, (n,) int64, on the CPU like all that follow.
        evaluations: how often the energy was evaluated for each sample, with its gradient or without, (n,) int64.
        gradients: how many of them came with a gradient, (n,) int64. A gradient costs about as much again as its
            energy, or twice.
        diagnostics: what else a sampler has to tell of each sample, (n,) a name; its own documentation says what.
    """

    z: Tensor
    status: Tensor
    evaluations: Tensor
    gradients: Tensor
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def ok(self) -> Tensor:
        """Which samples reached the end, (n,) bool."""
        return self.status == Status.OK

    def counts(self) -> dict[Status, int]:
        """How many samples ended how; statuses that did not occur are left out."""
        codes: list[int] = self.status.tolist()
        return {status: codes.count(status) for status in Status if status in codes}

    @classmethod
    def join(cls, parts: Sequence[SampleResult]) -> SampleResult:
        """Puts the results of consecutive chunks together, in order.

        Raises:
            ArgumentError: there are no parts.
        """
        if not parts:
            raise ArgumentError("SampleResult.join needs at least one result; got an empty sequence")
        return cls(
            torch.cat([part.z for part in parts]),
            torch.cat([part.status for part in parts]),
            torch.cat([part.evaluations for part in parts]),
            torch.cat([part.gradients for part in parts]),
            {name: torch.cat([part.diagnostics[name] for part in parts]) for name in parts[0].diagnostics},
        )


class Sampler(Protocol):
    """Moves latents towards low energy.

    A sampler is a small frozen object that holds its settings. It never sees a query, only an energy. Its promises,
    kept by one test for all samplers: row i of the result depends on row i of `z0` and of `noise` alone, so that any
    splitting into chunks gives the same samples (up to rounding); a sample that fails gets a status and its batch-mates
    go on; `z0` is not modified; nothing is printed and no global random state is read or changed.
    """

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Samples from every row of `z0`.

        Args:
            energy: an `Energy`, or a function of z alone; a sampler adapts it with `as_energy`.
            z0: start latents (n, z_dim), float32 or float64, usually from `prior_latents`; the work is done in this
                dtype and on this device.
            noise: where a sampler that needs random numbers takes them from; the deterministic ones leave it alone.
            progress: called at most once a step.

        Raises:
            ArgumentError: `z0` has the wrong shape or dtype, or the energy answers with the wrong shape.
        """
        ...


def check_strength(strength: float) -> None:
    """Refuses a strength λ that is not above 0, or so large that float32 could not hold what it multiplies.

    Raises:
        ArgumentError: says what was found.
    """
    if not 0 < strength <= MOST_STRENGTH:
        raise ArgumentError(f"strength must be above 0 and at most {MOST_STRENGTH:,}; got {strength!r}")


def check_latents(z0: Tensor) -> None:
    """Refuses start latents that are not (n, z_dim) in float32 or float64.

    Raises:
        ArgumentError: says what was found and what to pass.
    """
    if z0.ndim != 2 or z0.shape[1] == 0:
        raise ArgumentError(f"z0 must have shape (n, z_dim) with z_dim at least 1; got {tuple(z0.shape)}")
    if z0.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"z0 must be float32 or float64; got {z0.dtype}", hint="pass z0.float()")
