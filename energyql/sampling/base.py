"""The protocols of samplers and energies, the state of a running batch, and base classes for new samplers.

Samplers move latents z to low energies. The prior is the distribution N(0, I) of z. The posterior of an energy E at
strength λ is the density N(z; 0, I) exp(-λ E), up to a constant factor.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from inspect import signature
from pkgutil import resolve_name
from typing import Any, Literal, NamedTuple, Protocol, TypeVar, cast

import torch
from torch import Tensor

from energyql.catalog import SAMPLER_CODE
from energyql.errors import ArgumentError, misfit
from energyql.numerics.pool import to_cpu
from energyql.numerics.pullback import by_autograd
from energyql.numerics.random import FIRST_RUN, RandomStreams
from energyql.numerics.shapes import Bool, Float, Int

Kept = TypeVar("Kept")
ValueAndGradient = tuple[Float[Tensor, " batch"], Float[Tensor, "batch z_dim"]]
"""Energies, in nats, and their gradients with respect to z."""


class SurrogateEnergy(Protocol):
    """A cheap approximation of an energy. It depends only on v, the coordinates of z along a few directions.

    Samplers draw proposals from the posterior of the approximation. Rejection by the true energy accepts these more
    often than draws from the prior. Surrogates that compare equal must compute equal energies, because results are
    cached.
    """

    def __hash__(self) -> int:
        """Return a hash, which is the same for equal objects."""

    @property
    def basis(self) -> Float[Tensor, "r z_dim"]:
        """The directions along which this energy depends on z, as orthonormal rows. So v is `basis` times z."""

    def __call__(self, v: Float[Tensor, "batch r"], /) -> Float[Tensor, " batch"]:
        """Return the approximate energies at v, in nats."""

    def lift(self, v: Float[Tensor, "batch r"], z: Float[Tensor, "batch z_dim"], /) -> Float[Tensor, "batch z_dim"]:
        """Return latents with the coordinates v along the rows of `basis`; in all other directions they equal z."""


class EnergyFunction(Protocol):
    """The methods that an energy of latents has; `Energy` adds attributes to them.

    Row i of a result must depend on row i of the arguments only, because samplers evaluate different samples together.
    """

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> Float[Tensor, " batch"]:
        """Return the energies (batch,) of latents z (batch, z_dim).

        `rows`, int64 on the device of z, says which sample of the run each latent belongs to, counted from 0.
        """

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"], /) -> ValueAndGradient:
        """Return the energies of latents z, and the gradients of the energies with respect to z; both are detached.

        `rows` says which sample of the run each latent belongs to, counted from 0.
        """


class Energy(EnergyFunction):
    """An energy of latents, in nats; lower is better. Each sample of a run may have another function as its energy.

    Samplers also accept a function, or an object that has the methods of `EnergyFunction` but does not derive from this
    class. If the object lacks one of these attributes, the default of this class is used.

    Attributes:
        least: the least energy that any latent can have, in nats; -infinity if there is no lower bound. Samplers that
            end where the energy is low enough compare the energy with this value.
        surrogate: function that returns a cheap approximation of this energy; `None` if there is none.
        kept: a dict, empty at first, in which samplers cache what they compute from this energy and need again in every
            run; `None` if the energy may change, so that nothing is cached.
        costly: whether each evaluation draws a picture, or takes as long. If so, samplers make fewer trials, and do not
            evaluate points whose energies they may not need.
    """

    least: float = 0.0
    surrogate: Callable[[], SurrogateEnergy] | None = None
    kept: MutableMapping[Hashable, Any] | None = None
    costly: bool = False


EnergyLike = EnergyFunction | Callable[[Tensor], Tensor]
"""An `Energy`, or a function from latents (batch, z_dim) to energies (batch,), which autograd differentiates."""


@dataclass(frozen=True, slots=True, eq=False)
class GradientEnergy(Energy):
    """An energy that is made from one function, which returns energies and gradients together.

    Attributes:
        gradient: function that returns energies and gradients, with the arguments of `EnergyFunction.gradient`.
    """

    gradient: Callable[[Tensor, Tensor], ValueAndGradient] = field()

    def __call__(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"]) -> Float[Tensor, " batch"]:
        """Return the energies of latents z, where `rows` says which sample of the run each latent belongs to."""
        return self.gradient(z, rows)[0]


def as_energy(energy: EnergyLike, *, first: int = 0, samples: Tensor | None = None) -> StepEnergy:
    """Return an `Energy` for a batch, made from a function or object of a user.

    Results of the returned energy are detached, and gradients have the dtype of z. A call of the returned energy raises
    an `ArgumentError` if a result has a wrong shape, or if autograd finds that the energy does not depend on z.

    Args:
        energy: a function of z, or of z and a parameter called `rows`; or an object with a method `gradient` that takes
            z, or z and `rows`. Without a method `gradient`, gradients are computed by autograd, also under
            `torch.no_grad`.
        first: index in the run of the first sample of the batch. It is added to the rows with which `energy` is called.
        samples: to get an energy for only some samples of the batch, their rows in the batch, (rows,); `None` for all.

    Returns:
        An energy with all attributes of `Energy`. The argument `rows` of its calls says which sample a latent belongs
        to: an index into the batch, or into `samples`.
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
    """An `Energy` for all samples of a batch, or for some of them, which counts its calls. `as_energy` makes it.

    Attributes:
        value: function that returns energies. It takes latents, and for each latent the row of its sample in the batch.
        value_and_gradient: function of the same arguments that returns energies and gradients; `None` if autograd
            computes the gradients.
        rows: `None` if the energy is for all samples of the batch; else the rows of its samples in the batch, (rows,).
            The argument `rows` of a call is then an index into this tensor.
        least, surrogate, kept, costly: attributes of the user's energy; see `Energy`.
        values: number of calls without a gradient so far.
        gradients: number of calls with a gradient so far.
    """

    value: Callable[[Tensor, Tensor], Tensor]
    value_and_gradient: Callable[[Tensor, Tensor], ValueAndGradient] | None
    rows: Int[Tensor, " rows"] | None
    least: float
    surrogate: Callable[[], SurrogateEnergy] | None
    kept: MutableMapping[Hashable, Any] | None
    costly: bool
    values: int = 0
    gradients: int = 0

    def once(self, key: Hashable, make: Callable[[], Kept]) -> Kept:
        """Return `make()`, or the result of an earlier call with an equal `key`, which is cached in `kept`.

        Nothing is cached if `kept` is `None`. Calls with equal keys must make equal results.
        """
        if self.kept is None:
            return make()
        if key not in self.kept:
            self.kept[key] = make()
        return cast(Kept, self.kept[key])

    def part(self, rows: Int[Tensor, " some"]) -> StepEnergy:
        """Return an energy for some of the samples of this energy. The counts of calls of the new energy start at 0.

        `rows` are the indices of these samples among the samples of this energy.
        """
        return replace(self, rows=rows if self.rows is None else self.rows[rows], values=0, gradients=0)

    def __call__(
        self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, " batch"]:
        """Return the energies of latents `z`, in nats.

        `rows` says which sample each latent belongs to: an index among the samples of this energy. Without `rows`,
        latent i belongs to sample i.
        """
        self.values += 1
        value = self.value(z, self._places(z, rows))
        _check_shape("energy(z)", value, z.shape[:1])
        return value.detach()

    def gradient(self, z: Float[Tensor, "batch z_dim"], rows: Int[Tensor, " batch"] | None = None) -> ValueAndGradient:
        """Return the energies of latents `z`, in nats, and the gradients of the energies with respect to z.

        `rows` says which sample each latent belongs to: an index among the samples of this energy. Without `rows`,
        latent i belongs to sample i.
        """
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
        """Return for each latent in `z` the row of its sample in the whole batch, (len(z),).

        This energy may be for some of the samples of the batch only; the attribute `rows` has their rows. The argument
        `rows` gives the index of the sample of each latent among these samples. `None` means that latent i belongs to
        sample i.
        """
        if self.rows is None:
            return torch.arange(len(z), device=z.device) if rows is None else rows
        return self.rows if rows is None else self.rows[rows]


