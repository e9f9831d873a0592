"""One step of an edit: the smallest change of the latents that makes a query true.

The query may imply changes of attributes that it does not name: a frown needs another mouth than a laugh, sunglasses
hide the eyes. These are estimated from draws of the model: a value that is common in the prior, and (nearly) absent
from the posterior of the query, is impossible under the query, and not kept. All other values of attributes that the
query does not name are kept; a change of such a value is called a leak.

The minimiser is the penalty method (Nocedal and Wright 2006, chapter 17): as long as a sample does not satisfy the
query, the weight of the query grows, and the next search starts from the last minimum. It runs from two starts, the
latents of the picture and the minimum for linear heads in place of the heads of the model; the better end is returned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from energyql.attributes.heads import AttributeBank
from energyql.attributes.predictions import decide
from energyql.editing import terms
from energyql.editing.latents import DRAWN_TOGETHER, Latents, LatentSpace, edited_w
from energyql.editing.pictures import Embed, flat_features
from energyql.editing.settings import Preset
from energyql.editing.terms import AnyTerm, EditedW, TermInput
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import EnergyRule
from energyql.errors import LimitError
from energyql.kinds import KINDS
from energyql.language import Attribute, Expr
from energyql.logic.satisfiability import noting_tautologies, satisfied
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pool import to_device
from energyql.numerics.pullback import Identity
from energyql.pipeline.plan import Plan, plan_query
from energyql.pipeline.session import Session
from energyql.pipeline.settings import EXACT, DrawSettings, Semantics
from energyql.progress import Report
from energyql.sampling import (
    DescentSampler,
    Energy,
    GradientEnergy,
    Progress,
    RandomStreams,
    SampleResult,
    SliceSampler,
    as_energy,
    normals,
)
from energyql.sampling.registry import describe_sampler
from energyql.vocabulary import Vocabulary

PRIOR_DRAWS = 4096
"""Number of draws of the prior from which the frequencies of attribute values without a query are estimated."""
POSTERIOR_DRAWS = 512
"""Number of draws of the posterior of a query from which the frequencies of attribute values are estimated."""
IMPOSSIBLE_RATIO = 0.3
"""A value is impossible under a query if its frequency in the posterior, divided by its frequency in the prior, is
below this number (docs/decisions/editing.md)."""
LEAST_EXPECTED = 5.0
"""A value can count as impossible only if its frequency in the prior promises at least so many posterior draws that
have it; else it may be missing by chance."""
LEAST_DRAWS = 32
"""With fewer posterior draws that satisfy the query than this, no value counts as impossible."""

Values = Mapping[str, npt.NDArray[Any]]
"""Attribute -> its value in each of n samples, (n,)."""
Rows = npt.NDArray[np.bool_]
"""A yes or no for each of n samples, (n,)."""


@dataclass(frozen=True)
class EditTask:
    """The checked arguments of one call of `edit`, on a loaded model."""

    session: Session
    queries: list[Expr]
    texts: list[str]
    mode: str
    keep: tuple[str, ...]
    preset: Preset
    identity: Embed | None
    draw: DrawSettings

    def plan(self, query: str | Expr, semantics: Semantics | None = None) -> Plan:
        """Check and compile a query. A query that is always true causes no warning, because `edit` has warned already.

        Relations between attributes that the vocabulary states, such as `beard` implies `male`, are not added: all
        consequences together would change more than necessary. `estimate_dependence` estimates what must change.
        """
        semantics = semantics or self.preset.semantics
        with noting_tautologies():
            return plan_query(self.session, query, self.draw, semantics=semantics, relations=False)

    def facts(self) -> dict[str, Any]:
        """JSON values for the provenance of the edit, without the settings of drawing."""
        solver = self.preset.solver or DescentSampler(enough=None, max_evaluations=self.preset.max_evaluations)
        preset = asdict(self.preset) | {"solver": describe_sampler(solver)}
        named = None if self.identity is None else type(self.identity).__qualname__
        return {"queries": self.texts, "mode": self.mode, "keep": list(self.keep), "preset": preset, "identity": named}


@dataclass(frozen=True, eq=False)
class Dependence:
    """Estimate, from draws of the model, of the attribute values that a query makes impossible.

    Args:
        draws: attribute -> its values in those draws of the posterior that satisfy the query, (draws,).
        prior: attribute -> its values in draws of the prior, (prior draws,).
    """

    draws: Values
    prior: Values
    vocabulary: Vocabulary

    @property
    def count(self) -> int:
        """Number of draws of the posterior that satisfy the query."""
        return len(next(iter(self.draws.values())))

    @property
    def known(self) -> bool:
        """Whether at least `LEAST_DRAWS` draws satisfy the query; if not, nothing counts as impossible."""
        return self.count >= LEAST_DRAWS

    def _impossible(self, share: Callable[[Values], Any]) -> Rows:
        """Whether the query makes some events impossible; `share` maps values in draws to the events' frequencies."""
        prior = np.asarray(share(self.prior))
        if not self.known:
            return np.zeros(prior.shape, bool)
        return np.asarray((prior * self.count >= LEAST_EXPECTED) & (share(self.draws) < IMPOSSIBLE_RATIO * prior))

    def excludes(self, name: str, values: npt.NDArray[Any]) -> Rows:
        """Whether the query makes each of n values of an attribute impossible, (n,).

        A draw counts as having a value of a continuous attribute if the two differ by at most twice the attribute's
        tolerance.
        """
        spec = self.vocabulary[name]
        alike = KINDS[spec.kind].alike
        return self._impossible(lambda draws: alike(draws[name], values[:, None], spec).mean(1))

    def excludes_query(self, expr: Expr) -> bool:
        """Whether the query of this object makes another, bound query impossible."""
        return bool(self._impossible(lambda draws: satisfied(expr, draws, self.vocabulary).mean()))

    def implied(self, values: Values, asked: Sequence[str]) -> dict[str, Rows]:
        """Attribute outside `asked` -> whether the query makes the value of each sample impossible, (n,)."""
        return {name: self.excludes(name, values[name]) for name in values if name not in asked}

    def consequences(self, asked: Sequence[str]) -> Expr | None:
        """Query that excludes the values of other attributes that this query makes impossible; `None` without any.

        An edit adds it, for example `NOT hat`, to its query. Several heads then take part, whose errors are
        independent, which makes the change more certain. Only yes/no and categorical attributes outside `asked` are
        considered.
        """
        parts: list[Expr] = []
        for name, spec in self.vocabulary.items():
            kind = KINDS[spec.kind]
            values = np.array(kind.values(spec))
            if name in asked or not len(values):
                continue
            excluded = self.excludes(name, values)
            if excluded.any() and not excluded.all():
                parts.append(kind.queries.excluding(Attribute(name), values[excluded].tolist()))
        return reduce(and_, parts) if parts else None


