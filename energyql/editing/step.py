"""One step of an edit: the smallest change of the latents that makes a query true.

The query may imply changes of attributes that it does not name: a frown needs another mouth than a laugh, sunglasses
hide the eyes, a hat hides a bald head. Such dependences are estimated from draws of the model: a value that is common
in the prior, and (nearly) absent from the posterior of the query, is impossible under the query, and the edit does not
keep it. All other values of attributes that the query does not name are kept; if one of them changes nevertheless, it
is a leak.

The minimiser is the penalty method (Nocedal and Wright 2006, chapter 17): in each sample where the query does not hold
yet, its weight grows, and the next search starts from the last minimum. There are two searches: one from the latents of
the picture, and one from the minimum for linear heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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
from energyql.editing.latents import DRAWN_TOGETHER, EditedW, Latents, LatentSpace, edited_w
from energyql.editing.settings import EditSettings
from energyql.editing.terms import Term, TermInput, edit_energy, flat_features
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import EnergyRule
from energyql.errors import LimitError
from energyql.kinds import KINDS
from energyql.language import E, Expr
from energyql.logic.truth import satisfied
from energyql.numerics.linear import few_sizes, in_batches
from energyql.numerics.pullback import Identity
from energyql.pipeline.draw import PreparedQuery
from energyql.pipeline.settings import EXACT
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
from energyql.vocabulary import AttributeSpec, Vocabulary

PRIOR_DRAWS = 4096
"""Number of latents of the prior from which frequencies of values are estimated."""
POSTERIOR_DRAWS = 512
"""Number of latents of the posterior of a query from which frequencies of values are estimated."""
IMPOSSIBLE_RATIO = 0.3
"""A value is impossible under a query if its frequency in the posterior, divided by that in the prior, is below this.
In `avatars`, values that cannot be drawn together have ratios from 0 to 0.25, because the heads make errors; rare
combinations, such as beards and long hair, have 0.6 (docs/decisions/editing.md)."""
LEAST_EXPECTED = 5.0
"""Least expected number of occurrences of a value, by its frequency in the prior, for its absence to be significant."""
LEAST_DRAWS = 32
"""Least number of draws that satisfy a query from which its dependences are estimated."""

Values = Mapping[str, npt.NDArray[Any]]
"""Attribute -> its value in each of n samples, (n,)."""
Rows = npt.NDArray[np.bool_]
"""Whether something holds in each sample, (n,)."""


@dataclass(frozen=True, eq=False)
class Dependence:
    """Dependence of all attributes on a query, estimated from draws.

    Args:
        draws: values of all attributes in draws of the posterior that satisfy the query.
        prior: values of all attributes in draws of the prior.
        vocabulary: all attributes.
    """

    draws: Values
    prior: Values
    vocabulary: Vocabulary

    @property
    def count(self) -> int:
        """Number of draws that satisfy the query."""
        return len(next(iter(self.draws.values())))

    @property
    def known(self) -> bool:
        """Whether there are enough draws for an estimate; without one, nothing counts as impossible."""
        return self.count >= LEAST_DRAWS

    def excludes(self, name: str, values: npt.NDArray[Any]) -> Rows:
        """Return whether the query makes each of these values of an attribute impossible, (n,)."""
        if not self.known:
            return np.zeros(len(values), bool)
        prior, posterior = (self._shares(name, np.asarray(values), draws) for draws in (self.prior, self.draws))
        return np.asarray((prior * self.count >= LEAST_EXPECTED) & (posterior < IMPOSSIBLE_RATIO * prior))

    def _shares(self, name: str, values: npt.NDArray[Any], draws: Values) -> npt.NDArray[np.float64]:
        """Return the share of the draws with each value of an attribute, (n,).

        For a number, draws within twice its tolerance count.
        """
        spec, samples = self.vocabulary[name], draws[name]
        return np.asarray(KINDS[spec.kind].alike(samples, values[:, None], spec).mean(1))

    def implied(self, values: Values, asked: Sequence[str]) -> dict[str, Rows]:
        """Return attribute -> whether the query makes its value impossible, (n,).

        Args:
            values: the values of all attributes in n samples.
            asked: the attributes that the query names, which are left out.
        """
        return {name: self.excludes(name, values[name]) for name in values if name not in asked}

    def excludes_query(self, expr: Expr) -> bool:
        """Return whether the query makes another query, bound, impossible."""
        if not self.known:
            return False
        prior, posterior = (satisfied(expr, draws, self.vocabulary).mean() for draws in (self.prior, self.draws))
        return bool(prior * self.count >= LEAST_EXPECTED and posterior < IMPOSSIBLE_RATIO * prior)

    def consequences(self, asked: Sequence[str]) -> Expr | None:
        """Return what the query implies for yes/no and categorical attributes that it does not name, as a query.

        `None` is returned if it implies nothing. An edit asks for the consequences too: the errors of heads are
        independent, so several heads make the change more certain.

        Args:
            asked: the attributes to leave out, among them those that the query names.
        """
        parts: list[Expr] = []
        for name, spec in self.vocabulary.items():
            kind = KINDS[spec.kind]
            values = np.array(kind.values(spec))
            if name in asked or not len(values):
                continue
            excluded = self.excludes(name, values)
            if excluded.any() and not excluded.all():
                parts.append(kind.excluding(E[name], values[excluded].tolist()))
        return reduce(and_, parts) if parts else None


class DependenceEstimator:
    """Estimator of the dependences on queries, for one model, truncation and label."""

    def __init__(self, space: LatentSpace) -> None:
        self.space = space
        self._prior = self._values(normals(0, 0, PRIOR_DRAWS, space.model.generator.z_dim, stream="knowledge/prior"))

    def estimate(self, expr: Expr, rule: EnergyRule) -> Dependence:
        """Return the dependence on a bound query with the energy `rule`, from draws of the slice sampler."""
        model = self.space.model
        energy = QueryEnergy(rule, self.space.reads, self.space.bank)
        start = normals(0, 0, POSTERIOR_DRAWS, model.generator.z_dim, stream="knowledge/draws").to(model.device)
        draws = self._values(SliceSampler().sample(energy, start, noise=RandomStreams(0, purpose="knowledge/")).z)
        good = np.broadcast_to(satisfied(expr, draws, model.vocabulary), (POSTERIOR_DRAWS,))
        return Dependence({name: values[good] for name, values in draws.items()}, self._prior, model.vocabulary)

    def _values(self, z: Tensor) -> Values:
        """Return the most likely values of all attributes, for latents (n, z_dim)."""
        return decide(self.space.predict(Latents(z.to(self.space.model.device))))


def changed(spec: AttributeSpec, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Rows:
    """Return whether each value of an attribute changed, (n,).

    A number has changed if it moved by more than the tolerance of the attribute.
    """
    return np.asarray(KINDS[spec.kind].changed(before, after, spec))


@dataclass(frozen=True, eq=False)
class Leaks:
    """The changes of attributes in one step of an edit, according to the judge (to the heads, if a model has no judge).

    Attributes:
        query: query of the step.
        asked: the attributes that the query names.
        kept: the attributes to keep.
        changed: attribute -> whether its value differs from that before the step, (n,) bool; all attributes.
        implied: attribute -> whether the query makes the old value impossible, (n,) bool, so that a change is no leak;
            only attributes with such a sample.
        superseded: earlier queries that this query makes impossible, which later steps do not keep.
        known: False if too few draws satisfy the query to estimate what it implies; then every change is a leak.
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
        """Return the changes from the values before a step to those after it.

        Args:
            before: the judged values before the step.
            after: the judged values after the step.
            dependence: dependence of all attributes on the query.
            query: text of the query.
            superseded: texts of the earlier queries that the query makes impossible.
            asked: the attributes that the query names.
            kept: the attributes to keep; those in `asked` are left out.
        """
        changes = {name: changed(spec, before[name], after[name]) for name, spec in dependence.vocabulary.items()}
        implied = {name: rows for name, rows in dependence.implied(before, asked).items() if rows.any()}
        kept = tuple(name for name in kept if name not in asked)
        return cls(query, tuple(asked), kept, changes, implied, superseded, dependence.known)

    @cached_property
    def leaked(self) -> dict[str, Rows]:
        """Attribute that the query does not name -> whether it changed without being implied, (n,) bool."""
        return {
            name: rows & ~self.implied.get(name, np.zeros_like(rows))
            for name, rows in self.changed.items()
            if name not in self.asked
        }

    @property
    def by_attribute(self) -> dict[str, float]:
        """Attribute -> fraction of samples in which it leaked, largest first; only fractions above 0."""
        shares = {name: float(rows.mean()) for name, rows in self.leaked.items() if rows.any()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def rate(self) -> float:
        """Fraction of leaks among all pairs of a sample and an attribute that the query neither names nor implies."""
        total = sum(len(rows) - int(self.implied.get(name, np.array(0)).sum()) for name, rows in self.leaked.items())
        return sum(int(rows.sum()) for rows in self.leaked.values()) / total if total else 0.0

    def of(self, row: int) -> tuple[str, ...]:
        """Return the attributes that leaked in sample `row`."""
        return tuple(name for name, rows in self.leaked.items() if rows[row])

    def __repr__(self) -> str:
        parts = [f"{name} {share:.1%}" for name, share in self.by_attribute.items()]
        text = f"{self.query}: {self.rate:.1%} of the other attributes changed"
        if parts:
            text += f" ({', '.join(parts)})"
        if self.implied:
            text += f"; implied: {', '.join(self.implied)}"
        if self.superseded:
            text += f"; superseded: {', '.join(self.superseded)}"
        if not self.known:
            text += "; too few draws of the model satisfy the query to estimate what it implies"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {
            "query": self.query,
            "asked": list(self.asked),
            "kept": list(self.kept),
            "rate": self.rate,
            "by_attribute": self.by_attribute,
            "implied": {name: rows.tolist() for name, rows in self.implied.items()},
            "changed": {name: rows.tolist() for name, rows in self.changed.items()},
            "superseded": list(self.superseded),
            "known": self.known,
        }


PENALTY_FACTORS = (3.0, 9.0, 27.0)
"""Factors of the query's weight in the repeated searches, in order."""
LEAST_SAVING = 0.1
"""Share by which a search with a larger weight must lower the query's energy; otherwise its minimum is discarded. Some
energies cannot fall further: a continuous attribute is never certain to be within its tolerance of a value."""


LINEAR_NEAR = 0.05
"""Weight of `|z - z0|²` beside the energies of queries in `linear_minimum` (docs/decisions/editing.md)."""
GRAIN = 2.0**-6
"""Grid to which the minimum of `linear_minimum` is rounded, because sums round differently in other batches."""


def estimate_dependence(
    estimator: DependenceEstimator, settings: EditSettings, query: PreparedQuery, expr: Expr
) -> tuple[Dependence, PreparedQuery]:
    """Return the dependence of all attributes on a query, and the query together with its consequences.

    Args:
        estimator: the estimator for the model.
        settings: the settings of the edit.
        query: the query, compiled.
        expr: the query.
    """
    probable = query
    if not query.rule.is_probability:  # the estimate needs a probability
        try:
            probable = settings.prepare(expr, semantics=EXACT)
        except LimitError:  # too large for a diagram
            probable = settings.prepare(expr, semantics="product")
    dependence = estimator.estimate(probable.expr, probable.rule)
    weak = [name for name, report in query.model.report.items() if report.weak]  # their predictions may be wrong
    implied = dependence.consequences([*query.rule.attributes, *weak]) if settings.preset.release_implied else None
    return dependence, query if implied is None else settings.prepare(expr & implied)


def run_step(
    rules: Sequence[EnergyRule], query: PreparedQuery, dependence: Dependence, layers: Tensor | None, before: Latents,
    space: LatentSpace, settings: EditSettings, report: Report,
) -> tuple[Latents, SampleResult]:  # fmt: skip
    """Return the edited latents, and the run of the solver that led to them.

    Args:
        rules: energies of the queries to make true: that of the step, with its consequences; then the earlier ones to
            keep.
        query: query of the step, whose attributes may change.
        dependence: dependence of all attributes on the query of the step.
        layers: mask of the layers of W+ that may change, (num_ws,); `None` for all.
        before: latents before the step.
        space: the model's latent space.
        settings: preset, attributes to keep, and embedding module.
        report: called with the progress.
    """

    def progress(fraction: float, _: int) -> None:
        report("editing", fraction)

    preset, bank, names = settings.preset, space.bank, query.rule.attributes
    with torch.no_grad():
        w = space.w(before)
    w_of = edited_w(before, w, layers)
    continuous = any(KINDS[space.model.vocabulary[name].kind].numeric for name in names)
    weights = [preset.newest_continuous if continuous else preset.newest, *[preset.earlier] * (len(rules) - 1)]
    energies = [
        (QueryEnergy(rule, Identity(), bank), weight) for rule, weight in zip(rules, weights, strict=True) if weight
    ]
    keeping = _keeping_terms(names, dependence, before, w, space, settings, w_of)
    start = space.scaled(before.z)

    def objective(factor: float) -> Energy:
        queries = [terms.query_term(energy, factor * preset.strength * weight) for energy, weight in energies]
        return edit_energy(space, before, [*queries, *keeping])

    def energy(z: Tensor, rows: Tensor) -> Tensor:
        latent = space.head_input(Latents(z, before[rows].offset))
        return torch.stack([energy(latent) for energy, _ in energies]).sum(0)

    def elsewhere(rows: Tensor) -> Tensor:
        assert query.surrogates is not None
        return space.scaled(
            linear_minimum([energy.rule for energy, _ in energies], query.surrogates().linear, start[rows])
        )

    if preset.solver is None:
        run = lower_minimum(
            objective, energy, start, None if query.surrogates is None else elsewhere,
            tolerance=preset.enough, max_evaluations=preset.max_evaluations, progress=progress,
        )  # fmt: skip
    else:
        run = preset.solver.sample(objective(1.0), start, progress=progress)
    z, offset = space.scaled(run.z), before.offset
    if layers is not None:
        with torch.no_grad():
            mapped = space.encode(z)
            offset = w_of(mapped, torch.arange(len(mapped), device=mapped.device)) - mapped[:, None]
    return Latents(z, offset), run


@torch.no_grad()
def linear_minimum(rules: Sequence[EnergyRule], readouts: AttributeBank, z0: Tensor) -> Tensor:
    """Return the minimum of the rules for linear heads near z0, (n, z_dim), rounded to multiples of `GRAIN`.

    It minimises Σ E(rule) + `LINEAR_NEAR` |z - z0|², in nats.

    Args:
        rules: energies of the queries.
        readouts: linear read-outs of z that replace the heads.
        z0: the start, (n, z_dim).
    """
    parts = [terms.query_term(QueryEnergy(rule, Identity(), readouts), 1.0) for rule in rules]
    parts.append(terms.distance_term("z", z0, LINEAR_NEAR))

    def energy(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        values, gradients = zip(*(part.evaluate(TermInput(rows, z, None, z)) for part in parts), strict=True)
        return torch.stack(values).sum(0), torch.stack(gradients).sum(0)

    z = DescentSampler(enough=None).sample(GradientEnergy(energy), z0).z
    return (z / GRAIN).round() * GRAIN


@torch.no_grad()
def lower_minimum(
    objective: Callable[[float], Energy],
    energy: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    elsewhere: Callable[[Tensor], Tensor] | None,
    *,
    tolerance: float,
    max_evaluations: int,
    progress: Progress | None = None,
) -> SampleResult:
    """Return the better of two minima of each sample, one searched from z0 and one from a second start.

    There is a second search only in samples whose query does not hold at z0: the slope of the heads there may lead far
    away, to a corner of the prior where the heads make errors. A minimum where the query holds is better than one where
    it does not; otherwise the one with the lower objective is better.

    Args:
        objective: see `penalty_method`.
        energy: see `penalty_method`.
        z0: see `penalty_method`.
        elsewhere: maps numbers of samples, (rows,), to their second start, (rows, z_dim); `None` for one search.
        tolerance: see `penalty_method`.
        max_evaluations: see `penalty_method`.
        progress: see `penalty_method`.
    """
    everyone = torch.arange(len(z0), device=z0.device)
    rows = everyone[:0] if elsewhere is None else everyone[energy(z0, everyone) > tolerance]
    first, second = _halves(progress) if len(rows) else (progress, None)
    run = penalty_method(objective, energy, z0, tolerance=tolerance, max_evaluations=max_evaluations, progress=first)
    if elsewhere is None or not len(rows):
        return run
    again = penalty_method(
        lambda factor: as_energy(objective(factor), samples=rows), lambda z, part: energy(z, rows[part]),
        elsewhere(rows), tolerance=tolerance, max_evaluations=max_evaluations, progress=second,
    )  # fmt: skip
    lacking, other = (torch.relu(energy(z, rows) - tolerance) for z in (run.z[rows], again.z))
    value, new = (objective(1.0)(z, rows) for z in (run.z[rows], again.z))
    better = torch.where((lacking > 0) == (other > 0), new < value, other < lacking)
    run.z[rows[better]] = again.z[better]
    run.status[rows[better].cpu()] = again.status[better.cpu()]
    for counts, more in ((run.evaluations, again.evaluations), (run.gradients, again.gradients)):
        counts[rows.cpu()] += more
    return run


def _halves(progress: Progress | None) -> tuple[Progress | None, Progress | None]:
    """Return the progress of each of two searches, the first and second half of the whole."""
    if progress is None:
        return None, None
    return lambda done, moving: progress(done / 2, moving), lambda done, moving: progress((1 + done) / 2, moving)


@torch.no_grad()
def penalty_method(
    objective: Callable[[float], Energy],
    energy: Callable[[Tensor, Tensor], Tensor],
    z0: Tensor,
    *,
    tolerance: float,
    max_evaluations: int,
    progress: Progress | None = None,
) -> SampleResult:
    """Find the minimum nearest to `z0`; while the query's energy is above the tolerance, repeat with larger weights.

    Args:
        objective: maps a factor of the query's weight to the energy that is minimised.
        energy: maps z, (batch, z_dim), and the numbers of its samples to the energies of the query alone, (batch,), in
            nats.
        z0: the start, (n, z_dim).
        tolerance: energy of the query, in nats, up to which it holds.
        max_evaluations: most evaluations per sample and weight.
        progress: called with the progress of the search with the first weight.

    Returns:
        The minima and the number of evaluations; the status is that of the last minimum that was accepted.
    """
    descent = DescentSampler(enough=None, max_evaluations=max_evaluations)
    first = descent.sample(objective(1.0), z0, progress=progress)
    z, status, evaluations = first.z, first.status, first.evaluations
    rows = torch.arange(len(z), device=z.device)
    energies = energy(z, rows)
    for factor in PENALTY_FACTORS:
        above = energies > tolerance
        rows, energies = rows[above], energies[above]
        if not len(rows):
            break
        again = descent.sample(as_energy(objective(factor), samples=rows), z[rows])
        evaluations[rows.cpu()] += again.evaluations
        new = energy(again.z, rows)
        accepted = new < (1 - LEAST_SAVING) * energies
        rows, energies = rows[accepted], new[accepted]
        z[rows], status[rows.cpu()] = again.z[accepted], again.status[accepted.cpu()]
    return SampleResult(z, status, evaluations, evaluations.clone())


@torch.no_grad()
def _keeping_terms(
    asked: Sequence[str], dependence: Dependence, before: Latents, w: Tensor, space: LatentSpace,
    settings: EditSettings, w_of: EditedW,
) -> list[Term]:  # fmt: skip
    """Return the terms of the energy that keep the picture and the attributes that the query does not name.

    Args:
        asked: the attributes that the query names.
        dependence: dependence of all attributes on the query.
        before: latents before the step.
        w: w before the step, (n, w_dim) or (n, num_ws, w_dim).
        space: the model's latent space.
        settings: preset, attributes to keep, and embedding module.
        w_of: see `edited_w`.
    """
    preset, identity, parts = settings.preset, settings.identity, list[Term]()
    if preset.near_z:
        parts.append(terms.distance_term("z", space.scaled(before.z), preset.near_z))
    if preset.near_w:
        parts.append(terms.distance_term("w", space.encode(before.z), preset.near_w))
    if preset.keep_predictions or preset.keep_logits:
        raw = space.bank.raw_outputs(space.names)
        latent = space.head_input(before)
        (outputs,) = in_batches(lambda part: (raw.function(part),), latent, few_sizes(len(latent)))
        is_kept = torch.tensor([name in settings.keep and name not in asked for name in space.names])
        is_kept = is_kept.repeat(len(before), 1).to(outputs)
        if preset.release_implied:
            for name, rows in dependence.implied(decide(space.predict(before)), asked).items():
                is_kept[torch.from_numpy(rows), space.names.index(name)] = 0
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