def evaluate_points(
    energy: StepEnergy, z: Float[Tensor, "rows points z_dim"], rows: Int[Tensor, " rows"]
) -> Float[Tensor, "rows points"]:
    """Return the energies of several latents, called points, for each of some samples.

    A sampler moves each sample to one of its points. Energies that are NaN or -inf become +inf, so that no sampler
    accepts such a point.

    Args:
        energy: energy of the batch, in nats.
        z: the points; row i has the points of one sample.
        rows: index of this sample among the samples of `energy`, for each row of z.
    """
    samples = rows[:, None].expand(z.shape[:2]).flatten()
    energies = energy(z.flatten(0, 1), samples)
    return torch.nan_to_num(energies, nan=math.inf, posinf=math.inf, neginf=math.inf).view(z.shape[:2])


def check_floor(least: float) -> None:
    """Raise an `ArgumentError` if `least`, the lower bound of an energy, is -infinity; some samplers need a bound."""
    if least == -math.inf:
        names = [name for name, make in SAMPLERS.items() if not has_trait(make(), "needs_floor")]
        raise ArgumentError(
            "this energy has no lower bound, and this sampler needs one", hint=f"others need none: {', '.join(names)}"
        )


def _with_rows(function: Callable[..., Any], first: int) -> Callable[[Tensor, Tensor], Any]:
    """Return a function of latents z and of the rows of their samples in the batch, made from a user's `function`.

    If `function` has a parameter called `rows`, it is called with z and rows + `first`, else with z alone. `first` is
    the index in the run of the first sample of the batch.
    """
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
"""Function that samplers call while they run. Its arguments are the fraction of the run that is done, and the number of
samples that still move. The fraction, from 0 to 1, is the mean over all samples, and never falls."""

