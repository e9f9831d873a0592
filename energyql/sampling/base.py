"""The protocols of samplers and of the energies that they call, and the state of a running batch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from inspect import signature
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from energyql.errors import ArgumentError, misfit
from energyql.numerics.pullback import by_autograd
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.numerics.shapes import Bool, Float, Int

Kept = TypeVar("Kept")
ValueAndGradient = tuple[Float[Tensor, " batch"], Float[Tensor, "batch z_dim"]]
"""Energies, in nats, and their gradients with respect to z."""


class SurrogateEnergy(Protocol):
    """A cheap approximation of an energy, as a function of v, the coordinates of z along a few directions.

    Draws from it are good proposals. Equal objects compute equal energies.
    """

    def __hash__(self) -> int:
        """Return a hash, the same for equal objects."""

    @property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """Orthonormal rows: v is `basis` z."""

    def __call__(self, v: Float[Tensor, "batch r"], /) -> Float[Tensor, " batch"]:
        """Return the energies of v, in nats."""

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"], /) -> Float[Tensor, "batch z_dim"]:
        """Return z with its part along the basis replaced by v."""


class EnergyFunction(Protocol):
    """The methods of an `Energy`.

    Row i of a result may depend on row i of the arguments only: samplers evaluate batches whose members come and go.
    """

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> Float[Tensor, " batch"]:
        """Return the energies (batch,) of latents z (batch, z_dim).

        `rows`, int64 on the device of z, are the indices in the run of the samples that the latents belong to.
        """
        ...

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> ValueAndGradient:
        """Return the energies and their gradients with respect to z, both detached."""
        ...


class Energy(EnergyFunction):
    """An energy in nats, lower is better, that may differ from sample to sample.

    An object with these methods that does not derive from this class, or a function, is accepted as an energy too.
    Attributes that it lacks have the defaults of this class.

    Attributes:
        least: the least energy that a latent can reach, in nats, or -infinity if there is no lower bound. Samplers that
            end where the energy is low enough compare it with this.
        surrogate: function that returns a `SurrogateEnergy` of this energy; `None` if there is none.
        kept: cache of what samplers compute from this energy and need again in every run, empty at first; `None` for
            an energy that may change.
        costly: whether an evaluation takes as long as drawing a picture. Samplers then evaluate no point before it is
            needed, and make fewer trials.
    """

    least: float = 0.0
    surrogate: Callable[[], SurrogateEnergy] | None = None
    kept: MutableMapping[Hashable, Any] | None = None
    costly: bool = False


EnergyLike = EnergyFunction | Callable[[Tensor], Tensor]
"""An `Energy`, or a function from latents (batch, z_dim) to energies (batch,), which autograd differentiates."""


@dataclass(frozen=True, slots=True, eq=False)
class GradientEnergy(Energy):
    """An energy given by one function of z and rows that returns values and gradients."""

    gradient: Callable[[Tensor, Tensor], ValueAndGradient] = field()

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energies alone; see `Energy`."""
        return self.gradient(z, rows)[0]


def as_energy(energy: EnergyLike, *, first: int = 0, samples: Tensor | None = None) -> AdaptedEnergy:
    """Adapt an energy to the protocol `Energy`, with results of checked shape, detached, gradients in the dtype of z.

    Args:
        energy: a function of z, or of z and a parameter called `rows`; or an object with a method `gradient` of the
            same parameters. Without that method the gradient is taken by autograd, in every grad mode.
        first: index in the run of the first sample of the batch, added to the rows.
        samples: for a part of a batch, the row in the batch of each of its samples, (rows,).

    Returns:
        An energy of z and the rows of the batch or part, with all attributes of an `Energy`. It raises `ArgumentError`
        where a shape is wrong, or autograd finds no path from the energy back to z.
    """
    own = getattr(energy, "gradient", None)
    gradient = None if own is None else _with_rows(own, first, samples)
    value = _with_rows(energy, first, samples) if callable(energy) or gradient is None else GradientEnergy(gradient)
    optional = {name: getattr(energy, name, getattr(Energy, name)) for name in Energy.__annotations__}
    return AdaptedEnergy(value, gradient, **optional)


