"""Methods to compare: a sampler under a semantics, or the paper's algorithm (LACE) at its own cost.

The algorithm is written from the paper, with the generator and the heads of the other methods. Its cost is that of the
published program: the mapping network runs once for every attribute, each head is a separate network, gradients come
from autograd, and `torchdiffeq.odeint` with dopri5 at 1e-3 has one error norm and step size for the whole batch.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from typing import cast

import torch
import torchdiffeq
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

from energyql.attributes.heads import SLOPE, AttributeBank, Head
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import Prediction, split_outputs
from energyql.energy.rule import SEMANTICS, EnergyRule, check_semantics
from energyql.errors import ArgumentError
from energyql.evaluation.judged import EvaluatedModel
from energyql.language import Expr
from energyql.numerics.pullback import normalized
from energyql.pipeline.draw import LATENT_BATCH
from energyql.pipeline.settings import DEFAULT_SAMPLER, DEFAULT_SEMANTICS, Semantics, several
from energyql.progress import Report
from energyql.sampling import (
    FIRST_RUN,
    SAMPLERS,
    Energy,
    EnergyLike,
    Progress,
    RandomStreams,
    Sampler,
    SampleResult,
    Status,
    VPSchedule,
    as_energy,
    make_sampler,
    prior_latents,
)
from energyql.sampling.base import (
    check_floor,
    check_latents,
    check_sampler,
    check_strength,
    draw_with,
    has_trait,
)

PUBLISHED_BATCH = 64
"""Samples in a batch of the paper's algorithm, which have one step size."""


class PublishedEnergy:
    """The energy of a query at the cost of the published program: each head runs alone, with gradients by autograd.

    Args:
        rule: the rule of a query under the semantics `lace`.
        reads: function from z (batch, z_dim) to the input of the heads, with the modules of the generator.
        bank: the heads.
    """

    def __init__(self, rule: EnergyRule, reads: Callable[[Tensor], Tensor], bank: AttributeBank) -> None:
        self._rule, self._bank = rule, bank
        self._reads = normalized if bank.space == "direction" else reads

    def __call__(self, z: Tensor) -> Tensor:
        """Return the energies of latents z (batch, z_dim), in nats, (batch,)."""
        if not self._rule.attributes:
            return 0 * z.sum(1)
        predictions: dict[str, Prediction] = {}
        for name in self._rule.attributes:
            head, spec = self._bank.heads[name], self._bank.vocabulary[name]
            outputs = _run(head, self._reads(z))
            predictions |= split_outputs(outputs, [spec], {name: head.std})
        return -self._rule.log_value(predictions)


def _run(head: Head, latent: Tensor) -> Tensor:
    """Return the outputs of a head, (batch, outputs), for latents (batch, dim)."""
    x = leaky_relu(linear(latent, head.hidden_weight, head.hidden_bias), SLOPE)
    for weight, bias in head.deeper:
        x = leaky_relu(linear(x, weight, bias), SLOPE)
    outputs = linear(x, head.out_weight, head.out_bias)
    # The published heads have no linear path, so a path of weights 0 must not take time.
    return outputs + linear(latent, head.skip_weight) if head.skip_weight.any() else outputs


@dataclass(frozen=True, slots=True)
class PublishedODE:
    """The sampler of the paper: `torchdiffeq.odeint` on the whole batch.

    Unlike with other samplers, a sample depends on its batch. If `odeint` raises an error, all samples of the batch are
    those after the last step that it accepted.

    Args:
        rtol: relative tolerance.
        atol: absolute tolerance.
        t0: time at the start of the flow.
        t1: time at its end.
        schedule: β(t).
        strength: λ, the factor of the energy, above 0.
        max_evaluations: most evaluations of the energy. The published program has no such limit, but the flow of a
            stiff query would never end without.

    Raises:
        ArgumentError: the strength is not above 0.
    """

    _: KW_ONLY
    rtol: float = 1e-3
    atol: float = 1e-3
    t0: float = 1.0
    t1: float = 1e-3
    schedule: VPSchedule = field(default_factory=VPSchedule)
    strength: float = 1.0
    max_evaluations: int = 2000

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Return the ends of the flow from the rows of `z0` (batch, z_dim); see `Sampler.sample`."""
        check_latents(z0)
        field_ = _Field(self, as_energy(energy, first=noise.start), z0.detach(), progress)
        times = torch.tensor([self.t0, self.t1], dtype=z0.dtype, device=z0.device)
        status = Status.OK
        try:
            with torch.no_grad():
                path = torchdiffeq.odeint(field_, field_.last, times, rtol=self.rtol, atol=self.atol, method="dopri5")
            z = path[-1]
        except _SpentError:
            z, status = field_.last, Status.STEP_LIMIT
        except AssertionError as error:  # torchdiffeq raises nothing more specific
            z, status = field_.last, Status.STEP_UNDERFLOW if "underflow" in str(error) else Status.NON_FINITE
        evaluations = torch.full((len(z0),), field_.evaluations)
        return SampleResult(z.clone(), torch.full((len(z0),), int(status)), evaluations, evaluations)


class _SpentError(Exception):
    """Signal that the limit of evaluations is reached."""


class _Field:
    """The right-hand side dz/dt of the flow, for `odeint`; it also records the last accepted step."""

    def __init__(self, settings: PublishedODE, energy: Energy, z0: Tensor, progress: Progress | None) -> None:
        self._settings, self._energy, self._progress = settings, energy, progress
        self.last, self._rows = z0, torch.arange(len(z0), device=z0.device)
        self.evaluations = 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        if self.evaluations >= self._settings.max_evaluations:
            raise _SpentError
        self.evaluations += 1
        _, gradient = self._energy.gradient(z, self._rows)
        return (0.5 * self._settings.strength) * self._settings.schedule.beta(t) * gradient

    def callback_accept_step(self, t: Tensor, z: Tensor, step: Tensor) -> None:
        """Record the latents after a step; `odeint` calls this method for each step that it accepts."""
        self.last = z.detach()
        if self._progress is not None:
            done = (self._settings.t0 - float(t)) / (self._settings.t0 - self._settings.t1)
            self._progress(min(1.0, max(0.0, done)), len(z))


PAPER = "paper"
"""Name of the paper's algorithm."""
DEFAULT_METHODS = (DEFAULT_SAMPLER, "slice", "ode", PAPER)
"""Names of the methods of a comparison, by default."""
_NAME = re.compile(r"(?:(?P<semantics>[^:@]+):)?(?P<sampler>[^:@]+)(?:@(?P<strength>[^:@]+))?")