MOST_STRENGTH = 1_000_000


class Status(IntEnum):
    """How the run of a sampler ended for one sample: `sentence` explains each value.

    The values are integers, so that the statuses of a batch are a tensor.
    """

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
"""The sentence of each `Status`, in the order of the codes. A sample that failed is returned with its latent before the
failure."""


@dataclass(frozen=True, slots=True, eq=False)
class SampleResult:
    """The result of a run of a sampler, with one row for each start latent, whether the sample failed or not.

    Args:
        z: final latents (n, z_dim), on the device and in the dtype of the start latents. A final latent is finite if
            the start latent was finite.
        status: a `Status` code for each sample, (n,) int64. `status` and all further tensors are on the CPU.
        evaluations: number of evaluations of the energy for each sample, with gradient or without, (n,) int64.
        gradients: number of evaluations of the energy with gradient for each sample, (n,) int64. A gradient takes one
            or two times as long as an energy alone.
        diagnostics: further numbers for each sample, (n,), by name. The docstring of a sampler's class says which names
            its results have.
    """

    z: Float[Tensor, "n z_dim"]
    status: Int[Tensor, " n"]
    evaluations: Int[Tensor, " n"]
    gradients: Int[Tensor, " n"]
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def ok(self) -> Bool[Tensor, " n"]:
        """For each sample, whether it reached the end: whether its status is `Status.OK`."""
        return self.status == Status.OK

    def counts(self) -> dict[Status, int]:
        """Return the number of samples with each status; statuses without samples are left out."""
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
    """An object that moves latents towards low energy.

    A sampler is a small frozen object whose fields are its settings. It takes an energy, never a query. Tests check for
    all samplers that:

    - row i of the result depends only on row i of `z0` and on the random numbers of sample i;
    - so a run in several parts gives the same samples as a run in one part, up to rounding;
    - a sample that fails gets a status that says so, and the other samples of the batch go on;
    - `z0` is not modified, nothing is printed, and no global random state is read or changed.
    """

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return one sample for every row of `z0`, the latent where the sample starts.

        Args:
            energy: an `Energy`, or a function of z alone, which a sampler converts with `as_energy`.
            z0: start latents (n, z_dim), float32 or float64, usually from `prior_latents`. The computation is done in
                the dtype and on the device of `z0`.
            noise: source of the random numbers of these samples; deterministic samplers do not use it.
            progress: function that the sampler calls at most once a step, with the fraction of the run that is done,
                and the number of samples that still move; or `None`.

        Raises:
            ArgumentError: `z0` has the wrong shape or dtype, or the energy returns the wrong shape.
        """


def _make(code: str, **settings: Any) -> Sampler:
    return cast(Sampler, resolve_name(code)(**settings))


SAMPLERS: Mapping[str, Callable[..., Sampler]] = {name: partial(_make, code) for name, code in SAMPLER_CODE.items()}
"""For the name of each sampler, a function that makes the sampler. The function takes `strength`, the factor of the
energy, and for some names other settings too. Samplers whose name begins with "published" have the settings of Nie et
al. 2021 (arXiv 2110.10873)."""


def has_trait(sampler: object, trait: Literal["descends", "needs_gradient", "needs_floor"]) -> bool:
    """Return the attribute of a sampler that is called `trait`; false if the sampler has no such attribute.

    "descends" says whether samples end where the energy is low, instead of following the posterior. "needs_gradient"
    says whether the sampler uses the gradient of the energy. "needs_floor" says whether the energy must have a lower
    bound.
    """
    return bool(getattr(sampler, trait, False))


def check_sampler(sampler: Any) -> None:
    """Check that an object is a sampler: that it has a method `sample` with the arguments of `Sampler.sample`.

    Raises:
        ArgumentError: the object is a class, or has no method `sample`, or the method takes other arguments.
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
    """Call `sampler.sample`, and return its result after a check, because the sampler may be code of a user.

    The other arguments are those of `Sampler.sample`: the energy, start latents (n, z_dim), a source of random numbers,
    and a function that is called with the progress.

    Raises:
        ArgumentError: the result is no `SampleResult`, or its latents have another shape than `z0`.
    """
    result: object = sampler.sample(energy, z0, noise=noise, progress=progress)
    if not isinstance(result, SampleResult) or result.z.shape != z0.shape:
        what = f"latents {tuple(result.z.shape)}" if isinstance(result, SampleResult) else f"a {type(result).__name__}"
        goal = f"a SampleResult with latents {tuple(z0.shape)}"
        raise ArgumentError(f"sample of {type(sampler).__name__} returned {what}, not {goal}")
    return result