@dataclass(frozen=True, slots=True, eq=False)
class AdaptedEnergy(Energy):
    """An `Energy` as `as_energy` returns it."""

    value: Callable[[Tensor, Tensor], Tensor]
    value_and_gradient: Callable[[Tensor, Tensor], ValueAndGradient] | None
    least: float
    surrogate: Callable[[], SurrogateEnergy] | None
    kept: MutableMapping[Hashable, Any] | None
    costly: bool

    def once(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return the result of `make()`, from the cache `kept` if there is one; it must be the same for equal keys."""
        if self.kept is None:
            return make()
        if key not in self.kept:
            self.kept[key] = make()
        return cast(Kept, self.kept[key])

    def part(self, rows: Int[Tensor, " some"]) -> PartEnergy:
        """Return the energy of some samples, which counts its calls."""
        return PartEnergy(self, rows)

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the energies; see `Energy`. Without rows they are of the first samples, in their order."""
        value = self.value(z, torch.arange(len(z), device=z.device) if rows is None else rows)
        _check_shape("energy(z)", value, z.shape[:1])
        return value.detach()

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None) -> ValueAndGradient:
        """Return the energies and their gradients; see `Energy`. Without rows they are of the first samples."""
        rows = torch.arange(len(z), device=z.device) if rows is None else rows
        if self.value_and_gradient is not None:
            value, gradient = self.value_and_gradient(z, rows)
            _check_shape("energy.gradient(z)[0]", value, z.shape[:1])
            _check_shape("energy.gradient(z)[1]", gradient, z.shape)
        else:
            value, back = by_autograd(lambda leaf: self.value(leaf, rows), z)
            _check_shape("energy(z)", value, z.shape[:1])
            gradient = back(torch.ones_like(value))
        return value.detach(), gradient.detach().to(z.dtype)


