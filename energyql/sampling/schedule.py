"""The variance-preserving (VP) noise schedule, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TypeVar

from torch import Tensor

from energyql.sampling.base import require

Time = TypeVar("Time", float, Tensor)


@dataclass(frozen=True, slots=True)
class VPSchedule:
    """Linear noise rate of the VP-SDE `dz = -½ β(t) z dt + sqrt(β(t)) dW`, t from 0 (clean) to 1 (noise).

    N(0, I) is stationary under this equation, whatever the rates. Song et al. 2021 (arXiv 2011.13456), eq. 32 and 33;
    Nie et al. 2021 (arXiv 2110.10873) use the same rates in latent space.

    Args:
        beta_min: β(0), per unit of time, at least 0.
        beta_max: β(1), per unit of time, above 0 and at least `beta_min`.

    Raises:
        ArgumentError: the rates are not finite or not in that order.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    def __post_init__(self) -> None:
        ordered = 0.0 <= self.beta_min <= self.beta_max and 0.0 < self.beta_max < inf
        rule = "VPSchedule needs 0 <= beta_min <= beta_max with beta_max above 0 and finite"
        require(ordered, rule, (self.beta_min, self.beta_max))

    def beta(self, t: Time) -> Time:
        """Return β(t), the noise rate at time t, which is linear outside [0, 1] too."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def integral(self, t: Time) -> Time:
        """Return ∫₀ᵗ β(s) ds, without unit: 10.05 at t = 1 for the default rates."""
        return self.beta_min * t + 0.5 * (self.beta_max - self.beta_min) * t**2

    def flow_time(self, t0: float, t1: float) -> float:
        """Return ½ ∫ β from t1 to t0: the autonomous time that the flow dz/dt = ½ β ∇E covers from t0 down to t1.

        In that time the flow is plain gradient descent, dz/dτ = -∇E(z). 5.025 from t = 1 to 0 for the default rates.
        """
        return 0.5 * (self.integral(t0) - self.integral(t1))