def summarize(result: SampleResult) -> dict[str, float]:
    """Return the costs of a run, and measures of how closely its samples follow the posterior.

    Returns:
        Numbers by name. For every sampler:

        - `evaluations_mean`, `evaluations_max`: mean and maximum over samples of the number of evaluations of the
          energy, with gradient or without;
        - `gradients_mean`: mean over samples of the number of evaluations with a gradient.

        If the sampler rejects steps, as `ODESolver` does:

        - `steps_rejected`: number of rejected steps, summed over samples.

        If the sampler begins with rejection, as `SliceSampler` does:

        - `acceptance`: number of accepted proposals / number of proposals;
        - `exact`: fraction of samples that accepted a proposal;
        - `stages_mean`, only with annealing: mean number of stages of the annealed samples, 0 if there are none;
        - `effective_samples`: effective number of samples, (Σw)²/Σw² for importance weights w (Kong 1992). It is
          computed for the samples that accepted a proposal, and for the annealed samples, and the two numbers are
          added. Samples that did neither add nothing. If the sum is well below the number of samples, attributes that
          the query leaves open may come in the wrong proportions;
        - `log_probability`: estimate of log P(query) under the prior, in nats. (For a strength λ other than 1 it is an
          estimate of the logarithm of the mean of exp(-λ energy).) It is the logarithm of the mean weight of all
          proposals that were tried (Wald's identity). If too few proposals had a low energy, it is computed from the
          weights of annealed samples.
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
    """Return the effective number of weighted samples, (Σw)²/Σw² (Kong 1992); 0 if there are no samples.

    It is the number of equally weighted samples from which estimates would be about as precise. `log_weights` are the
    logarithms of the importance weights w.
    """
    if not len(log_weights) or not log_weights.isfinite().any():
        return 0.0
    return torch.exp(2 * torch.logsumexp(log_weights, 0) - torch.logsumexp(2 * log_weights, 0)).item()


def require(condition: bool, rule: str, value: object) -> None:
    """Raise an `ArgumentError` if `condition` is false; the message is `rule`, followed by the wrong `value`."""
    if not condition:
        raise ArgumentError(f"{rule}; got {value!r}")


def check_strength(strength: float) -> None:
    """Raise an `ArgumentError` unless a strength λ is above 0 and at most `MOST_STRENGTH`, a million.

    A product of a larger strength and an energy could overflow float32.
    """
    rule = f"strength must be above 0 and at most {MOST_STRENGTH:,}"
    require(0 < strength <= MOST_STRENGTH, rule, strength)


def check_positive(sampler: object, *names: str) -> None:
    """Raise an `ArgumentError` unless each of the settings `names` of a sampler is `None`, or finite and above 0."""
    for name in names:
        value = getattr(sampler, name)
        require(value is None or 0 < value < math.inf, f"{name} must be finite and above 0", value)


def check_counts(sampler: object, **least: int) -> None:
    """Raise an `ArgumentError` if a setting of a sampler is no whole number, or is smaller than allowed.

    `least` has the name and the least allowed value of each setting to check, such as `steps=1`.
    """
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
    """Return for each row whether all its numbers are finite, in fewer operations than `isfinite` needs.

    Args:
        x: a tensor (rows,) or (rows, dim).
        more: further tensors of such shapes; their numbers in a row must be finite too.
    """
    zeros = [part - part if part.ndim == 1 else (part - part).sum(1) for part in (x, *more)]
    return sum(zeros[1:], zeros[0]) == 0


MOVING = -1
"""Code of a sample that still moves, in a tensor that has a code for each sample. Samples that have ended have the code
of their `Status` there."""


def select(state: Any, which: Tensor) -> Any:
    """Return some rows of every tensor in a state of samples, such as the rows of the samples that go on.

    Args:
        state: a tensor; or a tuple or `NamedTuple` of tensors, in which further tuples may be nested.
        which: the rows, as indices or as a mask of bools.
    """
    if isinstance(state, Tensor):
        return state[which]
    parts = [select(part, which) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


@dataclass(slots=True, eq=False)
class Batch:
    """The samples of one run of a sampler, with a row for each. A sampler changes the batch in place while it runs.

    Attributes:
        energy: the energy as a function of latents, and of the rows of their samples in this batch.
        noise: source of the random numbers of these samples.
        z: the current latent of each sample; for a sample that has ended, the final latent.
        rows: indices of the samples that still move, ascending.
        status: `Status` code of each sample, `Status.OK` at first.
        values: number of evaluations of the energy without gradient, for each sample.
        gradients: number of evaluations of the energy with gradient, for each sample.
        energies: energy of each sample at z, in nats, if the sampler records it; else +inf.
        progress: function to call with the fraction that is done and the number of samples that still move; or `None`.
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
        """Return a batch of samples that start at the rows of `z0` and have no evaluations yet.

        Args:
            energy: an `Energy`, or a function of z alone.
            z0: start latents (n, z_dim), float32 or float64.
            noise: source of the random numbers of these samples.
            progress: function to call with the fraction done and the number of samples that still move; or `None`.

        Raises:
            ArgumentError: `z0` has another shape or dtype.
        """
        check_latents(z0)
        z, rows = z0.detach().clone(), torch.arange(len(z0), device=z0.device)
        counts = torch.zeros_like(rows)
        adapted = as_energy(energy, first=noise.start)
        energies = torch.full_like(z[:, 0], math.inf)
        return cls(adapted, noise, z, rows, counts, counts.clone(), counts.clone(), energies, progress)

    def restarted(self, noise: RandomStreams, progress: Progress, follows: bool) -> Batch:
        """Return a batch for the next sampler of a `Chain`, which starts at the current latents of these samples.

        In the new batch all samples move again, and counts of evaluations are 0.

        Args:
            noise: source of the random numbers of the next sampler.
            progress: function that the next sampler calls with its progress.
            follows: whether another sampler ran before on these samples, and may have recorded `energies`.
        """
        rows = torch.arange(len(self.z), device=self.z.device)
        counts = torch.zeros_like(rows)
        return replace(
            self, noise=noise, rows=rows, status=counts, values=counts.clone(), gradients=counts.clone(),
            progress=progress, follows=follows, _reported=0.0,
        )  # fmt: skip

    def end(
        self, leave: Tensor, stay: Tensor, status: Int[Tensor, " ended"], z: Tensor, gradients: int, values: int = 0
    ) -> None:
        """Record that some samples end, for a sampler that evaluates the energy of all moving samples equally often.

        Args:
            leave: the samples that end, as indices into the attribute `rows`.
            stay: the samples that go on, in the same form as `leave`.
            status: `Status` codes of the samples that end.
            z: final latents of the samples that end.
            gradients: number of evaluations with gradient for each sample that ends.
            values: number of evaluations without gradient for each sample that ends.
        """
        ended = self.rows[leave]
        self.z[ended], self.status[ended], self.gradients[ended] = z, status, gradients
        self.values[ended], self.energies[ended] = values, math.inf
        self.rows = self.rows[stay]

    def leave_out(self, enough: float) -> None:
        """End the samples whose energy, recorded by an earlier sampler, is at most `enough` nats.

        The samples that end keep their latents, and their status, which is `Status.OK` before any step. If no other
        sampler ran before, no sample ends.
        """
        if self.follows:  # else all are +inf, and `nonzero` would wait for the device
            self.rows = (self.energies > enough).nonzero()[:, 0]

    def drop(self, finite: Bool[Tensor, " rows"]) -> None:
        """End the moving samples for which `finite` is false. They keep their latents, and get `Status.NON_FINITE`.

        `finite` has a value for each moving sample, in the order of the attribute `rows`, and is on the CPU.
        """
        if not finite.all():
            self.status[self.rows[~finite]] = Status.NON_FINITE
            self.rows = self.rows[finite]

    def report(self, fraction: float) -> None:
        """Call the function `progress` of the batch, if there is one.

        `fraction`, from 0 to 1, is the part of the work that is done for the samples that still move, on average.
        """
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
"""Number of steps after which a `StepSampler` looks for samples that have ended, on another device than the CPU."""


