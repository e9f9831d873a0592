"""The flow solved by torchdiffeq's adaptive methods, each sample with its own steps."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from math import isclose
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from energyql.errors import ArgumentError, EnergyQLError
from energyql.sampling.base import Progress, SampleResult, check_latents, check_strength
from energyql.sampling.energy import EnergyLike, as_energy
from energyql.sampling.flow import vp_flow
from energyql.sampling.noise import FIRST_RUN, Noise
from energyql.sampling.per_sample import solve
from energyql.sampling.runge_kutta import Tableau
from energyql.sampling.schedule import VPSchedule

try:
    # torchdiffeq has no public name for its methods; `read_tableau` looks at what it finds here with suspicion.
    from torchdiffeq._impl.odeint import SOLVERS
except ImportError:
    SOLVERS = {}


@dataclass(frozen=True, slots=True)
class ODESolver:
    """Descends an energy along the VP flow (Nie et al. 2021, arXiv 2110.10873), from t0 back to t1. A `Sampler`.

    Deterministic: the end depends on the start alone. Methods, first step and step control are torchdiffeq's, with the
    error norm taken over one sample instead of the batch: a single sample takes the steps that `torchdiffeq.odeint`
    takes with `options={"step_t": [t1]}`, and keeps them in a batch of any size. A sample that cannot be finished is
    returned with a `Status`, never raised. Measurements: docs/decisions/per-sample-steps.md.

    Low order and loose tolerances are the default because satisfying a query asks for the right region, not for the
    exact curve. The paper's settings are `ODESolver("dopri5", rtol=1e-3, atol=1e-3, overshoot=True)`.

    The end is where `schedule.flow_time(t0, t1)` of gradient descent leads. It lies at low energy but is not a draw
    from the posterior: nothing pulls back to the prior.

    Args:
        method: one of `adaptive_methods()`.
        rtol, atol: a step passes when the RMS over z_dim of error / (atol + rtol max(abs(z))) is at most 1.
        max_evaluations: of the energy's gradient, per sample.
        t0, t1: start and end of the flow in the schedule's time, 0 <= t1 < t0 <= 1.
        schedule: β(t).
        strength: λ > 0, multiplies the energy.
        enough: a sample is done, wherever its clock stands, once λE is at most this many nats; 0.01 is a query that
            holds with probability 0.99. It then stays as near to its start as may be, and costs nothing more. None
            follows the flow to its end.
        overshoot: False ends the last step exactly at t1. True does as plain `odeint`: the last step may go beyond t1
            and z is interpolated back. At loose tolerances it can end far beyond t = 0, where β is negative and the
            flow climbs; this is there to reproduce published runs.

    Raises:
        ArgumentError: an argument is outside its range.
        EnergyQLError: the installed torchdiffeq is not laid out as expected.
    """

    method: str = "bosh3"
    _: KW_ONLY
    rtol: float = 1e-2
    atol: float = 1e-2
    max_evaluations: int = 1000
    t0: float = 1.0
    t1: float = 1e-3
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0
    enough: float | None = None
    overshoot: bool = False

    def __post_init__(self) -> None:
        least = 2 + read_tableau(self.method).evaluations
        _require(0 <= self.rtol < float("inf"), "rtol must be finite and at least 0", self.rtol)
        _require(0 < self.atol < float("inf"), "atol must be finite and above 0", self.atol)
        _require(0 <= self.t1 < self.t0 <= 1, "t0 and t1 must satisfy 0 <= t1 < t0 <= 1", (self.t0, self.t1))
        check_strength(self.strength)
        _require(
            self.enough is None or 0 < self.enough < float("inf"), "enough must be finite and above 0", self.enough
        )
        _require(
            self.max_evaluations >= least,
            f"max_evaluations must be at least {least} for {self.method}, two to choose the first step and one step",
            self.max_evaluations,
        )

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: Noise = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Follows the flow from every row of `z0`; see `Sampler.sample`. Progress is the mean fraction of t covered.

        Diagnostics: `steps_accepted` and `steps_rejected`.
        """
        check_latents(z0)
        flow = vp_flow(as_energy(energy, first=noise.start), self.schedule, self.strength)

        def slope(s: Tensor, z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
            velocity, value = flow(-s, z, rows)
            return -velocity, value

        return solve(
            slope,
            z0,
            -self.t0,
            -self.t1,
            read_tableau(self.method),
            rtol=self.rtol,
            atol=self.atol,
            max_evaluations=self.max_evaluations,
            enough=-float("inf") if self.enough is None else self.enough,
            overshoot=self.overshoot,
            progress=progress,
        )


def adaptive_methods() -> tuple[str, ...]:
    """Names of the methods that `ODESolver` accepts, in torchdiffeq's order."""
    return tuple(name for name, solver in SOLVERS.items() if hasattr(solver, "tableau"))


def read_tableau(method: str) -> Tableau:
    """The coefficients of one of torchdiffeq's adaptive Runge-Kutta methods.

    Raises:
        ArgumentError: there is no such adaptive method.
        EnergyQLError: torchdiffeq no longer keeps its methods where and as 0.2.5 does.
    """
    names = adaptive_methods()
    if not names:
        raise _drift("it lists no adaptive method")
    if method not in names:
        raise ArgumentError(
            f"method {method!r} is not one of torchdiffeq's adaptive methods", hint=f"choose one of {', '.join(names)}"
        )
    solver = SOLVERS[method]
    try:
        tableau = Tableau(
            order=int(solver.order),
            nodes=_floats(solver.tableau.alpha),
            rows=tuple(_floats(row) for row in solver.tableau.beta),
            solution=_floats(solver.tableau.c_sol),
            error=_floats(solver.tableau.c_error),
            midpoint=_floats(solver.mid),
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise _drift(f"the coefficients of {method} cannot be read ({error})") from error
    if not _consistent(tableau):
        raise _drift(f"the coefficients of {method} do not make a Runge-Kutta method")
    return tableau


def _floats(coefficients: Any) -> tuple[float, ...]:
    return tuple(float(coefficient) for coefficient in coefficients)


def _consistent(tableau: Tableau) -> bool:
    """Whether the shapes fit, every stage stands where its node says, and a constant slope is followed exactly."""
    stages = len(tableau.nodes) + 1
    weights = (tableau.solution, tableau.error, tableau.midpoint)
    if any(len(row) != stages for row in weights) or [len(row) for row in tableau.rows] != list(range(1, stages)):
        return False
    sums = [*map(sum, tableau.rows), *map(sum, weights)]
    targets = [*tableau.nodes, 1.0, 0.0, 0.5]
    return tableau.order >= 1 and all(isclose(a, b, abs_tol=1e-9) for a, b in zip(sums, targets, strict=True))


def _drift(finding: str) -> EnergyQLError:
    version = getattr(torchdiffeq, "__version__", "unknown")
    return EnergyQLError(
        f"torchdiffeq {version} is not laid out as energyql expects: {finding}",
        hint='install a version that it was tested with: pip install "torchdiffeq>=0.2.5,<0.3"',
    )


def _require(condition: bool, rule: str, value: object) -> None:
    if not condition:
        raise ArgumentError(f"{rule}; got {value!r}")
