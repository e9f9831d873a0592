"""Unadjusted Langevin dynamics."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from energyql.numerics.shapes import Float
from energyql.sampling.base import check_counts, check_positive, check_strength, require
from energyql.sampling.batch import Batch, BatchSampler


@dataclass(frozen=True, slots=True)
class LangevinSampler(BatchSampler):
    """Iterate `z ← z - h (λ ∇E(z) + z) + noise ε`, whose law tends to `N(z; 0, I) exp(-λ E(z))`. A `Sampler`.

    It does so for `noise` sqrt(2h), the default, up to an error of order h. Nie et al. 2021 (arXiv 2110.10873) take
    h = 0.01, noise 0.01 and 100 steps, `LangevinSampler.published()`: noise that belongs to a temperature of 0.005, so
    in effect a descent of the posterior's energy with a pull toward the origin.

    Args:
        step: h, above 0.
        steps: at least 1.
        noise: standard deviation of the noise of one step, at least 0.
        strength: λ > 0.

    Raises:
        ArgumentError: an argument is outside its range.
    """

    _: KW_ONLY
    step: float = 0.02
    steps: int = 200
    noise: float | None = None
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_strength(self.strength)
        check_positive(self, "step")
        check_counts(self, steps=1)
        if self.noise is not None:
            require(0 <= self.noise < math.inf, "noise must be finite and at least 0", self.noise)

    @classmethod
    def published(cls, *, strength: float = 1.0) -> LangevinSampler:
        """Return the settings of Nie et al. 2021."""
        return cls(step=1e-2, steps=100, noise=1e-2, strength=strength)

    def run(self, batch: Batch) -> None:
        """Take all steps; see `BatchSampler`."""
        noise = batch.noise.part("langevin")
        size = math.sqrt(2 * self.step) if self.noise is None else self.noise
        for number in range(self.steps):
            step = self.step * posterior_score(batch, self.strength)
            if size:
                step = step + size * noise.normals(batch.z, str(number), batch.rows)
            batch.move(step)
            batch.report((number + 1) / self.steps)


def posterior_score(batch: Batch, strength: float) -> Float[Tensor, "rows z_dim"]:
    """Return `-(λ ∇E(z) + z)`, the gradient of the posterior's log-density, of the samples that move.

    Samples whose energy or gradient is not finite end before that.
    """
    if not len(batch.rows):
        return batch.z[batch.rows]
    value, gradient = batch.energy.gradient(batch.z[batch.rows], batch.rows)
    batch.gradients[batch.rows] += 1
    finite = value.isfinite() & gradient.isfinite().all(1)
    batch.drop(finite)
    return -(strength * gradient[finite] + batch.z[batch.rows])