@dataclass(frozen=True)
class Method:
    """A sampler under a semantics.

    Attributes:
        name: name of the method, unique in a comparison.
        semantics: semantics under which queries are compiled.
        sampler: sampler of the latents. With `PublishedODE` energies are computed at the cost of the published program.
    """

    name: str
    semantics: Semantics
    sampler: Sampler

    def check(self) -> None:
        """Check that the sampler is one, and that it can be used under the semantics.

        Raises:
            ArgumentError: it is none, or it needs the least energy, which this semantics does not have.
        """
        check_sampler(self.sampler)
        if not SEMANTICS[check_semantics(self.semantics)].has_floor and has_trait(self.sampler, "needs_floor"):
            check_floor(-math.inf)

    def energy(self, model: EvaluatedModel, query: str | Expr) -> Callable[[Tensor], Tensor]:
        """Return the energy of a query: a function from latents (batch, z_dim) to nats (batch,).

        Raises:
            EnergyQLError: the query is wrong, or the model does not fit the method.
        """
        prepared = model.prepare(query, semantics=self.semantics, sampler=self.sampler)
        if isinstance(self.sampler, PublishedODE):
            return PublishedEnergy(prepared.rule, model.reads, heads_of(model.model.bank, f"the method {PAPER}"))
        return prepared.energy

    def sample(self, energy: EnergyLike, model: EvaluatedModel, n: int, seed: int, report: Report) -> SampleResult:
        """Return the samples 0 … n - 1 of a run; `report` is called with the stage "sampling"."""
        parts: list[SampleResult] = []
        size = PUBLISHED_BATCH if isinstance(self.sampler, PublishedODE) else LATENT_BATCH
        for start in range(0, n, size):
            count = min(size, n - start)

            def progress(done: float, moving: int, start: int = start, count: int = count) -> None:
                report("sampling", (start + done * count) / n)

            z0 = prior_latents(seed, start, count, model.z_dim).to(model.device)
            parts.append(draw_with(self.sampler, energy, z0, RandomStreams(seed, start), progress))
        return SampleResult.join(parts)


def read_methods(names: str | Iterable[str | Method]) -> list[Method]:
    """Return methods by name.

    Args:
        names: names in a text, separated by commas, or a list of names and methods. A name is that of a sampler out of
            `energyql.sampling.SAMPLERS`, with semantics `exact` and strength 1; "semantics:sampler" and
            "sampler@strength" select others; "paper" (also "paper@strength") is the paper's algorithm at its own cost.

    Raises:
        ArgumentError: there is no such sampler or semantics, a strength is not a number above 0, a name comes twice, or
            there is no name; or a sampler needs the least energy, which the semantics does not have.
    """
    parts = [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else several(names)
    if unnamed := [part for part in parts if not isinstance(part, str | Method)]:
        raise ArgumentError(
            f"there is no sampler {str(unnamed[0])!r}",
            hint='a sampler of your own: energyql.evaluation.methods.Method("mine", "exact", sampler)',
        )
    methods = [part if isinstance(part, Method) else _read(part) for part in parts]
    if not methods:
        raise ArgumentError("there is no sampler to compare", hint=_hint())
    for name, count in Counter(method.name for method in methods).items():
        if count > 1:
            raise ArgumentError(f"sampler {name!r} is named twice", hint="name it once")
    for method in methods:
        method.check()
    return methods


def _read(name: str) -> Method:
    """Return the method of a name; see `read_methods`."""
    match = _NAME.fullmatch(name)
    paper = match is not None and match["sampler"] == PAPER and match["semantics"] is None
    if match is None or not (paper or match["sampler"] in SAMPLERS):
        raise ArgumentError(f"there is no sampler {name!r}", hint=_hint())
    semantics = cast("Semantics", check_semantics(match["semantics"] or DEFAULT_SEMANTICS))
    try:
        strength = float(match["strength"] or 1.0)
    except ValueError:
        raise ArgumentError(f"the strength of {name!r} is not a number", hint="write slice@10") from None
    if paper:
        return Method(name, "lace", PublishedODE(strength=strength))
    return Method(name, semantics, make_sampler(match["sampler"], strength))


def _hint() -> str:
    """Return the names of all samplers, for a message."""
    return f"samplers: {', '.join(SAMPLERS)}, {PAPER}; also semantics:sampler and sampler@strength"
