"""What a query makes impossible: found by asking the model, not by rules that someone wrote down.

A frown needs another mouth than a laughing one, sunglasses hide the eyes, a hat hides a bald head. In draws from the
posterior of such a query the old value (nearly) never occurs. Whoever asks for the query has then asked for that change
too, and keeping the old value would only fight it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.attributes.outputs import decide
from energyql.editing.latents import Latents, LatentSpace
from energyql.energy.query_energy import QueryEnergy
from energyql.energy.rule import EnergyRule
from energyql.language import E, Expr
from energyql.logic.truth import satisfied
from energyql.numerics.pullback import Identity
from energyql.sampling import Noise, SliceSampler, normals
from energyql.vocabulary import Vocabulary

PRIOR, DRAWS = 4096, 512
"""Latents of the prior, and draws from the posterior of a query, that frequencies are taken from."""
IMPOSSIBLE = 0.3
"""A value is impossible where it occurs less than this many times as often as in the prior. In `avatars`, what cannot
be drawn together is found together 0 to 0.25 times as often, because the heads err; what is only rare together, such
as beards and long hair, 0.6 times as often (docs/decisions/editing.md)."""
LEAST_EXPECTED = 5.0
"""Occurrences that the prior's frequency must let expect among the draws, for their absence to mean anything."""
LEAST_DRAWS = 32
"""Draws that must satisfy the query for it to be known what goes with it."""

Values = Mapping[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Company:
    """What goes with a query in this model.

    Attributes:
        draws: decided values of draws from the query's posterior that satisfy it.
        prior: decided values of the prior.
        vocabulary: of the model.
    """

    draws: Values
    prior: Values
    vocabulary: Vocabulary

    @property
    def count(self) -> int:
        """Draws that satisfy the query."""
        return len(next(iter(self.draws.values())))

    @property
    def known(self) -> bool:
        """Whether the model draws what the query asks often enough to tell what goes with it."""
        return self.count >= LEAST_DRAWS

    def excludes(self, name: str, values: npt.NDArray[Any]) -> Rows:
        """For each of some values of an attribute, (n,), whether the query makes it impossible."""
        if not self.known:
            return np.zeros(len(values), bool)
        spec = self.vocabulary[name]
        if spec.kind == "continuous":
            place = np.clip(values, spec.low, spec.high)[:, None]
            then, now = (
                (np.abs(np.clip(known[name], spec.low, spec.high) - place) <= 2 * spec.tolerance).mean(1)
                for known in (self.prior, self.draws)
            )
        else:
            then, now = ((known[name] == np.asarray(values)[:, None]).mean(1) for known in (self.prior, self.draws))
        return np.asarray((then * self.count >= LEAST_EXPECTED) & (now < IMPOSSIBLE * then))

    def consequences(self, asked: Sequence[str]) -> Expr | None:
        """What follows from the query for attributes that it does not name; `None` if nothing does.

        Asked along with it, it makes the edit surer, because heads that err do not all err together.

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

    def excludes_query(self, expr: Expr) -> bool:
        """Whether the query makes another one impossible."""
        if not self.known:
            return False
        then, now = (satisfied(expr, known, self.vocabulary).mean() for known in (self.prior, self.draws))
        return bool(then * self.count >= LEAST_EXPECTED and now < IMPOSSIBLE * then)


class Knowledge:
    """What goes with what in a model, at one truncation and label.

    Args:
        space: the model's latents.
    """

    def __init__(self, space: LatentSpace) -> None:
        self.space = space
        self._encode = space.encode if space.heads_read_w else Identity()
        self._prior = self._decided(normals(0, 0, PRIOR, space.model.generator.z_dim, stream="knowledge/prior"))

    def company(self, expr: Expr, rule: EnergyRule) -> Company:
        """What goes with a bound query of that meaning."""
        model = self.space.model
        energy = QueryEnergy(rule, self._encode, model.bank)
        start = normals(0, 0, DRAWS, model.generator.z_dim, stream="knowledge/draws").to(model.device)
        draws = self._decided(SliceSampler().sample(energy, start, noise=Noise(0, purpose="knowledge/")).z)
        good = np.broadcast_to(satisfied(expr, draws, model.vocabulary), (DRAWS,))
        return Company({name: values[good] for name, values in draws.items()}, self._prior, model.vocabulary)

    def _decided(self, z: Any) -> Values:
        return decide(self.space.predict(Latents(z.to(self.space.model.device))))
