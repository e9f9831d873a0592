"""What an edit changed, of what nobody asked about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from energyql.vocabulary import AttributeSpec, Vocabulary

Values = Mapping[str, npt.NDArray[Any]]
Rows = npt.NDArray[np.bool_]


def changed(spec: AttributeSpec, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> Rows:
    """Whether an attribute has another value, (n,): a number if it moved by more than the attribute's tolerance."""
    if spec.kind == "continuous":
        return np.asarray(np.abs(after - before) > spec.tolerance)
    return np.asarray(before != after)


@dataclass(frozen=True, eq=False)
class Leaks:
    """What one step of an edit changed, by the word of the judge (of the heads, if a model has no judge).

    Attributes:
        query: what the step asked.
        asked: the attributes that it names.
        kept: the attributes that the step was told to keep.
        changed: attribute -> which samples have another value than before the step, (n,) bool; all attributes.
        implied: attribute -> in which samples the query made the old value impossible, (n,) bool: the change was asked
            for without being named. Attributes of no such sample are left out.
        superseded: earlier queries that this one makes impossible, so that it took their place.
        known: false where the model hardly ever draws what was asked, so that it is not known what the query implies;
            every other change then counts as a leak.
    """

    query: str
    asked: tuple[str, ...]
    kept: tuple[str, ...]
    changed: dict[str, Rows]
    implied: dict[str, Rows]
    superseded: tuple[str, ...] = ()
    known: bool = True
    _leaked: dict[str, Rows] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        found = {
            name: rows & ~self.implied.get(name, np.zeros_like(rows))
            for name, rows in self.changed.items()
            if name not in self.asked
        }
        object.__setattr__(self, "_leaked", found)

    @property
    def leaked(self) -> dict[str, Rows]:
        """Attribute that nobody asked about -> in which samples it changed without need, (n,) bool."""
        return self._leaked

    @property
    def by_attribute(self) -> dict[str, float]:
        """Attribute -> fraction of samples in which it changed although nobody asked, largest first; only such."""
        shares = {name: float(rows.mean()) for name, rows in self._leaked.items() if rows.any()}
        return dict(sorted(shares.items(), key=lambda item: -item[1]))

    @property
    def rate(self) -> float:
        """Of all pairs of a sample and an attribute that nobody asked about, the fraction that changed."""
        free = [~self.implied.get(name, np.zeros_like(rows)) for name, rows in self._leaked.items()]
        total = sum(int(rows.sum()) for rows in free)
        return sum(int(rows.sum()) for rows in self._leaked.values()) / total if total else 0.0

    def of(self, row: int) -> tuple[str, ...]:
        """The attributes that changed in one sample although nobody asked."""
        return tuple(name for name, rows in self._leaked.items() if rows[row])

    def __str__(self) -> str:
        parts = [f"{name} {share:.1%}" for name, share in self.by_attribute.items()]
        text = f"{self.query}: {self.rate:.1%} of what nobody asked about changed"
        if parts:
            text += f" ({', '.join(parts)})"
        if self.implied:
            text += f"; implied: {', '.join(self.implied)}"
        if self.superseded:
            text += f"; instead of: {', '.join(self.superseded)}"
        if not self.known:
            text += "; the model hardly ever draws this, so nothing is known to be implied"
        return text

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
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


def find_leaks(
    query: str,
    asked: Sequence[str],
    kept: Sequence[str],
    before: Values,
    after: Values,
    implied: Mapping[str, Rows],
    vocabulary: Vocabulary,
    *,
    superseded: Sequence[str] = (),
    known: bool = True,
) -> Leaks:
    """Compare what the judge read before and after a step; see `Leaks`."""
    return Leaks(
        query,
        tuple(asked),
        tuple(kept),
        {name: changed(spec, before[name], after[name]) for name, spec in vocabulary.items()},
        {name: rows for name, rows in implied.items() if rows.any()},
        tuple(superseded),
        known,
    )
