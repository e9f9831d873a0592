"""The energy rule of a circuit: run its leaves, fold them."""

from __future__ import annotations

import math

from torch import Tensor

from energyql.attributes.predictions import Predictions, log_probabilities
from energyql.energy.fold import CircuitFold
from energyql.logic.circuit import Circuit, Leaf


class CircuitRule:
    """Evaluates a circuit on predictions; see `EnergyRule`."""

    def __init__(self, circuit: Circuit) -> None:
        self.circuit = circuit
        self.attributes = circuit.attributes
        # In this order `log_probabilities` has nothing to rearrange: yes/no and classes, then tails, then intervals.
        self._leaves = sorted(circuit.leaves, key=_kind)
        self._fold = CircuitFold(circuit, self._leaves)

    def log_value(self, predictions: Predictions) -> Tensor:
        """The circuit's value, `(batch,)`, in nats. A query that is always true needs no predictions and has none to
        take a batch size from: `QueryEnergy` answers it by itself."""
        return self._fold(log_probabilities([(predictions[leaf.attribute], leaf.cells) for leaf in self._leaves]))

    def explain(self) -> str:
        """The circuit, drawn."""
        return self.circuit.explain()


def _kind(leaf: Leaf) -> int:
    first = leaf.cells[0]
    if not isinstance(first, tuple):
        return 0
    return 3 if len(leaf.cells) > 1 else 1 if math.inf in (-first[0], first[1]) else 2