class Endings:
    """The bookkeeping of samples that end: their final state is recorded in the batch, and they are moved no further.

    On a CPU this is done after every step. On another device, the program would have to wait for the device each time,
    so it looks for samples that have ended only after some steps. Until then they are computed further, without effect.

    Args:
        batch: the batch.
        energy: energy of the samples that still move, which counts the evaluations of each of them.
        values: one of the batch's diagnostics, (n,), in which `note` records a number for each sample that ends;
            `None` to record no number.
        every: number of steps after which the program looks for samples that have ended, on other devices than the CPU.

    Attributes:
        looked: whether the last call of `note` looked for samples that have ended. If so, `batch.rows` has only samples
            that still move.
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
        """Record which samples end after a step, and remove those that have ended from the batch, now or later.

        Args:
            status: for each sample of `batch.rows` the `Status` with which it ends, or `MOVING`.
            z: function that returns the latents with which the samples of `batch.rows` end, if they end.
            value: for each sample of `batch.rows`, the number to record in the diagnostic `values` if the sample ends.
            limit: the status of samples that have not ended by themselves, if this step is the last of all; `None` if
                further steps follow.

        Returns:
            The samples that go on, as indices into `batch.rows` as it was before the call. `None` if all go on, or if
            this call did not look for samples that have ended.
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
        energy.rows = batch.energy.part(batch.rows).rows
        return stay


