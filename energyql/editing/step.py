"""One step of an edit: the smallest change that makes its query true, with everything kept that it does not imply.

A frown needs another mouth than a laugh, sunglasses hide the eyes, a hat hides a bald head. Such dependences are not
written down anywhere: they are estimated from draws of the model. If a value that is common in the prior is (nearly)
absent from the query's posterior, the query implies that the value changes, and an edit does not try to keep it. A
change of an attribute that the query neither names nor implies is a leak.

The minimiser is the penalty method (Nocedal and Wright 2006, chapter 17): where the query does not hold yet, its weight
grows, sample by sample, each search starting from the minimum of the last. It searches from two starts: the picture,
and where the picture would go if the heads were linear.
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

PRIOR_DRAWS, POSTERIOR_DRAWS = 4096, 512
"""Latents of the prior, and of the posterior of a query, from which frequencies are counted."""
IMPOSSIBLE_RATIO = 0.3
"""A value counts as impossible if it is less than this many times as frequent as in the prior. In `avatars`, values
that cannot be drawn together have ratios from 0 to 0.25, because the heads err; rare combinations, such as beards and
long hair, have 0.6 (docs/decisions/editing.md)."""
LEAST_EXPECTED = 5.0
"""Fewest occurrences among the draws that the prior's frequency must predict before their absence is significant."""
LEAST_DRAWS = 32
"""Fewest draws that must satisfy the query for its dependences to be known."""