@dataclass(slots=True, eq=False)
class PartEnergy(Energy):
    """The energy of some samples of a batch, which counts its calls; the argument `rows` indexes these samples.

    Attributes:
        energy: energy of all samples of the batch.
        rows: rows of these samples in the batch, (rows,).
        least: see `Energy`.
        values: number of calls without a gradient.
        gradients: number of calls with one.
    """

    energy: AdaptedEnergy
    rows: Int[Tensor, " rows"]
    least: float = field(init=False)
    values: int = 0
    gradients: int = 0

    def __post_init__(self) -> None:
        self.least, self.costly = self.energy.least, self.energy.costly

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the energies; see `Energy`. Without rows they are of all these samples, in their order."""
        self.values += 1
        return self.energy(z, self.rows if rows is None else self.rows[rows])

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None) -> ValueAndGradient:
        """Return the energies and their gradients; see `Energy`. Without rows they are of all these samples."""
        self.gradients += 1
        return self.energy.gradient(z, self.rows if rows is None else self.rows[rows])

    def part(self, rows: Int[Tensor, " some"]) -> PartEnergy:
        """Return the energy of some of these samples, with counts of its own."""
        return PartEnergy(self.energy, self.rows[rows])


StepEnergy = AdaptedEnergy | PartEnergy
"""The type of energy that steps of samplers call; `as_energy` makes one."""


def evaluate_points(
    energy: StepEnergy, z: Float[Tensor, "rows points z_dim"], rows: Int[Tensor, " rows"]
) -> Float[Tensor, "rows points"]:
    """Return the energies of points of the `rows`; NaN and -inf become +inf, which is never accepted."""
    samples = rows[:, None].expand(z.shape[:2]).flatten()
    energies = energy(z.flatten(0, 1), samples)
    return torch.nan_to_num(energies, nan=math.inf, posinf=math.inf, neginf=math.inf).view(z.shape[:2])


def check_floor(least: float) -> None:
    """Raise an `ArgumentError` if the least energy is -infinity: no sampler can compare energies with it."""
    if least == -math.inf:
        *others, last = [name for name, make in SAMPLERS.items() if not has_trait(make(), "needs_floor")]
        raise ArgumentError(
            "this energy has no lower bound, and this sampler needs one",
            hint=f"choose one that needs none: {', '.join(others)} or {last}",
        )


def _with_rows(function: Callable[..., Any], first: int, samples: Tensor | None) -> Callable[[Tensor, Tensor], Any]:
    """Return a function of z and of rows of the batch or part; arguments as for `as_energy`."""
    described = function.forward if isinstance(function, torch.nn.Module) else function
    try:
        takes_rows = "rows" in signature(described).parameters
    except (TypeError, ValueError):  # a built-in function
        takes_rows = False
    if not takes_rows:
        return lambda z, rows: function(z)
    if samples is not None:
        return lambda z, rows: function(z, samples[rows] + first)
    return (lambda z, rows: function(z, rows + first)) if first else function


def _check_shape(what: str, tensor: Tensor, expected: torch.Size) -> None:
    if tensor.shape != expected:
        raise ArgumentError(
            f"{what} must have shape {tuple(expected)}, one row for each latent; got {tuple(tensor.shape)}"
        )


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
        gradients: number of evaluations with a gradient, (n,) int64. The gradient costs once or twice as much as the
            energy alone.
        diagnostics: further numbers for each sample, (n,), by name; the docstring of the sampler describes them.
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


SAMPLERS: dict[str, Callable[..., Sampler]] = {}
"""Every sampler by its name, as a function of `strength` and its other settings. Those called published have the
settings of Nie et al. 2021 (arXiv 2110.10873). `energyql.sampling.registry` lists them."""


def has_trait(sampler: object, trait: Literal["descends", "needs_gradient", "needs_floor"]) -> bool:
    """Return the trait of a sampler, an attribute of `BatchSampler`; false if the sampler lacks the attribute."""
    return bool(getattr(sampler, trait, False))


def check_sampler(sampler: Any) -> None:
    """Check that an object is a sampler: that it has a method `sample` with the arguments of `Sampler.sample`.

    Raises:
        ArgumentError: it is a class, has no such method, or the method takes other arguments.
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
    """Call `sampler.sample`, and return its result; the sampler may be code of a user. See `Sampler.sample`.

    Raises:
        ArgumentError: the result is no `SampleResult`, or its latents have another shape than `z0`.
    """
    result: object = sampler.sample(energy, z0, noise=noise, progress=progress)
    if not isinstance(result, SampleResult) or result.z.shape != z0.shape:
        what = f"latents {tuple(result.z.shape)}" if isinstance(result, SampleResult) else f"a {type(result).__name__}"
        raise ArgumentError(
            f"sample of {type(sampler).__name__} returned {what}",
            hint=f"it must return a SampleResult with latents {tuple(z0.shape)}, as one of BatchSampler does",
        )
    return result


