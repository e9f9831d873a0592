"""Dependence of attributes on a query: changes that it implies, and changes that leaked.

A frown needs another mouth than a laugh, sunglasses hide the eyes, a hat hides a bald head. Such dependences are not
written down anywhere: they are estimated from draws of the model. If a value that is common in the prior is (nearly)
absent from the query's posterior, the query implies that the value changes, and an edit does not try to keep it. A
change of an attribute that the query neither names nor implies is a leak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from energyql.attributes.predictions import decide
from energyql.editing.latents import Latents, LatentSpace
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import EnergyRule
from energyql.language import E, Expr
from energyql.logic.truth import satisfied
from energyql.sampling import RandomStreams, SliceSampler, normals
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
        if spec.kind != "continuous":
            return np.asarray((found == values[:, None]).mean(1))
        distance = np.abs(np.clip(found, spec.low, spec.high) - np.clip(values, spec.low, spec.high)[:, None])
        return np.asarray((distance <= 2 * spec.tolerance).mean(1))

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
            if name in asked or spec.kind == "continuous":
                continue
            values = np.array([False, True]) if spec.kind == "yes/no" else np.array(spec.values)
            excluded = self.excludes(name, values)
            if not excluded.any() or excluded.all():
                continue
            if spec.kind == "yes/no":
                found.append(~E[name] if excluded[1] else E[name])
            else:
                found.append(~E[name].is_in([str(value) for value in values[excluded]]))
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
    if spec.kind == "continuous":
        return np.asarray(np.abs(after - before) > spec.tolerance)
    return np.asarray(before != after)


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