@dataclass(frozen=True, eq=False)
class Leaks:
    """Changes of attributes in one step of an edit, and which of them are leaks.

    A leak is a change that the query neither asks for nor makes necessary. Values are read by the judge, or by the
    heads for an attribute that no judge reads.

    Attributes:
        query: text of the step's query.
        asked: the attributes that the query names.
        kept: the attributes that the step was to keep.
        changed: for every attribute, whether its value differs from the value before the step, (n,) bool.
        implied: attribute -> whether the query makes the old value impossible, (n,) bool, so that its change is no
            leak; without attributes where this is so in no sample.
        superseded: texts of earlier queries that the step's query makes impossible; they are kept no longer.
        known: false if too few draws of the model satisfy the query to estimate which values it makes impossible. Then
            every change of an attribute that the query does not name is a leak.
    """

    query: str
    asked: tuple[str, ...]
    kept: tuple[str, ...]
    changed: dict[str, Rows]
    implied: dict[str, Rows]
    superseded: tuple[str, ...] = ()
    known: bool = True

    @classmethod
    def between(
        cls, before: Values, after: Values, dependence: Dependence, query: str, *superseded: str, asked: Sequence[str],
        kept: Sequence[str],
    ) -> Leaks:  # fmt: skip
        """Report of a step's changes; `superseded` are texts of the earlier queries that `query` makes impossible."""
        specs = dependence.vocabulary.items()
        changes = {name: KINDS[spec.kind].changed(before[name], after[name], spec) for name, spec in specs}
        implied = {name: rows for name, rows in dependence.implied(before, asked).items() if rows.any()}
        others = tuple(name for name in kept if name not in asked)
        return cls(query, tuple(asked), others, changes, implied, superseded, dependence.known)

    @cached_property
    def leaked(self) -> dict[str, Rows]:
        """Attribute that the query does not name -> whether it leaked in each sample, (n,) bool."""
        others = {name: rows for name, rows in self.changed.items() if name not in self.asked}
        return {name: rows & ~self.implied.get(name, np.zeros_like(rows)) for name, rows in others.items()}

    @property
    def by_attribute(self) -> dict[str, float]:
        """Attribute -> fraction of samples in which it leaked, above 0; the largest fraction comes first."""
        shares = {name: float(rows.mean()) for name, rows in self.leaked.items() if rows.any()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def rate(self) -> float:
        """Fraction of leaks among the pairs of a sample and an attribute that could leak there, 0 if there are none.

        An attribute could leak if the query does not name it, and its old value is possible under the query.
        """
        total = sum(len(rows) - int(self.implied.get(name, np.array(0)).sum()) for name, rows in self.leaked.items())
        return sum(int(rows.sum()) for rows in self.leaked.values()) / total if total else 0.0

    def of(self, row: int) -> tuple[str, ...]:
        """Names of the attributes that leaked in the sample with number `row`, from 0."""
        return tuple(name for name, rows in self.leaked.items() if rows[row])

    def __repr__(self) -> str:
        text = f"{self.query}: {self.rate:.1%} of the other attributes changed"
        if parts := [f"{name} {share:.1%}" for name, share in self.by_attribute.items()]:
            text += f" ({', '.join(parts)})"
        for word, names in (("implied", self.implied), ("superseded", self.superseded)):
            text += f"; {word}: {', '.join(names)}" if names else ""
        unknown = "; too few draws of the model satisfy the query to estimate what it implies"
        return text if self.known else text + unknown

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON values: the attributes of this class, `rate` and `by_attribute`."""
        implied = {name: rows.tolist() for name, rows in self.implied.items()}
        changed = {name: rows.tolist() for name, rows in self.changed.items()}
        return {
            "query": self.query, "asked": list(self.asked), "kept": list(self.kept), "rate": self.rate,
            "by_attribute": self.by_attribute, "implied": implied, "changed": changed,
            "superseded": list(self.superseded), "known": self.known,
        }  # fmt: skip


PENALTY_FACTORS = (3.0, 9.0, 27.0)
"""Factors of the query's weight in the second, third and fourth search of `penalty_method`."""
LEAST_SAVING = 0.1
"""Share of the query's energy that a search with a larger weight of the query must save; else its minimum is discarded.
Some energies cannot fall: a continuous attribute is never certain to be within the tolerance of a value."""


LINEAR_NEAR = 0.05
"""Weight of `|z - z0|²` in the energy of `linear_minimum` (docs/decisions/editing.md)."""
GRAIN = 2.0**-6
"""`linear_minimum` is rounded to multiples of this, because the last bits of sums depend on the batch."""


def _likeliest(z: Tensor, space: LatentSpace) -> Values:
    """Attribute -> the likeliest value by its head for n latents z, (n,)."""
    return decide(space.predict(Latents(z.to(space.model.device))))


def prior_values(space: LatentSpace) -> Values:
    """Attribute -> the likeliest values by its head for `PRIOR_DRAWS` draws of the prior, always the same."""
    return _likeliest(normals(0, 0, PRIOR_DRAWS, space.model.generator.z_dim, stream="knowledge/prior"), space)


def estimate_dependence(
    expr: Expr, query: Plan, prior: Values, space: LatentSpace, task: EditTask
) -> tuple[Dependence, Plan]:
    """Estimate which attribute values a query makes impossible, and compile the query so that it excludes these values.

    The condition, such as `NOT laugh` for `frown`, leaves out attributes with weak heads. The query stays as it is if
    no value is impossible or the preset has no `release_implied`. `prior` is the result of `prior_values`.
    """
    probable, model = query, query.model
    if not query.rule.is_probability:  # the estimate needs a probability
        try:
            probable = task.plan(expr, EXACT)
        except LimitError:  # too large for a diagram
            probable = task.plan(expr, "product")
    start = normals(0, 0, POSTERIOR_DRAWS, model.generator.z_dim, stream="knowledge/draws").to(model.device)
    energy = QueryEnergy(probable.rule, space.reads, space.bank)
    draws = _likeliest(SliceSampler().sample(energy, start, noise=RandomStreams(0, purpose="knowledge/")).z, space)
    good = np.broadcast_to(satisfied(probable.expr, draws, model.vocabulary), (POSTERIOR_DRAWS,))
    dependence = Dependence({name: values[good] for name, values in draws.items()}, prior, model.vocabulary)
    weak = [name for name, report in model.report.items() if report.weak]  # their predictions may be wrong
    implied = dependence.consequences([*query.rule.attributes, *weak]) if task.preset.release_implied else None
    return dependence, query if implied is None else task.plan(expr & implied)


@dataclass(frozen=True, eq=False)
class Step:
    """One step of an edit of n pictures.

    Attributes:
        query: the query of the step.
        rules: what is to be made true: first `query`, extended by `estimate_dependence`, then the earlier queries that
            the step keeps satisfied.
        dependence: what the query makes impossible.
        layers: mask of the layers of W+ that may change, (num_ws,) bool; `None` is all.
        before: the latents before the step.
    """

    task: EditTask
    space: LatentSpace
    query: Plan
    rules: Sequence[EnergyRule]
    dependence: Dependence
    layers: Tensor | None
    before: Latents


def run_step(step: Step, report: Report) -> tuple[Latents, SampleResult]:
    """Make one step of an edit: the edited latents, and the solver's statuses and numbers of evaluations."""
    space, query, rules, before = step.space, step.query, step.rules, step.before

    def progress(fraction: float, _: int) -> None:
        report("editing", fraction)

    preset, bank, names = step.task.preset, space.bank, query.rule.attributes
    with torch.no_grad():
        w = space.w(before)
    w_of = edited_w(before, w, step.layers)
    continuous = any(KINDS[space.model.vocabulary[name].kind].numeric for name in names)
    weights = [preset.newest_continuous if continuous else preset.newest, *[preset.earlier] * (len(rules) - 1)]
    weighted = zip(rules, weights, strict=True)
    energies = [(QueryEnergy(rule, Identity(), bank), weight) for rule, weight in weighted if weight]
    queries = terms.query_terms(energies, bank.raw_outputs(space.names))
    keeping = _keeping_terms(step, w, w_of)
    start = space.scaled(before.z)

    def objective(factor: float) -> Energy:
        return space.energy(before, [*queries(factor * preset.strength), *keeping])

    def energy(z: Tensor, rows: Tensor) -> Tensor:
        latent = space.head_input(Latents(z, before[rows].offset))
        return torch.stack([energy(latent) for energy, _ in energies]).sum(0)

    def elsewhere(rows: Tensor) -> Tensor:
        assert query.surrogates is not None
        linear = query.surrogates().linear(tuple(dict.fromkeys(name for rule in rules for name in rule.attributes)))
        minima = linear_minimum([energy.rule for energy, _ in energies], linear, start[rows].cpu())
        return space.scaled(to_device(minima, start.device))

    if preset.solver is None:
        problem = Penalized(objective, energy, preset.enough, preset.max_evaluations)
        run = lower_minimum(problem, start, None if query.surrogates is None else elsewhere, progress=progress)
    else:
        run = preset.solver.sample(objective(1.0), start, progress=progress)
    z, offset = space.scaled(run.z), before.offset
    if step.layers is not None:
        with torch.no_grad():
            mapped = space.encode(z)
            offset = w_of(mapped, torch.arange(len(mapped), device=mapped.device)) - mapped[:, None]
    return Latents(z, offset), run


@torch.no_grad()
def linear_minimum(rules: Sequence[EnergyRule], readouts: AttributeBank, z0: Tensor) -> Tensor:
    """Find the z near z0 that makes queries true for heads linear in z, (n, z_dim), in multiples of `GRAIN`.

    It minimises the energies of the queries plus `LINEAR_NEAR * |z - z0|²`, in nats; in an edit on the CPU, since the
    work is small.
    """
    parts = [terms.query_term(QueryEnergy(rule, Identity(), readouts), 1.0) for rule in rules]
    parts.append(terms.distance_term("z", z0, LINEAR_NEAR))

    def energy(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = zip(*(part.evaluate(TermInput(rows, z, None, z)) for part in parts), strict=True)
        return torch.stack(values).sum(0), torch.stack(gradients).sum(0)

    z = DescentSampler(enough=None).sample(GradientEnergy(energy), z0).z
    return (z / GRAIN).round() * GRAIN


@dataclass(frozen=True, eq=False)
class Penalized:
    """An energy to minimise, in which the weight of a query grows until the query is satisfied.

    Attributes:
        objective: function from a factor of the query's weight to the energy that is minimised.
        energy: energies of the query alone in nats, (batch,), as a function of z and sample numbers.
        tolerance: energy of the query, in nats, up to which the query counts as satisfied.
        max_evaluations: most evaluations for each sample and weight of the query.
    """

    objective: Callable[[float], Energy]
    energy: Callable[[Tensor, Tensor], Tensor]
    tolerance: float
    max_evaluations: int

    def of(self, samples: Tensor) -> Penalized:
        """The same for searches of which search i is one for the sample with number `samples[i]`."""
        return replace(
            self, objective=lambda factor: as_energy(self.objective(factor), samples=samples),
            energy=lambda z, rows: self.energy(z, samples[rows]),
        )  # fmt: skip


@torch.no_grad()
def lower_minimum(
    problem: Penalized, z0: Tensor, elsewhere: Callable[[Tensor], Tensor] | None, *,
    progress: Progress = lambda done, moving: None,
) -> SampleResult:  # fmt: skip
    """Search by `penalty_method` from z0 and from a second start together, and return each sample's better minimum.

    The slope of the heads at z0 may lead far away, to latents where the heads make errors; so a sample whose query is
    not satisfied at z0 has a second search. A minimum that satisfies the query is better; among equals the lower
    objective is.

    Args:
        elsewhere: function from sample numbers to second starts; `None` for one search only.
    """
    energy, tolerance = problem.energy, problem.tolerance
    everyone = torch.arange(len(z0), device=z0.device)
    rows = everyone[:0]
    if elsewhere is not None:
        rows = (energy(z0, everyone) > tolerance).cpu().nonzero()[:, 0].to(z0.device)
    samples = torch.cat([everyone, rows])
    starts = torch.cat([z0, elsewhere(rows)]) if elsewhere is not None and len(rows) else z0
    run = penalty_method(problem.of(samples), starts, progress=progress)
    if not len(rows):
        return run
    lacking, value = torch.relu(energy(run.z, samples) - tolerance), problem.objective(1.0)(run.z, samples)
    (lack, again), (old, new) = ((each[rows], each[len(z0) :]) for each in (lacking, value))
    better = torch.where((lack > 0) == (again > 0), new < old, again < lack)
    second = torch.arange(len(z0), len(samples), device=z0.device)
    ends = everyone.index_copy(0, rows, torch.where(better, second, rows))
    evaluations = run.evaluations[: len(z0)].index_add(0, rows.cpu(), run.evaluations[len(z0) :])
    return SampleResult(run.z[ends], run.status[ends.cpu()], evaluations, evaluations.clone())


@torch.no_grad()
def penalty_method(problem: Penalized, z0: Tensor, *, progress: Progress | None = None) -> SampleResult:
    """Find the minimum of the objective nearest to z0, with larger weights of the query until it is satisfied.

    A sample is not searched again once its query is satisfied, or a larger weight saves less than `LEAST_SAVING`. Each
    status is that of the search that found the minimum; evaluations are summed. `progress` is called only in the first
    search.
    """
    objective, energy, tolerance = problem.objective, problem.energy, problem.tolerance
    descent = DescentSampler(enough=None, max_evaluations=problem.max_evaluations)
    first = descent.sample(objective(1.0), z0, progress=progress)
    z, status, evaluations = first.z, first.status, first.evaluations
    samples = torch.arange(len(z))
    rows = samples.to(z.device)
    energies = energy(z, rows)
    above = (energies > tolerance).cpu()
    for factor in PENALTY_FACTORS:
        samples, above = samples[above], above.nonzero()[:, 0].to(z.device)
        rows, energies = rows[above], energies[above]
        if not len(samples):
            break
        again = descent.sample(as_energy(objective(factor), samples=rows), z[rows])
        evaluations[samples] += again.evaluations
        new = energy(again.z, rows)
        accepted = new < (1 - LEAST_SAVING) * energies
        z[rows] = torch.where(accepted[:, None], again.z, z[rows])
        energies = new
        accepted, above = torch.stack([accepted, accepted & (new > tolerance)]).cpu()  # the one wait for a device
        status[samples] = torch.where(accepted, again.status, status[samples])
    return SampleResult(z, status, evaluations, evaluations.clone())


@torch.no_grad()
def _keeping_terms(step: Step, w: Tensor, w_of: EditedW) -> list[AnyTerm]:
    """Terms that keep the picture, and the attributes that the query neither names nor makes change."""
    space, before, asked = step.space, step.before, step.query.rule.attributes
    preset, identity, parts = step.task.preset, step.task.identity, list[AnyTerm]()
    if preset.near_z:
        parts.append(terms.distance_term("z", space.scaled(before.z), preset.near_z))
    if preset.near_w:
        parts.append(terms.distance_term("w", space.encode(before.z), preset.near_w))
    if preset.keep_predictions or preset.keep_logits:
        raw = space.bank.raw_outputs(space.names)
        latent = space.head_input(before)
        (outputs,) = in_batches(lambda part: (raw.function(part),), latent, few_sizes(len(latent)))
        kept = torch.tensor([name in step.task.keep and name not in asked for name in space.names])
        kept = kept.repeat(len(before), 1)
        if preset.release_implied:
            for name, rows in step.dependence.implied(decide(space.predict(before)), asked).items():
                kept[torch.from_numpy(rows), space.names.index(name)] = False
        is_kept = kept.to(outputs)
        if preset.keep_predictions:
            parts.append(terms.keep_predictions(raw, outputs, preset.keep_predictions * is_kept))
        if preset.keep_logits:
            parts.append(terms.keep_logits(raw, outputs, preset.keep_logits * is_kept))
    if identity is not None:
        synthesize = space.model.generator.synthesize
        if isinstance(identity, torch.nn.Module):
            identity.eval().to(w.device)
        old = torch.cat([flat_features(identity, synthesize(part)) for part in w.split(DRAWN_TOGETHER)])
        parts.append(terms.keep_identity(identity, synthesize, w_of, old, preset.identity))
    return parts
