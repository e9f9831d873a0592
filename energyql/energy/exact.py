"""The energy rule of a circuit: log-probabilities of its leaves, then its sums and log-sum-exps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from energyql.attributes.predictions import Predictions, log_probabilities
from energyql.energy.fold import CircuitFold
from energyql.logic.circuit import Circuit, Leaf
from energyql.logic.explain import draw_circuit
from energyql.render.markup import Markup


@dataclass(frozen=True)
class CircuitRule:
    """Evaluates a circuit on predictions; see `EnergyRule`. Rules are equal if their circuits are.

    Attributes:
        circuit: the compiled query.
        is_probability: whether the value is the log-probability of the query.
    """

    circuit: Circuit
    is_probability: bool = True

    @property
    def attributes(self) -> tuple[str, ...]:
        """See `EnergyRule`."""
        return self.circuit.attributes

    def log_value(self, predictions: Predictions) -> Tensor:
        """Return the circuit's value, `(batch,)`, in nats.

        A query that is always true needs no predictions, which would give the batch size: `QueryEnergy` handles it.
        """
        return self._fold(log_probabilities([(predictions[leaf.attribute], leaf.cells) for leaf in self._leaves]))

    def explain(self) -> str:
        """Return the circuit as indented text."""
        return self.circuit.explain()

    def draw(self) -> Markup:
        """Return the circuit as SVG."""
        return draw_circuit(self.circuit.nodes, self.circuit.cells)

    @cached_property
    def _leaves(self) -> list[Leaf]:
        # In this order `log_probabilities` has nothing to rearrange: yes/no and classes, then tails, then intervals.
        return sorted(self.circuit.leaves, key=_kind)

    @cached_property
    def _fold(self) -> CircuitFold:
        return CircuitFold(self.circuit, self._leaves)


def _kind(leaf: Leaf) -> int:
    first = leaf.cells[0]
    if not isinstance(first, tuple):
        return 0
    return 3 if len(leaf.cells) > 1 else 1 if math.inf in (-first[0], first[1]) else 2
