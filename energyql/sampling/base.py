"""The protocol of samplers: arguments, results, statuses, and statistics of a run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from numbers import Real
from reprlib import recursive_repr
from typing import Any, Protocol

import torch
from torch import Tensor

from energyql.errors import ArgumentError, misfit
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.energy import EnergyLike

Progress = Callable[[float, int], None]
"""Called with the fraction done in [0, 1] (mean over samples, never falling) and the number of samples still moving."""

MOST_STRENGTH = 1_000_000


class Status(IntEnum):
    """Outcome of the run for one sample: an integer, so that a tensor can hold it."""

    OK = 0
    STEP_LIMIT = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3

    @property
    def sentence(self) -> str:
        """The outcome in words, with the remedy."""
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
    """The end of a run, one row for each row of `z0`, whatever its status.

    Args:
        z: latents (n, z_dim), on the device and in the dtype of `z0`. Finite wherever `z0` was.
        status: a `Status` code for each sample, (n,) int64, on the CPU like all that follow.
        evaluations: number of evaluations of the energy for each sample, with its gradient or without, (n,) int64.
        gradients: number of them with a gradient, (n,) int64. A gradient costs about as much again as its energy, or
            twice.
        diagnostics: further numbers of each sample, (n,), by names that the sampler documents.
    """

    z: Float[Tensor, "n z_dim"]
    status: Int[Tensor, " n"]
    evaluations: Int[Tensor, " n"]
    gradients: Int[Tensor, " n"]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def ok(self) -> Bool[Tensor, " n"]:
        """Whether each sample reached the end."""
        return self.status == Status.OK

    def counts(self) -> dict[Status, int]:
        """Return the number of samples of each status that occurred."""
        codes: list[int] = self.status.tolist()
        return {status: codes.count(status) for status in Status if status in codes}

    @classmethod
    def join(cls, parts: Sequence[SampleResult]) -> SampleResult:
        """Concatenate the results of consecutive chunks, in order.

        Raises:
            ArgumentError: there are no parts.
        """
        if not parts:
            raise ArgumentError("SampleResult.join needs at least one result; got an empty sequence")
        diagnostics = {name: torch.cat([part.diagnostics[name] for part in parts]) for name in parts[0].diagnostics}
        rows = ((part.z, part.status, part.evaluations, part.gradients) for part in parts)
        z, status, evaluations, gradients = map(torch.cat, zip(*rows, strict=True))
        return cls(z, status, evaluations, gradients, diagnostics)


class Sampler(Protocol):
    """Move latents towards low energy.

    A sampler is a small frozen object that holds its settings. It never gets a query, only an energy. Its contract,
    tested for all samplers: row i of the result depends on row i of `z0` and of `noise` alone, so that any splitting
    into chunks gives the same samples (up to rounding); a sample that fails gets a status and the rest of the batch
    goes on; `z0` is not modified; nothing is printed and no global random state is read or changed.
    """

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Sample from every row of `z0`.

        Args:
            energy: an `Energy`, or a function of z alone; a sampler adapts it with `as_energy`.
            z0: start latents (n, z_dim), float32 or float64, usually from `prior_latents`; the work is done in this
                dtype and on this device.
            noise: random numbers of these samples; deterministic samplers do not use it.
            progress: called at most once a step.

        Raises:
            ArgumentError: `z0` has the wrong shape or dtype, or the energy returns the wrong shape.
        """
        ...


@recursive_repr()
def describe_sampler(sampler: object) -> str:
    """Return a sampler as runs record it: its `repr`, or its class and settings where it has none of its own."""
    kind = type(sampler)
    if kind.__repr__ is not object.__repr__:
        return repr(sampler)
    slots = {name: getattr(sampler, name, None) for name in getattr(kind, "__slots__", ())}
    settings = slots | getattr(sampler, "__dict__", {})
    return f"{kind.__qualname__}({', '.join(f'{name}={describe_sampler(value)}' for name, value in settings.items())})"


def check_sampler(sampler: Any) -> None:
    """Refuse what is no sampler, such as the class of one, or cannot be called like one.

    Raises:
        ArgumentError: as said; the hint has the signature.
    """
    hint = "def sample(self, energy, z0, *, noise, progress), which returns a SampleResult; or derive from BatchSampler"
    if isinstance(sampler, type):
        raise ArgumentError(f"{sampler.__name__} is a class, not a sampler", hint=f"make one: {sampler.__name__}()")
    if not callable(getattr(sampler, "sample", None)):
        raise ArgumentError(f"a sampler is a name or an object with a method sample, not {sampler!r}", hint=hint)
    if wrong := misfit(sampler.sample, None, None, noise=None, progress=None):
        raise ArgumentError(f"sample of {type(sampler).__name__} cannot be called: {wrong}", hint=hint)


