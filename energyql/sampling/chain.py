"""One sampler after another."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from energyql.errors import ArgumentError
from energyql.sampling.base import Progress, Sampler, SampleResult
from energyql.sampling.energy import EnergyLike
from energyql.sampling.noise import FIRST_RUN, Noise


@dataclass(frozen=True)
class Chain:
    """Hands the latents that one sampler leaves to the next. A `Sampler`.

    A sample that a sampler could not finish goes on from where it stood; the last one's status counts. Evaluations add
    up, and of two diagnostics with the same name the later one is kept.

    Args:
        samplers: at least one, in their order.

    Raises:
        ArgumentError: there are none.
    """

    samplers: tuple[Sampler, ...]

    def __post_init__(self) -> None:
        if not self.samplers:
            raise ArgumentError("a chain needs at least one sampler")

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Runs all samplers; see `Sampler.sample`. Each takes an equal share of the progress."""
        result: SampleResult | None = None
        for number, sampler in enumerate(self.samplers):
            share = None if progress is None else _share(progress, number, len(self.samplers), len(z0))
            start = z0 if result is None else result.z
            after = sampler.sample(energy, start, noise=noise.part(str(number)), progress=share)
            result = after if result is None else _joined(result, after)
        assert result is not None
        return result


def _share(progress: Progress, number: int, count: int, n: int) -> Progress:
    last = number == count - 1
    return lambda done, moving: progress((number + done) / count, moving if last else n)


def _joined(first: SampleResult, second: SampleResult) -> SampleResult:
    return SampleResult(
        second.z,
        second.status,
        first.evaluations + second.evaluations,
        first.gradients + second.gradients,
        {**first.diagnostics, **second.diagnostics},
    )
