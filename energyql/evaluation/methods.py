"""Methods that are compared: a sampler under a semantics, or LACE, the algorithm of Nie et al. 2021 (arXiv 2110.10873).

LACE, called "the paper" here, is written from the paper for the generator and heads of the other methods, at the cost
of its authors' program. The mapping network runs once for every attribute, each head is a separate network, gradients
come from autograd, and `torchdiffeq.odeint` (dopri5) has one error norm and step size for the whole batch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass

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
from energyql.pipeline.run import LATENT_BATCH
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
from energyql.vocabulary import repeated

TOLERANCE = 1e-3
"""Relative and absolute tolerance of the paper's algorithm."""
TIMES = (1.0, 1e-3)
"""Times t at which the flow of the paper's algorithm starts and ends."""
SCHEDULE = VPSchedule()
"""Noise schedule β(t) of the flow of the paper's algorithm."""
PUBLISHED_BATCH = 64
"""Number of samples in a batch of the paper's algorithm; all have the same step size."""


class PublishedEnergy:
    """Energy of a query as in the program of Nie et al. 2021, at its cost: each head runs alone, with autograd.

    Args:
        rule: the compiled query, under the semantics `lace`.
        reads: function from z (batch, z_dim) to the input of the heads, differentiable by autograd.
    """

    def __init__(self, rule: EnergyRule, reads: Callable[[Tensor], Tensor], bank: AttributeBank) -> None:
        self._rule, self._bank = rule, bank
        self._reads = normalized if bank.space == "direction" else reads

    def __call__(self, z: Tensor) -> Tensor:
        """Energies of latents z (batch, z_dim), in nats, (batch,)."""
        if not self._rule.attributes:
            return 0 * z.sum(1)
        predictions: dict[str, Prediction] = {}
        for name in self._rule.attributes:
            head, spec = self._bank.heads[name], self._bank.vocabulary[name]
            predictions |= split_outputs(_run(head, self._reads(z)), [spec], {name: head.std})
        return -self._rule.log_value(predictions)


def _run(head: Head, latent: Tensor) -> Tensor:
    """Compute the outputs of one head alone, (batch, outputs)."""
    x = leaky_relu(linear(latent, head.hidden_weight, head.hidden_bias), SLOPE)
    for weight, bias in head.deeper:
        x = leaky_relu(linear(x, weight, bias), SLOPE)
    outputs = linear(x, head.out_weight, head.out_bias)
    # The published heads have no linear path, so a path of weights 0 must not take time.
    return outputs + linear(latent, head.skip_weight) if head.skip_weight.any() else outputs


@dataclass(frozen=True, slots=True)
class PublishedODE:
    """Sampler of the program of Nie et al. 2021: `torchdiffeq.odeint` on the whole batch.

    Unlike with other samplers, a sample depends on the other samples of the batch. If `odeint` fails, or
    `max_evaluations` is reached, the latents before the last accepted step are returned, with a status that tells which
    of the two happened.

    Args:
        strength: λ, the factor of the energy, above 0 and at most a million.
        max_evaluations: most evaluations of the energy for each sample. The program of Nie et al. has no such limit,
            but for some queries the flow would never end without it.
    """

    _: KW_ONLY
    strength: float = 1.0
    max_evaluations: int = 2000

    def __post_init__(self) -> None:
        check_strength(self.strength)

    def sample(
        self, energy: EnergyLike, z0: Tensor, *, noise: RandomStreams = FIRST_RUN, progress: Progress | None = None
    ) -> SampleResult:
        """Move each row of `z0` along the flow that descends the energy to its end, without random numbers."""
        check_latents(z0)
        flow = _Field(self, as_energy(energy, first=noise.start), z0.detach(), progress)
        times = torch.tensor(TIMES, dtype=z0.dtype, device=z0.device)
        status = Status.OK
        try:
            with torch.no_grad():
                path = torchdiffeq.odeint(flow, flow.last, times, rtol=TOLERANCE, atol=TOLERANCE, method="dopri5")
            z = path[-1]
        except _SpentError:
            z, status = flow.last, Status.STEP_LIMIT
        except AssertionError as error:  # torchdiffeq raises nothing more specific
            z, status = flow.last, Status.STEP_UNDERFLOW if "underflow" in str(error) else Status.NON_FINITE
        evaluations = torch.full((len(z0),), flow.evaluations)
        return SampleResult(z.clone(), torch.full((len(z0),), int(status)), evaluations, evaluations)


class _SpentError(Exception):
    """Raised by `_Field` after `max_evaluations` calls, to end `torchdiffeq.odeint`."""


