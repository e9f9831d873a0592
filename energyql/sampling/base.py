"""Protocols of samplers and energies, the state of a running batch, and base classes for new samplers.

The prior is N(0, I). The posterior of an energy E at strength λ has a density in proportion to N(z; 0, I) exp(-λ E(z)).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from inspect import signature
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from energyql.errors import ArgumentError, misfit
from energyql.numerics.pool import to_cpu
from energyql.numerics.pullback import by_autograd
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.numerics.shapes import Bool, Float, Int
from energyql.sampling.weights import effective_samples, log_mean

Made = TypeVar("Made")
ValueAndGradient = tuple[Float[Tensor, " batch"], Float[Tensor, "batch z_dim"]]
"""Energies, in nats, and their gradients with respect to z."""


class SurrogateEnergy(Protocol):
    """A cheap approximation of an energy that depends only on v, the coordinates of z along a few directions.

    Samplers draw proposals from its posterior. Surrogates that compare equal must compute equal energies (for caches).
    """

    def __hash__(self) -> int:
        """Return a hash, the same for equal objects."""

    @property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """The directions of z on which the energy depends, as orthonormal rows: v is `basis` times z."""

    def __call__(self, v: Float[Tensor, "batch r"], /) -> Float[Tensor, " batch"]:
        """Return the approximate energies at v, in nats."""

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"], /) -> Float[Tensor, "batch z_dim"]:
        """Return `z` with its coordinates along the rows of `basis` replaced by `v`."""


class EnergyFunction(Protocol):
    """The methods of an energy of latents; `Energy` adds attributes to them.

    The argument `rows`, (batch,) int64 on the device of z, says which sample of the run each latent belongs to, from 0
    on. Row i of a result must depend on row i of the arguments only: samplers evaluate different samples together.
    """

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> Float[Tensor, " batch"]:
        """Return the energies (batch,) of latents `z` (batch, z_dim), in nats."""

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> ValueAndGradient:
        """Return the energies of latents `z`, in nats, and their gradients with respect to `z`, both detached."""


class Energy(EnergyFunction):
    """An energy of latents, in nats; lower is better. Each sample of a run may have another function as its energy.

    Samplers also accept a function, or an object with the methods of `EnergyFunction`; for each attribute that the
    object lacks, the default of this class is used.

    Attributes:
        least: least energy that any latent can have, in nats; -infinity if there is no lower bound.
        surrogate: function that returns a cheap approximation of this energy; `None` if there is none.
        sampler_cache: dict for what samplers compute from this energy alone, such as trials; `None` if it may change.
        costly: whether an evaluation draws a picture, or takes as long, so that samplers make fewer trials.
    """

    least: float = 0.0
    surrogate: Callable[[], SurrogateEnergy] | None = None
    sampler_cache: MutableMapping[Hashable, Any] | None = None
    costly: bool = False


EnergyLike = EnergyFunction | Callable[[Tensor], Tensor]
"""An `Energy`, or a function from latents (batch, z_dim) to energies (batch,), which autograd differentiates."""


@dataclass(frozen=True, slots=True, eq=False)
class GradientEnergy(Energy):
    """An energy made from one function, `gradient`, that returns energies and gradients together."""

    gradient: Callable[[Tensor, Tensor], ValueAndGradient] = field()

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energies of latents z, in nats."""
        return self.gradient(z, rows)[0]


