"""What a model knows: the names, kinds and ranges of its attributes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from energyql.errors import VocabularyError

Kind = Literal["yes/no", "categorical", "continuous"]


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute.

    Args:
        name: as written in queries, case-sensitive.
        kind: "yes/no", "categorical" or "continuous".
        values: the classes of a categorical attribute, in the order of its head's logits.
        low, high: the range of a continuous attribute.
        tolerance: what `=` means for a continuous attribute: within this distance.
        description: one line for people.
    """

    name: str
    kind: Kind
    values: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    tolerance: float = 0.05
    description: str = ""


class Vocabulary(Mapping[str, AttributeSpec]):
    """The attributes of one model, by name, in a fixed order."""

    def __init__(self, specs: Iterable[AttributeSpec], *, model: str = "") -> None:
        self.model = model
        self._specs: dict[str, AttributeSpec] = {}
        for spec in specs:
            if spec.name in self._specs:
                raise VocabularyError(f"attribute {spec.name!r} is defined twice")
            self._specs[spec.name] = spec

    def __getitem__(self, name: str) -> AttributeSpec:
        return self._specs[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)