def draw_with(
    sampler: Sampler, energy: EnergyLike, z0: Tensor, noise: RandomStreams, progress: Progress
) -> SampleResult:
    """Return what a sampler returns, which may be somebody's own; see `Sampler.sample`.

    Raises:
        ArgumentError: that is no `SampleResult` of these samples.
    """
    drawn: object = sampler.sample(energy, z0, noise=noise, progress=progress)
    if not isinstance(drawn, SampleResult) or drawn.z.shape != z0.shape:
        found = f"latents {tuple(drawn.z.shape)}" if isinstance(drawn, SampleResult) else f"a {type(drawn).__name__}"
        raise ArgumentError(
            f"sample of {type(sampler).__name__} returned {found}",
            hint=f"it must return a SampleResult with latents {tuple(z0.shape)}, as one of BatchSampler does",
        )
    return drawn


def summarize(result: SampleResult) -> dict[str, float]:
    """Return costs of a run, and how closely its samples follow the posterior where the sampler aims at it.

    Returns:
        `evaluations_mean` and `evaluations_max` of the energy, and `gradients_mean` of them with a gradient, for every
        sampler. By diagnostics: `steps_rejected`, their sum. Where the sampler draws from the posterior:

        - `acceptance`: accepted proposals over proposals;
        - `exact`: fraction of samples that accepted a proposal;
        - `stages_mean`, with annealing: mean number of stages of the annealed samples;
        - `effective_samples`: (Σw)²/Σw² of accepted draws by their importance weights w (Kong 1992), which is their
          number for draws from the prior, and the same of annealed ones; others count for nothing. Well below the
          number of samples, attributes that the query leaves open may come in the wrong proportions;
        - `log_probability`: estimate of log P(query) under the prior, in nats (of E[exp(-λE)], for a strength λ not 1),
          from the proposals (by Wald's identity, since a sample stops once it accepts) or, where too few of them had
          a low energy and there are any, from the weights.
    """
    evaluations, diagnostics = result.evaluations.double(), result.diagnostics
    found = {
        "evaluations_mean": evaluations.mean().item(),
        "evaluations_max": evaluations.max().item(),
        "gradients_mean": result.gradients.double().mean().item(),
    }
    if "steps_rejected" in diagnostics:
        found["steps_rejected"] = float(diagnostics["steps_rejected"].sum())
    if "exact" not in diagnostics:
        return found
    exact, proposals, mass, log_weights = (
        diagnostics[name].double() for name in ("exact", "proposals", "mass", "log_weight")
    )
    estimate = mass.sum().log() - proposals.sum().log()
    effective = effective_samples(log_weights[exact == 1])
    found |= {"acceptance": (exact.sum() / proposals.sum()).item(), "exact": exact.mean().item()}
    if "stages" in diagnostics:
        annealed = log_weights[exact == 0]
        if len(annealed) and mass.sum() < effective_samples(annealed):
            estimate = torch.logsumexp(annealed, 0) - math.log(len(annealed))
        found["stages_mean"] = diagnostics["stages"][exact == 0].double().mean().item() if len(annealed) else 0.0
        effective += effective_samples(annealed)
    return found | {"effective_samples": effective, "log_probability": estimate.item()}


def effective_samples(log_weights: Float[Tensor, " n"]) -> float:
    """Return (Σw)²/Σw² of importance weights given by their logarithms, in nats; 0 if there are none."""
    if not len(log_weights) or not log_weights.isfinite().any():
        return 0.0
    return torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).item()


def require(condition: bool, rule: str, value: object) -> None:
    """Raise an `ArgumentError` with a rule and the value that breaks it, unless the condition holds."""
    if not condition:
        raise ArgumentError(f"{rule}; got {value!r}")


def check_strength(strength: float) -> None:
    """Refuse a strength λ that is not above 0, or that would overflow float32 where it multiplies an energy."""
    rule = f"strength must be above 0 and at most {MOST_STRENGTH:,}"
    require(_number(strength) and 0 < strength <= MOST_STRENGTH, rule, strength)


def check_positive(sampler: object, *names: str) -> None:
    """Refuse settings of a sampler that are not finite and above 0; `None` passes."""
    for name in names:
        value = getattr(sampler, name)
        rule = f"{name} must be finite and above 0"
        require(value is None or (_number(value) and 0 < value < math.inf), rule, value)


def check_numbers(sampler: object, *names: str) -> None:
    """Refuse settings of a sampler that are not finite numbers."""
    for name in names:
        value = getattr(sampler, name)
        require(_number(value) and math.isfinite(value), f"{name} must be a finite number", value)


def _number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def check_counts(sampler: object, **least: int) -> None:
    """Refuse settings of a sampler that are not whole numbers of at least `least`, by name."""
    for name, low in least.items():
        value = getattr(sampler, name)
        require(isinstance(value, int) and value >= low, f"{name} must be a whole number of at least {low}", value)


def check_latents(z0: Tensor) -> None:
    """Refuse start latents that are not (n, z_dim) in float32 or float64."""
    if not isinstance(z0, Tensor):
        raise ArgumentError(f"z0 must be a tensor, not {type(z0).__name__}", hint="pass torch.as_tensor(z0)")
    if z0.ndim != 2 or z0.shape[1] == 0:
        raise ArgumentError(f"z0 must have shape (n, z_dim) with z_dim at least 1; got {tuple(z0.shape)}")
    if z0.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"z0 must be float32 or float64; got {z0.dtype}", hint="pass z0.float()")