def as_energy(energy: EnergyLike, *, first: int = 0, samples: Tensor | None = None) -> StepEnergy:
    """Adapt a function or object of a user to an `Energy` for a batch, which checks shapes and detaches results.

    Gradients have the dtype of z. A call of the result raises an `ArgumentError` if a shape is wrong, or if autograd
    finds that the energy does not depend on z.

    Args:
        energy: a function of z, or of z and `rows`; or an object with a method `gradient` of these arguments. Without
            this method, autograd computes gradients, also under `torch.no_grad`.
        first: index in the run of the first sample of the batch; it is added to the `rows` that `energy` gets.
        samples: rows in the batch of the samples that the result is for; its own `rows` are indices into these. `None`
            for all samples.
    """
    if isinstance(energy, StepEnergy) and not first:
        return replace(energy, values=0, gradients=0) if samples is None else energy.part(samples)
    own = getattr(energy, "gradient", None)
    gradient = None if own is None else _with_rows(own, first)
    value = _with_rows(energy, first) if callable(energy) or gradient is None else GradientEnergy(gradient)
    optional = {name: getattr(energy, name, getattr(Energy, name)) for name in Energy.__annotations__}
    return StepEnergy(value, gradient, samples, **optional)


@dataclass(slots=True, eq=False)
class StepEnergy(Energy):
    """An `Energy` for all samples of a batch, or for some, that counts its calls; `as_energy` makes it.

    In calls, `rows` are indices of samples of this energy; without them, latent i belongs to sample i.

    Attributes:
        samples: rows in the batch of the samples that this energy is for; `None` for all.
        values, gradients: numbers of calls without and with a gradient.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    value_and_gradient: Callable[[Tensor, Tensor], ValueAndGradient] | None
    samples: Int[Tensor, " rows"] | None
    least: float
    surrogate: Callable[[], SurrogateEnergy] | None
    sampler_cache: MutableMapping[Hashable, Any] | None
    costly: bool
    values: int = 0
    gradients: int = 0

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return `make()`, kept in `sampler_cache` if there is one. Calls with equal keys must make equal results."""
        if self.sampler_cache is None:
            return make()
        if key not in self.sampler_cache:
            self.sampler_cache[key] = make()
        return cast(Made, self.sampler_cache[key])

    def part(self, rows: Int[Tensor, " some"]) -> StepEnergy:
        """Return this energy for some of its samples, those with the indices `rows`; its counts of calls start at 0."""
        samples = rows if self.samples is None else self.samples[rows]
        return replace(self, samples=samples, values=0, gradients=0)

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the energies of latents `z`, in nats."""
        self.values += 1
        value = self.value(z, self._places(z, rows))
        _check_shape("energy(z)", value, z.shape[:1])
        return value.detach()

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None) -> ValueAndGradient:
        """Return the energies of latents `z`, in nats, and their gradients with respect to `z`."""
        self.gradients += 1
        places = self._places(z, rows)
        if self.value_and_gradient is not None:
            value, gradient = self.value_and_gradient(z, places)
            _check_shape("energy.gradient(z)[0]", value, z.shape[:1])
            _check_shape("energy.gradient(z)[1]", gradient, z.shape)
        else:
            value, back = by_autograd(lambda leaf: self.value(leaf, places), z)
            _check_shape("energy(z)", value, z.shape[:1])
            gradient = back(torch.ones_like(value))
        return value.detach(), gradient.detach().to(z.dtype)

    def _places(self, z: Tensor, rows: Tensor | None) -> Int[Tensor, " batch"]:
        """For each latent in `z`, the row of its sample in the whole batch."""
        if self.samples is None:
            return torch.arange(len(z), device=z.device) if rows is None else rows
        return self.samples if rows is None else self.samples[rows]


def evaluate_points(
    energy: StepEnergy, z: Float[Tensor, "rows points z_dim"], rows: Int[Tensor, " rows"]
) -> Float[Tensor, "rows points"]:
    """Energies of several latents (points) of each sample; NaN and -inf become +inf, which no sampler accepts."""
    samples = rows[:, None].expand(z.shape[:2]).flatten()
    energies = energy(z.flatten(0, 1), samples)
    return torch.nan_to_num(energies, nan=math.inf, posinf=math.inf, neginf=math.inf).view(z.shape[:2])


def check_floor(least: float) -> None:
    """Raise an `ArgumentError` if `least` is -infinity, for samplers that need an energy with a lower bound."""
    if least == -math.inf:
        names = [name for name, make in SAMPLERS.items() if not has_trait(make(), "needs_floor")]
        raise ArgumentError(
            "this energy has no lower bound, and this sampler needs one", hint=f"others need none: {', '.join(names)}"
        )


def _with_rows(function: Callable[..., Any], first: int) -> Callable[[Tensor, Tensor], Any]:
    """Adapt `function` to the arguments z and rows: it gets rows + `first` if it has a parameter called `rows`."""
    described = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        takes_rows = "rows" in signature(described).parameters
    except (TypeError, ValueError):  # a built-in function
        takes_rows = False
    if not takes_rows:
        return lambda z, rows: function(z)
    return (lambda z, rows: function(z, rows + first)) if first else function


def _check_shape(what: str, tensor: Tensor, expected: torch.Size) -> None:
    if tensor.shape != expected:
        raise ArgumentError(f"{what} must have shape {tuple(expected)}; got {tuple(tensor.shape)}")


Progress = Callable[[float, int], None]
"""Function that samplers call with the fraction of the run that is done (0 to 1, the mean over all samples, never
falling) and the number of samples that still move."""

MOST_STRENGTH = 1_000_000


class Status(IntEnum):
    """How the run of a sampler ended for one sample; an integer, so that a tensor can have those of a batch."""

    OK = 0
    STEP_LIMIT = 1
    NON_FINITE = 2
    STEP_UNDERFLOW = 3
    NOT_ACCEPTED = 4

    @property
    def sentence(self) -> str:
        """The outcome as a sentence for users; after a failure, it also says what can be done about it."""
        return _SENTENCES[self]


_SENTENCES = (
    "The sample reached the end.",
    "The evaluations are used up: raise max_evaluations, lower strength, or loosen rtol and atol if there are any.",
    "The energy or its gradient is not finite at the start or ahead: check the energy there, or lower strength.",
    "The step became too small for this precision: loosen rtol and atol, lower strength, or pass z0 as float64.",
    "The verifier accepted no picture of the sample: raise attempts, or label more pictures that satisfy the query.",
)
"""The sentence of each `Status`, in the order of the codes."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleResult:
    """The result of a run of a sampler, with a row for each start latent, whether the sample failed or not.

    Args:
        z: final latents (n, z_dim), with the device and dtype of the start latents; a failed sample has its latent
            before the failure. They are finite where the start latent was finite.
        status: a `Status` code for each sample, (n,) int64. `status` and all further tensors are on the CPU.
        evaluations: number of evaluations of the energy, with gradient or without, (n,) int64.
        gradients: number of evaluations with gradient, (n,) int64, each as long as one or two without.
        diagnostics: further numbers for each sample, (n,), by name; the docstring of a sampler's class lists the names.
    """

    z: Float[Tensor, "n z_dim"]
    status: Int[Tensor, " n"]
    evaluations: Int[Tensor, " n"]
    gradients: Int[Tensor, " n"]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def ok(self) -> Bool[Tensor, " n"]:
        """Whether each sample has the status `Status.OK`: it reached the end."""
        return self.status == Status.OK

    def counts(self) -> dict[Status, int]:
        """Count the samples of each status; statuses without samples are left out."""
        codes: list[int] = self.status.tolist()
        return {status: codes.count(status) for status in Status if status in codes}

    @classmethod
    def join(cls, parts: Sequence[SampleResult]) -> SampleResult:
        """Concatenate the results of parts of a run, at least one, in the order of their samples in the run."""
        diagnostics = {name: torch.cat([part.diagnostics[name] for part in parts]) for name in parts[0].diagnostics}
        rows = ((part.z, part.status, part.evaluations, part.gradients) for part in parts)
        z, status, evaluations, gradients = map(torch.cat, zip(*rows, strict=True))
        return cls(z, status, evaluations, gradients, diagnostics)