Values = Mapping[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Dependence:
    """Values of all attributes in draws that satisfy a query, from its posterior, and in draws from the prior."""

    draws: Values
    prior: Values
    vocabulary: Vocabulary

    @property
    def count(self) -> int:
        """Number of draws that satisfy the query."""
        return len(next(iter(self.draws.values())))

    @property
    def known(self) -> bool:
        """Whether there are enough draws for an estimate."""
        return self.count >= LEAST_DRAWS

    def excludes(self, name: str, values: npt.NDArray[Any]) -> Rows:
        """Return for each of the values of an attribute, (n,), whether the query makes it impossible."""
        if not self.known:
            return np.zeros(len(values), bool)
        prior, posterior = (self._shares(name, np.asarray(values), drawn) for drawn in (self.prior, self.draws))
        return np.asarray((prior * self.count >= LEAST_EXPECTED) & (posterior < IMPOSSIBLE_RATIO * prior))

    def _shares(self, name: str, values: npt.NDArray[Any], drawn: Values) -> npt.NDArray[np.float64]:
        """Return how often each value occurs, (n,); a number, how often one within twice the tolerance does."""
        spec, found = self.vocabulary[name], drawn[name]
        return np.asarray(KINDS[spec.kind].alike(found, values[:, None], spec).mean(1))

    def implied(self, values: Values, asked: Sequence[str]) -> dict[str, Rows]:
        """Return, for each attribute that is not asked, which of its values the query makes impossible, (n,)."""
        return {name: self.excludes(name, values[name]) for name in values if name not in asked}

    def excludes_query(self, expr: Expr) -> bool:
        """Return whether the query makes another query impossible."""
        if not self.known:
            return False
        prior, posterior = (satisfied(expr, drawn, self.vocabulary).mean() for drawn in (self.prior, self.draws))
        return bool(prior * self.count >= LEAST_EXPECTED and posterior < IMPOSSIBLE_RATIO * prior)

    def consequences(self, asked: Sequence[str]) -> Expr | None:
        """Return what the query implies for attributes that it does not name, as a query; `None` if nothing.

        An edit asks for the consequences too: heads err independently, so several of them make the change more certain.

        Args:
            asked: the attributes that the query names.
        """
        found: list[Expr] = []
        for name, spec in self.vocabulary.items():
            kind = KINDS[spec.kind]
            values = np.array(kind.values(spec))
            if name in asked or not len(values):
                continue
            excluded = self.excludes(name, values)
            if excluded.any() and not excluded.all():
                found.append(kind.excluding(E[name], values[excluded].tolist()))
        return reduce(and_, found) if found else None


class DependenceEstimator:
    """Estimates dependences of attributes on queries, at one truncation and label."""

    def __init__(self, space: LatentSpace) -> None:
        self.space = space
        self._prior = self._values(normals(0, 0, PRIOR_DRAWS, space.model.generator.z_dim, stream="knowledge/prior"))

    def estimate(self, expr: Expr, rule: EnergyRule) -> Dependence:
        """Return the dependence on a bound query with that energy, from draws of the slice sampler."""
        model = self.space.model
        energy = QueryEnergy(rule, self.space.reads, self.space.bank)
        start = normals(0, 0, POSTERIOR_DRAWS, model.generator.z_dim, stream="knowledge/draws").to(model.device)
        draws = self._values(SliceSampler().sample(energy, start, noise=RandomStreams(0, purpose="knowledge/")).z)
        good = np.broadcast_to(satisfied(expr, draws, model.vocabulary), (POSTERIOR_DRAWS,))
        return Dependence({name: values[good] for name, values in draws.items()}, self._prior, model.vocabulary)

    def _values(self, z: Tensor) -> Values:
        return decide(self.space.predict(Latents(z.to(self.space.model.device))))


def changed(spec: AttributeSpec, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Rows:
    """Return whether each value changed, (n,); a number, whether it moved by more than the attribute's tolerance."""
    return np.asarray(KINDS[spec.kind].changed(before, after, spec))


@dataclass(frozen=True, eq=False)
class Leaks:
    """The changes of attributes in one step of an edit, according to the judge (to the heads, if a model has no judge).

    Attributes:
        query: of the step.
        asked: the attributes that it names.
        kept: the attributes to keep.
        changed: attribute -> which samples have another value than before the step, (n,) bool; all attributes.
        implied: attribute -> in which samples the query makes the old value impossible, (n,) bool, so that the change
            is no leak. Attributes without such samples are left out.
        superseded: earlier queries that this one makes impossible; they no longer count.
        known: false where too few draws satisfy the query to estimate what it implies; every other change is then
            counted as a leak.
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
        """Compare the judged values before and after a step."""
        changes = {name: changed(spec, before[name], after[name]) for name, spec in dependence.vocabulary.items()}
        implied = {name: rows for name, rows in dependence.implied(before, asked).items() if rows.any()}
        kept = tuple(name for name in kept if name not in asked)
        return cls(query, tuple(asked), kept, changes, implied, superseded, dependence.known)

    @cached_property
    def leaked(self) -> dict[str, Rows]:
        """Attribute that is not asked -> in which samples it changed without being implied, (n,) bool."""
        return {
            name: rows & ~self.implied.get(name, np.zeros_like(rows))
            for name, rows in self.changed.items()
            if name not in self.asked
        }

    @property
    def by_attribute(self) -> dict[str, float]:
        """Attribute -> fraction of samples in which it leaked, largest first; only those above 0."""
        shares = {name: float(rows.mean()) for name, rows in self.leaked.items() if rows.any()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def rate(self) -> float:
        """Fraction of leaks among all pairs of a sample and an attribute that is neither asked nor implied."""
        total = sum(len(rows) - int(self.implied.get(name, np.array(0)).sum()) for name, rows in self.leaked.items())
        return sum(int(rows.sum()) for rows in self.leaked.values()) / total if total else 0.0

    def of(self, row: int) -> tuple[str, ...]:
        """Return the attributes that leaked in one sample."""
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
"""Factors of the query's weight, tried one after the other."""
LEAST_SAVING = 0.1
"""Share of the query's energy that a larger weight must save; otherwise the change is not worth it. Energies that
cannot fall further save less: a continuous attribute asked for within its tolerance is never certain."""


LINEAR_NEAR, GRAIN = 0.05, 2.0**-6
"""Weight of `|z - z0|²` against one energy of a query, where heads are taken for linear (docs/decisions/editing.md);
and the grid to which their minimum is rounded, because sums round differently in other batches."""


def estimate_dependence(
    estimator: DependenceEstimator, settings: EditSettings, query: PreparedQuery, expr: Expr
) -> tuple[Dependence, PreparedQuery]:
    """Return the dependence of all attributes on a query, and the query together with its consequences."""
    probable = query
    if not query.rule.is_probability:  # which the estimate needs
        try:
            probable = settings.prepare(expr, semantics=EXACT)
        except LimitError:  # too large for a diagram
            probable = settings.prepare(expr, semantics="product")
    dependence = estimator.estimate(probable.expr, probable.rule)
    weak = [name for name, report in query.model.report.items() if report.weak]  # which must not steer an edit
    implied = dependence.consequences([*query.rule.attributes, *weak]) if settings.preset.release_implied else None
    return dependence, query if implied is None else settings.prepare(expr & implied)


def run_step(
    rules: Sequence[EnergyRule], query: PreparedQuery, dependence: Dependence, layers: Tensor | None, before: Latents,
    space: LatentSpace, settings: EditSettings, report: Report,
) -> tuple[Latents, SampleResult]:  # fmt: skip
    """Return the edited latents, and the run of the solver that led to them.

    Args:
        rules: the queries to make true: that of the step, with its consequences; then the earlier ones that still hold.
        query: of the step, whose attributes are not kept.
        dependence: of all attributes on the step's query.
        layers: mask of the layers of W+ that may change, (num_ws,); `None` for all.
        before: latents before the step.
        space: the model's latents.
        settings: preset, attributes to keep, and embedding module.
        report: called with the progress.
    """

    def progress(fraction: float, _: int) -> None:
        report("editing", fraction)

    preset, bank, asked = settings.preset, space.bank, query.rule.attributes
    with torch.no_grad():
        w = space.w(before)
    w_of = edited_w(before, w, layers)
    continuous = any(KINDS[space.model.vocabulary[name].kind].numeric for name in asked)
    weights = [preset.newest_continuous if continuous else preset.newest, *[preset.earlier] * (len(rules) - 1)]
    energies = [
        (QueryEnergy(rule, Identity(), bank), weight) for rule, weight in zip(rules, weights, strict=True) if weight
    ]
    kept = _keeping_terms(asked, dependence, before, w, space, settings, w_of)
    start = space.scaled(before.z)

    def objective(factor: float) -> Energy:
        asked_for = [terms.query_term(energy, factor * preset.strength * weight) for energy, weight in energies]
        return edit_energy(space, before, [*asked_for, *kept])

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
    """Return where latents (n, z_dim) would go to satisfy the rules if the heads were linear, on a grid of `GRAIN`.

    That is the minimum of Σ E(rule) + `LINEAR_NEAR` |z - z0|², in nats, by the linear read-outs of the heads.
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
    """Search from z0 and, where the query does not hold there, from a second start; keep the better end of each sample.

    The slope of the heads at z0 can lead a long way round, to a corner of the prior where heads err. Better is an end
    where the query holds, and of two such ends, or none, the one with the lower objective.

    `elsewhere(rows)` returns the second start of some samples, if there is one; the other arguments are those of
    `penalty_method`.
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
    """Return the progress of each of two searches, which have an equal share."""
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
    """Find the minimum nearest to `z0`; where the query's energy is above the tolerance, repeat with larger weights.

    `objective` maps a factor of the query's weight to the objective; `energy(z, rows)` is that of the query alone, in
    nats. `max_evaluations` holds per sample and weight. Progress is that of the first weight.

    Returns:
        As `DescentSampler` does; the status is that of the last minimum that was accepted.
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
    """Return the terms that keep everything else unchanged."""
    preset, identity, found = settings.preset, settings.identity, list[Term]()
    if preset.near_z:
        found.append(terms.distance_term("z", space.scaled(before.z), preset.near_z))
    if preset.near_w:
        found.append(terms.distance_term("w", space.encode(before.z), preset.near_w))
    if preset.keep_predictions or preset.keep_logits:
        raw = space.bank.raw_outputs(space.names)
        latent = space.head_input(before)
        (outputs,) = in_batches(lambda part: (raw.function(part),), latent, few_sizes(len(latent)))
        kept = torch.tensor([name in settings.keep and name not in asked for name in space.names])
        kept = kept.repeat(len(before), 1).to(outputs)
        if preset.release_implied:
            for name, rows in dependence.implied(decide(space.predict(before)), asked).items():
                kept[torch.from_numpy(rows), space.names.index(name)] = 0
        if preset.keep_predictions:
            found.append(terms.keep_predictions(raw, outputs, preset.keep_predictions * kept))
        if preset.keep_logits:
            found.append(terms.keep_logits(raw, outputs, preset.keep_logits * kept))
    if identity is not None:
        synthesize = space.model.generator.synthesize
        if isinstance(identity, torch.nn.Module):
            identity.eval().to(w.device)
        old = torch.cat([flat_features(identity, synthesize(part)) for part in w.split(DRAWN_TOGETHER)])
        found.append(terms.keep_identity(identity, synthesize, w_of, old, preset.identity))
    return found