class _Field:
    """Derivative dz/dt of the flow for `torchdiffeq.odeint`; `last` is z before the last accepted step."""

    def __init__(self, settings: PublishedODE, energy: Energy, z0: Tensor, progress: Progress | None) -> None:
        self._settings, self._energy, self._progress = settings, energy, progress
        self.last, self._rows = z0, torch.arange(len(z0), device=z0.device)
        self.evaluations = 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        if self.evaluations >= self._settings.max_evaluations:
            raise _SpentError
        self.evaluations += 1
        _, gradient = self._energy.gradient(z, self._rows)
        return (0.5 * self._settings.strength) * SCHEDULE.beta(t) * gradient

    def callback_accept_step(self, t: Tensor, z: Tensor, step: Tensor) -> None:
        """Record the latents before a step that `odeint` accepts, and report the time."""
        self.last = z.detach()
        if self._progress is not None:
            done = (TIMES[0] - float(t)) / (TIMES[0] - TIMES[1])
            self._progress(min(1.0, max(0.0, done)), len(z))


PAPER = "paper"
"""Name of the paper's algorithm in a list of methods."""
DEFAULT_METHODS = (DEFAULT_SAMPLER, "slice", "ode", PAPER)
"""Names of the methods of a comparison, by default."""
HINT = (
    f"samplers: {', '.join(SAMPLERS)}, {PAPER}; also semantics:sampler and sampler@strength, and "
    'energyql.evaluation.methods.Method("mine", "exact", sampler)'
)
"""Hint of error messages: the names of all samplers."""
_NAME = re.compile(r"(?:(?P<semantics>[^:@]+):)?(?P<sampler>[^:@]+)(?:@(?P<strength>[^:@]+))?")


@dataclass(frozen=True)
class Method:
    """A way to draw samples of queries: a sampler, and the semantics that gives the energy of a query.

    Attributes:
        name: unique in a comparison.
        semantics: how the energy of a query is computed, such as "exact".
        sampler: sampler of the latents. With `PublishedODE`, energies have the cost of the program of Nie et al. 2021.
    """

    name: str
    semantics: Semantics
    sampler: Sampler

    def check(self) -> None:
        """Raise unless `sampler` is a sampler, and the semantics gives the lower bound of the energy that some need."""
        check_sampler(self.sampler)
        if not SEMANTICS[check_semantics(self.semantics)].has_floor and has_trait(self.sampler, "needs_floor"):
            check_floor(-math.inf)

    def energy(self, model: EvaluatedModel, query: str | Expr) -> Callable[[Tensor], Tensor]:
        """Energy of a query on a model: a function from latents (batch, z_dim) to nats (batch,)."""
        plan = model.plan(query, semantics=self.semantics, sampler=self.sampler)
        if isinstance(self.sampler, PublishedODE):
            return PublishedEnergy(plan.rule, model.reads, heads_of(model.model.bank, f"the method {PAPER}"))
        return plan.energy

    def sample(self, energy: EnergyLike, model: EvaluatedModel, n: int, seed: int, report: Report) -> SampleResult:
        """Draw n samples from an energy, in batches, from the first n samples of the prior for the seed."""
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
    """Convert names of methods, separated by commas or in a list, to `Method` objects.

    A name out of `energyql.sampling.SAMPLERS`, such as "ode", has the semantics `exact` and strength 1; "lace:ode" has
    the semantics `lace`, "ode@10" the strength 10, "lace:ode@10" both. "paper" is the algorithm of Nie et al. 2021,
    "paper@10" the same with strength 10.

    Raises:
        ArgumentError: a name, semantics or strength is wrong, a name occurs twice, or there is none; or a sampler needs
            a lower bound of the energy, which its semantics does not have.
    """
    parts = [part.strip() for part in names.split(",") if part.strip()] if isinstance(names, str) else several(names)
    methods = [part if isinstance(part, Method) else _read(str(part)) for part in parts]
    if not methods:
        raise ArgumentError("there is no sampler to compare", hint=HINT)
    if (twice := repeated(method.name for method in methods)) is not None:
        raise ArgumentError(f"sampler {twice!r} is named twice")
    for method in methods:
        method.check()
    return methods


def _read(name: str) -> Method:
    """Method that one name describes, such as "slice", "lace:ode@10" or "paper"."""
    match = _NAME.fullmatch(name)
    paper = match is not None and match["sampler"] == PAPER and match["semantics"] is None
    if match is None or not (paper or match["sampler"] in SAMPLERS):
        raise ArgumentError(f"there is no sampler {name!r}", hint=HINT)
    semantics = "lace" if paper else check_semantics(match["semantics"] or DEFAULT_SEMANTICS)
    try:
        strength = float(match["strength"] or 1.0)
    except ValueError:
        raise ArgumentError(f"the strength of {name!r} is not a number", hint="write slice@10") from None
    sampler = PublishedODE(strength=strength) if paper else make_sampler(match["sampler"], strength)
    return Method(name, semantics, sampler)