class Sampler(Protocol):
    """Protocol of samplers: small frozen objects, with settings as fields, that move latents towards low energy.

    Tests check for all samplers that:

    - row i of the result depends only on row i of `z0` and on the random numbers of sample i, so that a run in several
      parts gives the same samples as a run in one part, up to rounding;
    - a sample that fails gets a status that says so, and the other samples of the batch go on;
    - `z0` is not modified, nothing is printed, and no global random state is read or changed.
    """

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return one sample for every row of `z0`, the latent where the sample starts.

        Args:
            energy: an `Energy`, or a function of z alone, which a sampler converts with `as_energy`.
            z0: start latents (n, z_dim), float32 or float64, whose dtype and device the computation has.
            noise: source of the random numbers of these samples; deterministic samplers do not use it.
            progress: called at most once a step with the fraction done (0 to 1) and the number of moving samples.

        Raises:
            ArgumentError: `z0` has the wrong shape or dtype, or the energy returns the wrong shape.
        """


SAMPLERS: dict[str, Callable[..., Sampler]] = {}
"""Function that makes a sampler, by its name, with the factor `strength` of the energy, and for some names other
settings; `energyql.sampling.registry` enters them. Names with "published" have the settings of Nie et al. 2021 (arXiv
2110.10873)."""


def has_trait(sampler: object, trait: Literal["descends", "needs_gradient", "needs_floor"]) -> bool:
    """Attribute `trait` of a sampler, as explained in `BatchSampler`; false if the sampler has no such attribute."""
    return bool(getattr(sampler, trait, False))


def check_sampler(sampler: Any) -> None:
    """Raise an `ArgumentError` unless `sampler` is an object (no class) with a method `sample` like a `Sampler`."""
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
    """Call `sampler.sample`, and raise an `ArgumentError` if its result has a wrong type or shape."""
    result: object = sampler.sample(energy, z0, noise=noise, progress=progress)
    if not isinstance(result, SampleResult) or result.z.shape != z0.shape:
        what = f"latents {tuple(result.z.shape)}" if isinstance(result, SampleResult) else f"a {type(result).__name__}"
        goal = f"a SampleResult with latents {tuple(z0.shape)}"
        raise ArgumentError(f"sample of {type(sampler).__name__} returned {what}, not {goal}")
    return result


def summarize(result: SampleResult) -> dict[str, float]:
    """Summarize a run: its costs, and how closely its samples follow the posterior, as numbers by name.

    Every sampler has `evaluations_mean` and `evaluations_max`, evaluations of the energy for a sample, and
    `gradients_mean`, those with a gradient. Samplers that reject steps have `steps_rejected`, summed over samples.
    Samplers that begin with rejection, such as `SliceSampler`, also have:

    - `acceptance`: number of accepted proposals / number of proposals;
    - `exact`: fraction of samples that accepted a proposal;
    - `stages_mean`, only with annealing: mean number of stages of the annealed samples, 0 if there are none;
    - `effective_samples`: effective sample size, (Σw)²/Σw² for importance weights w (Kong 1992), of the accepted
      samples plus that of the annealed samples; other samples add nothing. If it is well below the number of samples,
      attributes that the query leaves open may come in the wrong proportions;
    - `log_probability`: estimate of log P(query) under the prior, in nats; for λ other than 1, of the logarithm of the
      mean of exp(-λ energy). It is the logarithm of the mean weight of all proposals that were tried (Wald's identity)
      or, if too few of them had a low energy, of the mean weight of the annealed samples.
    """
    evaluations, diagnostics = result.evaluations.double(), result.diagnostics
    summary = {
        "evaluations_mean": evaluations.mean().item(),
        "evaluations_max": evaluations.max().item(),
        "gradients_mean": result.gradients.double().mean().item(),
    }
    if "steps_rejected" in diagnostics:
        summary["steps_rejected"] = float(diagnostics["steps_rejected"].sum())
    if "exact" not in diagnostics:
        return summary
    exact, proposals, mass, log_weights = (
        diagnostics[name].double() for name in ("exact", "proposals", "mass", "log_weight")
    )
    estimate = mass.sum().log() - proposals.sum().log()
    effective = effective_samples(log_weights[exact == 1])
    summary |= {"acceptance": (exact.sum() / proposals.sum()).item(), "exact": exact.mean().item()}
    if "stages" in diagnostics:
        annealed = log_weights[exact == 0]
        if len(annealed) and mass.sum() < effective_samples(annealed):
            estimate = log_mean(annealed)
        summary["stages_mean"] = diagnostics["stages"][exact == 0].double().mean().item() if len(annealed) else 0.0
        effective += effective_samples(annealed)
    return summary | {"effective_samples": effective, "log_probability": estimate.item()}


def require(condition: bool, rule: str, value: object) -> None:
    """Raise an `ArgumentError` if `condition` is false; the message is `rule`, followed by the wrong `value`."""
    if not condition:
        raise ArgumentError(f"{rule}; got {value!r}")


def check_strength(strength: float) -> None:
    """Raise an `ArgumentError` unless λ is above 0 and at most `MOST_STRENGTH`, so that λE fits into float32."""
    rule = f"strength must be above 0 and at most {MOST_STRENGTH:,}"
    require(0 < strength <= MOST_STRENGTH, rule, strength)


def check_positive(sampler: object, *names: str) -> None:
    """Raise an `ArgumentError` unless each of the settings `names` is `None`, or finite and above 0."""
    for name in names:
        value = getattr(sampler, name)
        require(value is None or 0 < value < math.inf, f"{name} must be finite and above 0", value)


def check_counts(sampler: object, **least: int) -> None:
    """Raise an `ArgumentError` unless settings are whole numbers of at least the given ones, as in `steps=1`."""
    for name, low in least.items():
        value = getattr(sampler, name)
        require(isinstance(value, int) and value >= low, f"{name} must be a whole number of at least {low}", value)


def check_latents(z0: Tensor) -> None:
    """Raise an `ArgumentError` unless start latents have the shape (n, z_dim) and are float32 or float64."""
    if z0.ndim != 2 or z0.shape[1] == 0:
        raise ArgumentError(f"z0 must have shape (n, z_dim) with z_dim at least 1; got {tuple(z0.shape)}")
    if z0.dtype not in (torch.float32, torch.float64):
        raise ArgumentError(f"z0 must be a float tensor; got {z0.dtype}", hint="pass torch.as_tensor(z0).float()")


def finite_rows(x: Tensor, *more: Tensor) -> Bool[Tensor, " rows"]:
    """Whether each row of tensors (rows,) or (rows, dim) is finite, in fewer operations than by `isfinite`."""
    zeros = [part - part if part.ndim == 1 else (part - part).sum(1) for part in (x, *more)]
    return sum(zeros[1:], zeros[0]) == 0


MOVING = -1
"""Code of a sample that still moves, in tensors that have the `Status` of each sample that has ended."""


def select(state: Any, which: Tensor) -> Any:
    """Take some rows, by indices or a mask, of every tensor in a state: a tensor, or (named) tuples of states."""
    if isinstance(state, Tensor):
        return state[which]
    parts = [select(part, which) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


@dataclass(slots=True, eq=False)
class Batch:
    """The state of a running batch, with a row for each sample; samplers change it in place.

    Attributes:
        energy: the energy as a function of latents, and of the rows of their samples in this batch.
        z: current latents; for samples that have ended, final latents.
        rows: indices of the samples that still move, ascending.
        status: `Status` codes, `Status.OK` at first.
        values, gradients: numbers of evaluations without and with a gradient.
        energies: energy at z, in nats, if the sampler records it; else +inf.
        diagnostics: further numbers for each sample, (n,), by name, for `SampleResult.diagnostics`.
        follows: whether another sampler ran before on the same samples, and may have recorded `energies`.
    """

    energy: StepEnergy
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
        """Start a batch at the rows of `z0`; arguments and errors are those of `Sampler.sample`."""
        check_latents(z0)
        z, rows = z0.detach().clone(), torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(rows)
        adapted = as_energy(energy, first=noise.start)
        energies = torch.full_like(z[:, 0], math.inf)
        return cls(adapted, noise, z, rows, counts, counts.clone(), counts.clone(), energies, progress)

    def restarted(self, noise: RandomStreams, progress: Progress, follows: bool) -> Batch:
        """Batch for the next sampler of a `Chain`: all samples move again from where they are, and counts are 0."""
        rows = torch.arange(len(self.z), device=self.z.device)
        counts = torch.zeros_like(rows)
        return replace(
            self, noise=noise, rows=rows, status=counts, values=counts.clone(), gradients=counts.clone(),
            progress=progress, follows=follows, _reported=0.0,
        )  # fmt: skip

    def end(
        self, leave: Tensor, stay: Tensor, status: Int[Tensor, " ended"], z: Tensor, gradients: int, values: int = 0
    ) -> None:
        """Record that the samples `leave` end and the samples `stay` go on, both as indices into `rows`.

        `status` and `z` belong to samples that end; `gradients` and `values` are their evaluations with and without a
        gradient.
        """
        ended = self.rows[leave]
        self.z[ended], self.status[ended], self.gradients[ended] = z, status, gradients
        self.values[ended], self.energies[ended] = values, math.inf
        self.rows = self.rows[stay]

    def leave_out(self, enough: float) -> None:
        """End the samples whose energy, as an earlier sampler recorded it, is at most `enough` nats."""
        if self.follows:  # else all are +inf, and `nonzero` would wait for the device
            self.rows = (self.energies > enough).nonzero()[:, 0]

    def drop(self, finite: Bool[Tensor, " rows"]) -> None:
        """End the moving samples where `finite`, on the CPU, is false: latents stay, and the status is `NON_FINITE`."""
        if not finite.all():
            self.status[self.rows[~finite]] = Status.NON_FINITE
            self.rows = self.rows[finite]

    def report(self, fraction: float) -> None:
        """Call `progress`, where `fraction` (0 to 1) is the mean part of the work done for samples that still move."""
        if self.progress is not None:
            share = len(self.rows) / max(1, len(self.z))
            self._reported = max(self._reported, 1.0 - share * (1.0 - fraction))
            self.progress(self._reported, len(self.rows) if fraction < 1 else 0)

    def result(self) -> SampleResult:
        """Return latents, status, counts and diagnostics of all samples, as the result of the run."""
        numbers = [self.status, self.values, self.gradients, *self.diagnostics.values()]
        status, values, gradients, *diagnostics = to_cpu(numbers)
        named = dict(zip(self.diagnostics, diagnostics, strict=True))
        return SampleResult(self.z, status, values + gradients, gradients, named)


LOOK_EVERY = 8
"""Number of steps after which a `StepSampler` looks for samples that have ended, on other devices than the CPU."""


class Endings:
    """Bookkeeping of samples that end: their final state is recorded in the batch, and they are moved no further.

    Other devices than the CPU would have to be waited for, so the program looks there for samples that have ended only
    after `every` steps; until then they are computed further, without effect. `looked` says whether the last `note`
    looked.
    """

    def __init__(self, batch: Batch, energy: StepEnergy, values: Tensor | None = None, every: int = 1) -> None:
        self._batch, self._energy, self._values = batch, energy, values
        self._every = 1 if batch.z.device.type == "cpu" else every
        self._steps: list[tuple[Tensor, Callable[[], Tensor], Tensor | None, int, int]] = []
        self.looked = True

    def note(
        self, status: Int[Tensor, " rows"], z: Callable[[], Tensor], value: Tensor | None = None, *,
        limit: Status | None = None,
    ) -> Int[Tensor, " stay"] | None:  # fmt: skip
        """Record which samples end after a step, and remove samples that have ended from the batch, now or later.

        Args:
            z: function that returns the latents with which the samples of `batch.rows` end, if they end.
            value: number to record for each of them in `values`, a diagnostic of the batch, if it ends.
            limit: if this is the last step, the status of samples that have not ended by themselves.

        Returns:
            Indices, in `batch.rows` before the call, of the samples that go on; `None` if all go on, or without a look.
        """
        batch, energy = self._batch, self._energy
        if limit is not None:
            status = torch.where(status == MOVING, limit, status)
        self._steps.append((status, z, value, energy.gradients, energy.values))
        self.looked = limit is not None or len(self._steps) == self._every
        if not self.looked:
            return None
        steps, self._steps = self._steps, []
        statuses = torch.stack([step[0] for step in steps]).cpu()  # the one wait for a device
        ended = statuses != MOVING
        if not ended.any():
            return None
        first = torch.where(ended.any(0), ended.to(torch.uint8).argmax(0), len(steps))
        stay = (first == len(steps)).nonzero()[:, 0].to(batch.z.device)
        rows = batch.rows
        for number, (_, z, value, gradients, values) in enumerate(steps):  # a sample ends once
            if len(here := (first == number).nonzero()[:, 0]):
                leave, batch.rows = here.to(batch.z.device), rows
                if self._values is not None and value is not None:
                    self._values[rows[leave]] = value[leave]
                batch.end(leave, stay, statuses[number, here].to(batch.z.device), z()[leave], gradients, values)
        energy.samples = batch.energy.part(batch.rows).samples
        return stay


class BatchSampler(ABC):
    """Base class of samplers. A derived class defines the method `run`, which changes a `Batch` in place.

    Attributes:
        name: name of the sampler in records of runs; if it is empty, the name of the class is used.
        descends: whether samples end where the energy is low, instead of following the posterior.
        needs_gradient: whether the sampler uses the gradient of the energy.
        needs_floor: whether `sample` raises an `ArgumentError` for an energy without a lower bound; see `Energy.least`.
    """

    __slots__ = ()
    name = ""
    descends = False
    needs_gradient = True
    needs_floor = False

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return one sample for every row of `z0`; see `Sampler.sample`."""
        batch = Batch.start(energy, z0, noise, progress)
        if self.needs_floor:
            check_floor(batch.energy.least)
        self.run(batch)
        return batch.result()

    @abstractmethod
    def run(self, batch: Batch) -> None:
        """Move the samples of a batch until all have ended, and record latents, status and counts in the batch."""


@dataclass(frozen=True, slots=True, eq=False)
class StepNoise:
    """Random numbers of some samples for one step: equal names of draws give equal numbers, others independent ones.

    Args:
        like: latents (n, z_dim) of the batch; draws have their dtype and device.
        rows: the samples that take the step, as rows of `like`, ascending, on the CPU; all by default.
        step: name of the step, unique in the run.
    """

    streams: RandomStreams
    like: Float[Tensor, "n z_dim"]
    rows: Int[Tensor, " rows"] | None = None
    step: str = ""

    def normals(self, name: str = "") -> Float[Tensor, "rows z_dim"]:
        """Return a draw from N(0, I) for each sample that takes the step."""
        return self.streams.normals(self.like, self._stream(name), self.rows)

    def uniforms(
        self, count: int, name: str = "", rows: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "rows count"]:
        """Draw `count` numbers from (0, 1) for each sample, or for the samples `rows`; float64, but float32 on MPS."""
        if rows is not None and self.rows is not None:
            rows = self.rows[rows.cpu()]
        return self.streams.uniforms(self.like, count, self._stream(name), self.rows if rows is None else rows)

    def part(self, rows: Int[Tensor, " some"], name: str) -> StepNoise:
        """Random numbers for a part of the step, `name`, that only the samples with the indices `rows` take."""
        rows = rows.cpu()
        return StepNoise(self.streams, self.like, rows if self.rows is None else self.rows[rows], self._stream(name))

    def _stream(self, name: str) -> str:
        return "/".join(part for part in (self.step, name) if part)


class StepInfo(NamedTuple):
    """Outcome of a step: `status` has for each sample a `Status` or `MOVING`, (rows,) int64; `None` if all go on."""

    status: Int[Tensor, " rows"] | None = None

    @classmethod
    def where_finite(cls, finite: Bool[Tensor, " rows"]) -> StepInfo:
        """Outcome of a step after which samples end with `NON_FINITE` where `finite` is false, and all others go on."""
        failed = torch.full_like(finite, Status.NON_FINITE, dtype=torch.int64)  # fewer operations than by `where`
        return cls(failed.masked_fill_(finite, MOVING))


class StepSampler(BatchSampler):
    """Base class of samplers that repeat one step. A derived class defines the step as the method `advance`.

    Between steps, the state of the samples is a tensor of latents (rows, z_dim), or a `NamedTuple` with the latents as
    `z` and further tensors, all with a row for each sample. Row i of all that a step returns must depend on row i of
    its arguments only. A sample ends in three cases:

    - The `StepInfo` of a step has a `Status` for it: it ends with this status and the new latent.
    - The new latent is not finite: it ends with `Status.NON_FINITE` and the latent before the step.
    - It took `steps` steps: it ends with the status `after` and the new latent.

    Attributes:
        fails_only: whether samples end early only by a failure, after which their latents stay finite. Then failures
            are looked up only after the last step, so that no step waits for a GPU, and a failed sample ends with its
            last latent.
    """

    __slots__ = ()
    steps: int
    after = Status.OK
    fails_only = False

    def init(self, z: Float[Tensor, "rows z_dim"], energy: StepEnergy) -> tuple[Any, StepInfo]:
        """Return the first state of samples that start at `z`, and which end at once; by default `z`, and none."""
        return z, StepInfo()

    @abstractmethod
    def advance(self, state: Any, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Any, StepInfo]:
        """Take one step; return the state after the step, and which samples end. `state` is not changed.

        Args:
            energy: `energy(z)` returns energies (rows,) in nats, `energy.gradient(z)` also gradients (rows, z_dim).
            number: number of the step, from 0 on.
        """

    def run(self, batch: Batch) -> None:
        """Take steps until all samples of a batch have ended."""
        if not len(batch.rows):
            return
        streams = batch.noise.part(self.name or type(self).__qualname__)
        energy, before = batch.energy.part(batch.rows), batch.z[batch.rows]
        state, info = self.init(before, energy)
        ends = Endings(batch, energy, every=self.steps + 1 if self.fails_only else LOOK_EVERY)
        rows = None if len(batch.rows) == len(batch.z) else batch.rows.cpu()  # without `rows`, none need be listed

        def latest() -> Tensor:
            return z

        for number in range(self.steps + 1):
            z = state if isinstance(state, Tensor) else state.z
            if number and self.fails_only and info.status is not None:
                status, last = info.status, latest
            else:
                finite = finite_rows(z)
                status = torch.where(finite, MOVING if info.status is None else info.status, Status.NON_FINITE)
                last = partial(z.where, finite[:, None], before)
            stay = ends.note(status, last, limit=self.after if number == self.steps else None)
            if stay is not None:
                state, z, rows = select(state, stay), z[stay], batch.rows.cpu()
            if number:
                batch.report(number / self.steps)
            if not len(batch.rows):
                return
            noise = StepNoise(streams, batch.z, rows, str(number))
            before = z
            state, info = self.advance(state, energy, noise, number)