def summarize(result: SampleResult) -> dict[str, float]:
    """Return the costs of a run, and measures of how closely its samples follow the posterior.

    Returns:
        For every sampler: `evaluations_mean` and `evaluations_max`, mean and maximum of the evaluations of a sample;
        `gradients_mean`, mean number of evaluations with a gradient. If the sampler counts them, `steps_rejected`,
        summed over samples. If the sampler draws from the posterior:

        - `acceptance`: accepted proposals over proposals;
        - `exact`: fraction of samples that accepted a proposal;
        - `stages_mean`, with annealing: mean number of stages of the annealed samples;
        - `effective_samples`: effective number (Σw)²/Σw² by the importance weights w (Kong 1992) of accepted draws,
          plus that of annealed samples; other samples count 0. If it is well below the number of samples, attributes
          that the query leaves open may come in the wrong proportions;
        - `log_probability`: estimate of log P(query) under the prior, in nats (of log E[exp(-λE)] for a strength λ
          other than 1), from the proposals (by Wald's identity, since a sample stops once it accepts) or, if too few
          of them had a low energy, from the weights of annealed samples.
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
            estimate = torch.logsumexp(annealed, 0) - math.log(len(annealed))
        summary["stages_mean"] = diagnostics["stages"][exact == 0].double().mean().item() if len(annealed) else 0.0
        effective += effective_samples(annealed)
    return summary | {"effective_samples": effective, "log_probability": estimate.item()}


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
    """Refuse settings of a sampler that are not whole numbers; `least` gives the lower bound of each by name."""
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


MOVING = -1
"""The code, in place of a `Status`, of a sample that has not ended."""


def select(state: Any, which: Tensor) -> Any:
    """Return the rows `which` (indices or a mask) of every tensor of a state: a tensor, or a tuple of states."""
    if isinstance(state, Tensor):
        return state[which]
    parts = [select(part, which) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


@dataclass(slots=True, eq=False)
class Batch:
    """The samples of one run of a sampler, one row each.

    Attributes:
        energy: function of latents and of their rows in this batch.
        noise: random numbers of these samples.
        z: the current latent of each sample, or the last one of a sample that has ended.
        rows: indices of the samples that still move, ascending.
        status: `Status` codes, OK at first.
        values: number of evaluations of the energy without its gradient, by sample.
        gradients: number of evaluations with the gradient, by sample.
        energies: energy at z, in nats, if the sampler records it; else +inf.
        diagnostics: numbers (n,) by name, which become those of the result.
        progress: see `Progress`.
        follows: whether another sampler ran before, which may have recorded `energies`.
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

    def end(
        self, leave: Tensor, stay: Tensor, status: Int[Tensor, " ended"], z: Tensor, gradients: int, values: int = 0
    ) -> None:
        """Record the samples that end, in a sampler that evaluates all that move equally often.

        `leave` and `stay`, indices or masks of `rows`, are the samples that end and that go on. The other arguments are
        those of the samples that end: final latents, and numbers of evaluations with a gradient and without.
        """
        ended = self.rows[leave]
        self.z[ended], self.status[ended], self.gradients[ended] = z, status, gradients
        self.values[ended], self.energies[ended] = values, math.inf
        self.rows = self.rows[stay]

    def leave_out(self, enough: float) -> None:
        """End the samples whose recorded energy is at most `enough`, in nats, without moving them."""
        if self.follows:  # else all are +inf, and `nonzero` would wait for the device
            self.rows = (self.energies > enough).nonzero()[:, 0]

    def drop(self, finite: Bool[Tensor, " rows"]) -> None:
        """End those of `rows` for which `finite` is false, with `Status.NON_FINITE`, without moving them."""
        self.status[self.rows[~finite]] = Status.NON_FINITE
        self.rows = self.rows[finite]

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
    """A `Sampler` that is written as a function of a `Batch`.

    Attributes:
        name: the name in records of runs; if empty, that of the class is used.
    """

    __slots__ = ()
    name = ""

    @property
    def descends(self) -> bool:
        """Whether samples end at low energies, and do not follow the posterior."""
        return False

    @property
    def needs_gradient(self) -> bool:
        """Whether the sampler follows the gradient of the energy."""
        return True

    @property
    def needs_floor(self) -> bool:
        """Whether the sampler needs an energy with a lower bound; see `Energy.least`."""
        return False

    @torch.no_grad()
    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Sample from every row of `z0`; see `Sampler.sample`."""
        batch = Batch.start(energy, z0, noise, progress)
        if self.needs_floor:
            check_floor(batch.energy.least)
        self.run(batch)
        return batch.result()

    @abstractmethod
    def run(self, batch: Batch) -> None:
        """Move the samples of a batch to their end."""


@dataclass(frozen=True, slots=True, eq=False)
class StepNoise:
    """Random numbers of some samples for one step of a sampler; calls with different names give different numbers.

    Args:
        streams: random streams of the run.
        like: latents (n, z_dim) of the batch, whose shape, dtype and device the numbers have.
        rows: the samples that take the step, as rows of `like`, ascending; all by default.
        step: name of the step, unique in the run.
    """

    streams: RandomStreams
    like: Float[Tensor, "n z_dim"]
    rows: Int[Tensor, " rows"] | None = None
    step: str = ""

    def normals(self, name: str = "") -> Float[Tensor, "rows z_dim"]:
        """Return draws from N(0, I)."""
        return self.streams.normals(self.like, self._stream(name), self.rows)

    def uniforms(
        self, count: int, name: str = "", rows: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "rows count"]:
        """Return float64 draws from the open interval (0, 1), `count` for each sample, or for some of the `rows`."""
        if rows is not None and self.rows is not None:
            rows = self.rows[rows]
        return self.streams.uniforms(self.like, count, self._stream(name), self.rows if rows is None else rows)

    def part(self, rows: Int[Tensor, " some"], name: str) -> StepNoise:
        """Return random numbers of some of these samples, for a part of the step."""
        return StepNoise(self.streams, self.like, rows if self.rows is None else self.rows[rows], self._stream(name))

    def _stream(self, name: str) -> str:
        return "/".join(part for part in (self.step, name) if part)


class StepInfo(NamedTuple):
    """The outcome of a step for each sample: the `Status` with which it ends, or `MOVING`, (rows,) int64.

    `None` stands for `MOVING` in all rows.
    """

    status: Int[Tensor, " rows"] | None = None

    @classmethod
    def where_finite(cls, finite: Bool[Tensor, " rows"]) -> StepInfo:
        """Return the info of a step after which samples end with `Status.NON_FINITE` where `finite` is false."""
        return cls(torch.where(finite, MOVING, Status.NON_FINITE))


class StepSampler(BatchSampler):
    """A `Sampler` that is written as one step, `advance`; `run` repeats it, counts evaluations and reports progress.

    A state is a tensor of latents (rows, z_dim), or a `NamedTuple` with these as `z` and further tensors, all with a
    row for each sample. Row i of all that a step returns may depend on row i of its arguments only. A sample ends if
    the info of a step has a `Status` for it, with the latent of the new state; if the new latent is not finite, with
    the latent before the step; and after `steps` steps, with the status `after`.

    Attributes:
        steps: number of steps at most.
        after: status of samples that took all of them.
    """

    __slots__ = ()
    steps: int
    after = Status.OK

    def init(self, z: Float[Tensor, "rows z_dim"], energy: StepEnergy) -> tuple[Any, StepInfo]:
        """Return the state of samples that start at `z`; by default `z` itself."""
        return z, StepInfo()

    @abstractmethod
    def advance(self, state: Any, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Any, StepInfo]:
        """Return the state after a step and the outcome of the step, without changing `state`.

        Args:
            state: state of the samples that move.
            energy: energy of these samples: `energy(z)` is (rows,), in nats; `energy.gradient(z)` returns it with the
                gradient.
            noise: random numbers of these samples for this step.
            number: number of the step, from 0 on.
        """

    def run(self, batch: Batch) -> None:
        """Take steps until all samples have ended; see `BatchSampler`."""
        if not len(batch.rows):
            return
        streams = batch.noise.part(self.name or type(self).__qualname__)
        energy, before = PartEnergy(batch.energy, batch.rows), batch.z[batch.rows]
        state, info = self.init(before, energy)
        for number in range(self.steps + 1):
            z = state if isinstance(state, Tensor) else state.z
            finite = z.isfinite().all(1)
            status = torch.where(finite, MOVING if info.status is None else info.status, Status.NON_FINITE)
            if number == self.steps:
                status = torch.where(status == MOVING, self.after, status)
            if bool((leave := status != MOVING).any()):
                last = torch.where(finite[:, None], z, before)[leave]
                batch.end(leave, ~leave, status[leave], last, energy.gradients, energy.values)
                state, z, energy.rows = select(state, ~leave), z[~leave], batch.rows
            if number:
                batch.report(number / self.steps)
            if not len(batch.rows):
                return
            rows = None if len(batch.rows) == len(batch.z) else batch.rows  # listing them takes time
            noise = StepNoise(streams, batch.z, rows, str(number))
            before = z
            state, info = self.advance(state, energy, noise, number)