class BatchSampler(ABC):
    """Base class of samplers. A derived class defines the method `run`, which changes a `Batch` in place.

    Attributes:
        name: name of the sampler in records of runs; if it is empty, the name of the class is used.
        descends: whether samples end where the energy is low, instead of following the posterior.
        needs_gradient: whether the sampler uses the gradient of the energy.
        needs_floor: whether the energy must have a lower bound; see `Energy.least`.
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
        """Return one sample for every row of `z0`, by a call of `run`.

        Args:
            energy: an `Energy`, or a function of z alone.
            z0: start latents (n, z_dim), float32 or float64.
            noise: source of the random numbers of these samples.
            progress: function to call with the fraction done and the number of samples that still move; or `None`.

        Raises:
            ArgumentError: `z0` has the wrong shape or dtype, or the energy returns the wrong shape; or `needs_floor` is
                true, and the energy has no lower bound.
        """
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
    """Random numbers of some samples for one step of a sampler.

    A call of a method with the same `name` returns the same numbers again; with another `name`, independent numbers.

    Args:
        streams: source of the random numbers of the run.
        like: latents (n, z_dim) of the batch; the numbers have their dtype and device.
        rows: the samples that take the step, as rows of `like`, ascending, on the CPU; all by default.
        step: name of the step, unique in the run.
    """

    streams: RandomStreams
    like: Float[Tensor, "n z_dim"]
    rows: Int[Tensor, " rows"] | None = None
    step: str = ""

    def normals(self, name: str = "") -> Float[Tensor, "rows z_dim"]:
        """Return a draw from N(0, I) for each sample that takes the step.

        Args:
            name: name of the draws in this step. Draws with different names are independent; the same name gives the
                same draws again.
        """
        return self.streams.normals(self.like, self._stream(name), self.rows)

    def uniforms(
        self, count: int, name: str = "", rows: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "rows count"]:
        """Return `count` uniform draws from the open interval (0, 1) for each sample that takes the step.

        They are float64, but float32 on the device MPS.

        Args:
            count: number of draws for each sample.
            name: name of the draws in this step.
            rows: indices of the samples that get draws, among those that take the step; all by default.
        """
        if rows is not None and self.rows is not None:
            rows = self.rows[rows.cpu()]
        return self.streams.uniforms(self.like, count, self._stream(name), self.rows if rows is None else rows)

    def part(self, rows: Int[Tensor, " some"], name: str) -> StepNoise:
        """Return random numbers for a part of the step that only some samples take.

        Args:
            rows: indices of these samples, among those that take the step.
            name: name of the part, unique in the step.
        """
        rows = rows.cpu()
        return StepNoise(self.streams, self.like, rows if self.rows is None else self.rows[rows], self._stream(name))

    def _stream(self, name: str) -> str:
        return "/".join(part for part in (self.step, name) if part)


class StepInfo(NamedTuple):
    """Which samples end after a step of a sampler.

    Attributes:
        status: for each sample the `Status` with which the sample ends, or `MOVING` if it goes on, (rows,) int64;
            `None` if all samples go on.
    """

    status: Int[Tensor, " rows"] | None = None

    @classmethod
    def where_finite(cls, finite: Bool[Tensor, " rows"]) -> StepInfo:
        """Return the outcome of a step after which samples end with `Status.NON_FINITE` where `finite` is false.

        All other samples go on.
        """
        failed = torch.full_like(finite, Status.NON_FINITE, dtype=torch.int64)  # fewer operations than by `where`
        return cls(failed.masked_fill_(finite, MOVING))


class StepSampler(BatchSampler):
    """Base class of samplers that repeat one step. A derived class defines the step as the method `advance`.

    This class counts evaluations and reports progress. The state of the samples between steps is a tensor of latents
    (rows, z_dim), or a `NamedTuple` with the latents as `z` and further tensors. Every tensor has a row for each
    sample. Row i of all that a step returns must depend on row i of its arguments only. A sample ends in three cases:

    - The `StepInfo` of a step has a `Status` for the sample. It ends with this status, and the latent of the new state.
    - The latent of the new state is not finite. The sample ends with `Status.NON_FINITE`, and the latent before the
      step.
    - The sample took `steps` steps. It ends with the status `after`, and the latent of the new state.

    Attributes:
        steps: largest number of steps.
        after: status of samples that took `steps` steps.
        fails_only: true if a sample can end before the last step only by a failure, and if the latents of samples that
            have failed stay finite in all later states. Then the program looks only after the last step which samples
            have failed, so that no step waits for a GPU. A sample that failed ends with the latent of the last state.
    """

    __slots__ = ()
    steps: int
    after = Status.OK
    fails_only = False

    def init(self, z: Float[Tensor, "rows z_dim"], energy: StepEnergy) -> tuple[Any, StepInfo]:
        """Return the state of samples that start at the latents `z`, and which of the samples end at once.

        By default, the state is `z`, and no sample ends. `energy` is the energy of these samples.
        """
        return z, StepInfo()

    @abstractmethod
    def advance(self, state: Any, energy: StepEnergy, noise: StepNoise, number: int) -> tuple[Any, StepInfo]:
        """Take one step; return the state after the step, and which samples end. `state` is not changed.

        Args:
            state: state of the samples that still move.
            energy: energy of these samples, in nats. `energy(z)` returns energies (rows,). `energy.gradient(z)` returns
                energies (rows,) and gradients (rows, z_dim).
            noise: random numbers of these samples for this step.
            number: number of the step, from 0 on.
        """

    def run(self, batch: Batch) -> None:
        """Take steps until all samples of a batch have ended; see the class for when a sample ends."""
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
